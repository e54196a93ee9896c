"""The diffusion transformer: tokens that say everything about themselves in, velocities out.

It never sees a height, a width or a frame count: a token's coordinates, segment and noise level
come in a `Layout`, and captions come as `Text` whose segments match.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.config import LATER, ConfigError
from sora_jax.models.memory import Remembering
from sora_jax.models.text import caption_mean
from sora_jax.nn.attention import Attention, AttentionConfig, Memory
from sora_jax.nn.block_sizes import LANES
from sora_jax.nn.layers import MLP, Linear, NoiseLevelEmbedding, RMSNorm, spread
from sora_jax.nn.positions import PlaceEmbedding, rotary_angles
from sora_jax.nn.stack import Remat, apply_stack, stack
from sora_jax.sharding.rules import constrain
from sora_jax.types import Layout, Text


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer. head width = width / heads: 128 at full size (what the TPU's
    attention kernels want), smaller in the demo."""

    depth: int = 12
    width: int = 768
    heads: int = 6
    mlp_ratio: float = 4.0
    patch: int = 2  # latent cells per side of a token
    rope_theta: float = 10_000.0
    time_units: float = 8.0  # rotary units a second
    place_units: float = 1.0  # rotary units a patch, in y and x
    attention: AttentionConfig = AttentionConfig()
    remat: Remat = "none"
    unroll: bool = False  # of the loop over blocks: for CPUs, where a loop's body runs slower
    compute: Literal["float32", "bfloat16"] = "float32"
    # Given tokens see only each other, so that a sampler computes their keys and values once.
    given_apart: bool = dataclasses.field(default=False, metadata=LATER)
    # That rates are of, at any width (muP, nn/width_scaling.py); None: of the width itself.
    base_width: int | None = dataclasses.field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width // self.heads % 2:
            raise ConfigError(
                f"dit.width={self.width} does not split into heads={self.heads} of even width"
            )
        if self.base_width is not None and self.base_width % (self.width // self.heads):
            raise ConfigError(
                f"dit.base_width={self.base_width} does not split into heads of width "
                f"{self.width // self.heads}, as dit.width={self.width} / heads={self.heads} has"
            )
        if self.attention.kernel in ("flash", "splash") and self.width // self.heads % LANES:
            raise ConfigError(
                f"dit.attention.kernel={self.attention.kernel} takes heads of a multiple of {LANES}"
                f" wide, and dit.width={self.width} / heads={self.heads} is "
                f"{self.width // self.heads}"
            )

    @property
    def hidden(self) -> int:
        """Width between the two maps of the MLP."""
        return round(self.mlp_ratio * self.width)


class Block(nnx.Module):
    """Self-attention, text cross-attention and MLP; modulation is shared, with a bias per block."""

    def __init__(self, config: DiTConfig, text_width: int, rngs: nnx.Rngs):
        width = config.width
        self.modulation_bias = nnx.Param(jnp.zeros((6, width)), axes=(None, None))
        self.norm = RMSNorm(width, learned=False)
        self.attention = Attention(width, width, config.heads, config.attention, rngs=rngs)
        self.text_norm = RMSNorm(width)
        self.cross_attention = Attention(
            width, text_width, config.heads, config.attention, rngs=rngs
        )
        self.mlp = MLP(width, config.hidden, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        modulation: Float[Array, "b m 6 d"],
        layout: Layout,
        angles: Float[Array, "b n a"],
        text: Text,
        memory: Memory | None = None,
    ) -> Float[Array, "b n d"]:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self._vectors(modulation)
        with jax.named_scope("self_attention"):
            y, segments = self._modulated(x, shift, scale, layout), layout.segments
            apart = layout.given_segments
            y = self.attention(y, y, segments, segments, angles, apart=apart, memory=memory)
            x = x + spread(1 + gate, layout.level_index) * y
        with jax.named_scope("cross_attention"):
            y = self.text_norm(x)
            x = x + self.cross_attention(y, text.embeddings, layout.segments, text.segments)
        with jax.named_scope("mlp"):
            y = self.mlp(self._modulated(x, mlp_shift, mlp_scale, layout))
            x = x + spread(1 + mlp_gate, layout.level_index) * y
        return constrain(x, "rows", "tokens", None)

    def seen(self, x: Array, modulation: Array, layout: Layout) -> Float[Array, "b n d"]:
        """What self-attention sees of tokens x."""
        shift, scale, *_ = self._vectors(modulation)
        return self._modulated(x, shift, scale, layout)

    def _vectors(self, modulation: Array) -> list[Float[Array, "b m d"]]:
        # Spread one vector at a time: a (b, n, 6, d) array would outweigh the activations.
        bias = self.modulation_bias[...].astype(modulation.dtype)
        return [modulation[:, :, i] + bias[i] for i in range(6)]

    def _modulated(self, x: Array, shift: Array, scale: Array, layout: Layout) -> Array:
        index = layout.level_index
        return self.norm(x) * (1 + spread(scale, index)) + spread(shift, index)


class DiT(nnx.Module):
    """Diffusion transformer on spacetime patches (arXiv:2212.09748, arXiv:2310.00426 for the shared
    modulation)."""

    def __init__(self, config: DiTConfig, channels: int, text_width: int, *, rngs: nnx.Rngs):
        """`channels`: of the latents; a token has patch * patch * channels values."""
        self.config = config
        width = config.width
        token_width = config.patch**2 * channels
        self.embed = Linear(token_width, width, ("features", "embed"), rngs=rngs)
        self.place = PlaceEmbedding(width, rngs=rngs)
        self.noise_level = NoiseLevelEmbedding(width, rngs=rngs)
        self.caption = Linear(text_width, width, (None, "embed"), rngs=rngs)
        self.modulation = Linear(width, 6 * width, ("embed", None), rngs=rngs, scale=0.0)
        self.blocks = stack(lambda rngs: Block(config, text_width, rngs), config.depth, rngs)
        self.final_norm = RMSNorm(width, learned=False)
        self.final_modulation = Linear(width, 2 * width, ("embed", None), rngs=rngs, scale=0.0)
        self.out = Linear(width, token_width, ("embed", "features"), rngs=rngs, scale=0.0)

    def __call__(
        self,
        tokens: Float[Array, "b n c"],
        layout: Layout,
        text: Text,
        memory: Memory | None = None,
    ) -> Float[Array, "b n c"]:
        """Velocity of every token, float32. Values at padding (segment 0) mean nothing. `memory`:
        of tokens that are seen besides (memory.py)."""
        x, condition, context = self.entered(tokens, layout, text)
        blocks = self.blocks if memory is None else Remembering.of(self.blocks, memory)
        remat, unroll = self.config.remat, self.config.unroll
        x = apply_stack(blocks, x, *context, remat=remat, unroll=unroll)
        with jax.named_scope("patches"):
            shift, scale = jnp.split(self.final_modulation(condition), 2, -1)
            x = self.final_norm(x) * (1 + spread(scale, layout.level_index))
            return self.out(x + spread(shift, layout.level_index)).astype(jnp.float32)

    def entered(self, tokens: Array, layout: Layout, text: Text) -> tuple[Array, Array, Any]:
        """Tokens as the first block takes them, what they are conditioned on, and what all blocks
        see besides."""
        dtype = jnp.dtype(self.config.compute)
        text = dataclasses.replace(text, embeddings=text.embeddings.astype(dtype))
        if not self.config.given_apart:
            layout = dataclasses.replace(layout, given_segments=None)
        per_axis = (self.config.time_units, self.config.place_units, self.config.place_units)
        units = layout.coordinates * jnp.array(per_axis)
        head_width = self.config.width // self.config.heads
        angles = rotary_angles(units, head_width, self.config.rope_theta)

        with jax.named_scope("modulation"):
            condition = self.noise_level(layout.noise_levels).astype(dtype)
            condition = condition + self.caption(caption_mean(text, layout.level_segments))
            condition = jax.nn.silu(condition)
            modulation = self.modulation(condition)
            modulation = modulation.reshape(*modulation.shape[:2], 6, -1)

        with jax.named_scope("patches"):
            places = self.place(layout.coordinates[..., 1:]).astype(dtype)
            x = constrain(self.embed(tokens.astype(dtype)) + places, "rows", "tokens", None)
        return x, condition, (modulation, layout, angles, text)
