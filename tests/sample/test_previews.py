"""Clips shown while they are made: the same bits come out, and views come near them."""

import dataclasses

import numpy as np
import pytest

from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import UserError
from sora_jax.sample.denoise import SamplingConfig, advance_tokens, sample_tokens
from sora_jax.sample.generate import Preview
from sora_jax.sample.requests import Request
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

GIVEN = np.random.default_rng(3).integers(0, 256, (1, 13, 24, 3), np.uint8)
PLAIN = Request("a red circle", 5, 13, 24, 8.0, seed=3)
REQUESTS = [PLAIN, dataclasses.replace(PLAIN, seed=4, given=GIVEN), PLAIN]
TIMES = TimesConfig(base_tokens=8)


@pytest.mark.parametrize("method", ["euler", "heun", "dpm_solver", "unipc", "sde"])
def test_previews_change_no_bit_and_end_in_the_sample(method: str) -> None:
    """Also where they do not divide the steps."""
    config = SamplingConfig(steps=5, rows=2, method=method)
    sampler = tiny_sampler(("a red circle",), config, TIMES)
    plain = sampler.generate(REQUESTS)
    shown: dict[int, dict[int, np.ndarray]] = {0: {}, 1: {}, 2: {}}

    def show(number: int, step: int, video: np.ndarray) -> None:
        shown[number][step] = video

    for every in (1, 2):
        made = sampler.generate(REQUESTS, Preview(every, show))
        for one, other in zip(plain, made, strict=True):
            np.testing.assert_array_equal(one.video, other.video)
    for sample, views in zip(plain, shown.values(), strict=True):
        assert sorted(views) == [1, 2, 3, 4]
        assert {view.shape for view in views.values()} == {(5, 13, 24, 3)}
        errors = [np.abs(views[step].astype(float) - sample.video).mean() for step in (1, 4)]
        assert errors[1] < errors[0]
    first = shown[1][1][:1].astype(int)
    assert abs(first - plain[1].video[:1]).max() <= 1  # what is given is there from the start


def test_previews_on_a_mesh_change_no_bit() -> None:
    config = SamplingConfig(steps=3, rows=2, method="unipc")
    mesh = MeshConfig(replica=2, fsdp=2, context=2)
    sampler = tiny_sampler(("a red circle",), config, TIMES, 8, mesh)
    shown: list[int] = []
    programs = advance_tokens._cache_size()
    made = sampler.generate(REQUESTS[:1], Preview(1, lambda *view: shown.append(view[1])))
    np.testing.assert_array_equal(made[0].video, sampler.generate(REQUESTS[:1])[0].video)
    assert shown == [1, 2]
    assert advance_tokens._cache_size() == programs + 1


@pytest.mark.parametrize("method", ["heun", "sde"])
def test_the_one_program_of_all_steps_makes_the_same(method: str) -> None:
    sampler = tiny_sampler(("a red circle",), SamplingConfig(steps=3, method=method), TIMES)
    request = dataclasses.replace(PLAIN, height=16)
    size = sampler.size_of(request)
    inputs = sampler.inputs(size, [request])
    whole = sample_tokens(sampler.models, inputs, size, TIMES, sampler.config)
    np.testing.assert_allclose(whole, sampler.tokens([request]), atol=1e-5)


def test_a_preview_needs_a_step() -> None:
    with pytest.raises(UserError, match="a preview every 0 steps"):
        Preview(0, lambda *view: None)
