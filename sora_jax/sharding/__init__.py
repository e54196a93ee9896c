"""The device mesh, and how logical axes of arrays are laid out on it."""
