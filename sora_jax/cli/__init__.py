"""The `sora` commands, one module each; `python -m sora_jax.cli.<command>` works as well."""
