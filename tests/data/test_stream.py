"""What is drawn at a position: caption, start and rate, by weight, and from nothing else."""

import collections
import dataclasses
import itertools
from typing import Any

import pytest

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.schema import Described
from sora_jax.data.stream import Stream
from sora_jax.errors import ConfigError

CONFIG = DataConfig((Bucket(5, 8, 8),), (ShapeClass(1, 8),), caption_dropout=0.0)
POSITIONS = range(6_000)


def stream(seed: int = 0, **changes: Any) -> Stream:
    return Stream("5x8x8", dataclasses.replace(CONFIG, **changes), seed, [100])


def record(**captions: str) -> Described:
    return Described(
        clip_id="c",
        asset_id="a",
        caption="first",
        captions=captions,
        frames=5,
        height=8,
        width=8,
        fps=24.0,
    )


def test_kinds_of_captions_come_by_their_weights() -> None:
    kinds = (("given", 1.0), ("long", 6.0), ("short", 3.0), ("never", 0.0))
    drawn = stream(caption_kinds=kinds, caption_dropout=0.2)
    every = record(given="first", long="a long one", short="short", never="x")
    counts = collections.Counter(drawn.caption(position, every) for position in POSITIONS)
    shares = {text: count / len(POSITIONS) for text, count in counts.items()}
    expected = {"": 0.2, "first": 0.08, "a long one": 0.48, "short": 0.24}
    assert shares == pytest.approx(expected, abs=0.02)
    # Those that a record has share its draws; one that has none has its first.
    counts = collections.Counter(
        drawn.caption(p, record(given="first", short="short")) for p in POSITIONS
    )
    assert counts["short"] / counts["first"] == pytest.approx(3, rel=0.15)
    assert {drawn.caption(p, record()) for p in POSITIONS} == {"", "first"}
    assert {stream().caption(p, every) for p in POSITIONS} == {"first"}


def test_starts_and_rates_are_even_over_what_a_clip_is_long_enough_for() -> None:
    drawn = stream(frame_steps=(1, 2, 4))
    windows = collections.Counter(drawn.window(p, stored=11, frames=5) for p in POSITIONS)
    # One step of 4 spans 17 frames.
    expected = [(start, 1) for start in range(7)] + [(start, 2) for start in range(3)]
    assert sorted(windows) == sorted(expected)
    steps = collections.Counter(p for (_, p), n in windows.items() for _ in range(n))
    assert steps[1] / len(POSITIONS) == pytest.approx(0.5, abs=0.02)
    for step, starts in ((1, 7), (2, 3)):
        for start in range(starts):
            assert windows[start, step] / steps[step] == pytest.approx(1 / starts, abs=0.04)
    assert stream(frame_steps=(4,)).window(0, stored=6, frames=5)[1] == 1  # or it were of no use
    assert {drawn.window(p, stored=1, frames=1) for p in range(9)} == {(0, 1)}


def test_draws_follow_seed_and_position_and_not_each_other() -> None:
    def windows(seed: int) -> list[tuple[int, int]]:
        own = stream(seed, frame_steps=(1, 2))
        return [own.window(position, stored=40, frames=5) for position in range(50)]

    assert windows(0) == windows(0)
    assert len({tuple(windows(seed)) for seed in range(4)}) == 4
    by_step = collections.defaultdict(list)
    for start, step in itertools.chain.from_iterable(map(windows, range(40))):
        by_step[step].append(start)
    means = {step: sum(starts) / len(starts) for step, starts in by_step.items()}
    assert means == pytest.approx({1: 17.5, 2: 15.5}, abs=2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"caption_kinds": (("a", 1.0), ("a", 2.0))}, "data.caption_kinds names a twice"),
        ({"sources": (("a", -1.0),)}, "data.sources: weight -1.0 of a is not 0 or above"),
        ({"spare_frames": -1}, "data.spare_frames -1 must not be negative"),
        ({"frame_steps": ()}, "data.frame_steps .* must be positive, and at least one"),
        ({"frame_steps": (0,)}, "data.frame_steps .* must be positive, and at least one"),
    ],
)
def test_a_config_that_means_nothing_is_one_sentence(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        stream(**changes)
