"""Tables of scores: undefined is failure, baselines are 0, truth through the autoencoder is 1."""

import math

import numpy as np
import pytest

from sora_jax.eval.world_state import frozen
from sora_jax.eval.worlds.measure import Measure
from sora_jax.eval.worlds.memorisation import nearest
from sora_jax.eval.worlds.table import (
    COMPOSITE,
    Column,
    Entry,
    Scores,
    collect,
    measure,
    score_columns,
    tabulate,
)
from sora_jax.world.splits import ood_grid
from sora_jax.world.worlds import WORLDS, WorldClips
from tests.violations import coded, noise

CLIPS = 12


def test_scores_fall_evenly_to_the_worst_and_beyond_the_ideal_too() -> None:
    assert Measure(1.2, 1.2, 0.0).score == 1
    assert Measure(0.6, 1.2, 0.0).score == pytest.approx(0.5)
    assert Measure(1.8, 1.2, 0.0).score == pytest.approx(0.5)
    assert Measure(-1.0, 1.2, 0.0).score == 0
    assert Measure(0.05, 0.0, 0.1, gate=0.5).score == pytest.approx(0.25)


def test_what_is_undefined_scores_nothing() -> None:
    lost = Measure(math.nan, 1.0, 0.0)
    assert not lost.defined
    assert lost.score == 0


def column(values: list[float], worst: float = 0.0) -> Scores:
    return collect([{"a": Measure(value, 1.0, worst)} for value in values])


def entry_of(entries: list[Entry], metric: str, name: Column) -> Entry:
    (entry,) = [each for each in entries if each.metric == metric and each.column == name]
    return entry


def test_the_scale_runs_from_the_better_baseline_to_the_ceiling() -> None:
    columns: dict[Column, Scores] = {
        "truth": column([1.0, 1.0]),
        "truth_vae": column([0.8, 1.0]),
        "frozen": column([0.1, 0.1]),
        "noise": column([0.2, 0.2]),
        "model": column([0.5, 0.6]),
    }
    entries = tabulate(columns)
    model = entry_of(entries, "a", "model")
    assert model.score == pytest.approx(0.55)
    assert model.median == pytest.approx(0.55)
    assert model.scaled == pytest.approx((0.55 - 0.2) / (0.9 - 0.2))
    assert entry_of(entries, "a", "truth_vae").scaled == 1
    assert entry_of(entries, "a", "truth").scaled == 1  # cut
    assert entry_of(entries, "a", "noise").scaled == 0
    assert entry_of(entries, "a", "frozen").scaled == 0


def test_undefined_counts_as_failure_and_is_told() -> None:
    columns: dict[Column, Scores] = {
        name: column([1.0, 1.0, math.nan, math.nan] if name == "model" else [1.0] * 4)
        for name in ("truth", "truth_vae", "model")
    }
    columns["frozen"] = columns["noise"] = column([math.nan] * 4)
    model = entry_of(tabulate(columns), "a", "model")
    assert model.score == 0.5
    assert model.coverage == 0.5
    assert model.median == 1
    nothing = entry_of(tabulate(columns), "a", "noise")
    assert (nothing.score, nothing.coverage) == (0, 0)
    assert math.isnan(nothing.median)


def test_a_metric_counts_only_where_it_was_asked() -> None:
    clips = [
        {"a": Measure(1.0, 1.0, 0.0)},
        {"a": Measure(0.0, 1.0, 0.0), "b": Measure(1.0, 1.0, 0.0)},
    ]
    scores = collect(clips)
    assert scores.metrics == ("a", "b", COMPOSITE)
    np.testing.assert_array_equal(scores.asked, [[True, False, True], [True, True, True]])
    np.testing.assert_allclose(scores.scores[:, -1], [1.0, 0.5])


def test_motion_is_a_gate_and_no_part_of_the_composite() -> None:
    clip = {"moved": Measure(1.0, 1.0, 0.0), "a": Measure(0.5, 1.0, 0.0)}
    assert collect([clip]).scores[0, -1] == 0.5


def test_a_clip_of_another_kind_than_its_truth_is_refused() -> None:
    clip = WORLDS["pan"].clip(0, "train", 17, 32, 8.0)
    for video in (clip.video[:-1], clip.video[:, :-1], clip.video / 255):
        with pytest.raises(ValueError, match=r"pan: a .* clip of shape .*: give uint8 \[17, h, h"):
            measure("pan", video, clip.truth)


