"""Attention over tokens that are split across devices: trade heads, gather keys, or pass them on.

Runs inside `jax.shard_map`. Of the devices along the mesh axis `context`, neighbours in groups of
`ulysses` trade tokens for heads, all to all (arXiv:2309.14509); between the groups keys and values
are gathered, or go round in a ring (arXiv:2310.01889). Either alone is the case that the other has
one device.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from sora_jax.nn.kernels import Attend, Halves

AXIS = "context"
KEPT = "attention"  # what outputs among tokens are called, for a policy to keep
FROM_CAPTION = "caption"  # what outputs from captions are called: cheap to do again
Between = Literal["gather", "ring"]
Groups = Sequence[Sequence[int]]


def attend_across(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    *,
    kernel: Attend,
    halves: Halves,
    between: Between,
    ulysses: int,
    devices: int,
) -> Float[Array, "b q h k"]:
    """Attention of this device's tokens to those of all `devices` along the context axis.

    Needs heads that `ulysses` divides, and devices that it divides.
    """
    groups = devices // ulysses
    inside = [[group * ulysses + i for i in range(ulysses)] for group in range(groups)]
    across = [[group * ulysses + i for group in range(groups)] for i in range(ulysses)]
    if ulysses > 1:
        query, key, value = (_trade(x, 2, 1, inside) for x in (query, key, value))
        query_segments, key_segments = (
            _gathered(x, inside) for x in (query_segments, key_segments)
        )
    if groups > 1 and between == "ring":
        out = attend_ring(query, key, value, query_segments, key_segments, halves, ulysses, groups)
    else:
        if groups > 1:
            key, value, key_segments = (_gathered(x, across) for x in (key, value, key_segments))
        out = kernel(query, key, value, query_segments, key_segments)
    return _trade(out, 1, 2, inside) if ulysses > 1 else out


def _trade(x: Array, split: int, join: int, groups: Groups) -> Array:
    return jax.lax.all_to_all(x, AXIS, split, join, axis_index_groups=groups, tiled=True)


def _gathered(x: Array, groups: Groups) -> Array:
    return jax.lax.all_gather(x, AXIS, axis=1, tiled=True, axis_index_groups=groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def attend_ring(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    halves: Halves,
    stride: int,
    groups: int,
) -> Float[Array, "b q h k"]:
    """Keys and values visit every one of `groups` devices that stand `stride` apart, so that none
    holds more than its own and one other's."""
    arrays = (query, key, value, query_segments, key_segments)
    return _ring_forward(*arrays, halves, stride, groups)[0]


def _ring_forward(
    query: Array,
    key: Array,
    value: Array,
    query_segments: Array,
    key_segments: Array,
    halves: Halves,
    stride: int,
    groups: int,
) -> tuple[Array, Any]:
    visiting = _passed_on((key, value, key_segments), stride, groups)
    out, total = halves.forward(query, key, value, query_segments, key_segments)

    def join(sums: tuple[Array, Array], visiting: tuple[Array, ...]) -> tuple[Array, Array]:
        out, total = sums
        more, more_total = halves.forward(query, *visiting[:2], query_segments, visiting[2])
        joint = jnp.logaddexp(total, more_total)
        return out * _share(total, joint) + more * _share(more_total, joint), joint

    def turn(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        sums, visiting = carry
        return (join(sums, visiting), _passed_on(visiting, stride, groups)), None

    # A loop: written out, the compiler would have all keys come, and join the outputs at the end.
    sums = (out.astype(jnp.float32), total)
    (sums, visiting), _ = jax.lax.scan(turn, (sums, visiting), length=groups - 2)
    out, total = join(sums, visiting)
    out = checkpoint_name(out.astype(query.dtype), KEPT)
    total = checkpoint_name(total, KEPT)
    return out, (query, key, value, query_segments, key_segments, out, total)


def _share(part: Float[Array, "b h q"], whole: Float[Array, "b h q"]) -> Float[Array, "b q h 1"]:
    """Weight of the mean over some keys in the mean over all."""
    return jnp.swapaxes(jnp.exp(part - whole), 1, 2)[..., None]


def _ring_backward(
    halves: Halves, stride: int, groups: int, residuals: Any, upstream: Array
) -> tuple[Any, ...]:
    query, key, value, query_segments, key_segments, out, total = residuals
    inner = jnp.einsum("bqhk,bqhk->bhq", out.astype(jnp.float32), upstream.astype(jnp.float32))
    d_query = jnp.zeros(query.shape, jnp.float32)
    sums = tuple(jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    visiting: tuple[Array, ...] = (key, value, key_segments, *sums)
    for _ in range(groups):  # the gradients of keys and values travel with them, and come home
        key_there, value_there, segments_there, d_key, d_value = visiting
        d_query_here, d_key_here, d_value_here = halves.backward(
            query,
            key_there,
            value_there,
            query_segments,
            segments_there,
            total,
            inner,
            upstream,
        )
        d_query = d_query + d_query_here
        visiting = _passed_on(
            (*visiting[:3], d_key + d_key_here, d_value + d_value_here), stride, groups
        )
    d_key, d_value = visiting[3:]
    gradients = (d_query, d_key, d_value)
    like = (query, key, value)
    return (*(g.astype(x.dtype) for g, x in zip(gradients, like, strict=True)), None, None)


attend_ring.defvjp(_ring_forward, _ring_backward)


def _passed_on(arrays: tuple[Array, ...], stride: int, groups: int) -> tuple[Array, ...]:
    """What the device `stride` before this one held, all the way round."""
    devices = stride * groups
    pairs = [(i, (i + stride) % devices) for i in range(devices)]
    return tuple(jax.lax.ppermute(x, AXIS, pairs) for x in arrays)
