"""Linear, normalisation, MLP and noise-level embedding: parameters carry logical axis names.

Parameters are kept in float32 and cast to the dtype of the activations where they are used, so the
caller chooses the compute dtype by casting what goes in.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from sora_jax.sharding.mesh import device_kind
from sora_jax.sharding.rules import ways_of

Axes = tuple[str | None, ...]


class Linear(nnx.Module):
    """Affine map of the last axis. `scale` multiplies the 1/sqrt(inputs) initial deviation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: Axes,
        *,
        rngs: nnx.Rngs,
        scale: float = 1.0,
        use_bias: bool = True,
    ):
        deviation = scale / jnp.sqrt(inputs)
        kernel = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, (inputs, outputs))
        self.kernel = nnx.Param(deviation * kernel, axes=axes)
        self.bias = nnx.Param(jnp.zeros(outputs), axes=axes[-1:]) if use_bias else None

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        y = matmul(x, self.kernel[...].astype(x.dtype))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def matmul(x: Float[Array, "*batch i"], kernel: Float[Array, "i o"]) -> Float[Array, "*batch o"]:
    """`x @ kernel`; on CPU with a rule of its own for the gradient.

    By jax's rule the kernel's gradient comes transposed, and XLA turns it round on CPU; and it
    turns `x` round, to make one axis of those that are summed over. Both are 6 % of a training step
    of 30 million parameters. On TPU nothing is turned round, and two uses of a kernel that are told
    apart may be gathered twice.
    """
    return _as_it_lies(x, kernel) if device_kind() == "cpu" else x @ kernel


@jax.custom_vjp
def _as_it_lies(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _backward(saved: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    x, kernel = saved
    d_x = ct @ kernel.T
    if ways_of("tokens") == 1:  # tokens that are split cannot be one axis with rows
        x, ct = x.reshape(-1, x.shape[-1]), ct.reshape(-1, ct.shape[-1])
    batch = tuple(range(x.ndim - 1))
    return d_x, jnp.tensordot(x, ct, (batch, batch))


_as_it_lies.defvjp(_forward, _backward)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation over channels alone (arXiv:1910.07467).

    Nothing is pooled over time or space: that is what keeps streamed and whole decoding equal.
    """

    def __init__(self, width: int, *, learned: bool = True):
        self.scale = nnx.Param(jnp.ones(width), axes=(None,)) if learned else None

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        x32 = x.astype(jnp.float32)
        y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + 1e-6)
        return (y if self.scale is None else y * self.scale[...]).astype(x.dtype)


class MLP(nnx.Module):
    """Two linear maps with a GELU between."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.up = Linear(width, hidden, ("embed", "mlp"), rngs=rngs)
        self.down = Linear(hidden, width, ("mlp", "embed"), rngs=rngs)

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        return self.down(jax.nn.gelu(self.up(x)))


class NoiseLevelEmbedding(nnx.Module):
    """Noise level in [0, 1] -> a vector: sinusoids of 1000 x level, then an MLP."""

    num_sinusoids = 128

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.up = Linear(2 * self.num_sinusoids, width, (None, "embed"), rngs=rngs)
        self.down = Linear(width, width, ("embed", None), rngs=rngs)

    def __call__(self, level: Float[Array, "*batch"]) -> Float[Array, "*batch d"]:
        frequency = 10_000.0 ** (-jnp.arange(self.num_sinusoids) / self.num_sinusoids)
        phase = 1000.0 * level[..., None] * frequency
        features = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], -1)
        return self.down(jax.nn.silu(self.up(features)))


def spread(table: Float[Array, "b m d"], level_index: Int[Array, "b n"]) -> Float[Array, "b n d"]:
    """Row of `table` for every token. A one-hot matmul: m is at most a few, and its gradient is a
    matmul too, where that of a gather would be a scatter."""
    selector = jax.nn.one_hot(level_index, table.shape[1], dtype=table.dtype)
    return jnp.einsum("bnm,bmd->bnd", selector, table)
