"""Copies of training clips are found as such, and clips of nobody's are near to neither set."""

import numpy as np
import pytest

from sora_jax.eval.worlds.memorisation import memorisation, nearest
from sora_jax.world.worlds import WORLDS
from tests.violations import coded

PAN = WORLDS["pan"]


def clips(first: int, count: int = 40) -> list[np.ndarray]:
    return [PAN.clip(first + seed, "train", 13, 16, 8.0).video for seed in range(count)]


def test_the_nearest_is_that_of_a_search_in_float64() -> None:
    some, others = clips(0, 12), clips(100, 70)
    found = nearest(some, iter(others))
    for index, clip in enumerate(some):
        off = [np.sqrt(((clip / 255.0 - other / 255.0) ** 2).mean()) for other in others]
        assert found.index[index] == np.argmin(off)
        assert found.distance[index] == pytest.approx(min(off), rel=1e-5)


def test_a_copy_is_at_no_distance() -> None:
    others = clips(100)
    found = nearest([others[37]], others)
    assert found.index.tolist() == [37]
    assert found.distance.tolist() == [0.0]


def test_copies_lie_nearer_to_training_and_new_clips_do_not() -> None:
    training, unseen = clips(0), clips(1000)
    rng = np.random.default_rng(0)
    copies = memorisation([coded(clip, rng) for clip in training[:20]], training, unseen)
    assert copies.copied == 1
    assert copies.to_training.mean() < 0.5 * copies.to_unseen.mean()
    new = memorisation(clips(2000), training, unseen)
    assert 0.25 < new.copied < 0.75


def test_sets_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="2 training clips beside 3 unseen ones"):
        memorisation(clips(0, 1), clips(0, 2), clips(5, 3))
    with pytest.raises(ValueError, match="the nearest of no clips"):
        nearest(clips(0, 1), [])
