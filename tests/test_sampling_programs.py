"""Programs of sampling at the largest sizes, lowered for transformers that are not made."""

import dataclasses
from collections.abc import Iterator

import jax
import jaxtyping
import pytest

from sora_jax.config import load_experiment
from sora_jax.data.ladder import aligned
from sora_jax.experiment import Experiment
from sora_jax.sample.requests import Request
from sora_jax.sample.sizes import divisible
from sora_jax.sampling_programs import Clip, program_of
from sora_jax.sharding.mesh import make_mesh

# One device; kernels for TPU do not lower for CPU.
ON_ONE = (
    "mesh.fsdp=1",
    "mesh.context=1",
    "sampling.rows=1",
    "dit.attention.kernel=reference",
)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Annotations name arrays, and what is not made is none."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", ["dit_2b", "dit_14b"])
@pytest.mark.parametrize(
    ("asked", "made", "tokens"),
    [
        (Clip(1, 2048, 2048), Clip(1, 2048, 2048), 128 * 128),
        (Clip(240, 1080, 1920), Clip(241, 1088, 1920), 61 * 68 * 120),
        (Clip(240, 1920, 1080), Clip(241, 1920, 1088), 61 * 120 * 68),
    ],
    ids=["image", "wide", "tall"],
)
def test_the_largest_sizes_lower(name: str, asked: Clip, made: Clip, tokens: int) -> None:
    experiment: Experiment = load_experiment(f"{name}:p1080", list(ON_ONE))
    request = Request("", **dataclasses.asdict(asked), fps=24.0, seed=0)
    vae, mesh = experiment.vae, make_mesh(experiment.mesh, jax.devices()[:1])
    found = divisible(request, vae.temporal, vae.spatial * experiment.dit.patch)
    clip = Clip(found.frames, found.height, found.width)
    assert clip == made
    sampled = program_of(experiment, "sample", clip, mesh)
    channels = experiment.dit.patch**2 * vae.channels
    assert sampled.lowered.out_info.shape == (1, aligned(tokens, 1), channels)
    decoded = program_of(experiment, "vae_decode", clip, mesh).lowered.out_info[0]
    assert decoded.shape[2:] == (made.height, made.width, 3)
