"""Worlds as suites: samplers that know the answer, or copy the first frame, are told apart."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import ConfigError
from sora_jax.eval import world_suites
from sora_jax.eval.suite import Memory, Suite, collect, metrics_of, score
from sora_jax.eval.world_state import frozen
from sora_jax.eval.world_tables import world_tables
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.requests import Request, Sample
from sora_jax.world.worlds import WORLDS
from tests.tiny_models import tiny_sampler

BUCKET, COUNT, SEED = Bucket(17, 32, 32), 6, 1_000_000


class Oracle:
    """A sampler that makes of the true clip of a first frame and caption what a rule says."""

    def __init__(self, sampler: Sampler, rule: Callable[[np.ndarray], np.ndarray]):
        self.models, self._rule = sampler.models, rule
        self.truths: dict[tuple[str, bytes], np.ndarray] = {}

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        made = []
        for request in requests:
            assert request.given is not None
            assert len(request.given) == 1
            truth = self.truths[request.prompt, request.given.tobytes()]
            made.append(Sample(request, self._rule(truth), False))
        return made


@pytest.fixture(autouse=True)
def few_training_clips_and_a_perfect_autoencoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_suites, "TRAINING", 12)
    monkeypatch.setattr(world_suites, "reconstruct", lambda vae, videos: list(videos))


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return tiny_sampler(("a red ball",), SamplingConfig(steps=2), TimesConfig())


def metrics(
    sampler: Sampler, world: str, rule: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Of all suites of a world."""
    oracle, found = Oracle(sampler, rule), {}
    suites = world_suites.world_suites(oracle, [world], BUCKET, 16.0, COUNT, SEED)
    for suite in suites:
        _learn(oracle, suite)
        store = Memory()
        score(suite, 4, store, shown=2)
        found |= metrics_of(suite, collect(suite, 4, store))
    return found


def _learn(oracle: Oracle, suite: Suite) -> None:
    for example in suite.examples:
        oracle.truths[example.prompt, example.video[:1].tobytes()] = example.video
    if suite.name == "world_painter_pairs":
        painter = WORLDS["painter"]
        for place in range(COUNT):
            truth = painter.clip(SEED + place, "train", 17, 32).truth
            rival = world_suites.counterfactual(truth, place, "train")
            video = painter.render(rival, 32)
            oracle.truths[painter.caption(rival), video[:1].tobytes()] = video


@pytest.mark.parametrize("world", WORLDS)
def test_the_truth_is_at_the_top_and_a_frozen_frame_at_the_bottom(
    sampler: Sampler, world: str
) -> None:
    truth = metrics(sampler, world, lambda video: video)
    still = metrics(sampler, world, frozen)
    parts = [f"world/{world}/", f"world/{world}/held_out/"]
    for part in parts:
        assert truth[f"{part}composite/scaled"] == 1
        assert truth[f"{part}composite"] >= 0.85
        assert still[f"{part}composite/scaled"] == 0
        assert still[f"{part}composite"] <= 0.05
        assert truth[f"{part}truth/composite"] == truth[f"{part}truth_vae/composite"]
        assert max(truth[f"{part}{column}/composite"] for column in ("frozen", "noise")) <= 0.05
        assert f"{part}nearest_train/composite/scaled" in truth
    cells = [name for name in truth if name.startswith(f"world/{world}/ood/")]
    assert len([name for name in cells if name.endswith("size1.0/composite")]) == 2
    assert np.mean([truth[name] for name in cells if name.endswith("0/composite")]) > 0.8
    assert ("world/painter/pairs/counterfactual_error" in truth) == (world == "painter")
    if world == "painter":
        assert truth["world/painter/pairs/composite"] > 0.9
        assert still["world/painter/pairs/composite"] == 0


def test_tables_show_the_model_beside_its_bounds(sampler: Sampler) -> None:
    scores, held_out, pairs, grid = world_tables(metrics(sampler, "painter", lambda video: video))
    assert scores.title == "A square that paints as it is told: unseen clips"
    assert scores.header[1:4] == ("model", "scaled", "coverage")
    assert scores.header[-2:] == ("first frame frozen", "noise")
    assert scores.rows[0][:3] == ("composite", "1.00 (1.00 to 1.00)", "1")
    assert scores.rows[0][-2:] == ("0.00", "0.00")
    assert {"mark recall", "copied"} <= {row[0] for row in scores.rows}
    assert [row[0] for row in grid.rows] == ["speed x 0.8", "speed x 1.0", "speed x 1.5"]
    assert grid.rows[1][2] == "trained on"
    assert held_out.rows[0][0] == "composite"
    assert "counterfactual error" in {row[0] for row in pairs.rows}


def test_a_model_that_recalls_training_is_told(sampler: Sampler) -> None:
    known = WORLDS["pan"].clip(3, "train", 17, 32).video
    recalled = metrics(sampler, "pan", lambda video: known)
    assert recalled["world/pan/copied"] == 1
    truth = metrics(sampler, "pan", lambda video: video)
    assert 0 <= truth["world/pan/copied"] < 1


def test_frames_must_be_square(sampler: Sampler) -> None:
    with pytest.raises(ConfigError, match="17x32x40 is not: give a square bucket"):
        world_suites.world_suites(sampler, ["pan"], Bucket(17, 32, 40), 16.0, 2, 0)
