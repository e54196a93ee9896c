"""The schedule: exact shares, no hole and no repeat, also where the weights change."""

import collections

import numpy as np
import pytest

from sora_jax.config import load_experiment
from sora_jax.data.buckets import Bucket, Period, weights_by_period
from sora_jax.data.schedule import BLOCK_STEPS, Schedule, apportioned, shuffled
from sora_jax.errors import ConfigError
from tests.kept import check_golden

FAR = 10**9
# From the middle of a block on, for less than a block, for whole blocks, and for ever.
CHANGING = [
    (0, [2.0, 1.0, 1.0, 0.5]),
    (137, [1.0, 0.0, 3.0, 0.0]),
    (142, [0.0, 0.0, 0.0, 1.0]),
    (442, [1.0, 1.0, 0.0, 2.0]),
]


def batches_of(
    schedule: Schedule, steps: range, buckets: int = 4
) -> tuple[list[int], dict[int, list[int]]]:
    """Steps of each bucket, and the batches that each gave, in their order."""
    drawn: dict[int, list[int]] = {bucket: [] for bucket in range(buckets)}
    for step in steps:
        bucket, number = schedule[step]
        drawn[bucket].append(number)
    return [len(drawn[bucket]) for bucket in range(buckets)], drawn


def test_the_schedule_of_the_demo_is_as_it_was(update_golden: bool) -> None:
    buckets = load_experiment("demo").data.buckets
    schedule = Schedule(weights_by_period(buckets, ()), seed=0)
    steps = [*range(300), *range(FAR, FAR + 100)]
    text = "".join("{} {} {}\n".format(step, *schedule[step]) for step in steps)
    check_golden("schedule.txt", text, update_golden, __file__)


def test_shares_are_exact_in_every_block() -> None:
    schedule = Schedule([(0, [2.0, 1.0, 1.0, 0.5])], seed=3)
    blocks = [[schedule[block * BLOCK_STEPS + i] for i in range(BLOCK_STEPS)] for block in range(3)]
    for number, block in enumerate(blocks):
        counts = collections.Counter(bucket for bucket, _ in block)
        assert [counts[i] for i in range(4)] == [45, 22, 22, 11]
        for bucket, count in counts.items():
            batches = sorted(batch for b, batch in block if b == bucket)
            assert batches == list(range(number * count, (number + 1) * count))
    assert [b for b, _ in blocks[0]] != [b for b, _ in blocks[1]]
    with pytest.raises(ConfigError, match="from step 0 on: .* below one step in 100"):
        Schedule([(0, [1.0, 1000.0])], seed=0)


@pytest.mark.parametrize("size", [1, 2, 3, 100, 2**16 - 1, 2**16, 2**16 + 7])
def test_shuffled_is_a_permutation(size: int) -> None:
    assert sorted(shuffled(i, size, 5) for i in range(size)) == list(range(size))


def test_shares_are_exact_in_every_block_of_every_period() -> None:
    schedule = Schedule(CHANGING, seed=3)
    expected = {
        range(100): [45, 22, 22, 11],
        range(100, 137): [17, 8, 8, 4],  # of 16.4, 8.2, 8.2 and 4.1
        range(137, 142): [1, 0, 4, 0],
        range(142, 242): [0, 0, 0, 100],
        range(342, 442): [0, 0, 0, 100],
        range(442, 542): [25, 25, 0, 50],
        range(FAR * 100 + 442, FAR * 100 + 542): [25, 25, 0, 50],
    }
    assert {steps: batches_of(schedule, steps)[0] for steps in expected} == expected
    assert schedule.shares == (
        (0.45, 0.22, 0.22, 0.11),
        (0.25, 0.0, 0.75, 0.0),
        (0.0, 0.0, 0.0, 1.0),
        (0.25, 0.25, 0.0, 0.5),
    )


@pytest.mark.parametrize("draw", range(20))
def test_changes_leave_no_hole_and_no_repeat(draw: int) -> None:
    generator = np.random.default_rng(draw)
    starts = np.unique(generator.integers(1, 900, 4)).tolist()
    periods = [
        (start, generator.integers(1, 9, 6).astype(float).tolist()) for start in [0, *starts]
    ]
    for _, weights in periods:
        weights[generator.integers(6)] = 0.0
    schedule = Schedule(periods, seed=draw)
    for last in (*starts, starts[-1] + 300):  # up to every change, and after some whole blocks
        counts, drawn = batches_of(schedule, range(last), buckets=6)
        assert schedule.drawn(last) == tuple(counts)
        for bucket, count in enumerate(counts):
            assert sorted(drawn[bucket]) == list(range(count))
    for (start, weights), end in zip(periods, [*starts, None], strict=True):
        found, _ = batches_of(schedule, range(start, end or start + 300), buckets=6)
        assert all(count == 0 for count, weight in zip(found, weights, strict=True) if not weight)


