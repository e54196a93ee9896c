"""Accelerators by name: their sizes and hosts, as published and as libtpu has them."""

import importlib.util
import math

import pytest

from sora_jax.errors import ConfigError
from sora_jax.pod.accelerators import ACCELERATORS, CORES, LARGEST, accelerator
from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.topology import open_topology

# Published: name, topology, hosts, chips of a host, jax devices.
PUBLISHED = [
    ("v5e-1", "1x1", 1, 1, 1),
    ("v5e-4", "2x2", 1, 4, 4),
    ("v5e-8", "2x4", 1, 8, 8),
    ("v5e-16", "4x4", 4, 4, 16),
    ("v5e-32", "4x8", 8, 4, 32),
    ("v5e-256", "16x16", 64, 4, 256),
    ("v6e-8", "2x4", 1, 8, 8),
    ("v6e-128", "8x16", 32, 4, 128),
    ("v5p-8", "2x2x1", 1, 4, 4),
    ("v5p-16", "2x2x2", 2, 4, 8),
    ("v5p-64", "2x4x4", 8, 4, 32),
    ("v5p-128", "4x4x4", 16, 4, 64),
    ("v5p-256", "4x4x8", 32, 4, 128),
    ("v5p-1024", "8x8x8", 128, 4, 512),
    ("v5p-2048", "8x8x16", 256, 4, 1024),
    ("v5p-4096", "8x16x16", 512, 4, 2048),
    ("v5p-8192", "16x16x16", 1024, 4, 4096),
    ("v5p-12288", "16x16x24", 1536, 4, 6144),
    ("tpu7x-2", "1x1x1", 1, 1, 2),
    ("tpu7x-8", "2x2x1", 1, 4, 8),
    ("tpu7x-128", "4x4x4", 16, 4, 128),
    ("tpu7x-512", "4x8x8", 64, 4, 512),
    ("tpu7x-18432", "16x24x24", 2304, 4, 18432),
]


@pytest.mark.parametrize(("name", "topology", "hosts", "per_host", "devices"), PUBLISHED)
def test_an_accelerator_is_as_published(
    name: str, topology: str, hosts: int, per_host: int, devices: int
) -> None:
    found = accelerator(name)
    assert (found.topology, found.hosts, found.chips_per_host) == (topology, hosts, per_host)
    assert found.devices == devices


def test_v5e_has_two_names() -> None:
    assert accelerator("v5litepod-16") is accelerator("v5e-16")


def test_every_accelerator_is_whole() -> None:
    for name, each in ACCELERATORS.items():
        generation, _, number = name.partition("-")
        assert each.name == name
        assert each.chip is GENERATIONS[generation]
        assert len(each.shape) == each.chip.torus_axes
        assert each.chips * CORES[generation] == int(number)
        assert each.chips == math.prod(each.shape) == each.hosts * each.chips_per_host
        assert each.chips <= LARGEST[generation]
        if each.chips > 32 and each.chip.torus_axes == 3:  # cubes, the shortest axis first
            assert all(length % 4 == 0 for length in each.shape)
            assert each.shape == tuple(sorted(each.shape))
    for generation, largest in LARGEST.items():
        sizes = [a.chips for a in ACCELERATORS.values() if a.chip.generation == generation]
        assert max(sizes) == largest
        assert sizes == sorted(set(sizes))


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(
    "name",
    [
        "v5e-1",
        "v5e-8",
        "v5e-16",
        "v6e-4",
        "v6e-8",
        "v6e-256",
        "v5p-8",
        "v5p-32",
        "v5p-256",
        "v5p-384",
        "tpu7x-2",
        "tpu7x-8",
        "tpu7x-16",
        "tpu7x-256",
    ],
)
def test_libtpu_has_as_many_devices_and_hosts(name: str) -> None:
    named = accelerator(name)
    topology = open_topology(name)
    assert (len(topology.devices), topology.chips) == (named.devices, named.chips)
    assert topology.chip is named.chip
    assert len({device.process_index for device in topology.devices}) == named.hosts
    assert topology.name == f"{named.chip.generation}:{named.topology}"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "v5p-100",
            "there is no accelerator 'v5p-100'; did you mean 'v5p-128'? "
            "(the number counts TensorCores, two a chip)",
        ),
        (
            "v6e-9",
            "there is no accelerator 'v6e-9'; did you mean 'v6e-8'? (the number counts chips)",
        ),
        (
            "h100",
            "there is no accelerator 'h100'; generations are: v5e, v5p, v6e, tpu7x",
        ),
        ("tpu-v7x-8", "there is no accelerator 'tpu-v7x-8'; did you mean 'tpu7x-8'?"),
    ],
)
def test_a_wrong_name_is_one_sentence_with_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        accelerator(name)
    assert str(raised.value) == sentence
