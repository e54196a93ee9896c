"""Samplers and guidance with a network: the same clips on any mesh, and given frames kept."""

import dataclasses

import numpy as np
import pytest

from sora_jax.diffusion.guidance import GuidanceConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.sample.generate import Request, Sample, SamplingConfig
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

PROMPTS = ("a red circle", "a blue square moves left")
GUIDANCE = GuidanceConfig(3.0, 2.0, (0.2, 0.95), rescale=0.5, parallel=0.0, limit=1.0)
GIVEN = np.random.default_rng(3).integers(0, 256, (5, 16, 24, 3), np.uint8)
REQUESTS = [Request(PROMPTS[i % 2], 9, 16, 24, 8.0, seed=100 + i, given=GIVEN) for i in range(2)]


def samples(
    config: SamplingConfig, devices: int, requests: list[Request] = REQUESTS, **mesh: int
) -> list[Sample]:
    times = TimesConfig(base_tokens=8)
    return tiny_sampler(PROMPTS, config, times, devices, MeshConfig(**mesh)).generate(requests)


@pytest.mark.parametrize("method", ["unipc", "sde"])
def test_guided_samples_are_the_same_on_one_device_and_on_eight(method: str) -> None:
    config = SamplingConfig(steps=4, rows=4, method=method, guidance=GUIDANCE)
    one = samples(config, 1)
    eight = samples(config, 8, replica=2, fsdp=2, context=2)
    plain = samples(dataclasses.replace(config, guidance=1.0), 1)
    for alone, spread, unguided in zip(one, eight, plain, strict=True):
        assert abs(alone.video.astype(int) - spread.video.astype(int)).max() <= 1
        np.testing.assert_array_equal(alone.video[:5], unguided.video[:5])  # the given ones
        assert abs(alone.video[5:].astype(int) - unguided.video[5:]).max() > 8


def test_a_negative_prompt_takes_the_place_of_the_empty_caption() -> None:
    """So that the prompt itself as one pushes nowhere, with nothing given to be guided by."""
    config = SamplingConfig(steps=4, rows=4, guidance=4.0)
    plain = [dataclasses.replace(REQUESTS[0], given=None)]
    negative = [dataclasses.replace(plain[0], negative_prompt=plain[0].prompt)]
    [unguided] = samples(dataclasses.replace(config, guidance=1.0), 1, plain)
    [guided], [nowhere] = samples(config, 1, plain), samples(config, 1, negative)
    assert abs(nowhere.video.astype(int) - unguided.video).max() <= 1
    assert abs(guided.video.astype(int) - unguided.video).max() > 8
