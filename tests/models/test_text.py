"""The text encoder: padding is not there, order is; other embeddings go in by the same door."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.config import ConfigError
from sora_jax.diffusion.conditioning import layout_of, noise_field
from sora_jax.diffusion.patterns import nothing_given
from sora_jax.models.text import TextConfig, TextEncoder, nearness, relative_buckets
from sora_jax.types import Text
from tests.tiny import TEXT, VOCABULARY, latent_batch, make_generator, randomised

ENCODER = randomised(lambda rngs: TextEncoder(TEXT, VOCABULARY, rngs=rngs))
ENCODE = jax.jit(lambda encoder, ids: encoder(ids))
IDS = jnp.array([[5, 9, 3, 1]])


def encode(ids: jax.Array) -> Text:
    return ENCODE(ENCODER, ids)


@pytest.mark.parametrize("padding", [1, 6])
def test_padding_changes_nothing(padding: int) -> None:
    padded = encode(jnp.pad(IDS, ((0, 0), (0, padding))))
    np.testing.assert_allclose(
        padded.embeddings[:, :4], encode(IDS).embeddings, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(padded.segments, [[1] * 4 + [0] * padding])


def test_rows_are_alone() -> None:
    both = encode(jnp.concatenate([IDS, IDS + 1])).embeddings
    np.testing.assert_allclose(both[:1], encode(IDS).embeddings, rtol=1e-5, atol=1e-5)


def test_order_matters_beyond_the_order_of_the_output() -> None:
    there, back = encode(IDS).embeddings, encode(IDS[:, ::-1]).embeddings
    assert np.abs(back[:, ::-1] - there).max() > 1e-2


def test_a_row_of_padding_is_finite() -> None:
    assert np.isfinite(encode(jnp.zeros((1, 4), jnp.int32)).embeddings).all()


def test_distances_have_signs_and_grow_coarse() -> None:
    buckets = np.asarray(relative_buckets(300))
    assert len(np.unique(buckets[150, 143:158])) == 15  # exact within 7 of the query
    assert buckets[150, 250] == buckets[150, 255]  # coarse afar
    assert buckets[0, 299] == buckets[0, 200] == 31  # all beyond 128 are one
    assert buckets[299, 0] == 15
    np.testing.assert_array_equal(np.diag(buckets), 0)


def test_fresh_heads_look_near_and_to_one_side() -> None:
    bias = np.asarray(nearness(4))[np.asarray(relative_buckets(40))]  # query, key, head
    weights = np.exp(bias) / np.exp(bias).sum(1, keepdims=True)
    query = 20
    ahead, behind = weights[query, 21:].sum(0), weights[query, :20].sum(0)
    np.testing.assert_array_less(behind[[0, 2]], 0.1 * ahead[[0, 2]])
    np.testing.assert_array_less(ahead[[1, 3]], 0.1 * behind[[1, 3]])
    for head in range(4):
        step = 1 if head % 2 == 0 else -1
        seen = weights[query, query + step * np.arange(8), head]
        assert (np.diff(seen) < 0).all()
    assert weights[query, query, 0] > weights[query, query, 2]  # slopes fall


def test_precomputed_embeddings_go_through_the_same_call() -> None:
    model, batch = randomised(make_generator), latent_batch(0, rows=2)
    levels = jnp.broadcast_to(jnp.array([0.5, 0.0]), (2, 1, 2))
    layout = layout_of(noise_field(batch, nothing_given(2, 1), levels), batch)
    own = model.encode_text(batch.text)
    # A longer caption of another encoder, padded: numbers beyond its segment do not count.
    longer = Text(
        jnp.pad(own.embeddings, ((0, 0), (0, 5), (0, 0)), constant_values=9.0),
        jnp.pad(own.segments, ((0, 0), (0, 5))),
    )
    apply = jax.jit(lambda model, *inputs: model(*inputs))
    found = apply(model, batch.latents, layout, longer)
    expected = apply(model, batch.latents, layout, own)
    present = np.asarray(batch.segments) != 0
    np.testing.assert_allclose(found[present], expected[present], rtol=1e-4, atol=1e-5)


def test_blocks_that_are_computed_again_give_the_same_gradients() -> None:
    again = TextEncoder(dataclasses.replace(TEXT, recompute=True), VOCABULARY, rngs=nnx.Rngs(0))
    nnx.update(again, nnx.state(ENCODER))

    def loss(encoder: TextEncoder) -> jax.Array:
        return jnp.mean(encoder(IDS).embeddings ** 3)

    found, expected = (jax.jit(jax.grad(loss))(encoder) for encoder in (again, ENCODER))
    for gradient, right in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(gradient, right, rtol=1e-4, atol=1e-6)


def test_an_encoder_in_bfloat16_says_nearly_the_same() -> None:
    half = TextEncoder(dataclasses.replace(TEXT, compute="bfloat16"), VOCABULARY, rngs=nnx.Rngs(0))
    nnx.update(half, nnx.state(ENCODER))
    found, expected = half(IDS).embeddings, encode(IDS).embeddings
    assert found.dtype == jnp.bfloat16
    assert np.abs(found.astype(jnp.float32) - expected).max() < 0.05 * np.abs(expected).max()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="text.width=32 does not divide by heads=5"):
        TextConfig(width=32, heads=5)
