"""The stream is what it was: published figures were learned from it."""

from types import SimpleNamespace

import numpy as np

from sora_jax.config import load_experiment
from sora_jax.data.pipeline import Schedule, Steps
from sora_jax.data.sources import ClipSet
from tests.kept import check_golden

ROWS = (8, 4, 4, 2)
FAR = 10**9


def test_the_schedule_of_the_demo_is_as_it_was(update_golden: bool) -> None:
    weights = [bucket.weight for bucket in load_experiment("demo").data.buckets]
    schedule = Schedule(weights, seed=0)
    steps = [*range(300), *range(FAR, FAR + 100)]
    text = "".join("{} {} {}\n".format(step, *schedule[step]) for step in steps)
    check_golden("schedule.txt", text, update_golden, __file__)


def test_the_clips_and_captions_are_as_they_were(
    clip_set: ClipSet, numbers: SimpleNamespace, update_golden: bool
) -> None:
    steps = Steps(clip_set, numbers.config, ROWS, seed=7)
    lines = []
    for step in (*range(60), *range(FAR, FAR + 20)):
        bucket, batch = steps[step]
        clips = np.asarray(batch.video)[:, 0, 0, 0, 0].tolist()
        kept = [int(ids[0] != 1) for ids in batch.text]  # else the end mark alone
        lines.append(f"{step} {bucket} {clips} {kept} {batch.example_id.tolist()}\n")
    check_golden("stream.txt", "".join(lines), update_golden, __file__)
