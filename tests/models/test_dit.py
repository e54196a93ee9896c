"""The transformer sees sets of tokens: any order, any neighbours in the row, any padding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from sora_jax.config import ConfigError
from sora_jax.models.dit import DiT, DiTConfig
from sora_jax.models.latents import token_coordinates
from sora_jax.models.patches import Grid
from sora_jax.models.text import caption_mean
from sora_jax.types import Layout, Text
from tests.tiny import DIT, randomised

CHANNELS, TEXT_WIDTH = 4, 8
CLIP, IMAGE = Grid(2, 2, 2), Grid(1, 2, 2)
FIRST, SECOND, PADDING = slice(0, 8), slice(8, 12), slice(12, 14)
Inputs = tuple[jax.Array, Layout, Text]


def make_dit(config: DiTConfig = DIT) -> DiT:
    return randomised(lambda rngs: DiT(config, CHANNELS, TEXT_WIDTH, rngs=rngs))


MODEL = make_dit()
APPLY = jax.jit(lambda model, inputs: model(*inputs))


def velocity(inputs: Inputs) -> np.ndarray:
    return np.asarray(APPLY(MODEL, inputs))


def row() -> Inputs:
    """A clip with a given first frame, an image, and padding, in one row; a caption for each."""
    tokens = jax.random.normal(jax.random.key(0), (1, 14, CHANNELS))
    coordinates = [token_coordinates(g, 4, jnp.full(1, 8.0)) for g in (CLIP, IMAGE)]
    layout = Layout(
        coordinates=jnp.concatenate([*coordinates, jnp.zeros((1, 2, 3))], 1),
        segments=jnp.array([[1] * 8 + [2] * 4 + [0] * 2]),
        level_index=jnp.array([[0] * 4 + [1] * 4 + [2] * 4 + [0] * 2]),
        noise_levels=jnp.array([[0.0, 0.6, 0.3]]),
        level_segments=jnp.array([[1, 1, 2]]),
    )
    embeddings = jax.random.normal(jax.random.key(1), (1, 7, TEXT_WIDTH))
    return tokens, layout, Text(embeddings, jnp.array([[1, 1, 1, 2, 2, 0, 0]]))


def changed(inputs: Inputs, **changes: Any) -> Inputs:
    """The row with fields of the layout, the tokens or the text replaced."""
    tokens, layout, text = inputs
    mine = {name: changes.pop(name) for name in ("embeddings", "tokens") if name in changes}
    text = dataclasses.replace(text, embeddings=mine.get("embeddings", text.embeddings))
    return mine.get("tokens", tokens), dataclasses.replace(layout, **changes), text


def permuted(inputs: Inputs, order: jax.Array) -> Inputs:
    tokens, layout, text = inputs
    per_token = ("coordinates", "segments", "level_index")
    moved = {name: getattr(layout, name)[:, order] for name in per_token}
    return tokens[:, order], dataclasses.replace(layout, **moved), text


def test_permuting_tokens_permutes_the_output() -> None:
    order = jax.random.permutation(jax.random.key(2), 14)
    expected = velocity(row())[:, order]
    assert np.abs(expected).min(-1).max() > 0.01  # an output of zeros would prove nothing
    np.testing.assert_allclose(velocity(permuted(row(), order)), expected, rtol=1e-4, atol=2e-5)


def test_coordinates_matter() -> None:
    _, layout, _ = row()
    for axis in range(3):
        moved = layout.coordinates.at[0, 0, axis].add(0.5)
        assert np.abs(velocity(changed(row(), coordinates=moved)) - velocity(row())).max() > 1e-3


def changes_elsewhere() -> dict[str, Inputs]:
    """The row with everything changed that is none of the first segment's business."""
    tokens, layout, text = row()
    return {
        "tokens": changed(row(), tokens=tokens.at[:, SECOND].add(5.0)),
        "padding": changed(row(), tokens=tokens.at[:, PADDING].add(5.0)),
        "coordinates": changed(row(), coordinates=layout.coordinates.at[:, SECOND].mul(1.5)),
        "caption": changed(row(), embeddings=text.embeddings.at[:, 3:5].add(5.0)),
        "caption_padding": changed(row(), embeddings=text.embeddings.at[:, 5:].add(5.0)),
        "noise_level": changed(row(), noise_levels=layout.noise_levels.at[:, 2].set(0.9)),
    }


