"""Sora in JAX: a causal video autoencoder and a diffusion transformer over spacetime patches."""

__version__ = "0.1.0"
