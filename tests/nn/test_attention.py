"""Attention against a float64 reference, and what a token cannot see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.nn import blockwise
from sora_jax.nn.attention import Attention, AttentionConfig, attend
from sora_jax.nn.kernels import KernelName
from sora_jax.nn.layers import spread

ROWS, TOKENS, HEADS, WIDTH = 2, 9, 3, 8
# Two segments in mixed order and padding; the second row has one segment only.
SEGMENTS = np.array([[1, 2, 1, 1, 2, 0, 2, 0, 0], [1] * 8 + [0]], np.int32)


def inputs(dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, ROWS, TOKENS, HEADS, WIDTH)).astype(dtype)


def reference(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, upstream: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Output and gradients of sum(output * upstream), written out by hand; 0 at padding."""
    out, *gradients = np.zeros((4, *query.shape))
    for b, h in np.ndindex(ROWS, HEADS):
        for segment in (1, 2):
            own = np.flatnonzero(SEGMENTS[b] == segment)
            at = np.ix_([b], own, [h], np.arange(WIDTH))
            q, k, v, g = (x[at][0, :, 0] for x in (query, key, value, upstream))
            logits = q @ k.T / np.sqrt(WIDTH)
            weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
            weights /= weights.sum(-1, keepdims=True)
            d_weights = g @ v.T
            d_logits = weights * (d_weights - (d_weights * weights).sum(-1, keepdims=True))
            results = (weights @ v, d_logits @ k, d_logits.T @ q, weights.T @ g)
            results = (results[0], *(x / np.sqrt(WIDTH) for x in results[1:3]), results[3])
            for array, part in zip((out, *gradients), results, strict=True):
                array[at] = part[None, :, None]
    return (out, *gradients)


@pytest.mark.parametrize("kernel", ["reference", "blockwise"])
def test_output_and_gradients_equal_a_float64_reference(
    kernel: KernelName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "SCORES", 4 * ROWS * TOKENS * HEADS)  # blocks of 3 queries
    query, key, value, upstream = inputs()
    upstream *= (SEGMENTS != 0)[..., None, None]

    def output(*arrays: jax.Array) -> jax.Array:
        segments = jnp.asarray(SEGMENTS)
        return attend(*arrays, segments, segments, AttentionConfig(kernel))

    out, pullback = jax.vjp(output, *map(jnp.asarray, (query, key, value)))
    expected = reference(*inputs(np.float64)[:3], upstream.astype(np.float64))
    present = SEGMENTS != 0
    np.testing.assert_allclose(out[present], expected[0][present], rtol=2e-5, atol=2e-6)
    for found, wanted in zip(pullback(jnp.asarray(upstream)), expected[1:], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_nothing_comes_from_another_segment_or_from_padding() -> None:
    query, key, value, _ = map(jnp.asarray, inputs())

    def first_segment(key: jax.Array, value: jax.Array) -> jax.Array:
        out = attend(query, key, value, jnp.asarray(SEGMENTS), jnp.asarray(SEGMENTS))
        return jnp.sum(jnp.where((SEGMENTS == 1)[..., None, None], out, 0) ** 2)

    for gradient in jax.grad(first_segment, (0, 1))(key, value):
        assert not np.asarray(gradient)[SEGMENTS != 1].any()
        assert np.asarray(gradient)[SEGMENTS == 1].all()


@pytest.mark.parametrize("kernel", ["reference", "blockwise"])
def test_rows_of_padding_alone_are_finite_with_their_gradients(kernel: KernelName) -> None:
    arrays = [jnp.asarray(x) for x in inputs()[:3]]
    nothing = jnp.zeros((ROWS, TOKENS), jnp.int32)
    value, gradients = jax.value_and_grad(
        lambda arrays: jnp.sum(attend(*arrays, nothing, nothing, AttentionConfig(kernel)) ** 2)
    )(arrays)
    assert all(np.isfinite(x).all() for x in (value, *gradients))


def test_softmax_is_float32_in_bfloat16() -> None:
    query, key, value, _ = (jnp.asarray(x, jnp.bfloat16) for x in inputs())
    out = attend(query, key, value, jnp.asarray(SEGMENTS), jnp.asarray(SEGMENTS))
    assert out.dtype == jnp.bfloat16
    wide = [x.astype(jnp.float32) for x in (query, key, value)]
    expected = attend(*wide, jnp.asarray(SEGMENTS), jnp.asarray(SEGMENTS))
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=0.03)


def test_queries_and_keys_are_normalised() -> None:
    module = Attention(16, 16, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 5, 16))
    ones = jnp.ones((1, 5), jnp.int32)
    before = module(x, x, ones, ones)
    module.query.kernel[...] = 100 * module.query.kernel[...]
    np.testing.assert_allclose(module(x, x, ones, ones), before, atol=1e-4)


def test_spread_gives_every_token_the_row_of_its_level() -> None:
    table = jax.random.normal(jax.random.key(0), (2, 3, 4))
    index = jnp.array([[0, 2, 1, 2], [1, 1, 0, 0]])
    expected = jnp.take_along_axis(table, index[..., None], 1)
    np.testing.assert_array_equal(spread(table, index), expected)


def test_blockwise_keeps_no_array_of_queries_by_keys() -> None:
    query, key, value = (jnp.ones((1, 4096, 1, 8)),) * 3
    ones = jnp.ones((1, 4096), jnp.int32)

    def temporary(kernel: KernelName) -> int:
        def loss(arrays: tuple[jax.Array, ...]) -> jax.Array:
            return jnp.sum(attend(*arrays, ones, ones, AttentionConfig(kernel)) ** 2)

        compiled = jax.jit(jax.grad(loss)).lower((query, key, value)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    scores = 4 * 4096 * 4096
    assert temporary("reference") > scores
    assert temporary("blockwise") < scores / 2
