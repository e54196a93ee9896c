"""FLOPs of a batch of each bucket in an experiment's training, and the peak to measure them by."""

import bisect
from collections.abc import Callable, Mapping, Sequence

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


def training_flops(experiment: Experiment, steps: int) -> int:
    """Of the transformer and the text encoder in the first so many steps of training, batch by
    batch as the schedule draws them: what the run's own clock comes to."""
    return _flops_by_steps(experiment)(steps)


def training_tokens(experiment: Experiment, steps: int) -> int:
    """Spacetime patches that the first so many steps train on, those of appended clips among them
    and padding not."""
    clips = zip(experiment.data.buckets, experiment.batch_clips(), strict=True)
    of_a_batch = [count * experiment.tokens(bucket) for bucket, count in clips]
    return _total(experiment, of_a_batch)(steps)


def steps_for(experiment: Experiment, flops: float) -> int:
    """The number of steps, 1 or more, whose training FLOPs are nearest to so many."""
    spent, most = _flops_by_steps(experiment), 1
    while spent(most) < flops:
        most *= 2
    enough = bisect.bisect_left(range(most + 1), flops, key=spent)
    return max(1, min(enough - 1, enough, key=lambda steps: abs(spent(steps) - flops)))


def _flops_by_steps(experiment: Experiment) -> Callable[[int], int]:
    work = dit_work(experiment, encodes=False)
    return _total(experiment, [work[bucket.name].model for bucket in experiment.data.buckets])


def _total(experiment: Experiment, of_a_batch: Sequence[int]) -> Callable[[int], int]:
    """Steps -> the sum over their batches. `of_a_batch`: of each bucket."""
    stage = experiment.dit_stage
    periods = weights_by_period(experiment.data.buckets, stage.periods())
    schedule = Schedule(periods, experiment.seed)

    def total(steps: int) -> int:
        drawn = schedule.drawn(steps * stage.training.micro_batches)
        return sum(count * each for count, each in zip(drawn, of_a_batch, strict=True))

    return total


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
