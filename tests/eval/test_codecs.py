"""Codecs keep to the bytes, take the best that fits, and say how many they took."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from skimage import data

from sora_jax.eval.codecs import (
    CODECS,
    SCALES,
    Codec,
    Coded,
    at_bytes,
    av1,
    jpeg,
    latent_bytes,
    latent_levels,
)
from sora_jax.eval.reconstruction import psnr


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """A photograph that pans by two pixels a frame."""
    photograph = data.astronaut()[100:164, 150:260]
    return np.stack([photograph[:, 2 * t : 2 * t + 64] for t in range(9)])


def test_latents_are_counted_at_a_byte_a_number() -> None:
    assert latent_bytes(5 * 8 * 8 * 16) == 5 * 8 * 8 * 16
    values = np.random.default_rng(0).normal(0, [[1.0, 30.0, 0.0]], (500, 3)).astype(np.float32)
    levels = latent_levels(values)
    for channel in range(3):
        span = np.ptp(values[:, channel])
        assert len(np.unique(levels[:, channel])) <= 256
        assert np.abs(levels - values)[:, channel].max() <= span / 255 / 2 + 1e-5
        # An even quantiser's error has the deviation of its step over sqrt(12).
        error = (levels - values)[:, channel].std()
        assert error == pytest.approx(span / 255 / np.sqrt(12), rel=0.1, abs=1e-9)


@pytest.mark.parametrize("name", CODECS)
def test_codecs_keep_to_the_bytes_and_use_them(name: str, clip: np.ndarray) -> None:
    codec, qualities = CODECS[name], []
    most = codec.code(clip, codec.qualities[-1]).size  # of AV1, less than the last budget
    for budget in (1_500, 4_000, 20_000):
        coded = at_bytes(clip, budget, codec)
        assert coded.video.shape == clip.shape
        assert coded.video.dtype == np.uint8
        assert 0.5 * min(budget, most) < coded.size <= budget
        qualities.append(psnr(coded.video, clip))
    assert qualities == sorted(qualities)
    assert qualities[-1] > 27


def test_no_quality_that_fits_is_closer(clip: np.ndarray) -> None:
    """At full size, where every quality is tried one by one."""
    budget = 12_000
    each = [jpeg(clip, quality) for quality in CODECS["jpeg"].qualities]
    best = max(psnr(coded.video, clip) for coded in each if coded.size <= budget)
    assert psnr(at_bytes(clip, budget, CODECS["jpeg"]).video, clip) >= best


def test_where_nothing_fits_the_smallest_is_given(clip: np.ndarray) -> None:
    coded = at_bytes(clip, 1, CODECS["jpeg"])
    coarse = jpeg(clip, 1)
    assert 1 < coded.size < coarse.size


def test_all_sizes_and_few_qualities_are_tried(clip: np.ndarray) -> None:
    """Of a codec without loss, whose bytes are a share of the pixels: by bisection."""
    asked: list[tuple[int, int]] = []

    def code(video: np.ndarray, quality: int) -> Coded:
        asked.append((video.shape[1], quality))
        return Coded(video, video.size * quality // 100)

    qualities: Sequence[int] = range(1, 101)
    found = at_bytes(clip, clip.size // 2, Codec(code, qualities))
    assert found.size == clip.size // 2
    assert np.array_equal(found.video, clip)
    assert {side for side, _ in asked} == {64 // scale for scale in SCALES}
    assert len(asked) <= len(SCALES) * 8  # 2^7 > 100, and the coarsest


def test_a_jpeg_is_counted_by_its_scan_alone(clip: np.ndarray) -> None:
    """Two pictures of one quality have equal headers, so files differ by as much as scans."""
    scans, files = [], []
    for frame in (clip[0], clip[0] // 2):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=50, subsampling=2)
        files.append(len(file.getvalue()))
        scans.append(jpeg(frame[None], 50).size)
    assert files[0] - files[1] == scans[0] - scans[1]
    assert 600 < files[0] - scans[0] < 640  # four Huffman tables and two of quantisation


def test_av1_takes_small_clips_and_pictures(clip: np.ndarray) -> None:
    for small in (clip[:, :16, :16], clip[:1, :40, :24]):
        coded = av1(small, 10)
        assert coded.video.shape == small.shape
        assert psnr(coded.video, small) > 28
    # Flat colours come back, so matrix and range are those of the way in.
    flat = np.broadcast_to(np.array([200, 60, 90], np.uint8), (2, 32, 32, 3))
    assert np.abs(av1(flat, 5).video.astype(int) - flat).max() <= 2


def test_nothing_is_written_to_the_terminal(
    clip: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    av1(clip, 40)
    assert capfd.readouterr() == ("", "")
