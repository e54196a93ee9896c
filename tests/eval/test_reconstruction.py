"""PSNR and SSIM against their definitions, and the bilinear baseline's bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.eval.reconstruction import (
    bilinear_baseline,
    latent_numbers,
    psnr,
    reconstruct,
    resize_matrix,
    ssim,
)
from sora_jax.models.vae import to_unit
from tests.tiny_models import tiny_networks


def clip(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def test_psnr_is_its_formula() -> None:
    video = np.full((2, 8, 8, 3), 100, np.uint8)
    assert psnr(video + np.uint8(10), video) == pytest.approx(20 * math.log10(25.5))
    assert psnr(video, video) == pytest.approx(10 * math.log10(255**2 * 12))
    half = video.copy()
    half[0] += 10
    assert psnr(half, video) == pytest.approx(20 * math.log10(25.5) + 10 * math.log10(2))


def test_ssim_of_flat_clips_has_a_closed_form() -> None:
    one, other = np.full((1, 16, 16, 3), 50, np.uint8), np.full((1, 16, 16, 3), 80, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(one, other) == pytest.approx((2 * 50 * 80 + c1) / (50**2 + 80**2 + c1))
    assert ssim(one, one) == 1.0


@pytest.mark.parametrize(("side", "window"), [(14, 11), (9, 9), (8, 7)])
def test_ssim_is_the_mean_over_windows_of_its_formula(side: int, window: int) -> None:
    one, other = clip(2, side, side + 3), clip(2, side, side + 3, seed=1)
    other = (0.6 * one + 0.4 * other).astype(np.uint8)
    weight = np.exp(-0.5 * ((np.arange(window) - window // 2) / 1.5) ** 2)
    weights = np.outer(weight, weight)[..., None] / weight.sum() ** 2
    c1, c2 = 6.5025, 58.5225
    values = []
    for x, y in zip(one.astype(float), other.astype(float), strict=True):
        for i in range(side - window + 1):
            for j in range(side + 3 - window + 1):
                p, q = (z[i : i + window, j : j + window] for z in (x, y))
                m, n = ((weights * z).sum((0, 1)) for z in (p, q))
                s, t = ((weights * (z - k) ** 2).sum((0, 1)) for z, k in ((p, m), (q, n)))
                st = (weights * (p - m) * (q - n)).sum((0, 1))
                similarity = (2 * m * n + c1) * (2 * st + c2)
                values.append(similarity / ((m**2 + n**2 + c1) * (s + t + c2)))
    assert ssim(one, other) == pytest.approx(np.mean(values), abs=1e-9)


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    from skimage import data
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    photograph = data.astronaut()[60:140, 160:260]
    noise = np.random.default_rng(0).normal(0, 9, photograph.shape)
    noisy = np.clip(photograph + noise, 0, 255).astype(np.uint8)
    expected = peak_signal_noise_ratio(photograph, noisy)
    assert psnr(noisy[None], photograph[None]) == pytest.approx(expected, abs=1e-4)
    expected = structural_similarity(
        photograph,
        noisy,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(noisy[None], photograph[None]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("size", "target"), [(9, 3), (32, 13), (13, 32), (5, 5), (7, 1), (1, 4)])
def test_resize_is_that_of_jax(size: int, target: int) -> None:
    signal = np.random.default_rng(0).normal(size=size).astype(np.float32)
    expected = jax.image.resize(jnp.asarray(signal), (target,), "linear", antialias=True)
    np.testing.assert_allclose(resize_matrix(size, target) @ signal, expected, atol=1e-5)


def test_the_baseline_has_as_many_numbers_as_the_latents_at_most() -> None:
    """Any linear map through so many numbers has at most that rank."""
    numbers, shape = 150, (5, 12, 16)
    basis = np.random.default_rng(0).integers(0, 256, (240, *shape, 3), np.uint8)
    rows = [bilinear_baseline(video, numbers, latent_frames=2) for video in basis]
    values = np.stack(rows).reshape(240, -1) - 127.5
    energy = np.linalg.svd(values, compute_uv=False) ** 2
    # Rounding to whole levels and the choice between two resizes add a little beyond.
    assert energy[: 2 * numbers].sum() / energy.sum() > 0.99
    assert energy[: numbers // 3].sum() / energy.sum() < 0.99


def test_the_baseline_keeps_smooth_clips_and_loses_detail() -> None:
    ramp = np.linspace(0, 255, 24)[None, None, :, None] * np.ones((9, 24, 1, 3))
    smooth = ramp.astype(np.uint8)
    assert psnr(bilinear_baseline(smooth, 600, 3), smooth) > 35
    noise = clip(9, 24, 24)
    assert psnr(bilinear_baseline(noise, 600, 3), noise) < 13
    assert np.array_equal(bilinear_baseline(noise, noise.size, 3), noise)


def test_latent_numbers_are_those_of_the_latents() -> None:
    _, vae = tiny_networks()
    for shape in ((1, 8, 16), (9, 16, 8)):
        mean, _ = vae.encode(to_unit(jnp.zeros((1, *shape, 3), jnp.uint8)))
        assert latent_numbers(vae, (*shape, 3)) == mean.size


def test_clips_of_mixed_sizes_are_reconstructed_in_order() -> None:
    _, vae = tiny_networks()
    shapes = [(5, 8, 8), (1, 8, 16), (5, 8, 8), (1, 8, 16), (5, 8, 8)]
    videos = [clip(*shape, seed=number) for number, shape in enumerate(shapes)]
    for video, result in zip(videos, reconstruct(vae, videos), strict=True):
        alone = reconstruct(vae, [video])[0]
        assert alone.shape == video.shape
        assert abs(alone.astype(int) - result.astype(int)).max() <= 1
