"""Means over a window are those of its micro-batches, and survive a restart to the bit."""

import json
from typing import Any

import numpy as np
import pytest

from sora_jax.train.window import Window
from sora_jax.types import Drawn

BUCKETS = ("1x32x32", "9x32x32")
BINS = 5


def step(seed: int, skipped: float = 0.0) -> tuple[dict[str, np.ndarray], list[Drawn]]:
    """Metrics of a step of two micro-batches, as they come from the devices."""
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(generator.uniform(0.1, 3.0, shape), np.float32)

    weights = draw(2, BINS) * (generator.uniform(size=(2, BINS)) < 0.5)
    weights[:, 3] = 0.0
    metrics = {
        "loss": draw(2),
        "given_share": draw(2),
        "loss/level/sum": weights * draw(2, BINS),
        "loss/level/weight": weights,
        "gradient_norm": draw(),
        "update_norm": draw(),
        "learning_rate": draw(),
        "skipped": np.float32(skipped),
    }
    return metrics, [Drawn(BUCKETS[k], range(4)) for k in generator.integers(0, 2, 2)]


def filled(seeds: range, window: Window | None = None) -> Window:
    window = window or Window()
    for seed in seeds:
        window.add(*step(seed))
    return window


def stacked(name: str, seeds: range) -> Any:
    return np.stack([np.asarray(step(seed)[0][name], np.float64) for seed in seeds])


def test_means_are_over_the_micro_batches_of_all_steps() -> None:
    seeds = range(7)
    values = filled(seeds).close()
    for name in ("loss", "given_share", "gradient_norm", "update_norm"):
        assert values[name] == pytest.approx(stacked(name, seeds).mean(), rel=1e-12), name
    buckets = np.array([[one.bucket for one in step(seed)[1]] for seed in seeds])
    for bucket in BUCKETS:
        expected = stacked("loss", seeds)[buckets == bucket].mean()
        assert values[f"loss/{bucket}"] == pytest.approx(expected, rel=1e-12)
    assert values["gradient_norm/max"] == stacked("gradient_norm", seeds).max()
    assert values["learning_rate"] == stacked("learning_rate", seeds)[-1]
    assert values["skipped"] == 0


def test_pairs_are_ratios_of_sums_and_empty_bins_give_nothing() -> None:
    seeds = range(7)
    values = filled(seeds).close()
    sums, weights = (stacked(f"loss/level/{part}", seeds).sum((0, 1)) for part in ("sum", "weight"))
    expected = {
        f"loss/level_{low}": sums[k] / weights[k]
        for k, low in enumerate(("0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1"))
        if k != 3
    }
    found = {name: value for name, value in values.items() if "level" in name}
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_pair_without_bins_keeps_its_name() -> None:
    window = Window()
    window.add({"loss": np.ones(2), "x/sum": np.array([1, 2]), "x/weight": np.array([4, 2])}, DRAWN)
    assert window.close()["x"] == 0.5
    window.add({"loss": np.ones(2), "x/sum": np.zeros(2), "x/weight": np.zeros(2)}, DRAWN)
    assert "x" not in window.close()


DRAWN = [Drawn("1x32x32", range(4))] * 2


def test_a_skipped_step_is_counted_and_poisons_nothing() -> None:
    window = filled(range(3))
    metrics, drawn = step(9, skipped=1.0)
    broken = {name: np.full_like(value, np.nan) for name, value in metrics.items()}
    window.add({**broken, "skipped": np.float32(1), "learning_rate": np.float32(0.5)}, drawn)
    values, expected = window.close(), filled(range(3)).close()
    assert values == {**expected, "skipped": 1, "learning_rate": 0.5}
    window.add({**broken, "skipped": np.float32(1), "learning_rate": np.float32(0.5)}, drawn)
    assert window.close() == {"skipped": 1, "learning_rate": 0.5}


def test_closing_empties() -> None:
    window = filled(range(5))
    window.close()
    assert filled(range(5, 8), window).close() == filled(range(5, 8)).close()
    assert window.close() == {"skipped": 0}


@pytest.mark.parametrize("stopped_after", range(6))
def test_a_restart_through_json_gives_the_same_bits(stopped_after: int) -> None:
    window = Window()
    window.restore(json.loads(json.dumps(filled(range(stopped_after)).state())))
    found = filled(range(stopped_after, 6), window).close()
    assert found == filled(range(6)).close()  # exactly
    assert json.loads(json.dumps(found)) == found


def test_the_state_does_not_change_with_the_window() -> None:
    window = filled(range(2))
    state = window.state()
    before = json.dumps(state)
    filled(range(2, 4), window)
    assert json.dumps(state) == before
    other = Window()
    other.restore(state)
    filled(range(2, 4), other)
    assert json.dumps(state) == before


def test_every_micro_batch_was_drawn_from_something() -> None:
    with pytest.raises(ValueError, match="zip"):
        Window().add(step(0)[0], DRAWN[:1])
