"""The networks: autoencoder, diffusion transformer, text encoder. None knows of diffusion or data."""
