"""Token ids -> text embeddings by the encoder of T5 v1.1 or umT5: large, and trained elsewhere.

T5 (arXiv:1910.10683) in version 1.1 has a gated GELU in the feed-forward part (arXiv:2002.05202)
and no tied output; umT5 (openreview.net/forum?id=kXwdL1cWOAi) gives every block a table of position
biases, where T5 has one for all. Neither has biases in its maps or means in its norms, nor divides
logits by the root of the head width. Their weights come in by `sora import`; the small encoder of
text.py is what a run trains along.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from sora_jax.config import ConfigError
from sora_jax.models.text import NUM_BUCKETS, relative_buckets
from sora_jax.nn.flash_kernels import MASKED
from sora_jax.nn.layers import Linear, RMSNorm
from sora_jax.nn.stack import apply_stack, stack
from sora_jax.sharding.rules import caption_axis, constrain, parameter_shardings
from sora_jax.types import Text

Compute = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of an encoder. The heads together need not be as wide as the rest.

    `vocabulary`: rows of the table of embeddings, some of which no token has. `hidden`: width of
    the feed-forward part. `shared_bias`: one table of position biases for all blocks, as in T5 and
    not in umT5. `compute`: dtype of matmuls, and of the matrices in memory.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    head_width: int
    hidden: int
    shared_bias: bool
    compute: Compute = "bfloat16"

    def __post_init__(self) -> None:
        for field in ("vocabulary", "width", "depth", "heads", "head_width", "hidden"):
            if getattr(self, field) < 1:
                raise ConfigError(f"T5: {field}={getattr(self, field)} must be positive")


class T5Block(nnx.Module):
    """Pre-norm self-attention with biases by relative position, then a gated GELU MLP."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        width, inner, hidden = config.width, config.heads * config.head_width, config.hidden
        self.heads, self.compute = config.heads, config.compute

        def linear(inputs: int, outputs: int, *axes: str, scale: float = 1.0) -> Linear:
            return Linear(inputs, outputs, axes, rngs=rngs, scale=scale, use_bias=False)

        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        # In place of the division of logits.
        self.query = linear(width, inner, "embed", "heads", scale=config.head_width**-0.5)
        self.key = linear(width, inner, "embed", "heads")
        self.value = linear(width, inner, "embed", "heads")
        self.out = linear(inner, width, "heads", "embed")
        self.gate = linear(width, hidden, "embed", "mlp")
        self.up = linear(width, hidden, "embed", "mlp")
        self.down = linear(hidden, width, "mlp", "embed")
        self.position_bias = None if config.shared_bias else _position_bias(config, rngs)

    def __call__(
        self,
        x: Float[Array, "b l d"],
        buckets: Int[Array, "l l"],
        present: Bool[Array, "b l"],
        shared: Float[Array, "buckets h"] | None,
    ) -> Float[Array, "b l d"]:
        y = self.attention_norm(x).astype(self.compute)
        q, k, v = (
            rearrange(project(y), "b l (h k) -> b l h k", h=self.heads)
            for project in (self.query, self.key, self.value)
        )
        table = shared if self.position_bias is None else self.position_bias[...]
        assert table is not None
        bias = rearrange(table[buckets].astype(jnp.float32), "q s h -> 1 h q s")
        logits = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32)
        # Finite where masked: a row of nothing but padding makes no NaN.
        logits = jnp.where(present[:, None, None], logits + bias, MASKED)
        weights = jax.nn.softmax(logits, -1).astype(self.compute)
        x += self.out(rearrange(jnp.einsum("bhqs,bshk->bqhk", weights, v), "b l h k -> b l (h k)"))
        y = self.mlp_norm(x).astype(self.compute)
        return x + self.down(jax.nn.gelu(self.gate(y)) * self.up(y))


class T5Encoder(nnx.Module):
    """The encoder without dropout; id 0 is padding."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs):
        self.config = config
        table = jax.random.normal(rngs.params(), (config.vocabulary, config.width))
        self.embedding = nnx.Param(table, axes=("vocabulary", "embed"))
        self.position_bias = _position_bias(config, rngs) if config.shared_bias else None
        self.blocks = stack(lambda rngs: T5Block(config, rngs), config.depth, rngs)
        self.norm = RMSNorm(config.width)

    def __call__(self, ids: Int[Array, "b l"]) -> Text:
        """Embeddings of one caption a row, as segment 1; padding is segment 0, and zeros.

        What blocks add up is float32 whatever they compute in: in T5 it grows to thousands, where
        bfloat16 has steps of 8. Captions are split over all devices that share their rows, where
        there are enough.
        """
        present = ids != 0
        axis = caption_axis(len(ids))
        shared = None if self.position_bias is None else self.position_bias[...]
        x = constrain(self.embedding[...][ids].astype(jnp.float32), axis, None, None)
        context = (relative_buckets(ids.shape[1]), present, shared)
        x = apply_stack(self.blocks, x, *context, remat="none", unroll=False)
        x = jnp.where(present[..., None], self.norm(x), 0.0).astype(self.config.compute)
        return Text(constrain(x, "rows", None, None), present.astype(jnp.int32))


def abstract_encoder(config: T5Config, mesh: Mesh) -> T5Encoder:
    """Shapes, dtypes and shardings of an encoder over a mesh: matrices in the dtype it computes in;
    scales of norms and position biases, a millionth of it, in float32."""
    shapes = jax.eval_shape(lambda: T5Encoder(config, rngs=nnx.Rngs(0)))

    def of(path: Any, leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        is_small = any(name in jax.tree_util.keystr(path) for name in ("norm", "position_bias"))
        dtype = jnp.float32 if is_small else config.compute
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(of, shapes, parameter_shardings(shapes, mesh))


def _position_bias(config: T5Config, rngs: nnx.Rngs) -> nnx.Param:
    bias = 0.1 * jax.random.normal(rngs.params(), (NUM_BUCKETS, config.heads))
    return nnx.Param(bias, axes=(None, "heads"))
