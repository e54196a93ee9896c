"""Training: state, step and the one loop that trains the autoencoder and the transformer alike."""
