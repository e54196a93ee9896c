"""Suites in shards: the same whatever was scored before, in memory and on disk."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.eval.clip_scores import of_values
from sora_jax.eval.examples import Example
from sora_jax.eval.store import DiskStore, packed, read_published, unpacked
from sora_jax.eval.suite import Found, Memory, Suite, collect, metrics_of, score, shards_of

RNG = np.random.default_rng(0)
SIDES = (8, 16, 8, 8, 16, 8, 8)
EXAMPLES = [
    Example(f"clip {n}", RNG.integers(0, 256, (3, side, 8, 3), np.uint8), 8.0, n)
    for n, side in enumerate(SIDES)
]


def suite(calls: list[list[int]] | None = None, settings: str = "") -> Suite:
    """Scores each clip by its mean; `calls` gets the places that are asked for."""

    def find(places: Sequence[int]) -> Found:
        if calls is not None:
            calls.append(list(places))
        videos = {place: EXAMPLES[place].video for place in places}
        means = [videos[place].mean() for place in places]
        return Found({"mean": of_values(means)}, {"place": np.array(places)}, {"true": videos})

    return Suite("means", EXAMPLES, find, lambda found: {"n": len(found.arrays["place"])}, settings)


def assert_whole(found: Found) -> None:
    np.testing.assert_array_equal(found.arrays["place"], range(7))
    means = [example.video.mean() for example in EXAMPLES]
    np.testing.assert_allclose(found.scores["mean"].values, means)
    assert sorted(found.clips["true"]) == [0, 1, 2]
    for place, clip in found.clips["true"].items():
        np.testing.assert_array_equal(clip, EXAMPLES[place].video)
    metrics = metrics_of(suite(), found)
    assert set(metrics) == {"mean", "mean/low", "mean/high", "n"}
    assert metrics["mean"] == pytest.approx(np.mean(means))


def test_shards_are_of_one_size_and_even() -> None:
    assert shards_of(EXAMPLES, 4) == [[0, 2, 3], [5, 6], [1, 4]]
    assert shards_of(EXAMPLES, 8) == [[0, 2, 3, 5, 6], [1, 4]]


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_all_clips_are_found_once_in_their_order(rows: int) -> None:
    store = Memory()
    score(suite(), rows, store, shown=3)
    assert_whole(collect(suite(), rows, store))


def test_the_last_shard_of_a_size_is_filled_up_and_counts_once() -> None:
    calls: list[list[int]] = []
    score(suite(calls), 4, Memory(), shown=3)
    assert calls == [[0, 2, 3], [5, 6, 6], [1, 4]]


def test_what_a_kill_left_is_gone_on_with(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Dying(DiskStore):
        def keep(self, suite: str, shard: int, found: Found) -> None:
            if shard == 1:
                raise Killed
            super().keep(suite, shard, found)

    with pytest.raises(Killed):
        score(suite(), 4, Dying(tmp_path, "model", [suite()]), shown=3)
    calls: list[list[int]] = []
    store = DiskStore(tmp_path, "model", [suite()])
    score(suite(calls), 4, store, shown=3)
    assert calls == [[5, 6, 6], [1, 4]]
    assert_whole(collect(suite(), 4, store))


def test_another_model_or_question_begins_anew(tmp_path: Path) -> None:
    def scored(model: str, settings: str) -> int:
        calls: list[list[int]] = []
        own = suite(calls, settings)
        score(own, 4, DiskStore(tmp_path, model, [own]), shown=3)
        return len(calls)

    assert [scored("a", ""), scored("a", ""), scored("b", ""), scored("a", "x")] == [3, 0, 3, 3]


def test_a_damaged_shard_is_scored_again(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "model", [suite()])
    score(suite(), 4, store, shown=3)
    for cut, path in enumerate(sorted(tmp_path.rglob("*.npz"))[:2]):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if cut else b"")
    assert store.finished("means", 3) == {2}
    score(suite(), 4, store, shown=3)
    assert_whole(collect(suite(), 4, store))


def test_what_is_published_is_read_with_its_question_and_prompts(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, "model", [suite()])
    score(suite(), 4, store, shown=3)
    store.publish(suite(), collect(suite(), 4, store))
    published = read_published(tmp_path / "means.npz")
    assert_whole(published.found)
    assert published.question == suite().question() != suite(settings="x").question()
    assert published.prompts == {0: "clip 0", 1: "clip 1", 2: "clip 2"}
    other = dataclasses.replace(suite(), examples=[*EXAMPLES[1:], EXAMPLES[0]])
    assert other.question() != published.question
    (tmp_path / "means.npz").write_bytes(packed(published.found))
    with pytest.raises(ConfigError, match=r"cannot read .*means\.npz .*: evaluate again"):
        read_published(tmp_path / "means.npz")


def test_what_was_found_survives_packing() -> None:
    found = suite().find(range(7))
    back = unpacked(packed(found))
    np.testing.assert_array_equal(back.scores["mean"].values, found.scores["mean"].values)
    assert back.clips["true"].keys() == found.clips["true"].keys()
    assert not unpacked(packed(Found())).scores
