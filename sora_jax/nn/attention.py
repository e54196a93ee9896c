"""Attention among tokens of one segment: the one function, and the module that projects for it.

Names of the einsum axes: b rows, q query tokens, s key tokens, h heads, k head width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import AbstractMesh
from jaxtyping import Array, Float, Int

from sora_jax.config import ConfigError
from sora_jax.nn.block_sizes import Blocks
from sora_jax.nn.blockwise import attend_blockwise
from sora_jax.nn.context import FROM_CAPTION, KEPT, Between, attend_across
from sora_jax.nn.flash import flash_attention, flash_backward, flash_forward
from sora_jax.nn.kernels import (
    Attend,
    Halves,
    KernelName,
    attend_cudnn,
    attend_reference,
    attend_splash,
    reference_backward,
    reference_forward,
)
from sora_jax.nn.layers import Linear, RMSNorm
from sora_jax.nn.positions import rotate
from sora_jax.sharding.rules import array_spec, constrain, free_axes, ways_split


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """How attention is computed, and not what comes out.

    `kernel` computes it on a device. Where tokens are split over the mesh axis `context`, devices
    in groups of `ulysses` trade tokens for heads, and between the groups keys and values are
    gathered or go round in a ring: ulysses=1 does all by `context`, ulysses = the axis nothing.
    Where fewer devices share a row, all of these are a group.
    `blocks` of None are those of block_sizes.py for the TPU and the length.
    """

    kernel: KernelName = "reference"
    context: Between = "gather"
    ulysses: int = 1
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        if self.ulysses < 1:
            raise ConfigError(f"attention.ulysses={self.ulysses} must be positive")
        if self.context == "ring" and self.kernel not in ("reference", "flash"):
            raise ConfigError(
                f"attention.context=ring computes by kernel=reference or flash, not {self.kernel}"
            )

    def check(self, heads: int, context: int, tensor: int) -> None:
        """Raises ConfigError unless so many heads can be traded on a mesh of such axes."""
        if context % self.ulysses:
            raise ConfigError(
                f"attention.ulysses={self.ulysses} does not divide mesh.context={context}"
            )
        if heads % (self.ulysses * tensor):
            raise ConfigError(
                f"attention.ulysses={self.ulysses} x mesh.tensor={tensor} do not divide {heads} "
                "heads: trading tokens for heads needs whole heads on every device"
            )


def attend(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    config: AttentionConfig = AttentionConfig(),
    *,
    among_tokens: bool = True,
) -> Float[Array, "b q h k"]:
    """Softmax attention (arXiv:1706.03762) where a query sees the keys of its own segment only.

    Segment 0 is padding: no query sees it. The softmax is float32 whatever the inputs are.
    `among_tokens` says that the keys are the row's tokens, split like the queries; a caption's keys
    are whole on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    arrays = (query, key, value, query_segments, key_segments)
    if config.kernel == "reference" and (config.context, config.ulysses) == ("gather", 1):
        # The compiler splits plain einsums itself, once keys and values are where it needs them.
        key = constrain(key, "rows", None, "heads", None)
        value = constrain(value, "rows", None, "heads", None)
        return _kernel(config, among_tokens)(query, key, value, query_segments, key_segments)
    if mesh.empty:
        return _kernel(config, among_tokens)(*arrays)
    return _attend_on(mesh, config, among_tokens, arrays)


def _kernel(config: AttentionConfig, among_tokens: bool) -> Attend:
    name = KEPT if among_tokens else FROM_CAPTION
    if config.kernel == "flash":
        return functools.partial(flash_attention, blocks=config.blocks, name=name)
    if config.kernel == "splash":
        return functools.partial(attend_splash, blocks=config.blocks, name=name)
    if config.kernel == "blockwise":
        return functools.partial(attend_blockwise, name=name)
    plain = attend_cudnn if config.kernel == "cudnn" else attend_reference
    return functools.partial(plain, name=name)


def _halves(config: AttentionConfig) -> Halves:
    if config.kernel == "flash":
        return Halves(
            functools.partial(flash_forward, blocks=config.blocks),
            functools.partial(flash_backward, blocks=config.blocks),
        )
    return Halves(reference_forward, reference_backward)


