"""Topologies open beside the fake CPU devices of the tests; names that cannot be say why."""

import importlib.util

import jax
import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.pod.topology import open_topology
from sora_jax.sharding.mesh import AXES, MeshConfig, make_mesh

pytest.importorskip("libtpu")


@pytest.mark.parametrize(
    ("name", "slices", "devices", "chips"),
    [
        ("v5e:2x2", 1, 4, 4),
        ("v5e:1x1", 1, 1, 1),
        ("v6e:2x2", 1, 4, 4),
        ("v5p:2x2x1", 1, 4, 4),
        ("v5p:2x2x1", 2, 8, 8),
        ("v5p:4x4x4", 1, 64, 64),
        ("tpu7x:2x2x1", 1, 8, 4),
        ("tpu7x:2x2x1", 2, 16, 8),
    ],
)
def test_a_topology_has_its_devices(name: str, slices: int, devices: int, chips: int) -> None:
    topology = open_topology(name, slices)
    assert (len(topology.devices), topology.chips) == (devices, chips)
    assert topology.chip.generation == name.partition(":")[0]
    assert {device.device_kind for device in topology.devices} == {topology.chip.device_kind}
    places = {
        (getattr(device, "slice_index", 0), *device.coords, device.core_on_chip)
        for device in topology.devices
    }
    assert len(places) == devices
    # The devices of this process are still there.
    assert len(jax.devices("cpu")) == 8


def test_the_slices_are_told_apart_and_come_one_after_the_other() -> None:
    topology = open_topology("v5p:2x2x1", 2)
    assert [device.slice_index for device in topology.devices] == [0] * 4 + [1] * 4


def test_a_mesh_is_made_of_the_devices() -> None:
    mesh = make_mesh(MeshConfig(fsdp=2, context=2), open_topology("v5p:2x2x1").devices)
    assert mesh.axis_names == AXES
    assert np.shape(mesh.devices) == (1, 2, 2, 1)


def test_opening_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    open_topology("v6e:4x4")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5p", "'v5p' is no topology: name a generation and the chips along each axis"),
        ("v5p:4x4x", "as in 'v5p:4x4x4'"),
        ("v5p:4x0x4", "'v5p:4x0x4' is no topology"),
        ("v5:2x2x1", "there is no generation 'v5'; did you mean 'v5p'?"),
        ("gpu:2x2", "there is no generation 'gpu'; there are: v5e, v5p, v6e, tpu7x"),
        ("v5p:4x4", "topology 'v5p:4x4': v5p has 3 axes, not 2"),
        ("v5e:4x4x1", "v5e has 2 axes, not 3"),
        ("v6e:32x32", "1024 chips are more than the 256 of the largest slice of v6e"),
        (
            "v5p:3x5x7",
            'does not know the topology .*: Topology layout "v5p:3x5x7" is not divisible',
        ),
    ],
)
def test_a_topology_that_cannot_be_says_why(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_topology(name)


def test_there_is_at_least_one_slice() -> None:
    with pytest.raises(ConfigError, match="at least one slice, not 0"):
        open_topology("v5p:2x2x1", 0)


def test_without_libtpu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match='pip install "sora_jax\\[tpu\\]"'):
        open_topology("v5p:2x2x1")


@pytest.mark.parametrize(
    ("name", "config", "extent"),
    [
        ("v5p:4x4x4", MeshConfig(fsdp=16, context=4), (4, 1, 1)),  # a whole ring
        ("v5p:8x8x16", MeshConfig(fsdp=256, context=4), (2, 1, 2)),
        ("v5p:4x4x4", MeshConfig(fsdp=8, context=8), (2, 2, 2)),
        ("v5p:4x4x8", MeshConfig(fsdp=4, context=32), (4, 1, 8)),
        ("v6e:16x16", MeshConfig(fsdp=64, context=4), (2, 2)),
    ],
)
def test_an_axis_that_is_no_whole_torus_axis_is_a_box(
    name: str, config: MeshConfig, extent: tuple[int, ...]
) -> None:
    mesh = make_mesh(config, open_topology(name).devices)
    rows = np.moveaxis(mesh.devices, AXES.index("context"), -1).reshape(-1, config.context)
    places = np.array([[device.coords for device in row] for row in rows])
    assert len(set(mesh.devices.flat)) == len(rows) * config.context
    for place in places[..., : len(extent)]:
        assert tuple(place.max(0) - place.min(0) + 1) == extent
