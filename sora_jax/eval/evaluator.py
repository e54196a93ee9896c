"""Scores a trained run: autoencoder, loss, captions to clips, animation; and keeps what it made.

Names of metrics are paths: what was done, the column if it is not the model's own, the score. The
columns that bound text_to_video are ground_truth (true clips), ceiling_vae (true clips through the
autoencoder), floor_shuffled (the model's clips under other captions) and static (the model's first
frames, frozen). `.../low` and `.../high` are 95 % bootstrap intervals over clips.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError
from sora_jax.eval.animation import colour_change, still_fraction
from sora_jax.eval.example_losses import example_losses
from sora_jax.eval.examples import Example, images, longest, world_examples
from sora_jax.eval.held_out_loss import joined
from sora_jax.eval.reconstruction import (
    bilinear_baseline,
    latent_numbers,
    psnr,
    reconstruct,
    ssim,
)
from sora_jax.eval.world_state import Tally, frozen, read, score, score_shuffled
from sora_jax.models.vae import VAE
from sora_jax.sample.generate import Request, Sample, Sampler, latent_frames
from sora_jax.world.scene import WorldConfig

Video = UInt8[np.ndarray, "t h w 3"]
Videos = Sequence[Video]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How many clips are made and scored. Seeds start where no set reaches."""

    prompts: int = 64  # videos from captions
    images: int = 64  # images from captions
    animations: int = 32  # videos from a first frame and a caption
    shown: int = 12  # of each kind, on the report
    seed: int = 1_000_000

    def __post_init__(self) -> None:
        if min(self.prompts, self.images, self.animations) < 2 or self.shown < 1 or self.seed < 0:
            raise ConfigError(
                f"evaluation: prompts={self.prompts}, images={self.images} and animations="
                f"{self.animations} must be at least 2, shown={self.shown} at least 1 and "
                f"seed={self.seed} not negative"
            )


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A line of the report: clips that belong together, each with a label."""

    caption: str
    fps: float
    clips: Mapping[str, Video]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores by name, and lines to look at by section."""

    metrics: dict[str, float]
    exhibits: dict[str, list[Exhibit]]


def evaluate_world(
    sampler: Sampler,
    config: EvaluationConfig,
    world: WorldConfig,
    buckets: Sequence[Bucket],
    fps: float,
) -> Evaluation:
    """All scores on unseen scenes: videos at the longest of the buckets, images at single frames.

    Raises:
        ConfigError: there is no bucket of several frames.
    """
    if longest(buckets)[0].frames == 1:
        raise ConfigError("data.buckets has no video: nothing that moves can be scored")
    videos = world_examples(world, longest(buckets), fps, config.prompts, config.seed)
    parts = [
        score_reconstruction(sampler.models.vae, videos),
        score_losses(sampler, videos),
        score_captions("text_to_video", sampler, videos),
        score_animation(sampler, videos[: config.animations]),
    ]
    if images(buckets):
        pictures = world_examples(
            world, images(buckets), fps, config.images, config.seed + config.prompts
        )
        parts.append(score_captions("text_to_image", sampler, pictures))
    return _joined(parts, config.shown)


def evaluate_examples(
    sampler: Sampler, config: EvaluationConfig, examples: Sequence[Example]
) -> Evaluation:
    """Scores that need no knowledge of what clips show: autoencoder, loss, animation, nearest."""
    parts = [
        score_reconstruction(sampler.models.vae, examples),
        score_losses(sampler, examples),
    ]
    videos = [example for example in examples if len(example.video) > 1]
    if videos:
        parts.append(score_animation(sampler, videos, nearest=True))
    return _joined(parts, config.shown)


def score_reconstruction(vae: VAE, examples: Sequence[Example]) -> Evaluation:
    """`vae/...`: means over the clips of PSNR and SSIM, beside those of the bilinear baseline."""
    print(f"scoring the autoencoder on {len(examples)} clips", flush=True)
    truths = [example.video for example in examples]
    decoded = reconstruct(vae, truths)
    baselines = [
        bilinear_baseline(truth, latent_numbers(vae, truth.shape), latent_frames(vae, len(truth)))
        for truth in truths
    ]
    metrics = {
        "vae/psnr_db": _mean(map(psnr, decoded, truths)),
        "vae/ssim": _mean(map(ssim, decoded, truths)),
        "vae/psnr_baseline_db": _mean(map(psnr, baselines, truths)),
        "vae/ssim_baseline": _mean(map(ssim, baselines, truths)),
    }
    columns = {"true": truths, "decoded": decoded, "bilinear": baselines}
    return Evaluation(metrics, {"reconstruction": _exhibits(examples, columns)})


