"""Layers of every network here; logical axis names stand at each parameter."""
