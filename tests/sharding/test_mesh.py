"""Meshes from configs, and one sentence for each that cannot be."""

import jax
import pytest
from jax.sharding import NamedSharding

from sora_jax.config import ConfigError
from sora_jax.sharding.mesh import AXES, MeshConfig, make_mesh, mesh_for_rows, picture_mesh
from sora_jax.sharding.rules import RULES


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(), (1, 8, 1, 1)),
        (MeshConfig(replica=2, fsdp=2, context=2), (2, 2, 2, 1)),
        (MeshConfig(replica=-1, fsdp=2, tensor=2), (2, 2, 1, 2)),
    ],
)
def test_a_mesh_has_four_axes_over_all_devices(config: MeshConfig, sizes: tuple[int, ...]) -> None:
    mesh = make_mesh(config)
    assert mesh.axis_names == AXES
    assert mesh.devices.shape == sizes
    assert list(mesh.devices.flat) == jax.devices()


def test_a_mesh_may_have_fewer_devices() -> None:
    assert make_mesh(MeshConfig(), jax.devices()[2:4]).devices.shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fsdp": 0}, "an axis size must be positive, or -1 for the rest"),
        ({"context": -2}, "an axis size must be positive, or -1 for the rest"),
        ({"replica": -1}, "at most one axis may be -1"),
        ({"tensor": 3}, "8 devices do not divide by 3"),
        ({"fsdp": 4}, "needs 4 devices, but 8 are given"),
    ],
)
def test_a_mesh_that_cannot_be_says_why(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize(
    ("at_most", "sizes"),
    [
        (None, (1, 2, 4, 1)),
        (4, (1, 2, 4, 1)),
        (2, (1, 4, 2, 1)),
        (1, (1, 8, 1, 1)),
        (6, (1, 4, 2, 1)),
    ],
)
def test_short_rows_are_shared_by_fewer_devices_and_parameters_stay(
    at_most: int | None, sizes: tuple[int, ...]
) -> None:
    mesh = make_mesh(MeshConfig(fsdp=2, context=4))
    its = mesh_for_rows(mesh, at_most)
    assert its.devices.shape == sizes
    spec = RULES.spec("embed", "mlp")
    there, here = NamedSharding(mesh, spec), NamedSharding(its, spec)
    assert here.is_equivalent_to(there, ndim=2)
    assert here.devices_indices_map((16, 8)) == there.devices_indices_map((16, 8))


@pytest.mark.parametrize(
    ("rows", "height", "width", "sizes"),
    [
        (8, 4, 6, (8, 1, 1, 1)),  # clips come first
        (1, 17, 6, (1, 1, 2, 4)),  # what does not divide is left out
        (1, 8, 8, (1, 2, 4, 1)),
        (1, 16, 4, (1, 4, 2, 1)),  # the short side is cut less often
        (2, 4, 6, (2, 2, 2, 1)),
        (3, 8, 8, (1, 2, 4, 1)),
    ],
)
def test_pictures_are_split_over_the_devices_that_clips_leave(
    rows: int, height: int, width: int, sizes: tuple[int, ...]
) -> None:
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, context=2))
    pictures = picture_mesh(mesh, rows, height, width)
    assert pictures.axis_names == AXES
    assert pictures.devices.shape == sizes
    assert list(pictures.devices.flat) == list(mesh.devices.flat)
