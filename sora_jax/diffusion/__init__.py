"""Rectified flow on tokens. Takes a callable velocity; knows nothing of models, data or devices."""
