"""FLOPs of a batch of each bucket in an experiment's training, and the peak to measure them by."""

from collections.abc import Mapping

from sora_jax.data.buckets import ShapeClass, weights_by_period
from sora_jax.data.schedule import Schedule
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.pod.chips import chip_of
from sora_jax.scaling.flops import (
    Row,
    hardware_flops,
    train_flops,
    vae_again_flops,
    vae_flops,
    vae_train_flops,
)
from sora_jax.train.clock import Work


def flops_row(experiment: Experiment, shape_class: ShapeClass) -> Row:
    """What counts of FLOPs take a row of a class for."""
    clips = shape_class.clips
    return Row(
        shape_class.tokens,
        experiment.vae.channels,
        clips * experiment.data.text_length,
        experiment.text.width,
        levels=(1 + experiment.dit_stage.diffusion.conditioning.levels) * clips,
        clips=clips,
    )


def dit_work(experiment: Experiment, *, encodes: bool) -> Mapping[str, Work]:
    """Of a batch of the transformer's training, by bucket. Padding counts: rows are as long as
    their shape class has them.

    `encodes`: clips are encoded on the devices as they come, and not read as latents that were made
    beforehand (`encode_once`, or a set of latents). That is the devices' work and none of the
    model's, whose autoencoder learns nothing then.
    """
    config, work = experiment.dit, {}
    for bucket, its_class, clips in zip(
        experiment.data.buckets, experiment.classes(), experiment.batch_clips(), strict=True
    ):
        row, rows = flops_row(experiment, its_class), its_class.rows
        hardware = rows * hardware_flops(config, row, experiment.text)
        if encodes:
            for frames in (bucket.frames, *bucket.appended):
                flops = vae_flops(experiment.vae, frames, bucket.height, bucket.width)
                hardware += clips * flops[0]
        work[bucket.name] = Work(rows * train_flops(config, row, experiment.text), hardware)
    return work


def training_flops(experiment: Experiment, steps: int) -> float:
    """Of the transformer and the text encoder, from the first step of training to this one, as the
    schedule shares batches out among the buckets."""
    work = dit_work(experiment, encodes=False)
    costs = [work[bucket.name].model for bucket in experiment.data.buckets]
    periods = weights_by_period(experiment.data.buckets, experiment.dit_stage.curriculum)
    ends = [min(start, steps) for start, _ in periods[1:]] + [steps]
    total = 0.0
    shares = Schedule(periods, experiment.seed).shares
    for (start, _), end, of_buckets in zip(periods, ends, shares, strict=True):
        of_a_batch = sum(share * cost for share, cost in zip(of_buckets, costs, strict=True))
        total += max(end - start, 0) * of_a_batch
    return total * experiment.dit_stage.training.micro_batches


def vae_work(experiment: Experiment) -> Mapping[str, Work]:
    """Of a batch of the autoencoder's training, by bucket; without the networks that judge it."""
    work = {}
    for bucket, rows in zip(experiment.data.buckets, experiment.vae_rows(), strict=True):
        size = (bucket.frames, bucket.height, bucket.width)
        flops = rows * vae_train_flops(experiment.vae, *size)
        again = rows * vae_again_flops(experiment.vae, *size)
        work[bucket.name] = Work(flops, flops + again)
    return work


def peak_flops(device_kind: str) -> float | None:
    """FLOPs a second in bfloat16 of a jax device of the kind, or None where they are not known."""
    try:
        return chip_of(device_kind).peak_flops
    except ConfigError:
        return None
