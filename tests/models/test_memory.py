"""Given tokens that are seen apart: what they see, and that remembering them changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.models.dit import DiT
from sora_jax.models.latents import token_coordinates
from sora_jax.models.memory import remember
from sora_jax.models.patches import Grid
from sora_jax.types import Layout, Text
from tests.tiny import DIT, randomised

CHANNELS, TEXT_WIDTH = 4, 8
CLIP = Grid(2, 2, 2)
GIVEN = np.array([0, 1, 2, 3, 8, 9, 10, 11])  # the first latent frame of either clip
MADE = np.array([4, 5, 6, 7, 12, 13, 14, 15])
APPLY = jax.jit(lambda model, *inputs: model(*inputs))


def model(given_apart: bool) -> DiT:
    config = dataclasses.replace(DIT, given_apart=given_apart)
    return randomised(lambda rngs: DiT(config, CHANNELS, TEXT_WIDTH, rngs=rngs))


def row() -> tuple[jax.Array, Layout, Text]:
    """Two clips in a row, each with its first latent frame given and a caption of its own."""
    tokens = jax.random.normal(jax.random.key(0), (1, 16, CHANNELS))
    segments = jnp.array([[1] * 8 + [2] * 8])
    layout = Layout(
        coordinates=jnp.concatenate([token_coordinates(CLIP, 4, jnp.full(1, 8.0))] * 2, 1),
        segments=segments,
        level_index=jnp.array([[1] * 4 + [0] * 4 + [3] * 4 + [2] * 4]),
        noise_levels=jnp.array([[0.6, 0.0, 0.3, 0.1]]),
        level_segments=jnp.array([[1, 1, 2, 2]]),
        given_segments=segments.at[:, MADE].set(0),
    )
    embeddings = jax.random.normal(jax.random.key(1), (1, 5, TEXT_WIDTH))
    return tokens, layout, Text(embeddings, jnp.array([[1, 1, 2, 2, 0]]))


def part(layout: Layout, which: np.ndarray) -> Layout:
    return dataclasses.replace(
        layout,
        coordinates=layout.coordinates[:, which],
        segments=layout.segments[:, which],
        level_index=layout.level_index[:, which],
        given_segments=None,
    )


@pytest.mark.parametrize("given_apart", [True, False])
def test_given_tokens_see_each_other_alone_where_they_are_apart(given_apart: bool) -> None:
    tokens, layout, text = row()
    levels = layout.noise_levels.at[:, 0].set(0.9)
    others = (
        (tokens.at[:, MADE].add(1.0), layout, text),
        (tokens, dataclasses.replace(layout, noise_levels=levels), text),
    )
    dit = model(given_apart)
    before = np.asarray(APPLY(dit, tokens, layout, text))
    for other in others:
        change = np.abs(np.asarray(APPLY(dit, *other)) - before)
        assert change[:, MADE].max() > 1e-3
        assert (change[:, GIVEN].max() == 0) == given_apart


def test_generated_tokens_see_given_ones() -> None:
    tokens, layout, text = row()
    dit = model(given_apart=True)
    changed = APPLY(dit, tokens.at[:, GIVEN[:4]].add(1.0), layout, text)
    change = np.abs(np.asarray(changed) - np.asarray(APPLY(dit, tokens, layout, text)))
    assert change[:, MADE[:4]].min(-1).max() > 1e-3
    assert change[:, 8:].max() == 0  # the other clip


def test_generated_tokens_are_the_same_where_given_ones_are_remembered() -> None:
    tokens, layout, text = row()
    dit = model(given_apart=True)

    @jax.jit
    def remembering(tokens: jax.Array) -> jax.Array:
        memory = remember(dit, tokens[:, GIVEN], part(layout, GIVEN), text)
        return dit(tokens[:, MADE], part(layout, MADE), text, memory)

    expected = np.asarray(APPLY(dit, tokens, layout, text))[:, MADE]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(remembering(tokens), expected, rtol=1e-4, atol=1e-5)
