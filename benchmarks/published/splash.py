"""JAX's splash attention as the published steps use it, and its cycles by libtpu's schedule."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import Mesh, PartitionSpec

from sora_jax.pod.chips import Chip
from sora_jax.pod.compiler import Options
from sora_jax.pod.cost import KernelUse
from sora_jax.pod.schedule import Probe, kernel_cycles

Splash = Callable[[Any, Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class SplashBlocks:
    """Tokens of a block of queries, of keys, and of keys in one multiply, forward and backward;
    fused: all gradients in one backward kernel, for one of dQ and one of dK and dV."""

    query: int
    key: int
    key_compute: int
    fused: bool

    def for_text(self) -> "SplashBlocks":
        """Blocks for a few hundred keys, one block of them, with separate backward kernels."""
        return dataclasses.replace(self, fused=False)

    def sizes(self, keys: int) -> splash.BlockSizes:
        key = min(self.key, keys)
        compute = min(self.key_compute, keys)
        return splash.BlockSizes(
            block_q=self.query,
            block_kv=key,
            block_kv_compute=compute,
            block_q_dkv=self.query,
            block_kv_dkv=key,
            block_kv_dkv_compute=compute,
            block_q_dq=None if self.fused else self.query,
            block_kv_dq=None if self.fused else key,
            use_fused_bwd_kernel=self.fused,
        )


def splash_kernel(
    heads: int, queries: int, keys: int, blocks: SplashBlocks, causal: bool, name: str | None
) -> Splash:
    """The kernel over rows: queries [b h q k], keys and values [b g s k], segments."""
    mask: Any = masks.CausalMask if causal else masks.FullMask
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([mask((queries, keys))] * heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=blocks.sizes(keys),
        residual_checkpoint_name=name,
    )
    return jax.vmap(kernel)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mesh: Mesh,
    of_query: PartitionSpec,
    of_key: PartitionSpec,
    blocks: SplashBlocks,
    causal: bool = False,
    name: str | None = None,
) -> jax.Array:
    """Attention of [b h n k] arrays on every device's part of them; what is missing to a whole
    number of blocks is filled up there, in segment 0, and cut off again."""

    def local(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        scaled = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
        block = min(blocks.key, key.shape[2])
        padded_query, padded_key = _filled(scaled, blocks.query), _filled(key, block)
        segments = splash.SegmentIds(
            _segments(query, padded_query.shape[2]), _segments(key, padded_key.shape[2])
        )
        kernel = splash_kernel(
            query.shape[1], padded_query.shape[2], padded_key.shape[2], blocks, causal, name
        )
        out = kernel(padded_query, padded_key, _filled(value, block), segments)
        return out[:, :, : query.shape[2]]

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(of_query, of_key, of_key),
        out_specs=of_query,
        check_vma=False,
    )(query, key, value)


def _filled(x: jax.Array, block: int) -> jax.Array:
    missing = -x.shape[2] % block
    return jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else x


def _segments(x: jax.Array, length: int) -> jax.Array:
    """1 for what is there, 0 for what was filled up, for every row."""
    inside = jax.lax.broadcasted_iota(jnp.int32, (x.shape[0], length), 1) < x.shape[2]
    return inside.astype(jnp.int32)


def probe(
    *,
    rows: int,
    heads: int,
    key_heads: int,
    queries: int,
    keys: int,
    width: int,
    causal: bool,
    blocks: Mapping[str, Any],
) -> tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]:
    """Forward and backward kernels alone on bfloat16 arrays, for a schedule to be counted."""
    kernel = splash_kernel(heads, queries, keys, SplashBlocks(**blocks), causal, None)
    query = jax.ShapeDtypeStruct((rows, heads, queries, width), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((rows, key_heads, keys, width), jnp.bfloat16)
    segments = [jax.ShapeDtypeStruct((rows, n), jnp.int32) for n in (queries, keys)]

    def gradients(query: Any, key: Any, value: Any, query_of: Any, key_of: Any) -> Any:
        def total(query: Any, key: Any, value: Any) -> Any:
            out = kernel(query, key, value, splash.SegmentIds(query_of, key_of))
            return jnp.sum(out.astype(jnp.float32) ** 2)

        return jax.grad(total, argnums=(0, 1, 2))(query, key, value)

    return gradients, (query, key, key, *segments)


@dataclasses.dataclass(frozen=True)
class SplashTime:
    """Of all calls of one kernel on one shape. flops: of the blocks that it computes. share: of the
    blocks of queries x keys, by which the cycles of the schedule are multiplied: 1 without a
    causal mask."""

    name: str
    queries: int
    keys: int
    calls: int
    seconds: float
    flops: int
    share: float


def splash_times(
    uses: tuple[KernelUse, ...],
    blocks: SplashBlocks,
    causal: bool,
    chip: Chip,
    cache: Path,
    options: Options,
    instead: SplashBlocks | None = None,
    lengths: Sequence[int] = (),
) -> list[SplashTime]:
    """Seconds of every splash kernel of a compiled step, by libtpu's schedule of it alone.

    Of a causal mask the schedule counts all blocks, and the kernel does those on the diagonal and
    below. `instead`: what kernels of more than one block of keys would take with other blocks,
    their arrays having these lengths before they were filled up.
    """
    topology = f"{chip.generation}:" + ("2x2x1" if chip.torus_axes == 3 else "2x2")
    times = []
    for use in uses:
        if not use.name.startswith("splash_"):
            raise ValueError(f"kernel {use.name} is not one of splash attention")
        wide = [shape for shape in use.operands if len(shape) >= 3 and shape[-1] == 128]
        query, key = (_with_rows(shape) for shape in wide[:2])
        used = blocks
        if instead is not None and key[2] > blocks.key:
            if instead.fused and "_dq_" in use.name:
                continue
            used = instead
            query = _refilled(query, lengths, blocks.query, used.query)
            key = _refilled(key, lengths, blocks.key, used.key)
        arguments = {
            "rows": query[0],
            "heads": query[1],
            "key_heads": key[1],
            "queries": query[2],
            "keys": key[2],
            "width": query[3],
            "causal": causal,
            "blocks": dataclasses.asdict(used),
        }
        found = kernel_cycles(
            Probe("benchmarks.published.splash:probe", arguments), topology, cache, options
        )
        share = computed_share(query[2], key[2], used) if causal else 1.0
        seconds = use.calls * share * found[_matching(use.name, found)].cycles / chip.clock_hz
        flops = round((use.flops or 0) * share)
        times.append(SplashTime(use.name, query[2], key[2], use.calls, seconds, flops, share))
    return times


def _with_rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (1, *shape)


def _refilled(
    shape: tuple[int, ...], lengths: Sequence[int], before: int, after: int
) -> tuple[int, ...]:
    """The shape of an array whose tokens, one of these lengths, fill blocks of another size."""
    [tokens] = [one for one in lengths if -(-one // before) * before == shape[2]]
    return (*shape[:2], -(-tokens // after) * after, shape[3])


def _matching(name: str, found: Mapping[str, Any]) -> str:
    """The kernel of the probe that does the same: its name may tell more of what is kept."""
    if name in found:
        return name
    phase = re.search(r"fwd|dq|dkv", name)
    alike = [other for other in found if phase and f"_{phase[0]}" in other]
    if len(alike) != 1:
        raise ValueError(f"kernel {name}: the probe has {', '.join(found)}")
    return alike[0]


def computed_share(queries: int, keys: int, blocks: SplashBlocks) -> float:
    """Share of the blocks of queries x keys that a causal mask does not leave empty."""
    key = min(blocks.key, keys)
    done = sum(
        -(-min((row + 1) * blocks.query, keys) // key) for row in range(queries // blocks.query)
    )
    return done / ((queries // blocks.query) * (keys // key))
