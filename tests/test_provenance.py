"""What made a sample is named by the numbers of its networks, the same on every mesh."""

import dataclasses

import jax

from sora_jax.diffusion.times import TimesConfig
from sora_jax.provenance import weights_id
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_models import tiny_sampler


def test_weights_are_told_apart_and_are_the_same_on_every_mesh() -> None:
    def models(devices: int, mesh: MeshConfig) -> object:
        return tiny_sampler(("x",), SamplingConfig(), TimesConfig(), devices, mesh).models

    one = models(1, MeshConfig())
    assert weights_id(one) == weights_id(models(8, MeshConfig(fsdp=2, context=2, tensor=2)))
    statistics = jax.tree.map(lambda x: x.at[0].add(2**-20), one.statistics)
    assert weights_id(one) != weights_id(dataclasses.replace(one, statistics=statistics))
