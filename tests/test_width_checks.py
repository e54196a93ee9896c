"""The checks of muP on small transformers: parts that do not feel the width, rates that stay."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from sora_jax.config import ConfigError, load_experiment
from sora_jax.experiment import Experiment
from sora_jax.width_checks import (
    at_width,
    check_coordinates,
    check_rates,
    made_up_clips,
    smallest_bucket,
    trained,
)

SMALL = ("dit.depth=2", "dit.unroll=false", "text.depth=1", "text.width=32")
ADAMW = "dit_stage.training.optimizer.method=adamw"


def demo(*changes: str) -> Experiment:
    """Heads of 32 channels."""
    experiment: Experiment = load_experiment("demo", [*SMALL, *changes])
    return experiment


@pytest.mark.slow
def test_activations_keep_their_size_by_mup_alone() -> None:
    found = check_coordinates(demo(ADAMW), (64, 512), 2**-7, 4, 4, lambda line: None, seeds=2)
    slopes = found.slopes()
    for part, slope in slopes["mup"].items():
        assert abs(slope) < 0.1, (part, slope)
    for part in ("blocks 1", "blocks 2", "modulation", "final_modulation", "out"):
        assert slopes["standard"][part] > 0.5, part


@pytest.mark.slow
def test_activations_keep_their_size_by_mup_with_muon() -> None:
    slopes = check_coordinates(demo(), (64, 512), 2**-6, 4, 4, lambda line: None).slopes()
    assert max(slopes["mup"].values()) < 0.1, slopes["mup"]
    assert max(slopes["standard"].values()) > 0.25, slopes["standard"]  # its updates grow less


@pytest.mark.slow
def test_the_best_rate_stays_by_mup_alone() -> None:
    rates = [2.0**exponent for exponent in range(-10, -4)]
    found = check_rates(demo(ADAMW), (64, 256), rates, 100, 4, lambda line: None)
    assert found.octaves()["mup"] <= 1, found.best()
    assert found.octaves()["standard"] > 1, found.best()
    mup, standard = (min(found.losses[name][256]) for name in ("mup", "standard"))
    assert found.transferred()["mup"][256] < 1.02 * mup
    assert found.transferred()["standard"][256] > 1.02 * standard


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_at_the_base_width_both_are_one_program(method: str) -> None:
    def lowered(base_width: int | None) -> str:
        experiment = at_width(demo(f"dit_stage.training.optimizer.method={method}"), 64, base_width)

        def model(rate: Any) -> Any:
            return jax.tree.leaves(trained(experiment, 2, 2, rate, jax.random.key(0)).model)

        return jax.jit(model).lower(jnp.float32(0.01)).as_text()

    assert lowered(64) == lowered(None)
    assert lowered(32) != lowered(None)


def test_clips_follow_from_the_key_and_captions_say_something() -> None:
    experiment = demo()
    make = jax.jit(lambda key: made_up_clips(experiment, 3, key))
    first, again, other = (make(jax.random.key(seed)) for seed in (1, 1, 2))
    tokens = experiment.tokens(smallest_bucket(experiment))
    assert first.latents.shape == (3, tokens, 16)
    assert (first.latents == again.latents).all()
    assert (first.latents != other.latents).all()
    assert (first.segments == 1).all()


def test_the_smallest_video_is_taken_and_an_image_where_there_is_none() -> None:
    experiment = demo()
    assert smallest_bucket(experiment).name == "5x24x40"
    images = tuple(each for each in experiment.data.buckets if each.frames == 1)
    data = dataclasses.replace(experiment.data, buckets=images)
    stage = dataclasses.replace(experiment.vae_stage, buckets=())
    only_images = dataclasses.replace(experiment, data=data, vae_stage=stage)
    assert smallest_bucket(only_images).frames == 1


def test_widths_are_of_whole_heads() -> None:
    with pytest.raises(ConfigError, match="a width of 80 does not split into heads of width 32"):
        at_width(demo(), 80, None)
