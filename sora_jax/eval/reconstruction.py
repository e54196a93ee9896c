"""How well clips survive the autoencoder: PSNR and SSIM, beside a bilinear resize of equal size.

    PSNR = 10 log10(255^2 / mean square error)                                       (1)
    SSIM = (2 m n + C1) (2 s_xy + C2) / ((m^2 + n^2 + C1) (s_x^2 + s_y^2 + C2))      (2)

(2) is from Wang et al. 2004: means m and n, variances and covariance under an 11 x 11 Gaussian
window of deviation 1.5, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from sora_jax.models.vae import VAE, to_uint8, to_unit
from sora_jax.processes import to_host

Video = UInt8[np.ndarray, "t h w 3"]

WINDOW, WINDOW_DEVIATION = 11, 1.5
# What rounding to whole levels costs on average: no PSNR of uint8 pixels is known beyond it.
LEAST_ERROR = 1 / 12
RECONSTRUCTED_AT_ONCE = 16  # clips


def psnr(video: Video, reference: Video) -> float:
    """Equation (1) over all pixels of a clip, in dB; 58.9 where they are equal."""
    error = np.mean(np.square(video.astype(np.float32) - reference.astype(np.float32)))
    return 10 * math.log10(255**2 / max(float(error), LEAST_ERROR))


def ssim(video: Video, reference: Video) -> float:
    """Mean of equation (2) over the frames, channels and places where the window fits.

    The window is the largest odd one that fits, where the frames are smaller than 11 pixels.
    """
    x, y = video.astype(np.float64), reference.astype(np.float64)
    rows, columns = (_window_matrix(size, min(x.shape[1:3])) for size in x.shape[1:3])

    def local_mean(values: np.ndarray) -> np.ndarray:
        return np.einsum("ih,jw,thwc->tijc", rows, columns, values, optimize=True)

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x**2
    variance_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def _window_matrix(size: int, shorter_side: int) -> np.ndarray:
    """[places, size]: the Gaussian window at every place where it fits."""
    window = min(WINDOW, shorter_side - 1 + shorter_side % 2)
    offsets = np.arange(window) - window // 2
    weights = np.exp(-0.5 * (offsets / WINDOW_DEVIATION) ** 2)
    matrix = np.zeros((size - window + 1, size))
    for place, row in enumerate(matrix):
        row[place : place + window] = weights / weights.sum()
    return matrix


@jax.jit
def _reconstruct(vae: VAE, videos: UInt8[Array, "b t h w 3"]) -> UInt8[Array, "b t h w 3"]:
    return to_uint8(vae.decode(vae.encode(to_unit(videos))[0]))


def reconstruct(vae: VAE, videos: Sequence[Video]) -> list[Video]:
    """Clips of any sizes through encoder (posterior mean) and decoder."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, video in enumerate(videos):
        groups.setdefault(video.shape, []).append(index)
    results: dict[int, Video] = {}
    for indices in groups.values():
        # Even batches, the last filled up by repeating, so that a size compiles once.
        batches = -(-len(indices) // RECONSTRUCTED_AT_ONCE)
        rows = -(-len(indices) // batches)
        for start in range(0, len(indices), rows):
            chosen = indices[start : start + rows]
            filled = chosen + chosen[-1:] * (rows - len(chosen))
            decoded = _reconstruct(vae, np.stack([videos[index] for index in filled]))
            results |= dict(zip(chosen, to_host(decoded), strict=False))
    return [results[index] for index in range(len(videos))]


def latent_numbers(vae: VAE, shape: tuple[int, ...]) -> int:
    """Numbers in the latents of a clip of this shape, (t, h, w, 3)."""
    config = vae.config
    frames = (shape[0] - 1) // config.temporal + 1
    return frames * (shape[1] // config.spatial) * (shape[2] // config.spatial) * config.channels


def bilinear_baseline(video: Video, numbers: int, latent_frames: int) -> Video:
    """The clip resized linearly to at most so many numbers, and back.

    Its proportions are kept. In time it keeps as many frames as the latents have, or all: whichever
    comes closer to the clip.
    """
    candidates = [
        _down_and_up(video, frames, numbers) for frames in sorted({latent_frames, len(video)})
    ]
    return max(candidates, key=lambda candidate: psnr(candidate, video))


def _down_and_up(video: Video, frames: int, numbers: int) -> Video:
    height, width = video.shape[1:3]
    heights = range(height, 0, -1)
    fitting = ((h, max(1, round(h * width / height))) for h in heights)
    size = next((s for s in fitting if 3 * frames * s[0] * s[1] <= numbers), (1, 1))
    small = resized(video.astype(np.float64), (frames, *size))
    return levels_of(resized(small, video.shape[:3]))


def levels_of(video: np.ndarray) -> Video:
    """Numbers as pixels: rounded and clipped."""
    return np.clip(np.round(video), 0, 255).astype(np.uint8)


def resized(video: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[t, h, w, c] to other frames, height and width, linearly and low-pass."""
    t, h, w = (resize_matrix(n, m) for n, m in zip(video.shape, shape, strict=False))
    return np.einsum("at,ih,jw,thwc->aijc", t, h, w, video, optimize=True)


def resize_matrix(size: int, target: int) -> Float[np.ndarray, "m n"]:
    """Linear interpolation from `size` samples to `target`, low-pass where these are fewer: the
    matrix of jax.image.resize with antialiasing."""
    scale = size / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    distance = abs(centres[:, None] - np.arange(size)) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return weights / weights.sum(1, keepdims=True)