def _attend_on(
    mesh: AbstractMesh, config: AttentionConfig, among_tokens: bool, arrays: tuple[Array, ...]
) -> Array:
    """Every device computes its rows, tokens and heads; kernels are nothing that the compiler could
    split."""
    query, key = arrays[:2]
    of_queries = array_spec(query.shape, mesh, "rows", "tokens", "heads", None)
    tokens = "tokens" if among_tokens else None
    of_keys = array_spec(key.shape, mesh, "rows", tokens, "heads", None)
    split = ways_split(query.shape[1], mesh, "tokens")
    compute = _kernel(config, among_tokens)
    if among_tokens and split > 1:
        config = dataclasses.replace(config, ulysses=min(config.ulysses, split))
        config.check(query.shape[2], split, mesh.shape["tensor"])
        compute = functools.partial(
            attend_across,
            kernel=compute,
            halves=_halves(config),
            between=config.context,
            ulysses=config.ulysses,
            devices=split,
        )
    of_query_segments = array_spec(arrays[3].shape, mesh, "rows", "tokens")
    of_key_segments = array_spec(arrays[4].shape, mesh, "rows", tokens)
    return jax.shard_map(
        compute,
        mesh=mesh,
        in_specs=(of_queries, of_keys, of_keys, of_query_segments, of_key_segments),
        out_specs=of_queries,
        axis_names=set(free_axes(mesh)),
        check_vma=False,
    )(*arrays)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """Keys and values of s tokens that are seen and not computed again: of one layer, or of all,
    with an axis over these behind the first."""

    keys: Float[Array, "b *layers s h k"]
    values: Float[Array, "b *layers s h k"]
    segments: Int[Array, "b *layers s"]


class Attention(nnx.Module):
    """Multi-head attention with RMS-normalised queries and keys (arXiv:2302.05442, 2.1).

    Self-attention when `source` is the same width and given as x; rotary angles are optional.
    """

    def __init__(
        self,
        width: int,
        source_width: int,
        heads: int,
        config: AttentionConfig = AttentionConfig(),
        *,
        rngs: nnx.Rngs,
    ):
        self.heads, self.config = heads, config
        self.query = Linear(width, width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.key = Linear(source_width, width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.value = Linear(source_width, width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)
        self.out = Linear(width, width, ("heads", "embed"), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b q d"],
        source: Float[Array, "b s e"],
        segments: Int[Array, "b q"],
        source_segments: Int[Array, "b s"],
        angles: Float[Array, "b q a"] | None = None,
        *,
        apart: Int[Array, "b q"] | None = None,
        memory: Memory | None = None,
    ) -> Float[Array, "b q d"]:
        """`apart`: segments of tokens that see only each other, 0 at those that see all of their
        segment; for self-attention alone. `memory` is seen as if it were part of the source."""
        query = self.query_norm(self._heads(self.query(x)))
        if angles is not None:
            query = rotate(query, angles)
        key, value = self.keys_and_values(source, angles)
        if memory is not None:
            key = jnp.concatenate([memory.keys, key], 1)
            value = jnp.concatenate([memory.values, value], 1)
            source_segments = jnp.concatenate([memory.segments, source_segments], 1)
        attend_to = functools.partial(
            attend, query, key, value, config=self.config, among_tokens=source is x
        )
        mixed = attend_to(segments, source_segments)
        if apart is not None:
            mixed = jnp.where(apart[..., None, None] > 0, attend_to(apart, apart), mixed)
        return self.out(rearrange(mixed, "b n h k -> b n (h k)"))

    def keys_and_values(
        self, source: Float[Array, "b s e"], angles: Float[Array, "b s a"] | None
    ) -> tuple[Float[Array, "b s h k"], Float[Array, "b s h k"]]:
        """What is seen of a source."""
        key = self.key_norm(self._heads(self.key(source)))
        return key if angles is None else rotate(key, angles), self._heads(self.value(source))

    def _heads(self, x: Float[Array, "b n d"]) -> Float[Array, "b n h k"]:
        return rearrange(x, "b n (h k) -> b n h k", h=self.heads)