def score_losses(sampler: Sampler, examples: Sequence[Example]) -> Evaluation:
    """`held_out/loss...`: the training loss on these clips without given frames, its standard error
    over clips, and of each size and fifth of the noise levels."""
    print(f"held_out: the loss on {len(examples)} clips", flush=True)
    sizes = example_losses(sampler, examples)
    every = joined([*sizes.values()])
    return Evaluation(
        {
            "held_out/loss": every.mean(),
            "held_out/loss/standard_error": every.standard_error(),
            **{f"held_out/loss/{size}": losses.mean() for size, losses in sizes.items()},
            **{f"held_out/loss/level_{k}": value for k, value in every.by_level().items()},
        },
        {},
    )


def score_captions(name: str, sampler: Sampler, examples: Sequence[Example]) -> Evaluation:
    """`text_to_video/...` or `text_to_image/...`: clips from captions alone, read and compared.

    All examples have one frame rate.
    """
    print(f"{name}: making and scoring {len(examples)} clips", flush=True)
    samples = sampler.generate([_request(example) for example in examples])
    made = [sample.video for sample in samples]
    truths = [example.video for example in examples]
    prompted = [example.facts for example in examples]
    fps = examples[0].fps
    scenes = read(made, fps)
    columns = {
        f"{name}/": score(scenes, prompted),
        f"{name}/ground_truth/": score(read(truths, fps), prompted),
        f"{name}/ceiling_vae/": score(read(reconstruct(sampler.models.vae, truths), fps), prompted),
        f"{name}/floor_shuffled/": score_shuffled(scenes, prompted),
    }
    if len(made[0]) > 1:
        columns[f"{name}/static/"] = score(read(map(frozen, made), fps), prompted)
    metrics = {f"{name}/prompts_cut": _mean(sample.prompt_is_cut for sample in samples)}
    for prefix, tally in columns.items():
        metrics |= _metrics(prefix, tally)
    shown = {"generated": made, "true": truths}
    return Evaluation(metrics, {name: _exhibits(examples, shown)})


def score_animation(
    sampler: Sampler, examples: Sequence[Example], *, nearest: bool = False
) -> Evaluation:
    """`animate/...`: clips from first frame and caption; with `nearest` also `nearest/...`."""
    print(f"animate: making and scoring {len(examples)} clips", flush=True)
    requests = [_request(example, example.video[:1]) for example in examples]
    samples: list[Sample] = sampler.generate(requests)
    made = [sample.video for sample in samples]
    truths = [example.video for example in examples]
    firsts = [truth[:1] for truth in truths]
    ceilings = reconstruct(sampler.models.vae, firsts)
    jump, true_jump = _mean(map(colour_change, made)), _mean(map(colour_change, truths))
    metrics = {
        "animate/first_frame_psnr_db": _mean(
            psnr(video[:1], first) for video, first in zip(made, firsts, strict=True)
        ),
        "animate/first_frame_psnr_ceiling_db": _mean(map(psnr, ceilings, firsts)),
        "animate/colour_jump": jump - true_jump,
        "animate/still_fraction": still_fraction(made),
        "animate/ground_truth/still_fraction": still_fraction(truths),
    }
    if nearest:
        metrics |= nearest_scores(made, truths)
    columns = {"given": firsts, "generated": made, "true": truths}
    return Evaluation(metrics, {"animate": _exhibits(examples, columns)})


def nearest_scores(made: Videos, truths: Videos) -> dict[str, float]:
    """Which true clip of the same size is nearest to each made one, after the given frame 0.

    `nearest/accuracy`: share where it is the clip's own. `nearest/psnr_db`: mean PSNR to it.
    `nearest/candidates`: mean number of true clips to choose from.
    """
    right, decibels, candidates = [], [], []
    for own, video in enumerate(made):
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
        "nearest/accuracy": _mean(right),
        "nearest/psnr_db": _mean(decibels),
        "nearest/candidates": _mean(candidates),
    }


def _request(example: Example, given: Video | None = None) -> Request:
    frames, height, width = example.video.shape[:3]
    return Request(example.prompt, frames, height, width, example.fps, example.seed, given)


def _metrics(prefix: str, tally: Tally) -> dict[str, float]:
    """A tally's scores with their intervals, under a prefix."""
    metrics = {f"{prefix}{name}": value for name, value in tally.scores().items()}
    for name, (low, high) in tally.intervals().items():
        metrics |= {f"{prefix}{name}/low": low, f"{prefix}{name}/high": high}
    return metrics


def _exhibits(examples: Sequence[Example], columns: Mapping[str, Videos]) -> list[Exhibit]:
    return [
        Exhibit(
            example.prompt,
            example.fps,
            {label: videos[number] for label, videos in columns.items()},
        )
        for number, example in enumerate(examples)
    ]


def _joined(parts: Sequence[Evaluation], shown: int) -> Evaluation:
    metrics: dict[str, float] = {}
    exhibits: dict[str, list[Exhibit]] = {}
    for part in parts:
        metrics |= part.metrics
        exhibits |= {section: lines[:shown] for section, lines in part.exhibits.items()}
    return Evaluation(metrics, exhibits)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
