"""Clips of a model whose given tokens are apart: the same whether these are remembered or not."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from sora_jax.diffusion.guidance import GuidanceConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.sample import tasks
from sora_jax.sample.denoise import sample_tokens
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.requests import Request, Size
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler

PROMPT = "a red circle"
PLAIN = Request(PROMPT, frames=13, height=16, width=24, fps=8.0, seed=3)
TIMES = TimesConfig(base_tokens=8)
VIDEO = np.random.default_rng(0).integers(0, 256, (13, 16, 24, 3), np.uint8)
TASKS: dict[str, tuple[Callable[[Request], Request], int]] = {
    "animate": (lambda r: tasks.animate(r, VIDEO[0]), 1),
    "extend": (lambda r: tasks.extend(r, VIDEO, 5), 2),
    "extend_backward": (lambda r: tasks.extend_backward(r, VIDEO, 5), 0),
    "connect": (lambda r: tasks.connect(r, VIDEO, VIDEO, 5), 2),
    "remember": (lambda r: tasks.remember(r, [VIDEO[:1], VIDEO[:5]]), 0),
}


def make_sampler(config: SamplingConfig, mesh: MeshConfig | None = None) -> Sampler:
    devices = 1 if mesh is None else 8
    return tiny_sampler([PROMPT], config, TIMES, devices, mesh, given_apart=True)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return make_sampler(SamplingConfig(steps=3, rows=2))


def rows(task: Callable[[Request], Request]) -> list[Request]:
    return [dataclasses.replace(task(PLAIN), seed=seed) for seed in range(2)]


def tokens_of(sampler: Sampler, requests: list[Request], size: Size) -> np.ndarray:
    """Of the clips themselves, by the program of a size."""
    inputs = sampler.inputs(size, requests)
    with jax.set_mesh(sampler.mesh):
        found = sample_tokens(sampler.models, inputs, size, TIMES, sampler.config)
    return np.asarray(found)[:, :24]  # 4 latent frames of 2 x 3 patches


def assert_the_same_as_without(sampler: Sampler, requests: list[Request], frames: int) -> None:
    size = sampler.size_of(requests[0])
    assert size.remembered == frames
    expected = tokens_of(sampler, requests, dataclasses.replace(size, remembered=None))
    np.testing.assert_allclose(tokens_of(sampler, requests, size), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_remembering_changes_no_clip(sampler: Sampler, name: str) -> None:
    task, frames = TASKS[name]
    assert_the_same_as_without(sampler, rows(task), frames)


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(steps=3, rows=2, method="heun", guidance=1.0),
        SamplingConfig(
            steps=3, rows=2, method="unipc", guidance=GuidanceConfig(2.0, rescale=0.5, parallel=0.0)
        ),
    ],
    ids=["heun", "unipc"],
)
def test_remembering_changes_no_clip_of_another_sampler(config: SamplingConfig) -> None:
    task, frames = TASKS["connect"]
    assert_the_same_as_without(make_sampler(config), rows(task), frames)


def test_given_noise_and_parts_at_levels_of_their_own_are_remembered(sampler: Sampler) -> None:
    task, frames = TASKS["extend"]
    noisy = [dataclasses.replace(r, given_level=0.1, start_levels=(0.6, 1.0)) for r in rows(task)]
    begun = np.random.default_rng(1).normal(size=(24, 16)).astype(np.float32)
    assert_the_same_as_without(
        sampler, [dataclasses.replace(r, begun=begun) for r in noisy], frames
    )


def test_nothing_is_remembered_where_given_tokens_change_or_are_split_or_absent() -> None:
    extend, boxed = TASKS["extend"][0](PLAIN), tasks.edit_box(PLAIN, VIDEO, (0, 8, 8, 16))
    alone = SamplingConfig(steps=3, rows=2, guidance=GuidanceConfig(history=2.0))
    usual = SamplingConfig(steps=3, rows=2)
    split = make_sampler(usual, MeshConfig(replica=2, fsdp=2, context=2))
    assert make_sampler(alone).size_of(extend).remembered is None
    untold = dataclasses.replace(extend, prompt="")
    assert make_sampler(usual).size_of(untold).remembered is None
    assert make_sampler(dataclasses.replace(usual, guidance=1.0)).size_of(untold).remembered == 2
    assert split.size_of(extend).remembered is None
    assert make_sampler(usual).size_of(boxed).remembered is None
    assert make_sampler(usual).size_of(PLAIN).remembered is None
    assert tiny_sampler([PROMPT], usual, TIMES).size_of(extend).remembered is None


@pytest.mark.parametrize("name", ["extend", "connect"])
def test_over_eight_devices_clips_are_the_same(sampler: Sampler, name: str) -> None:
    requests = rows(TASKS[name][0])
    expected = np.asarray(sampler.tokens(requests))[:, :24]
    for mesh in (
        MeshConfig(replica=1, fsdp=2, context=2, tensor=2),
        MeshConfig(replica=2, fsdp=2, tensor=2),
    ):
        found = np.asarray(make_sampler(sampler.config, mesh).tokens(requests * 2))[:2, :24]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=str(mesh))


def tokens_through_blocks(sampler: Sampler, size: Size, request: Request) -> set[int]:
    """Lengths of the rows that go through stacks as wide as the transformer's."""
    inputs, width = sampler.inputs(size, [request]), 32

    def scans(jaxpr: Any) -> Iterator[Any]:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                yield equation
            for inner in jaxprs_in_params(equation.params):
                yield from scans(inner)

    with jax.set_mesh(sampler.mesh):
        program = jax.make_jaxpr(
            lambda models, inputs: sample_tokens(models, inputs, size, TIMES, sampler.config)
        )(sampler.models, inputs)
    shapes = [v.aval.shape for scan in scans(program.jaxpr) for v in scan.outvars]
    return {shape[1] for shape in shapes if len(shape) == 3 and shape[2] == width}


def test_steps_are_of_generated_tokens_alone(sampler: Sampler) -> None:
    request = tasks.animate(PLAIN, VIDEO[0])
    size = sampler.size_of(request)
    assert tokens_through_blocks(sampler, size, request) == {6, 18}
    assert tokens_through_blocks(sampler, dataclasses.replace(size, remembered=None), request) == {
        24
    }
