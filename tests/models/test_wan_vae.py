"""The Wan 2.1 autoencoder beside diffusers' on random weights; in chunks, and split over devices.

tests/golden/wan_vae.json was made by diffusers 0.42.1 and torch 2.13.0 in float64, in an
environment of their own with PYTHONPATH=., from what tests/tiny_wan_vae.py has:

    model = AutoencoderKLWan.from_pretrained(write_folder(Path("tiny"))).eval().double()
    moments = model.encode(torch.tensor(video(13)).permute(0, 4, 1, 2, 3).double()).latent_dist
    x = model.post_quant_conv(torch.tensor(latents(4)).permute(0, 4, 1, 2, 3).double())
    model.clear_cache()
    pixels = [  # as model.decode makes them, which clips them
        model.decoder(x[:, :, i : i + 1], model._feat_map, [0], first_chunk=i == 0)
        for i in range(4)
    ]

moments.mean, moments.logvar and places(torch.cat(pixels, 2)), with channels last.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.config import ConfigError
from sora_jax.models.latents import LatentStatistics, encode_tokens
from sora_jax.models.patches import Grid, unpatchify
from sora_jax.models.vae import to_uint8
from sora_jax.models.wan_vae import WanVAE, WanVAEConfig
from sora_jax.sample.stream import decode_clips, encode_clips, whole
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.weights.wan_vae import read_wan_vae
from tests import tiny_wan_vae as tiny

GOLDEN = {
    name: np.asarray(values)
    for name, values in json.loads(
        (Path(__file__).parents[1] / "golden" / "wan_vae.json").read_text()
    ).items()
}
EIGHT = make_mesh(MeshConfig(fsdp=1, context=8))
ENCODE = jax.jit(lambda vae, video, state: vae.encode_chunk(video, state))
DECODE = jax.jit(lambda vae, latents, state: vae.decode_chunk(latents, state))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> WanVAE:
    return read_wan_vae(tiny.write_folder(tmp_path_factory.mktemp("wan")))[0]


def encoded(vae: WanVAE, video: np.ndarray, chunk: int) -> list[np.ndarray]:
    """Mean and log-variance of clips, of which each part but the first has `chunk` latent
    frames."""
    state, parts, start = None, [], 0
    while start < video.shape[1]:
        end = start + 4 * chunk if start else 1 + 4 * (chunk - 1)
        *moments, state = ENCODE(vae, video[:, start:end], state)
        parts.append(moments)
        start = end
    return [np.concatenate(each, 1) for each in zip(*parts, strict=True)]


def decoded(vae: WanVAE, latents: np.ndarray, chunk: int) -> np.ndarray:
    state, parts = None, []
    for start in range(0, latents.shape[1], chunk):
        pixels, state = DECODE(vae, latents[:, start : start + chunk], state)
        parts.append(pixels)
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("chunk", [1, 5], ids=["cached", "whole"])
@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_it_has_the_numbers_of_diffusers(vae: WanVAE, frames: int, chunk: int) -> None:
    cells = 1 + (frames - 1) // 4
    mean, log_variance = encoded(vae, tiny.video(frames), chunk)
    np.testing.assert_allclose(mean, GOLDEN["mean"][:, :cells], atol=1e-5)
    np.testing.assert_allclose(log_variance, GOLDEN["log_variance"][:, :cells], atol=1e-5)
    pixels = decoded(vae, tiny.latents(cells), chunk)
    assert pixels.shape == (2, frames, 16, 24, 3)
    np.testing.assert_allclose(tiny.places(pixels), GOLDEN["pixels"][:, :frames], atol=1e-5)


def test_a_clip_in_chunks_is_the_clip_at_once(vae: WanVAE) -> None:
    whole_clip, whole_latents = encoded(vae, tiny.video(17), 5), decoded(vae, tiny.latents(5), 5)
    for chunk in (1, 2):
        found = encoded(vae, tiny.video(17), chunk), decoded(vae, tiny.latents(5), chunk)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5),
            found,
            (whole_clip, whole_latents),
        )


def test_what_comes_later_changes_nothing(vae: WanVAE) -> None:
    video, latents = tiny.video(9), tiny.latents(3)
    changed, others = video.copy(), latents.copy()
    changed[:, 5:], others[:, 2:] = 1.0, 1.0
    before, after = (encoded(vae, x, 3)[0] for x in (video, changed))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert abs(before[:, 2:] - after[:, 2:]).min() > 1e-4
    before, after = (decoded(vae, x, 3) for x in (latents, others))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert abs(before[:, 5:] - after[:, 5:]).max() > 0.1


def test_clips_split_over_eight_devices_are_the_clips_on_one(vae: WanVAE) -> None:
    channels = vae.config.channels
    statistics = LatentStatistics(jnp.full(channels, 0.1), jnp.full(channels, 1.3))
    video = np.asarray(
        to_uint8(jnp.asarray(tiny.video(9)[:1, :, :, :16].repeat(2, 2).repeat(2, 3)))
    )
    expected = encode_tokens(vae, statistics, jnp.asarray(video), 1)
    networks: Any = whole(vae, statistics, EIGHT)
    how: Any = {"patch": 1, "chunk": 1, "mesh": EIGHT}
    tokens = encode_clips(*networks, video, **how)
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)
    grid = Grid(3, video.shape[2] // 8, video.shape[3] // 8)
    pixels = to_uint8(
        vae.decode(unpatchify(expected, grid, 1) * statistics.deviation + statistics.mean)
    )
    found = decode_clips(*networks, expected, grid, **how)
    # Whole numbers: one may stand on the border between two.
    assert abs(found.astype(int) - np.asarray(pixels)).max() <= 1
    assert np.mean(found != np.asarray(pixels)) < 1e-3


def test_blocks_that_are_computed_again_have_the_same_gradient(vae: WanVAE) -> None:
    def gradient(recompute: bool) -> Any:
        config = WanVAEConfig(
            channels=2, width=4, multipliers=(1, 2), halve_frames=(True,), recompute=recompute
        )
        made = WanVAE(config, rngs=nnx.Rngs(0))
        video = jnp.asarray(tiny.video(3)[:, :, :4, :4])
        return jax.jit(jax.grad(lambda vae: jnp.sum(vae.decode(vae.encode(video)[0]) ** 2)))(made)

    kept_ones, again = (jax.tree.leaves(gradient(each)) for each in (False, True))
    for one, other in zip(kept_ones, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)
        assert np.isfinite(one).all()


def test_the_published_sizes_are_as_published() -> None:
    vae = jax.eval_shape(lambda: WanVAE(WanVAEConfig(), rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(vae)) == 126_892_531  # diffusers' count
    assert (vae.config.temporal, vae.config.spatial, vae.config.channels) == (4, 8, 16)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"halve_frames": (True,)}, "4 levels but 1 times halve_frames"),
        ({"width": 3, "multipliers": (1, 1, 1, 1)}, "must be even"),
    ],
)
def test_what_is_no_autoencoder_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        WanVAEConfig(**fields)
