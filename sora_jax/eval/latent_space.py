"""What a diffusion model will see of an autoencoder: latents as numbers, and ways between them.

Latents are posterior means, normalised per channel by the statistics that are kept with the
weights: where these fit the clips, every channel has mean 0 and deviation 1.

A straight line from one clip's latents to another's, z_k = (1 - k/K) z_0 + (k/K) z_K, is decoded to
x_k, uint8 pixels as numbers in levels:

    path ratio   = sum_k |x_(k+1) - x_k| / |x_K - x_0|                               (1)
    longest step = K max_k |x_(k+1) - x_k| / sum_k |x_(k+1) - x_k|                   (2)

with |.| the root of the sum of squares. (1) is 1 where the decoder goes straight too, and never
below; (2) is 1 where it goes evenly, and K where it jumps at once. A sampler ends near the latents
that it should find, not at them: how near in pixels says the PSNR of noisy latents, decoded, to the
same without noise.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sora_jax.models.latents import LatentStatistics
from sora_jax.models.vae import VAE, to_uint8, to_unit
from sora_jax.processes import to_host

Decode = Callable[[Float[np.ndarray, "b t h w c"]], np.ndarray]

STEPS = 8  # K
NOISE = 0.1  # deviation of noise on normalised latents


@jax.jit
def _encode(vae: VAE, statistics: LatentStatistics, videos: Array) -> tuple[Array, Array]:
    mean, log_variance = vae.encode(to_unit(videos))
    normalised = (mean - statistics.mean) / statistics.deviation
    return normalised, jnp.exp(0.5 * log_variance) / statistics.deviation


@jax.jit
def _decode(vae: VAE, statistics: LatentStatistics, latents: Array) -> Array:
    return to_uint8(vae.decode(latents * statistics.deviation + statistics.mean))


def encoded(
    vae: VAE, statistics: LatentStatistics, videos: Sequence[np.ndarray]
) -> tuple[Float[np.ndarray, "b t h w c"], Float[np.ndarray, "b t h w c"]]:
    """Normalised latents of clips of one size, and the deviations of their posteriors in the same
    unit; clip by clip, so that a size compiles once."""
    pairs = [map(to_host, _encode(vae, statistics, video[None])) for video in videos]
    means, deviations = zip(*pairs, strict=True)
    return np.concatenate(means), np.concatenate(deviations)


def decoder(vae: VAE, statistics: LatentStatistics) -> Decode:
    """Normalised latents to uint8 clips, one by one."""

    def decode(latents: np.ndarray) -> np.ndarray:
        clips = [to_host(_decode(vae, statistics, each[None])) for each in latents]
        return np.concatenate(clips)

    return decode


def channel_metrics(latents: Float[np.ndarray, "... c"]) -> dict[str, float]:
    """Of normalised latents, over all cells of all clips, two channels or more.

    mean_most: the largest mean of a channel, without sign. deviation_least, deviation_most: of
    channels. kurtosis_most: the largest excess kurtosis, 0 of a Gaussian. correlation_most: the
    largest of two channels, without sign. channels_used: (sum v)^2 / sum v^2 of the variances v
    along the principal axes: from 1, where all channels say the same, to their number.
    """
    values = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    mean, deviation = values.mean(0), np.maximum(values.std(0), 1e-12)
    scaled = (values - mean) / deviation
    covariance = np.cov(values, rowvar=False, bias=True)
    correlation = scaled.T @ scaled / len(scaled)
    apart = correlation[~np.eye(len(mean), dtype=bool)]
    variances = np.linalg.eigvalsh(covariance)
    return {
        "mean_most": float(np.abs(mean).max()),
        "deviation_least": float(deviation.min()),
        "deviation_most": float(deviation.max()),
        "kurtosis_most": float(np.abs((scaled**4).mean(0) - 3).max()),
        "correlation_most": float(np.abs(apart).max()),
        "channels_used": float(variances.sum() ** 2 / np.square(variances).sum()),
    }


def neighbour_correlation(latents: Float[np.ndarray, "b t h w c"], axis: int) -> float:
    """Of cells with the next one along an axis, over all channels: near 1 where latents are smooth,
    0 where each cell is by itself. The axis has two cells or more."""
    values = latents.astype(np.float64)
    values -= values.mean((0, 1, 2, 3))
    count = values.shape[axis]
    cells, following = (np.take(values, range(n, count - 1 + n), axis) for n in (0, 1))
    return float((cells * following).sum() / np.sqrt((cells**2).sum() * (following**2).sum()))


def path(decode: Decode, first: np.ndarray, last: np.ndarray) -> tuple[float, float]:
    """Equations (1) and (2) between the latents [t, h, w, c] of two clips; 1 where the clips are
    the same."""
    shares = np.linspace(0, 1, STEPS + 1).reshape(-1, *[1] * first.ndim)
    points = decode(((1 - shares) * first + shares * last).astype(first.dtype))
    points = points.reshape(STEPS + 1, -1).astype(np.float64)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    straight = np.linalg.norm(points[-1] - points[0])
    if straight == 0:
        return 1.0, 1.0
    return float(steps.sum() / straight), float(STEPS * steps.max() / steps.sum())


def with_noise(latents: np.ndarray, seed: int) -> np.ndarray:
    """Latents with Gaussian noise of deviation NOISE: the same of one seed."""
    noise = np.random.default_rng(seed).standard_normal(latents.shape)
    return (latents + NOISE * noise).astype(latents.dtype)
