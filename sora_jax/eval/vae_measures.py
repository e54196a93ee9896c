"""All measures of an autoencoder on clips of one size, beside a resize and codecs at equal cost.

Columns: the autoencoder itself, `bilinear` (as many numbers as its latents), `jpeg` and `av1` (as
many bytes: eval/codecs.py), and `quantised` (its latents at the bits that they are counted at).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.eval import perceptual
from sora_jax.eval.backbone import Backbone
from sora_jax.eval.clip_scores import Score, of_values, prefixed, summary
from sora_jax.eval.codecs import CODECS, Coded, at_bytes, latent_bytes, latent_levels
from sora_jax.eval.evaluator import Exhibit
from sora_jax.eval.examples import Example
from sora_jax.eval.flicker import flicker, motion
from sora_jax.eval.fvd import score_distribution
from sora_jax.eval.latent_space import (
    channel_metrics,
    decoder,
    encoded,
    neighbour_correlation,
    path,
    with_noise,
)
from sora_jax.eval.real_statistics import LEAST_CLIPS
from sora_jax.eval.reconstruction import (
    bilinear_baseline,
    latent_numbers,
    psnr,
    reconstruct,
    ssim,
)
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.lpips import LPIPS
from sora_jax.models.vae import VAE

Video = UInt8[np.ndarray, "t h w 3"]

PATHS = 8  # between clips; each is decoded at nine points


@dataclasses.dataclass(frozen=True)
class Describers:
    """Networks that clips are measured by, where their weights are there."""

    lpips: LPIPS | None = None
    lpips_name: str = ""
    backbone: Backbone | None = None


@dataclasses.dataclass(frozen=True)
class Measured:
    """Metrics by name, COLUMN/MEASURE or, of the autoencoder itself, MEASURE alone; and clips to
    look at."""

    metrics: dict[str, float]
    exhibits: list[Exhibit]


def measure(
    vae: VAE,
    statistics: LatentStatistics,
    examples: Sequence[Example],
    describers: Describers,
    shown: int,
) -> Measured:
    """Of examples of one size."""
    truths = [example.video for example in examples]
    numbers = latent_numbers(vae, truths[0].shape)
    latent_frames = (len(truths[0]) - 1) // vae.config.temporal + 1
    budget = latent_bytes(numbers)
    coded = {
        name: [at_bytes(truth, budget, codec) for truth in truths] for name, codec in CODECS.items()
    }
    columns = {
        "": reconstruct(vae, truths),
        "bilinear/": [bilinear_baseline(truth, numbers, latent_frames) for truth in truths],
        **{f"{name}/": [each.video for each in clips] for name, clips in coded.items()},
    }
    scores: dict[str, Score] = {}
    for column, made in columns.items():
        scores |= prefixed(column, scores_of(made, truths))
    lpips = describers.lpips
    if lpips is not None and perceptual.measures(lpips, truths[0]):
        found = perceptual.column_distances(lpips, list(columns.values()), truths)
        for column, distances in zip(columns, found, strict=True):
            scores[f"{column}lpips/{describers.lpips_name}"] = of_values(distances)
    for name, clips in coded.items():
        scores[f"{name}/bytes"] = of_values(each.size for each in clips)
    metrics = summary(scores) | {"clips": len(truths), "latent_bytes": budget}
    metrics |= _latent_metrics(vae, statistics, truths)
    metrics |= _distribution_metrics(truths, columns[""], describers)
    return Measured(metrics, _exhibits(examples, columns, coded, shown))


def scores_of(made: Sequence[Video], truths: Sequence[Video]) -> dict[str, Score]:
    """psnr_db and ssim; of videos flicker in levels of 255, and flicker_relative to the motion of
    all clips that move together."""
    scores = {
        "psnr_db": of_values(map(psnr, made, truths)),
        "ssim": of_values(map(ssim, made, truths)),
    }
    if len(truths[0]) > 1:
        scores["flicker"] = of_values(map(flicker, made, truths))
        motions = np.array([motion(truth) for truth in truths])
        relative = scores["flicker"].values / np.maximum(motions, 1e-9)
        scores["flicker_relative"] = Score(relative, motions)
    return scores


def _latent_metrics(
    vae: VAE, statistics: LatentStatistics, truths: Sequence[Video]
) -> dict[str, float]:
    """latents/...: of eval/latent_space.py, and the PSNR of quantised and of noisy latents."""
    latents, deviations = encoded(vae, statistics, truths)
    decode = decoder(vae, statistics)
    found = {"posterior_deviation": float(np.sqrt(np.square(deviations).mean()))}
    if latents.shape[-1] > 1:
        found |= channel_metrics(latents)
    for name, axis in (("time", 1), ("height", 2), ("width", 3)):
        if latents.shape[axis] > 1:
            found[f"correlation_{name}"] = neighbour_correlation(latents, axis)
    some = latents[: PATHS + 1]
    if len(some) > 1:
        ratios, longest = zip(
            *(path(decode, *pair) for pair in itertools.pairwise(some)), strict=True
        )
        found |= {"path_ratio": float(np.mean(ratios)), "longest_step": float(np.mean(longest))}
    clean = decode(latents)
    noisy = decode(np.stack([with_noise(each, seed) for seed, each in enumerate(latents)]))
    found["noise_psnr_db"] = float(
        np.mean([psnr(*pair) for pair in zip(noisy, clean, strict=True)])
    )
    quantised = decode(np.stack([latent_levels(each) for each in latents]))
    return {
        "quantised/psnr_db": float(np.mean(list(map(psnr, quantised, truths)))),
        **{f"latents/{name}": value for name, value in found.items()},
    }


def _distribution_metrics(
    truths: Sequence[Video], made: Sequence[Video], describers: Describers
) -> dict[str, float]:
    """Of score_distribution, where clips are as many and as long as it needs."""
    backbone = describers.backbone
    if backbone is None or len(truths) < LEAST_CLIPS or len(truths[0]) < backbone.frames:
        return {}
    return score_distribution(truths, made, backbone)


def _exhibits(
    examples: Sequence[Example],
    columns: Mapping[str, Sequence[Video]],
    coded: Mapping[str, Sequence[Coded]],
    shown: int,
) -> list[Exhibit]:
    """Clips evenly spaced among the examples, each beside what became of it."""
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(shown, len(examples))).astype(int))
    labels = {"": "autoencoder", "bilinear/": "bilinear", "jpeg/": "JPEG", "av1/": "AV1"}
    lines = []
    for place in chosen:
        example = examples[place]
        clips = {"true": example.video}
        clips |= {labels[column]: made[place] for column, made in columns.items()}
        bytes_of = ", ".join(f"{labels[f'{n}/']} {c[place].size:,} bytes" for n, c in coded.items())
        lines.append(Exhibit(f"{example.prompt} ({bytes_of})", example.fps, clips))
    return lines
