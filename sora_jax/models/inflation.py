"""An autoencoder that was trained on images alone -> one that codes still clips as well as these.

Of a kernel over frames an image meets the last one only, and of an unfold the last place; others
stay as they were drawn. A fold takes an image for a clip that stands still, so it is right.
Inflated, kernels see the present frame alone, and unfolds show all their frames what they show the
last (after arXiv:1705.07750, 2.1, for causal kernels).
"""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.models.vae import VAE, CausalConv, Unfold


def inflate(vae: VAE) -> VAE:
    """The same network with every weight that images did not train set by those that they did."""
    inflated = nnx.clone(vae)
    for _, module in nnx.iter_modules(inflated):
        if isinstance(module, CausalConv):
            module.kernel[...] = _last_only(module.kernel[...], module.kernel[...].shape[0])
        elif isinstance(module, Unfold):
            frames, linear = module.fold[0], module.linear
            parameters: list[Any] = [linear.kernel, linear.bias]
            for parameter in parameters:
                parameter[...] = _as_the_last(parameter[...], frames)
    return inflated


def _last_only(kernel: Float[Array, "pi ..."], frames: int) -> Float[Array, "pi ..."]:
    """Zero but for the last of `frames` parts of the first axis."""
    parts = rearrange(kernel, "(p i) ... -> p i ...", p=frames)
    return jnp.zeros_like(parts).at[-1].set(parts[-1]).reshape(kernel.shape)


def _as_the_last(weights: Float[Array, "... po"], frames: int) -> Float[Array, "... po"]:
    """Every one of `frames` parts of the last axis as the last."""
    parts = rearrange(weights, "... (p o) -> ... p o", p=frames)
    return jnp.broadcast_to(parts[..., -1:, :], parts.shape).reshape(weights.shape)