def test_steps_before_a_change_are_as_without_it() -> None:
    weights = CHANGING[0][1]
    plain, changing = Schedule([(0, weights)], 5), Schedule([(0, weights), (300, [1.0] * 4)], 5)
    assert [plain[k] for k in range(300)] == [changing[k] for k in range(300)]
    assert [plain[k] for k in range(300, 400)] != [changing[k] for k in range(300, 400)]


def test_two_seeds_differ_and_one_gives_the_same() -> None:
    steps = [*range(600), *range(FAR, FAR + 100)]
    one, same, two = ([Schedule(CHANGING, seed)[k] for k in steps] for seed in (1, 1, 2))
    assert one == same
    assert one != two


def test_a_step_costs_the_same_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the draws that a step makes, which are what takes time."""
    drawn = []

    def counting(index: int, size: int, seed: int) -> int:
        drawn.append(size)
        return shuffled(index, size, seed)

    schedule = Schedule(CHANGING, seed=3)
    monkeypatch.setattr("sora_jax.data.schedule.shuffled", counting)
    for step in (0, 500, FAR, 10**15):
        drawn.clear()
        schedule[step]
        assert drawn == [BLOCK_STEPS]


def test_a_weight_of_zero_never_gets_the_rest_of_a_rounding() -> None:
    for steps in range(200):
        counts = apportioned([1.0, 0.0, 1.0, 0.0, 1.0], steps)
        assert sum(counts) == steps
        assert counts[1] == counts[3] == 0
        assert max(abs(count - steps / 3) for count in counts[::2]) < 1


BUCKETS = (Bucket(1, 8, 8, 2.0), Bucket(5, 8, 8), Bucket(9, 8, 8, 0.5))


def test_a_period_changes_the_weights_it_names() -> None:
    curriculum = (
        Period(0, (("9x8x8", 0.0),)),
        Period(50, (("9x8x8", 1.0), ("1x8x8", 0.25))),
        Period(80, (("5x8x8", 0.0),)),
    )
    expected = [(0, [2.0, 1.0, 0.0]), (50, [0.25, 1.0, 1.0]), (80, [0.25, 0.0, 1.0])]
    assert weights_by_period(BUCKETS, curriculum) == expected
    assert weights_by_period(BUCKETS, curriculum[1:])[0] == (0, [2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("curriculum", "sentence"),
    [
        ([(5, [("9x9x9", 1.0)])], "curriculum: there is no bucket 9x9x9; there are 1x8x8, 5x8x8, "),
        ([(5, [("1x8x8", 1.0)]), (5, [("1x8x8", 2.0)])], "from step 5 follows the one from step 5"),
        ([(9, [("1x8x8", 1.0)]), (5, [("1x8x8", 2.0)])], "from step 5 follows the one from step 9"),
        ([(5, [(b.name, 0.0) for b in BUCKETS])], "from step 5 on every bucket has weight 0"),
        ([(-1, [("1x8x8", 1.0)])], "the period from step -1 must start at 0 or later"),
        ([(5, [])], "the period from step 5 must start at 0 or later and name a bucket or a"),
        ([(5, [("1x8x8", 1.0), ("1x8x8", 2.0)])], "curriculum names 1x8x8 twice"),
        ([(5, [("1x8x8", -1.0)])], "curriculum: weight -1.0 of 1x8x8 is not 0 or above"),
    ],
)
def test_a_curriculum_that_means_nothing_is_one_sentence(
    curriculum: list[tuple[int, list[tuple[str, float]]]], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        weights_by_period(BUCKETS, [Period(start, tuple(w)) for start, w in curriculum])


def test_a_curriculum_is_set_from_the_command_line_and_told_apart() -> None:
    text = "dit_stage.curriculum=(Period(start_step=100, weights=(('9x32x32', 0.0),)),)"
    micro = "dit_stage.training.micro_batches=4"
    experiment = load_experiment("demo", [text, micro])
    assert experiment.dit_stage.curriculum == (Period(100, (("9x32x32", 0.0),)),)
    assert experiment.dit_stage.periods() == (Period(400, (("9x32x32", 0.0),)),)
    assert experiment.trained() != load_experiment("demo", [micro]).trained()
    with pytest.raises(ConfigError, match="curriculum: there is no bucket 9x31x32"):
        load_experiment("demo", [text.replace("9x32x32", "9x31x32")])
    for tiny in ("data.buckets.0.weight=1e-4", text.replace("0.0", "1e-4")):
        with pytest.raises(ConfigError, match="the smallest above 0 is below one step in 100"):
            load_experiment("demo", [tiny])
