"""The networks: autoencoder, transformer, text encoder. None knows of diffusion or data."""
