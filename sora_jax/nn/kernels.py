"""The kernels that compute attention on one device: XLA's own, splash on TPU, cuDNN's on GPU.

All have one signature and see the same: a query the keys of its own segment, nobody segment 0. What
comes out at padding means nothing, and is finite. It carries `name`, by which a policy of
rematerialisation may keep it.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Bool, Float, Int

from sora_jax.nn.block_sizes import Blocks, block_of
from sora_jax.nn.flash import padded
from sora_jax.nn.flash_kernels import MASKED

KernelName = Literal["reference", "blockwise", "flash", "splash", "cudnn"]
Attend = Callable[[Array, Array, Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Halves:
    """A kernel for keys that come in parts.

    forward(query, key, value, query_segments, key_segments) gives the output over a part and the
    log of the softmax's sum [b h q], by which parts combine. backward takes, after the same, that
    log-sum over all parts, the sum over head width of output x upstream gradient [b h q], and the
    upstream gradient, and gives the part's gradients of query, key and value.
    """

    forward: Callable[..., tuple[Array, Array]]
    backward: Callable[..., tuple[Array, Array, Array]]


def attend_reference(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    *,
    name: str,
) -> Float[Array, "b q h k"]:
    """Softmax attention (arXiv:1706.03762), written out. The softmax is float32 whatever the inputs
    are, and there is an array of queries x keys."""
    logits = _logits(query, key, query_segments, key_segments)
    weights = jax.nn.softmax(logits, -1).astype(value.dtype)
    out = jnp.einsum("bhqs,bshk->bqhk", weights, value)
    return checkpoint_name(out, name)


def _logits(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
) -> Float[Array, "b h q s"]:
    """Scaled dot products in float32, MASKED where a query does not see a key."""
    logits = jnp.einsum("bqhk,bshk->bhqs", query, key, preferred_element_type=jnp.float32)
    seen = _seen(query_segments, key_segments)
    return jnp.where(seen, logits / jnp.sqrt(query.shape[-1]), MASKED)


def reference_forward(
    query: Array, key: Array, value: Array, query_segments: Array, key_segments: Array
) -> tuple[Float[Array, "b q h k"], Float[Array, "b h q"]]:
    """Output in float32 and the log of the softmax's sum: what parts over keys combine by."""
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    logits = _product(query, key.mT) / jnp.sqrt(query.shape[-1])
    logits = jnp.where(_seen(query_segments, key_segments), logits, MASKED)
    largest = jnp.max(logits, -1, keepdims=True)
    weights = jnp.exp(logits - largest)
    total = jnp.sum(weights, -1, keepdims=True)
    out = _product(weights.astype(value.dtype), value) / total
    return jnp.swapaxes(out, 1, 2), (jnp.log(total) + largest)[..., 0]


def reference_backward(
    query: Array,
    key: Array,
    value: Array,
    query_segments: Array,
    key_segments: Array,
    total: Float[Array, "b h q"],
    inner: Float[Array, "b h q"],
    upstream: Float[Array, "b q h k"],
) -> tuple[Array, Array, Array]:
    """Gradients in float32 with respect to query, key and value over a part of the keys.

    `total` is the log-sum over all keys, `inner` the product of output and upstream gradient,
    summed over head width (arXiv:2205.14135, algorithm 4). Arrays of scores are keys x queries: so
    no matmul needs one of them transposed, only what is as narrow as a head.
    """
    query, key, value, upstream = (jnp.swapaxes(x, 1, 2) for x in (query, key, value, upstream))
    scale = 1 / jnp.sqrt(query.shape[-1])
    logits = _product(key, query.mT) * scale
    seen = _seen(key_segments, query_segments)
    weights = jnp.where(seen, jnp.exp(logits - total[:, :, None]), 0)
    d_logits = weights * (_product(value, upstream.mT) - inner[:, :, None]) * scale
    d_query = _product(key.mT.astype(jnp.float32), d_logits).mT
    d_key = _product(d_logits, query.astype(jnp.float32))
    d_value = _product(weights, upstream.astype(jnp.float32))
    return jnp.swapaxes(d_query, 1, 2), jnp.swapaxes(d_key, 1, 2), jnp.swapaxes(d_value, 1, 2)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _seen(segments: Int[Array, "b q"], others: Int[Array, "b s"]) -> Bool[Array, "b 1 q s"]:
    """Whether tokens are of the same clip, and not padding."""
    return ((segments[:, :, None] == others[:, None, :]) & (others[:, None, :] != 0))[:, None]


def attend_splash(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    *,
    blocks: Blocks | None,
    name: str,
) -> Float[Array, "b q h k"]:
    """JAX's Pallas kernel for TPU, to measure ours by. Tokens are padded as for ours.

    Output and log-sum carry the name, so that a policy which keeps them runs the forward kernel
    once; without the log-sum it would run again for its sake.
    """
    queries = query.shape[1]
    query, query_segments = padded(query), padded(query_segments)
    key, value, key_segments = padded(key), padded(value), padded(key_segments)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((query.shape[1], key.shape[1]))] * query.shape[2]),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=_block_sizes(query.shape[1], key.shape[1], blocks or Blocks()),
        residual_checkpoint_name=name,
    )
    scaled = (query / jnp.sqrt(query.shape[-1])).astype(query.dtype)
    by_heads = (jnp.swapaxes(x, 1, 2) for x in (scaled, key, value))
    out = jax.vmap(kernel)(*by_heads, splash.SegmentIds(query_segments, key_segments))
    return jnp.swapaxes(out, 1, 2)[:, :queries]


def _block_sizes(queries: int, keys: int, blocks: Blocks) -> splash.BlockSizes:
    """Blocks that divide so many tokens. The fused backward kernel does five matmuls of queries x
    keys where the two separate ones do seven."""
    key = block_of(keys, blocks.key)
    backward_key = block_of(keys, blocks.backward_key)
    return splash.BlockSizes(
        block_q=block_of(queries, blocks.query),
        block_kv=key,
        block_kv_compute=block_of(key, blocks.key_compute),
        block_q_dkv=block_of(queries, blocks.backward_query),
        block_kv_dkv=backward_key,
        block_kv_dkv_compute=block_of(backward_key, blocks.backward_key_compute),
        use_fused_bwd_kernel=True,
    )


def attend_cudnn(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    *,
    name: str,
) -> Float[Array, "b q h k"]:
    """cuDNN's flash attention, in bfloat16. It knows lengths, no segments: a row must hold one clip
    and its padding behind it, as all rows of the loader do."""
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        query_seq_lengths=jnp.sum(query_segments != 0, -1, dtype=jnp.int32),
        key_value_seq_lengths=jnp.sum(key_segments != 0, -1, dtype=jnp.int32),
        implementation="cudnn",
    )
    return checkpoint_name(out, name)