@pytest.mark.parametrize("name", list(WORLDS))
def test_blank_and_broken_clips_score_nothing_and_break_nothing(name: str) -> None:
    clip = WORLDS[name].clip(0, "train", 17, 32, 8.0)
    for blank in (np.zeros_like(clip.video), np.full_like(clip.video, 255), clip.video // 4):
        assert collect([measure(name, blank, clip.truth)]).scores[0, -1] == 0
    late = clip.video.copy()
    late[:1] = noise(late[:1], np.random.default_rng(0))
    scores = collect([measure(name, late, clip.truth)]).scores
    assert np.nanmax(scores) <= 1
    assert np.nanmin(scores) >= 0


def test_intervals_cover_the_mean_as_normal_theory_has_it() -> None:
    values = np.random.default_rng(0).uniform(0.2, 0.8, 200)
    full = {"truth": column([1.0] * 200), "truth_vae": column([1.0] * 200)}
    empty = {"frozen": column([0.0] * 200), "noise": column([0.0] * 200)}
    model = entry_of(tabulate({**full, **empty, "model": column(list(values))}), "a", "model")
    half = 1.96 * values.std() / math.sqrt(200)
    low, high = model.score_interval
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert model.scaled_interval == pytest.approx(model.score_interval)


def test_a_scale_without_room_is_told_as_nan() -> None:
    columns: dict[Column, Scores] = {name: column([0.5]) for name in ("truth", "truth_vae")}
    columns |= {"frozen": column([0.5]), "noise": column([0.0])}
    assert math.isnan(entry_of(tabulate(columns), "a", "truth").scaled)


def test_columns_of_other_clips_are_refused() -> None:
    columns: dict[Column, Scores] = {
        name: column([1.0]) for name in ("truth", "truth_vae", "frozen", "noise")
    }
    with pytest.raises(ValueError, match="the column model is not of the same clips"):
        tabulate({**columns, "model": column([1.0, 1.0])})
    with pytest.raises(ValueError, match="without frozen"):
        tabulate({name: scores for name, scores in columns.items() if name != "frozen"})
    with pytest.raises(ValueError, match="a table of no clips"):
        collect([])


@pytest.mark.parametrize("name", list(WORLDS))
def test_a_model_that_copies_the_first_frame_scores_nothing(name: str) -> None:
    clips = [WORLDS[name].clip(seed, "train", 17, 32, 16.0) for seed in range(CLIPS)]
    trained = [WORLDS[name].clip(seed, "train", 17, 32, 16.0).video for seed in range(100, 150)]
    remembered = nearest([clip.video for clip in clips], trained)
    rng = np.random.default_rng(0)
    true = [clip.video for clip in clips]
    videos: dict[Column, list[np.ndarray]] = {
        "truth": true,
        "truth_vae": [coded(video, rng) for video in true],
        "nearest_train": [trained[index] for index in remembered.index],
        "model": [coded(frozen(video), rng) for video in true],
    }
    entries = tabulate(score_columns(name, [clip.truth for clip in clips], videos))
    for metric in {entry.metric for entry in entries}:
        assert entry_of(entries, metric, "model").score <= 0.05
        assert entry_of(entries, metric, "frozen").score <= 1e-9
        assert entry_of(entries, metric, "noise").score == 0
    assert entry_of(entries, COMPOSITE, "model").scaled <= 0.05
    assert entry_of(entries, COMPOSITE, "truth").score >= 0.95
    recalled = entry_of(entries, "caption_facts", "nearest_train")
    assert 0 < recalled.score < entry_of(entries, "caption_facts", "truth").score


@pytest.mark.parametrize("name", list(WORLDS))
def test_the_truth_is_right_in_every_cell_and_split(name: str) -> None:
    sources = [
        WorldClips(WORLDS[name], "train", range(4), 17, 32, 16.0, cell) for cell in ood_grid()
    ]
    sources.append(WorldClips(WORLDS[name], "held_out", range(4), 17, 32, 16.0))
    for source in sources:
        scores = collect([measure(name, clip.video, clip.truth) for clip in source])
        assert scores.scores[:, -1].mean() >= 0.95, source.cell
