"""Tasks as suites: samplers that know the answer, stand still or err in one way are told apart."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import ConfigError
from sora_jax.eval import mode_suites
from sora_jax.eval.choice import chosen_suites
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.eval.material import set_material, world_material
from sora_jax.eval.mode_suites import Mode
from sora_jax.eval.mode_tables import BARS, COLUMNS, SECTIONS, mode_table
from sora_jax.eval.modes.cases import LONGER, Case, sizes
from sora_jax.eval.reconstruction import resized
from sora_jax.eval.suite import Memory, collect, metrics_of, score
from sora_jax.eval.world_state import frozen
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.long import LongRequest
from sora_jax.sample.requests import Request, Sample
from sora_jax.world.scene import WorldConfig
from tests.tiny_models import tiny_sampler

BUCKETS = (Bucket(1, 32, 32), Bucket(17, 32, 32), Bucket(17, 24, 40), Bucket(17, 40, 24))
WORLD = WorldConfig(max_objects=4, shapes=("circle", "square"), sizes=("large",), free_time=0.75)
SEED = 1_000_000
Rule = Callable[[Case, int], np.ndarray]  # of a case and the number of its request


class Oracle:
    """A sampler that makes of a case what a rule says."""

    def __init__(self, sampler: Sampler, mode: Mode, rule: Rule):
        self.models, self._rule = sampler.models, rule
        self._asked = {
            id(request): (case, number)
            for case in mode.cases
            for number, request in enumerate(case.requests)
        }

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        made = [self._rule(*self._asked[id(request)]) for request in requests]
        return [Sample(*each, False) for each in zip(requests, made, strict=True)]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return tiny_sampler(("a red circle",), SamplingConfig(steps=2), TimesConfig())


@pytest.fixture(scope="module")
def modes() -> dict[str, Mode]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mode_suites, "TRAINING", 32)
        made = mode_suites.modes(WORLD, BUCKETS, 8.0, 4, 8, 4, SEED)
    return {mode.name: mode for mode in made}


@pytest.fixture(autouse=True)
def slightly_lossy_autoencoder_and_whole_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of about 38 dB, so that measures have a scale; oracles make long clips at once."""

    def lossy(vae: object, videos: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(map(grained, videos))

    def at_once(oracle: Oracle, asked: LongRequest) -> list[np.ndarray]:
        return [oracle.generate([asked.first])[0].video[: asked.frames]]

    monkeypatch.setattr(mode_suites, "reconstruct", lossy)
    monkeypatch.setattr(mode_suites, "frames_of", at_once)


def grained(video: np.ndarray, levels: float = 3.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, levels, video.shape)
    return np.clip(np.round(video + noise), 0, 255).astype(np.uint8)


def found(sampler: Sampler, mode: Mode, rule: Rule) -> dict[str, float]:
    """The metrics of a task without its prefix."""
    suite = mode_suites.mode_suites(Oracle(sampler, mode, rule), [mode])[0]  # type: ignore[arg-type]
    store = Memory()
    score(suite, 4, store, shown=1)
    metrics = metrics_of(suite, collect(suite, 4, store))
    return {name.removeprefix(f"modes/{mode.name}/"): value for name, value in metrics.items()}


def truth(case: Case, number: int) -> np.ndarray:
    return grained(case.truth)


def met(mode: Mode, metrics: dict[str, float]) -> list[bool]:
    return [bar.is_met(metrics[bar.metric]) for bar in BARS[mode.name]]


def blended(case: Case, number: int) -> np.ndarray:
    """What a right editor makes at each strength: ever less of the source."""
    share = number / (len(case.requests) - 1)
    mixed = (1 - share) * grained(case.reference) + share * case.truth
    return np.round(mixed).astype(np.uint8)


def starting_elsewhere(case: Case, number: int) -> np.ndarray:
    return np.roll(case.truth, 3 * number, axis=2)


@pytest.mark.parametrize("name", BARS)
def test_the_truth_meets_every_bar(sampler: Sampler, modes: dict[str, Mode], name: str) -> None:
    rules = {"strengths": blended, "backward_samples": starting_elsewhere}
    metrics = found(sampler, modes[name], rules.get(name, truth))
    assert all(met(modes[name], metrics)), metrics
    if modes[name].bounds:
        for bar in BARS[name]:
            plain = bar.metric.removesuffix("/over_ceiling").removesuffix("/over_usual")
            assert metrics[plain] == pytest.approx(metrics[f"truth_vae/{plain}"], abs=1e-6)
            assert {f"{column}{plain}" for column in COLUMNS if column != "source/"} <= set(metrics)


@pytest.mark.parametrize("name", [*sorted(BARS.keys() - {"long_rolling"}), "sizes"])
def test_a_frozen_frame_and_another_scene_fail(
    sampler: Sampler, modes: dict[str, Mode], name: str
) -> None:
    mode = modes[name]

    def still(case: Case, number: int) -> np.ndarray:
        return frozen(case.truth)

    def another(case: Case, number: int) -> np.ndarray:
        return mode_suites._next(mode.cases, mode.cases.index(case)).truth

    for rule, column in ((still, "frozen/"), (another, "another_scene/")):
        metrics = found(sampler, mode, rule)
        if name == "sizes":
            assert metrics["32x32/accuracy"] < 0.8
            assert metrics["32x32/accuracy"] == metrics[f"{column}32x32/accuracy"]
            continue
        # Inside a box a frozen frame is as good as any: nothing that moves is given there.
        assert not all(met(mode, metrics)) or (name, column) == ("edit_box", "frozen/")
        if mode.bounds:
            assert all(
                metrics[bar.metric] == metrics[f"{column}{bar.metric}"]
                for bar in BARS[name]
                if "/over_" not in bar.metric
            )


def late(case: Case, number: int) -> np.ndarray:
    """From the last given frame on at half the speed."""
    last = case.given[-1]
    index = [n if n <= last else last + (n - last) // 2 for n in range(len(case.truth))]
    return np.asarray(case.truth[index])


def off_first(case: Case, number: int) -> np.ndarray:
    """Beginning elsewhere, and arriving by a leap."""
    video = case.truth.copy()
    video[:8] = np.roll(video[:8], 8, axis=1)
    return video


def off_middle(case: Case, number: int) -> np.ndarray:
    video = case.truth.copy()
    video[8] = np.roll(video[8], 16, axis=2)
    return video


def empty_middle(case: Case, number: int) -> np.ndarray:
    video = case.truth.copy()
    video[6:11] = 30
    return video


def twice(case: Case, number: int) -> np.ndarray:
    video = case.truth.copy()
    video[-4:] = video[:4]
    video[-1] = case.truth[-1]
    return video


def open_end(case: Case, number: int) -> np.ndarray:
    """A loop that moves on at the end of its own part, and is reset."""
    video = case.truth.copy()
    video[8:12] = np.roll(video[8:12], 10, axis=1)
    return video


def to_and_fro(case: Case, number: int) -> np.ndarray:
    """To the seam by the way that left it: in place, but against its velocity."""
    phase = np.arange(len(case.truth)) % 12
    return np.asarray(case.truth[np.minimum(phase, 12 - phase)])


def twice_as_fast(case: Case, number: int) -> np.ndarray:
    """Two rounds in place of one."""
    half = case.truth[:12:2]
    return np.concatenate([half, half, half])[: len(case.truth)]


def flashing(case: Case, number: int) -> np.ndarray:
    video = case.truth.astype(int)
    video[1:] += 6
    return np.clip(video, 0, 255).astype(np.uint8)


def backwards(case: Case, number: int) -> np.ndarray:
    return case.truth[::-1]


def edited(case: Case, number: int) -> np.ndarray:
    assert case.source is not None
    return case.source


def shifted(case: Case, number: int) -> np.ndarray:
    return np.roll(case.truth, 10, axis=2)


def outside_off(case: Case, number: int) -> np.ndarray:
    assert case.box is not None
    top, bottom, left, right = case.box
    video = grained(case.truth, 12.0)
    video[:, top:bottom, left:right] = case.truth[:, top:bottom, left:right]
    return video


def last_off(case: Case, number: int) -> np.ndarray:
    video = case.truth.copy()
    video[-1] = video[-4]
    return video


def grey(case: Case, number: int) -> np.ndarray:
    """The body in no colour of the palette."""
    return np.repeat(case.truth.mean(-1, keepdims=True), 3, axis=-1).astype(np.uint8)


def fading(case: Case, number: int) -> np.ndarray:
    """Ever less of the scene, from the end of a clip of training on."""
    video, clip = case.truth.copy(), len(case.truth) // LONGER[-1]
    for n in range(clip, len(video)):
        video[n] = 30 + (video[n].astype(int) - 30) * max(0, 2 * clip - n) // clip
    return video


MUTANTS: list[tuple[str, Rule, str]] = [
    ("animate", flashing, "colour_step/over_usual"),
    ("animate", backwards, "direction"),
    ("animate", backwards, "first_frame_loss_db"),
    ("extend", late, "trajectory_error/over_ceiling"),
    ("extend", flashing, "given_loss_db"),
    ("extend_backward", off_first, "arrival_error/over_ceiling"),
    ("extend_backward", last_off, "end_loss_db"),
    ("backward_samples", truth, "starts_differ"),
    *((name, off_middle, "jumps") for name in ("extend_backward", "connect", "interpolate")),
    ("connect", empty_middle, "valid_middle"),
    ("connect", last_off, "end_loss_db"),
    ("connect", backwards, "start_loss_db"),
    ("turn_into", twice, "changes_once"),
    ("turn_into", backwards, "changes_once"),
    ("loop", open_end, "position_seam"),
    ("loop", to_and_fro, "velocity_seam"),
    ("loop", twice_as_fast, "period"),
    ("loop", last_off, "end_loss_db"),
    ("edit", edited, "attribute"),
    ("edit", shifted, "path_error"),
    ("strengths", truth, "unchanged_loss_db"),
    ("strengths", truth, "monotone"),
    ("edit_box", edited, "inside_changed"),
    ("edit_box", edited, "attribute"),
    ("edit_box", outside_off, "outside_loss_db"),
    ("interpolate", last_off, "key_loss_db"),
    ("interpolate", empty_middle, "valid_between"),
    ("remember", grey, "colour"),
    ("remember", grey, "shape"),
    ("remember", empty_middle, "count"),
    *(
        ("long", rule, f"{times}x/{metric}")
        for times, rule in {1: grey, 2: fading, 4: fading, 8: fading}.items()
        for metric in ("colour", "count")
    ),
]


@pytest.mark.parametrize(("name", "rule", "metric"), MUTANTS)
def test_an_error_of_one_kind_is_seen_by_its_measure(
    sampler: Sampler, modes: dict[str, Mode], name: str, rule: Rule, metric: str
) -> None:
    mode = modes[name]
    if "/over_" not in metric:  # columns are asked for by ratios alone
        mode = dataclasses.replace(mode, bounds=False, derived=lambda means: {})
    metrics = found(sampler, mode, rule)
    bar = next(bar for bar in BARS[name] if bar.metric == metric)
    assert not bar.is_met(metrics[metric]), metrics[metric]


def test_every_bar_can_be_missed() -> None:
    missed = {(name, metric) for name, _, metric in MUTANTS}
    wanted = {
        (name.removesuffix("_rolling"), bar.metric) for name, bars in BARS.items() for bar in bars
    }
    # A frozen frame is what stands still, above.
    assert {each for each in wanted - missed if not each[1].endswith("still")} == set()


def test_circles_and_accuracies_are_of_each_size(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mode_suites, "TRAINING", 2)
    world = dataclasses.replace(WORLD, shapes=("circle",))
    mode = mode_suites.modes(world, BUCKETS, 8.0, 4, 8, 2, SEED)[-1]

    def stretched(case: Case, number: int) -> np.ndarray:
        """A larger picture a sixth too wide, cut to size."""
        if case.view.height != 48:
            return truth(case, number)
        frames, height, width = case.truth.shape[:3]
        wide = resized(case.truth.astype(float), (frames, height, width * 7 // 6))
        return np.round(wide[:, :, :width]).astype(np.uint8)

    whole, wide = (found(sampler, mode, rule) for rule in (truth, stretched))
    assert whole["48x48/round"] == whole["24x48/round"] == 1
    assert whole["48x48/accuracy/behind"] == 0
    assert wide["48x48/round"] < 0.5
    assert wide["24x48/round"] == 1
    rows = {
        row[0]: row for row in mode_table({f"modes/sizes/{k}": v for k, v in wide.items()}).rows
    }
    assert rows["sizes/48x48: circles round within 5 %"][3] == "missed"
    expected = ("at least 0.9", "1 (1 to 1)", "met")
    assert rows["sizes/24x48: circles round within 5 %"][1:4] == expected


def test_sizes_beyond_the_trained_ones_and_lengths(modes: dict[str, Mode]) -> None:
    assert all("swings" in case.requests[0].prompt for case in modes["loop"].cases)
    assert {len(case.truth) % 4 for mode in modes.values() for case in mode.cases} == {1}
    assert sizes([(32, 32), (24, 40), (40, 24)], 8) == ((24, 48), (48, 24), (32, 40), (48, 48))
    assert sizes([(32, 32), (24, 40), (40, 24), (24, 48)], 8)[:2] == ((48, 24), (32, 40))
    assert sizes([(64, 64)], 16) == ((48, 80), (80, 48), (48, 96), (96, 96))


def test_a_table_has_what_is_wanted_beside_what_is_measured(
    sampler: Sampler, modes: dict[str, Mode]
) -> None:
    metrics = {f"modes/edit/{k}": v for k, v in found(sampler, modes["edit"], edited).items()}
    table = mode_table(metrics)
    assert table.title == "Every task, 1 of 2 as wanted"
    attribute, path = table.rows
    assert attribute[:4] == (
        "edit: colour as it was asked for",
        "at least 0.9",
        "0 (0 to 0)",
        "missed",
    )
    assert attribute[4:6] == ("1", "1")
    assert attribute[-1] == "0"
    assert path[3] == "met"
    assert set(SECTIONS) == {f"modes_{name}" for name in modes}
    assert mode_table({}).rows == ()


def test_requests_are_such_as_the_sampler_takes(sampler: Sampler, modes: dict[str, Mode]) -> None:
    every = [request for mode in modes.values() for case in mode.cases for request in case.requests]
    programs = {sampler.size_of(request) for request in every}
    assert len(programs) < 20
    mode = modes["interpolate"]
    suite = mode_suites.mode_suites(sampler, [mode])[0]
    clips: Any = suite.find([0, 1]).clips
    assert clips["generated"][0].shape == (1, 2 * 36, 9 * 36, 3)


def test_the_suite_is_asked_for_by_name(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_suites, "TRAINING", 2)
    config = EvaluationConfig(prompts=2, images=2, animations=2)
    world = dataclasses.replace(WORLD, max_objects=2)
    scenes = world_material(sampler, config, world, BUCKETS, 8.0)
    assert {suite.name for suite in chosen_suites(("modes",), scenes)} == set(SECTIONS)
    assert not any(suite.name in SECTIONS for suite in chosen_suites((), scenes))
    with pytest.raises(ConfigError, match="suite modes has nothing to score on these clips"):
        chosen_suites(("modes",), set_material(sampler, config, scenes.videos))


@pytest.mark.parametrize(
    ("world", "frames", "sentence"),
    [
        (WorldConfig(motions=("still",)), 17, "world.motions is ('still',)"),
        (WorldConfig(max_objects=1, colours=("red",)), 17, "a colour more than there are bodies"),
        (WORLD, 9, "the longest of data.buckets has 9: more than 10 are needed"),
    ],
)
def test_a_world_that_does_not_allow_it_is_one_sentence(
    world: WorldConfig, frames: int, sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        mode_suites.modes(world, [Bucket(frames, 32, 32)], 8.0, 4, 8, 2, SEED)
    assert sentence in str(error.value)