@pytest.mark.parametrize("name", changes_elsewhere())
def test_a_segment_is_alone_in_its_row(name: str) -> None:
    before, after = velocity(row()), velocity(changes_elsewhere()[name])
    np.testing.assert_array_equal(after[:, FIRST], before[:, FIRST])
    if "padding" not in name:
        assert np.abs(after - before)[:, SECOND].max() > 1e-3  # the change was one


def test_own_caption_and_own_noise_levels_matter() -> None:
    _, layout, text = row()
    for other in (
        changed(row(), embeddings=text.embeddings.at[:, 0].add(1.0)),
        changed(row(), noise_levels=layout.noise_levels.at[:, 0].set(0.1)),
        changed(row(), noise_levels=layout.noise_levels.at[:, 1].set(0.7)),
    ):
        assert np.abs(velocity(other) - velocity(row()))[:, FIRST].max() > 1e-3


def test_an_image_alone_is_the_image_in_a_shared_padded_row() -> None:
    tokens, layout, text = row()
    alone = Layout(
        coordinates=token_coordinates(IMAGE, 4, jnp.full(1, 24.0)),
        segments=jnp.ones((1, 4), jnp.int32),
        level_index=jnp.zeros((1, 4), jnp.int32),
        noise_levels=layout.noise_levels[:, 2:],
        level_segments=jnp.ones((1, 1), jnp.int32),
    )
    caption = Text(text.embeddings[:, 3:5], jnp.ones((1, 2), jnp.int32))
    found = velocity((tokens[:, SECOND], alone, caption))
    np.testing.assert_allclose(found, velocity(row())[:, SECOND], rtol=1e-5, atol=1e-5)


def test_a_segment_without_caption_has_a_finite_velocity() -> None:
    tokens, layout, text = row()
    silent = dataclasses.replace(text, segments=jnp.zeros_like(text.segments))
    assert np.isfinite(velocity((tokens, layout, silent))).all()
    np.testing.assert_array_equal(caption_mean(silent, layout.level_segments), 0)


def test_how_the_stack_runs_changes_no_gradient() -> None:
    # The config is static: a model of another one is another program.
    def gradients(**changes: Any) -> list[jax.Array]:
        model = make_dit(dataclasses.replace(DIT, **changes))
        mean_square = jax.jit(jax.grad(lambda model: jnp.mean(model(*row()) ** 2)))
        return jax.tree.leaves(mean_square(model))

    expected = gradients()
    assert all(np.abs(gradient).max() > 0 for gradient in expected)
    for changes in ({"remat": "attention"}, {"remat": "full", "unroll": True}):
        for found, wanted in zip(gradients(**changes), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=str(changes))


def test_bfloat16_computes_nearly_the_same_and_answers_in_float32() -> None:
    narrow = make_dit(dataclasses.replace(DIT, compute="bfloat16"))
    found = APPLY(narrow, row())
    assert found.dtype == jnp.float32
    assert np.abs(found - velocity(row())).max() < 0.05 * np.abs(velocity(row())).max()


def shapes_within(jaxpr: Any) -> set[tuple[int, ...]]:
    """Shapes of all intermediate arrays, also inside loops and calls."""
    shapes = set()
    for equation in jaxpr.eqns:
        shapes |= {tuple(getattr(v.aval, "shape", ())) for v in equation.outvars}
        for inner in jaxprs_in_params(equation.params):
            shapes |= shapes_within(inner)
    return shapes


def test_modulation_is_never_spread_over_tokens_whole() -> None:
    def loss(model: DiT) -> jax.Array:
        return jnp.mean(model(*row()) ** 2)

    shapes = shapes_within(jax.make_jaxpr(jax.grad(loss))(MODEL).jaxpr)
    rows, tokens, width = 1, 14, DIT.width
    assert (rows, tokens, width) in shapes  # the walk does see the blocks
    assert (rows, 3, 6, width) in shapes
    largest = max(np.prod(shape) for shape in shapes if shape[:2] == (rows, tokens))
    assert largest <= tokens * DIT.mlp_ratio * width


def test_a_fresh_model_predicts_zero() -> None:
    model = DiT(DIT, CHANNELS, TEXT_WIDTH, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(APPLY(model, row()), 0)


@pytest.mark.parametrize(("width", "heads"), [(32, 3), (36, 12)])
def test_heads_must_split_the_width_evenly(width: int, heads: int) -> None:
    with pytest.raises(ConfigError, match=f"dit.width={width} does not split into heads={heads}"):
        DiTConfig(width=width, heads=heads)
