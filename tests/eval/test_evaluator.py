"""A whole evaluation with untrained networks and with samplers that know the answer."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import ConfigError, UserError
from sora_jax.eval import backbone, readers, suites
from sora_jax.eval.choice import chosen_suites
from sora_jax.eval.distribution import frechet_of_features
from sora_jax.eval.evaluator import Evaluation, EvaluationConfig, evaluate, evaluation_of
from sora_jax.eval.examples import Example, world_examples
from sora_jax.eval.material import Material, Networks, set_material, world_material
from sora_jax.eval.suite import Memory, Suite, metrics_of
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.requests import Request, Sample
from sora_jax.world.scene import WorldConfig
from tests.tiny_backbone import TINY, by_hand, of_pictures
from tests.tiny_models import tiny_sampler

WORLD = WorldConfig(max_objects=2, motions=("constant",))
VIDEO, IMAGE = Bucket(9, 32, 32), Bucket(1, 32, 32)
CONFIG = EvaluationConfig(prompts=4, images=3, animations=2, shown=2, seed=7_000)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return tiny_sampler(
        ("a small red circle moves left fast",), SamplingConfig(steps=2), TimesConfig()
    )


class Oracle:
    """A sampler that makes clips by a rule from the true ones."""

    def __init__(
        self,
        sampler: Sampler,
        examples: Sequence[Example],
        rule: Callable[[np.ndarray], np.ndarray] = lambda video: video,
    ):
        self.models, self.times = sampler.models, sampler.times
        self.asked: list[Request] = []
        self.clips = {example.seed: rule(example.video) for example in examples}

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        self.asked += requests
        return [Sample(request, self.clips[request.seed], False) for request in requests]


def evaluated(material: Material, rows: int = 16) -> Evaluation:
    """By all suites that its clips allow."""
    chosen, store = chosen_suites((), material), Memory()
    evaluate(chosen, CONFIG, rows, store)
    return evaluation_of(chosen, CONFIG, rows, store)


def metrics(suite: Suite) -> dict[str, float]:
    return metrics_of(suite, suite.find(range(len(suite.examples))))


def captions(sampler: Sampler, examples: Sequence[Example]) -> Suite:
    """Videos from captions, whose facts are read."""
    ways = {"text": readers.facts(sampler.models.vae, examples)}
    return suites.generation("text_to_video", sampler, examples, ways)


def test_every_score_is_there_and_is_a_number(sampler: Sampler) -> None:
    buckets = (IMAGE, Bucket(5, 32, 32), VIDEO)
    evaluation = evaluated(world_material(sampler, CONFIG, WORLD, buckets, 8.0))
    asked = {
        "vae/psnr_db",
        "vae/ssim",
        "vae/psnr_baseline_db",
        "vae/ssim_baseline",
        "held_out/loss",
        "held_out/loss/standard_error",
        "held_out/loss/9x32x32",
        "held_out/loss/level_0.4-0.6",
        "animate/first_frame_psnr_db",
        "animate/first_frame_psnr_ceiling_db",
        "animate/colour_jump",
        "animate/still_fraction",
        *(f"text_to_image/{score}_accuracy" for score in ("colour", "shape", "count")),
    }
    for column in ("", "floor_shuffled/", "ceiling_vae/", "static/", "ground_truth/"):
        for name in ("colour", "shape", "count", "direction", "speed"):
            asked.add(f"text_to_video/{column}{name}_accuracy")
        asked.add(f"text_to_video/{column}coverage")
    assert asked <= evaluation.metrics.keys()
    assert all(math.isfinite(value) for value in evaluation.metrics.values())
    assert {name: len(lines) for name, lines in evaluation.exhibits.items()} == dict.fromkeys(
        ("reconstruction", "text_to_video", "text_to_image", "animate"), 2
    )


def test_an_oracle_reaches_the_ground_truth(sampler: Sampler) -> None:
    examples = world_examples(WORLD, [VIDEO], 8.0, 8, first_seed=7_000)
    found = metrics(captions(Oracle(sampler, examples), examples))
    for name in ("colour", "shape", "count", "direction", "speed"):
        value = found[f"text_to_video/{name}_accuracy"]
        assert value == found[f"text_to_video/ground_truth/{name}_accuracy"] >= 0.95
        assert value > found[f"text_to_video/floor_shuffled/{name}_accuracy"] + 0.2
    assert found["text_to_video/static/direction_accuracy"] == 0
    assert found["text_to_video/static/colour_accuracy"] >= 0.95
    moving = metrics(suites.animation(Oracle(sampler, examples), examples))
    assert moving["animate/still_fraction"] == 0
    assert moving["animate/colour_jump"] == 0
    assert moving["animate/first_frame_psnr_db"] > 58


def test_a_model_that_copies_the_first_frame_is_found_out(sampler: Sampler) -> None:
    examples = world_examples(WORLD, [VIDEO], 8.0, 8, first_seed=7_000)
    copier = Oracle(sampler, examples, lambda video: np.repeat(video[:1], len(video), 0))
    found = metrics(captions(copier, examples))
    assert found["text_to_video/direction_accuracy"] == 0
    assert metrics(suites.animation(copier, examples))["animate/still_fraction"] == 1


def test_the_given_first_frame_comes_out_as_the_autoencoder_has_it(sampler: Sampler) -> None:
    examples = world_examples(WORLD, [VIDEO], 8.0, 3, first_seed=7_000)
    found = metrics(suites.animation(sampler, examples))
    assert found["animate/first_frame_psnr_db"] == pytest.approx(
        found["animate/first_frame_psnr_ceiling_db"], abs=0.01
    )


def test_nearest_is_among_clips_of_the_same_size_and_blind_to_the_given_frame() -> None:
    truths = [example.video for example in world_examples(WORLD, [VIDEO], 8.0, 4, 7_000)]
    truths += [example.video for example in world_examples(WORLD, [Bucket(9, 24, 40)], 8.0, 2, 0)]
    perfect = suites.nearest_scores(truths, range(len(truths)), truths)
    assert perfect["nearest/accuracy"].mean() == 1
    assert perfect["nearest/psnr_db"].mean() > 58
    assert perfect["nearest/candidates"].mean() == pytest.approx((4 * 4 + 2 * 2) / 6)
    # The first frame is right and the rest is that of another clip.
    swapped = [np.concatenate([truths[n][:1], truths[1 - n][1:]]) for n in (0, 1)]
    assert suites.nearest_scores(swapped, (0, 1), truths)["nearest/accuracy"].mean() == 0


def test_clips_of_a_set_are_scored_without_knowing_what_they_show(sampler: Sampler) -> None:
    videos = world_examples(WORLD, [Bucket(5, 32, 32)], 8.0, 3, 0)
    pictures = world_examples(WORLD, [IMAGE], 8.0, 2, 50)
    examples = [dataclasses.replace(example, facts=()) for example in [*videos, *pictures]]
    found = evaluated(set_material(sampler, CONFIG, examples)).metrics
    assert {name.partition("/")[0] for name in found} == {"vae", "held_out", "animate", "nearest"}
    only_images = evaluated(set_material(sampler, CONFIG, examples[3:])).metrics
    assert {name.partition("/")[0] for name in only_images} == {"vae", "held_out"}


def test_a_run_without_videos_is_refused_in_a_sentence(sampler: Sampler) -> None:
    with pytest.raises(ConfigError, match="has no video"):
        world_material(sampler, CONFIG, WORLD, (IMAGE,), 8.0)


def test_clips_are_made_once_and_read_in_every_way(sampler: Sampler) -> None:
    examples = world_examples(WORLD, [VIDEO], 8.0, 3, 7_000)
    oracle = Oracle(sampler, examples)
    material = Material(oracle, CONFIG, examples, [], True)
    store, chosen = Memory(), chosen_suites(("vbench", "loss", "text"), material)
    assert [suite.name for suite in chosen] == ["loss", "text_to_video"]
    store, calls = Memory(), len(oracle.asked)
    evaluate(chosen[1:], CONFIG, 16, store)
    assert len(oracle.asked) == calls + 3
    found = evaluation_of(chosen[1:], CONFIG, 16, store).metrics
    assert found["text_to_video/colour_accuracy"] >= 0.9
    assert found["text_to_video/vbench/frozen/temporal_flickering"] == 1
    assert 0.9 < found["text_to_video/vbench/temporal_flickering"] < 1


def test_distances_are_of_features_kept_clip_by_clip(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "i3d_backbone", lambda weights: TINY)
    examples = world_examples(WORLD, [VIDEO], 8.0, 16, 7_000)
    worse = Oracle(sampler, examples, lambda video: np.repeat(video[:1], len(video), 0))
    found = {}
    for name, model in (("true", Oracle(sampler, examples)), ("frozen", worse)):
        networks = Networks(tmp_path)
        material = Material(model, CONFIG, examples, [], True, networks=networks)
        [suite], store = chosen_suites(("fvd",), material), Memory()
        evaluate([suite], CONFIG, 4, store)
        found[name] = evaluation_of([suite], CONFIG, 4, store).metrics
    videos = [example.video for example in examples]
    still = [np.repeat(video[:1], len(video), 0) for video in videos]
    name = f"text_to_video/frechet/{TINY.name}"
    assert found["true"][name] == pytest.approx(0, abs=1e-6)
    expected = frechet_of_features(by_hand(videos), by_hand(still))
    assert found["frozen"][name] == pytest.approx(expected, rel=1e-4)
    assert found["frozen"][f"text_to_video/frechet_null_max/{TINY.name}"] > 0
    assert len(list(tmp_path.glob(f"real-{TINY.name}-*.npz"))) == 1


def test_the_users_own_network_stands_beside(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = dataclasses.replace(of_pictures(), name="usual")
    monkeypatch.setattr(backbone, "efficientnet_backbone", lambda: usual)
    pictures = world_examples(WORLD, [IMAGE], 8.0, 12, 7_000)
    networks = Networks(tmp_path, backbones=("tests.tiny_backbone:of_pictures",))
    oracle = Oracle(sampler, pictures)
    material = Material(oracle, CONFIG, [], pictures, True, networks=networks)
    [suite] = chosen_suites(("fvd",), material)
    found = metrics(suite)
    for name in ("usual", "pictures"):
        assert found[f"text_to_image/frechet/{name}"] == pytest.approx(0, abs=1e-6)
    for place in ("tests.tiny_backbone:none", "tests.tiny_backbone:by_hand", "tests.nowhere:make"):
        networks = Networks(tmp_path, backbones=(place,))
        material = Material(oracle, CONFIG, [], pictures, True, networks=networks)
        with pytest.raises(ConfigError, match="--backbone '.*' makes no backbone .*: give MODULE"):
            chosen_suites(("fvd",), material)


def test_distances_without_weights_are_refused(sampler: Sampler, tmp_path: Path) -> None:
    examples = world_examples(WORLD, [VIDEO], 8.0, 2, 7_000)
    networks = Networks(tmp_path, i3d=str(tmp_path / "none.ckpt"))
    material = Material(sampler, CONFIG, examples, [], True, networks=networks)
    with pytest.raises(UserError, match=r"cannot read weights of .*I3D.* from .*none\.ckpt"):
        chosen_suites(("fvd",), material)


def test_suites_are_chosen_by_name_and_what_cannot_be_scored_is_said(sampler: Sampler) -> None:
    examples = world_examples(WORLD, [VIDEO], 8.0, 2, 0)
    of_a_set = set_material(sampler, CONFIG, examples)
    assert [suite.name for suite in chosen_suites(("loss",), of_a_set)] == ["loss"]
    with pytest.raises(ConfigError, match="no suite 'los'; did you mean 'loss'"):
        chosen_suites(("los",), of_a_set)
    with pytest.raises(ConfigError, match="suite text has nothing to score on these clips"):
        chosen_suites(("loss", "text"), of_a_set)
