"""Training steps of other systems with a published step time on a TPU, rebuilt to be compiled."""
