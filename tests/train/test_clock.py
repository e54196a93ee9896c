"""Every second is counted once, for the right thing, and rates are of the right seconds."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_jax.train.clock import KINDS, Clock, Work
from sora_jax.types import Drawn

WORK = {"image": Work(8 * 10**12, 10 * 10**12), "clip": Work(16 * 10**12, 24 * 10**12)}
DEVICES, PEAK = 4, 1e12


class Time:
    """Stands where the system's clock stands, and passes when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


def drawn(*buckets: str) -> list[Drawn]:
    return [Drawn(bucket, range(8)) for bucket in buckets]


def test_a_step_is_told_by_what_it_went_into() -> None:
    time = Time()
    clock = Clock(WORK, DEVICES, PEAK, time)
    for _ in range(2):
        with clock.spent("data"):
            time.wait(0.5)
        with clock.spent("compute"):
            time.wait(2.0)
        time.wait(0.25)
        clock.step(drawn("clip"), 100)
    with clock.spent("checkpoint"):
        time.wait(4.0)
    values = clock.close()
    assert values == pytest.approx(
        {
            "steps_per_second": 2 / 9.5,
            "tokens_per_second": 200 / 9.5,
            "seconds/step": 4.75,
            "seconds/data": 0.5,
            "seconds/compute": 2.0,
            "seconds/checkpoint": 2.0,
            "seconds/evaluate": 0.0,
            "seconds/other": 0.25,
            # 16 TFLOP in 2.75 s on 4 devices: checkpoints are no part of a step.
            **dict.fromkeys(("model_tflops_per_device", "model_tflops_per_device/clip"), 4 / 2.75),
            **dict.fromkeys(("mfu", "mfu/clip"), 4 / 2.75),
            **dict.fromkeys(("hfu", "hfu/clip"), 6 / 2.75),
        }
    )


def test_what_is_inside_does_not_count_outside() -> None:
    time = Time()
    clock = Clock(WORK, DEVICES, PEAK, time)
    with clock.spent("evaluate"):
        time.wait(1.0)
        with clock.spent("compute"):
            time.wait(2.0)
            with contextlib.suppress(KeyError), clock.spent("data"):
                time.wait(4.0)
                raise KeyError
        time.wait(8.0)
    assert clock.totals() == {
        "data": 4.0, "compute": 2.0, "checkpoint": 0.0, "evaluate": 9.0, "other": 0.0
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["step", "close", *KINDS]),
            st.integers(0, 1000),
            st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 1000)), max_size=3),
        ),
        max_size=20,
    )
)
def test_kinds_sum_to_the_wall_time(events: list[tuple[str, int, list[tuple[str, int]]]]) -> None:
    time = Time()
    clock = Clock(WORK, DEVICES, None, time)
    steps = told = 0.0
    for name, wait, nested in events:
        time.wait(wait / 64)
        if name == "step":
            clock.step(drawn("clip"), 1)
            steps += 1
        elif name == "close":
            if values := clock.close():
                kinds = [values[f"seconds/{kind}"] for kind in (*KINDS, "other")]
                assert sum(kinds) == pytest.approx(values["seconds/step"], rel=1e-9, abs=1e-8)
                told += steps * values["seconds/step"]
                assert told == pytest.approx(time.seconds - 1000, abs=1e-6)
                steps = 0
        else:
            with clock.spent(name):  # type: ignore[arg-type]
                for inner, inside in nested:
                    with clock.spent(inner):
                        time.wait(inside / 64)
    assert sum(clock.totals().values()) == time.seconds - 1000  # multiples of 1/64: exactly


def test_buckets_have_their_own_rates_where_steps_are_of_one() -> None:
    time = Time()
    clock = Clock(WORK, DEVICES, PEAK, time)
    for buckets, seconds in (
        (("image", "image"), 2.0),
        (("clip", "clip"), 8.0),
        (("image", "clip"), 3.0),
        (("image", "image"), 6.0),
    ):
        for aside in ("checkpoint", "evaluate"):  # no part of a step
            with clock.spent(aside):  # type: ignore[arg-type]
                time.wait(5.0)
        time.wait(seconds)
        clock.step(drawn(*buckets), 10)
    values = clock.close()
    assert values["mfu/image"] == pytest.approx(4 * 8 / 8.0 / DEVICES)
    assert values["hfu/image"] == pytest.approx(4 * 10 / 8.0 / DEVICES)
    assert values["mfu/clip"] == pytest.approx(2 * 16 / 8.0 / DEVICES)
    assert values["mfu"] == pytest.approx((5 * 8 + 3 * 16) / 19.0 / DEVICES)


def test_without_a_peak_there_are_no_shares_of_it() -> None:
    time = Time()
    clock = Clock(WORK, DEVICES, None, time)
    time.wait(1.0)
    clock.step(drawn("image"), 10)
    values = clock.close()
    assert values["model_tflops_per_device/image"] == pytest.approx(2.0)
    assert not [name for name in values if "fu" in name]


def test_closing_begins_anew_and_waits_for_a_step() -> None:
    time = Time()
    clock = Clock(WORK, DEVICES, PEAK, time)
    assert clock.close() == {}
    time.wait(1.0)
    clock.step(drawn("image"), 10)
    clock.close()
    time.wait(3.0)
    assert clock.close() == {}
    time.wait(2.0)
    clock.step(drawn("clip"), 10)
    values = clock.close()
    assert values["seconds/step"] == pytest.approx(5.0)
    assert values["mfu"] == pytest.approx(16 / 5.0 / DEVICES)
    assert "mfu/image" not in values
