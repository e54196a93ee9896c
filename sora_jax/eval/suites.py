"""What a trained run is scored on: loss, autoencoder, captions to clips, animation.

Names of metrics are paths: what was done, the column if it is not the model's own, the score.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sora_jax.eval.animation import colour_change, is_still
from sora_jax.eval.clip_scores import Score, of_values, prefixed
from sora_jax.eval.example_losses import example_losses
from sora_jax.eval.examples import Example
from sora_jax.eval.readers import Reader
from sora_jax.eval.reconstruction import (
    bilinear_baseline,
    latent_numbers,
    psnr,
    reconstruct,
    ssim,
)
from sora_jax.eval.suite import Found, Suite, Video, placed
from sora_jax.models.vae import VAE
from sora_jax.sample.generate import Sampler, latent_frames
from sora_jax.sample.requests import Request

Videos = Sequence[Video]


def reconstruction(vae: VAE, examples: Sequence[Example]) -> Suite:
    """`vae/...`: PSNR and SSIM through the autoencoder, beside those of the bilinear baseline."""

    def find(places: Sequence[int]) -> Found:
        truths = [examples[place].video for place in places]
        decoded = reconstruct(vae, truths)
        baselines = [
            bilinear_baseline(
                truth, latent_numbers(vae, truth.shape), latent_frames(vae, len(truth))
            )
            for truth in truths
        ]
        scores = {
            "vae/psnr_db": of_values(map(psnr, decoded, truths)),
            "vae/ssim": of_values(map(ssim, decoded, truths)),
            "vae/psnr_baseline_db": of_values(map(psnr, baselines, truths)),
            "vae/ssim_baseline": of_values(map(ssim, baselines, truths)),
        }
        columns = {"true": truths, "decoded": decoded, "bilinear": baselines}
        return Found(scores, clips=placed(places, columns))

    return Suite("reconstruction", examples, find)


def loss(sampler: Sampler, examples: Sequence[Example]) -> Suite:
    """`held_out/loss...`: the training loss on these clips without given frames, also of each size
    and fifth of the noise levels, and its standard error over clips."""

    def find(places: Sequence[int]) -> Found:
        chosen = [examples[place] for place in places]
        losses = example_losses(sampler, chosen)
        scores = losses.scores()
        size = "x".join(map(str, chosen[0].video.shape[:3]))
        scores[f"loss/{size}"] = scores["loss"]
        return Found(prefixed("held_out/", scores), {"times": losses.times})

    def further(found: Found) -> dict[str, float]:
        return {"held_out/loss/standard_error": found.scores["held_out/loss"].standard_error()}

    return Suite("loss", examples, find, further, repr(sampler.times))


def generation(
    name: str, sampler: Sampler, examples: Sequence[Example], readers: Mapping[str, Reader]
) -> Suite:
    """`text_to_video/...` or `text_to_image/...`: clips from captions alone, made once and read by
    each of the readers."""

    def find(places: Sequence[int]) -> Found:
        samples = sampler.generate([_request(examples[place]) for place in places])
        scores = {"prompts_cut": of_values(each.prompt_is_cut for each in samples)}
        arrays: dict[str, np.ndarray] = {}
        for reader in readers.values():
            found = reader.read(places, [each.video for each in samples])
            scores |= found.scores
            arrays |= found.arrays
        shown = {
            "generated": [each.video for each in samples],
            "true": [examples[place].video for place in places],
        }
        return Found(prefixed(f"{name}/", scores), arrays, placed(places, shown))

    def further(found: Found) -> dict[str, float]:
        return {
            f"{name}/{metric}": value
            for reader in readers.values()
            for metric, value in reader.further(found).items()
        }

    settings = " ".join(f"{way} {reader.settings}" for way, reader in readers.items())
    return Suite(name, examples, find, further, settings)


def animation(sampler: Sampler, examples: Sequence[Example], *, nearest: bool = False) -> Suite:
    """`animate/...`: clips from first frame and caption; with `nearest` also `nearest/...`."""

    def find(places: Sequence[int]) -> Found:
        chosen = [examples[place] for place in places]
        samples = sampler.generate([_request(each, each.video[:1]) for each in chosen])
        made, truths = [each.video for each in samples], [each.video for each in chosen]
        firsts = [truth[:1] for truth in truths]
        ceilings = reconstruct(sampler.models.vae, firsts)
        jumps = [
            colour_change(mine) - colour_change(its) for mine, its in zip(made, truths, strict=True)
        ]
        scores = {
            "animate/first_frame_psnr_db": of_values(
                psnr(video[:1], first) for video, first in zip(made, firsts, strict=True)
            ),
            "animate/first_frame_psnr_ceiling_db": of_values(map(psnr, ceilings, firsts)),
            "animate/colour_jump": of_values(jumps),
            "animate/still_fraction": of_values(map(is_still, made)),
            "animate/ground_truth/still_fraction": of_values(map(is_still, truths)),
        }
        if nearest:
            scores |= nearest_scores(made, places, [each.video for each in examples])
        columns = {"given": firsts, "generated": made, "true": truths}
        return Found(scores, clips=placed(places, columns))

    return Suite("animate", examples, find)


def nearest_scores(made: Videos, places: Sequence[int], truths: Videos) -> dict[str, Score]:
    """Which true clip of the same size is nearest to each made one, after the given frame 0.

    `places`: of each one's own among the true ones. `nearest/accuracy`: share where it is the
    clip's own. `nearest/psnr_db`: mean PSNR to it. `nearest/candidates`: mean number of true clips
    to choose from.
    """
    right, decibels, candidates = [], [], []
    for own, video in zip(places, made, strict=True):
        scores = {
            index: psnr(video[1:], truth[1:])
            for index, truth in enumerate(truths)
            if truth.shape == video.shape
        }
        best = max(scores, key=lambda index: scores[index])
        right.append(best == own)
        decibels.append(scores[best])
        candidates.append(len(scores))
    return {
        "nearest/accuracy": of_values(right),
        "nearest/psnr_db": of_values(decibels),
        "nearest/candidates": of_values(candidates),
    }


def _request(example: Example, given: Video | None = None) -> Request:
    frames, height, width = example.video.shape[:3]
    return Request(example.prompt, frames, height, width, example.fps, example.seed, given)
