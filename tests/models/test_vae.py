"""The autoencoder is causal to the bit, so whole, streamed and shortened clips agree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.config import ConfigError
from sora_jax.models.vae import (
    VAE,
    Fold,
    Unfold,
    VAEConfig,
    convolve_by_matmul,
    to_uint8,
    to_unit,
)
from sora_jax.nn.convolution import convolve_causally
from tests.tiny import randomised

# 4 frames a latent: folded at once, in two steps, and late.
FOLDS = (((4, 4),), ((2, 2), (2, 2)), ((1, 4), (4, 1)))


def make(folds: tuple[tuple[int, int], ...], **how: Any) -> VAE:
    widths = (8, 16) if how.get("shortcuts") else (8, 6)
    config = VAEConfig(channels=3, widths=widths[: len(folds)], folds=folds, blocks=1, **how)
    return randomised(lambda rngs: VAE(config, rngs=rngs), deviation=0.1)


MODELS = {folds: make(folds) for folds in FOLDS} | {
    "shortcuts": make(FOLDS[1], shortcuts=True, recompute=True)
}
ENCODE = jax.jit(lambda vae, video, state: vae.encode_chunk(video, state))
DECODE = jax.jit(lambda vae, latents, state: vae.decode_chunk(latents, state))


@pytest.fixture(params=MODELS, ids=str)
def vae(request: pytest.FixtureRequest) -> VAE:
    return MODELS[request.param]


def clip(vae: VAE, latent_frames: int, rows: int = 1) -> jax.Array:
    frames = 1 + vae.config.temporal * (latent_frames - 1)
    return jax.random.uniform(jax.random.key(0), (rows, frames, 8, 16, 3), minval=-1)


def latents_of(vae: VAE, frames: int) -> jax.Array:
    side = vae.config.spatial
    shape = (1, frames, 8 // side, 16 // side, vae.config.channels)
    return jax.random.normal(jax.random.key(0), shape)


@jax.jit
@jax.grad
def latent_by_pixels(video: jax.Array, vae: VAE, moment: int, frame: int) -> jax.Array:
    return jnp.sum(jnp.sin(jnp.stack(vae.encode(video))[moment, :, frame]))


@jax.jit
@jax.grad
def frame_by_latents(latents: jax.Array, vae: VAE, frame: int) -> jax.Array:
    return jnp.sum(jnp.sin(vae.decode(latents)[:, frame]))


def test_a_latent_does_not_see_later_pixels(vae: VAE) -> None:
    video = clip(vae, 3)
    for moment in range(2):  # mean and log-variance
        for frame in range(3):
            seen = np.abs(latent_by_pixels(video, vae, moment, frame)).max((0, 2, 3, 4))
            present = vae.config.temporal * frame
            assert not seen[present + 1 :].any()
            assert seen[present] > 0
            assert seen[:present].max(initial=1) > 0


def test_a_frame_does_not_see_later_latents(vae: VAE) -> None:
    latents = latents_of(vae, 3)
    for frame in range(1 + 2 * vae.config.temporal):
        seen = np.abs(frame_by_latents(latents, vae, frame)).max((0, 2, 3, 4))
        present = -(-frame // vae.config.temporal)
        assert not seen[present + 1 :].any()
        assert seen[present] > 0


def test_the_beginning_of_a_clip_encodes_as_by_itself(vae: VAE) -> None:
    video = clip(vae, 4)
    whole = ENCODE(vae, video, None)[0]
    for frames in (1, 2, 3):
        part = video[:, : 1 + vae.config.temporal * (frames - 1)]
        found = ENCODE(vae, part, None)[0]
        assert found.shape[1] == frames  # an image, frames = 1, is a clip of one frame
        np.testing.assert_allclose(found, whole[:, :frames], rtol=1e-6, atol=1e-6)


def test_the_beginning_of_latents_decodes_as_by_itself(vae: VAE) -> None:
    latents = latents_of(vae, 4)
    whole = DECODE(vae, latents, None)[0]
    for frames in (1, 3):
        found = DECODE(vae, latents[:, :frames], None)[0]
        assert found.shape[1] == 1 + vae.config.temporal * (frames - 1)
        np.testing.assert_allclose(found, whole[:, : found.shape[1]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (2, 1, 2), (1, 4)], ids=str)
def test_streamed_equals_whole(vae: VAE, chunks: tuple[int, ...]) -> None:
    total = sum(chunks)
    video = clip(vae, total)
    mean, log_variance, _ = ENCODE(vae, video, None)
    state, start, parts = None, 0, []
    for chunk in chunks:
        end = (start or 1) + vae.config.temporal * (chunk - (start == 0))
        *moments, state = ENCODE(vae, video[:, start:end], state)
        parts.append(moments)
        start = end
    for index, whole in enumerate((mean, log_variance)):
        streamed = jnp.concatenate([part[index] for part in parts], 1)
        np.testing.assert_allclose(streamed, whole, rtol=1e-6, atol=1e-6)

    state, start, frames = None, 0, []
    for chunk in chunks:
        pixels, state = DECODE(vae, mean[:, start : start + chunk], state)
        frames.append(pixels)
        start += chunk
    expected = DECODE(vae, mean, None)[0]
    np.testing.assert_allclose(jnp.concatenate(frames, 1), expected, rtol=1e-6, atol=1e-6)


def test_shortcuts_hand_on_means_and_repeats() -> None:
    fold = Fold(2, 4, (2, 2), shortcut=True, rngs=nnx.Rngs(0))
    unfold = Unfold(4, 2, (2, 2), shortcut=True, rngs=nnx.Rngs(0))
    for module in (fold, unfold):
        module.linear.kernel[...] = jnp.zeros_like(module.linear.kernel[...])
    video = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 2))
    folded = fold(video, None)[0]
    assert folded.shape == (1, 2, 2, 2, 4)
    # A channel's two means are of a row each; the first frame comes with nothing before it.
    corner = np.asarray(video[0, :, :2, :2])
    by_row = [corner[:1].mean((0, 2)), corner[1:].mean((0, 2))]
    for frame in range(2):
        np.testing.assert_allclose(folded[0, frame, 0, 0], by_row[frame].T.reshape(-1), rtol=1e-5)
    opened = unfold(folded, None)[0]
    assert opened.shape == video.shape
    for frame, found in zip((0, 1, 1), opened[0], strict=True):
        for row in range(2):
            np.testing.assert_allclose(found[row, 0], by_row[frame][row], rtol=1e-5)


def test_shortcuts_need_widths_that_divide() -> None:
    with pytest.raises(ConfigError, match="4 cells of width 6 do not come down to width 16"):
        VAEConfig(widths=(6, 16), folds=((1, 2), (1, 2)), shortcuts=True)


def test_computing_again_changes_no_gradient() -> None:
    def gradients(**how: Any) -> Any:
        vae = make(FOLDS[1], **how)
        video = clip(vae, 2)
        return jax.jit(jax.grad(lambda vae: jnp.mean(vae.decode(vae.encode(video)[0]) ** 2)))(vae)

    for kept, again in zip(
        jax.tree.leaves(gradients()), jax.tree.leaves(gradients(recompute=True)), strict=True
    ):
        np.testing.assert_allclose(kept, again, rtol=1e-5, atol=1e-7)


def test_bfloat16_computes_nearly_the_same() -> None:
    vae = MODELS["shortcuts"]
    graph, parameters = nnx.split(vae)
    half = make(FOLDS[1], shortcuts=True, compute="bfloat16")
    assert nnx.split(half)[0] != graph
    nnx.update(half, parameters)
    video = clip(vae, 2)
    for exact, rounded in zip(vae.encode(video), half.encode(video), strict=True):
        assert rounded.dtype == jnp.float32
        np.testing.assert_allclose(rounded, exact, atol=0.03 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (4, 20), (24, 8)])
def test_any_multiple_of_the_cell_goes(height: int, width: int) -> None:
    vae = MODELS[FOLDS[0]]
    video = jnp.zeros((2, 5, height, width, 3))
    mean, log_variance = jax.eval_shape(vae.encode, video)
    assert mean.shape == log_variance.shape == (2, 2, height // 4, width // 4, 3)
    assert jax.eval_shape(vae.decode, mean).shape == video.shape


def test_full_size_compresses_4_by_8_by_8() -> None:
    config = VAEConfig()
    assert (config.temporal, config.spatial) == (4, 8)

    def both(key: jax.Array, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        vae = VAE(config, rngs=nnx.Rngs(key))
        mean, _ = vae.encode(video)
        return mean, vae.decode(mean)

    video = jax.ShapeDtypeStruct((1, 17, 256, 448, 3), jnp.float32)
    mean, decoded = jax.eval_shape(both, jax.random.key(0), video)
    assert mean.shape == (1, 5, 32, 56, config.channels)
    assert decoded.shape == video.shape


def test_rows_are_alone() -> None:
    vae = MODELS[FOLDS[1]]
    video = clip(vae, 2, rows=2)
    both, alone = ENCODE(vae, video, None)[0], ENCODE(vae, video[1:], None)[0]
    np.testing.assert_allclose(both[1:], alone, rtol=1e-5, atol=1e-6)


def test_pixels_survive_the_change_of_scale() -> None:
    pixels = jnp.arange(256, dtype=jnp.uint8)
    unit = to_unit(pixels)
    assert (unit[0], unit[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_uint8(unit), pixels)
    np.testing.assert_array_equal(to_uint8(jnp.array([-7.0, 7.0])), [0, 255])


def test_every_stage_needs_a_width_and_a_fold() -> None:
    with pytest.raises(ConfigError, match="2 widths but 1 folds; give one per stage"):
        VAEConfig(widths=(8, 8), folds=((4, 4),))


@pytest.mark.parametrize("frames", [1, 3])
def test_a_convolution_by_matmul_is_the_same(frames: int) -> None:
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, 5, 4, 6, 3)), jnp.float32)
    kernel = jnp.asarray(generator.normal(size=(frames, 3, 3, 3, 7)), jnp.float32)

    def result(convolve: Any) -> tuple[jax.Array, Any]:
        value, pull = jax.vjp(convolve, x, kernel)
        return value, pull(jnp.cos(value))

    def convolve_direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve_causally(x[:, frames - 1 :], kernel, x[:, : frames - 1])

    direct, matmul = result(convolve_direct), result(convolve_by_matmul)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max()), direct, matmul
    )


def test_either_convolution_makes_the_same_autoencoder() -> None:
    vae = MODELS[FOLDS[2]]
    changed = dataclasses.replace(vae.config, convolution="matmul")
    other = nnx.merge(nnx.split(VAE(changed, rngs=nnx.Rngs(0)))[0], nnx.split(vae)[1])
    video = clip(vae, 2)
    np.testing.assert_allclose(vae.encode(video)[0], other.encode(video)[0], atol=1e-5)


def test_an_untrained_autoencoder_shows_smooth_clips_as_they_are() -> None:
    """Its latents begin as the lowest frequencies: ramps that move, and their first frame."""
    config = VAEConfig(channels=48, widths=(48, 96), folds=((1, 4), (2, 2)), blocks=1)
    vae = VAE(config, rngs=nnx.Rngs(0))
    t, y, x = np.mgrid[:5, :16, :16] / 16
    clip = np.stack([np.sin(x + t), np.cos(y - t), x * y], -1)[None].astype(np.float32) * 0.8
    shown = np.asarray(vae.decode(vae.encode(jnp.asarray(clip))[0]))
    assert np.sqrt(np.square(shown - clip).mean()) < 0.03
    assert np.sqrt(np.square(shown - clip)[:, 0].mean()) < 0.03
