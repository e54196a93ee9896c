"""Starts the processes of a run: on one machine, so far."""
