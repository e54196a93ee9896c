"""Clips of every task in the procedural world: what is asked, and how well it was done."""
