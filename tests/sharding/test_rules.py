"""One table lays out every array: parameters, moments, activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from sora_jax.config import ConfigError
from sora_jax.sharding.rules import (
    RULES,
    ShardingRules,
    constrain,
    parameter_shardings,
    rows_sharding,
)
from tests.tiny import eight_device_mesh, one_device_mesh


def test_logical_axes_become_mesh_axes() -> None:
    assert RULES.spec("rows", "tokens", None) == PartitionSpec(("replica", "fsdp"), "context", None)
    assert RULES.spec("embed", "mlp") == PartitionSpec(("fsdp", "context"), "tensor")


def test_a_mesh_axis_cannot_be_used_twice() -> None:
    with pytest.raises(ConfigError, match="a mesh axis is used twice"):
        RULES.spec("rows", "embed")
    with pytest.raises(ConfigError, match="a mesh axis is used twice"):
        ShardingRules(mlp="fsdp").spec("embed", "mlp")


def test_parameters_are_split_where_the_mesh_divides_them() -> None:
    mesh = eight_device_mesh()
    tree = {
        "kernel": nnx.Param(jnp.zeros((4, 6)), axes=("embed", "mlp")),
        "odd": nnx.Param(jnp.zeros((3, 6)), axes=("embed", "mlp")),
        "stacked": nnx.Param(jnp.zeros((2, 4, 6)), axes=("embed", "mlp")),
        "count": jnp.zeros(()),
    }
    found = {name: leaf.spec for name, leaf in named_leaves(parameter_shardings(tree, mesh))}
    assert found == {
        "kernel": PartitionSpec(("fsdp", "context"), "tensor"),
        "odd": PartitionSpec(None, "tensor"),
        "stacked": PartitionSpec(None, ("fsdp", "context"), "tensor"),
        "count": PartitionSpec(),
    }


def named_leaves(tree: dict[str, object]) -> list[tuple[str, jax.sharding.NamedSharding]]:
    return [(name, jax.tree.leaves(leaf)[0]) for name, leaf in tree.items()]


def test_rows_are_split_over_replica_and_fsdp() -> None:
    sharding = rows_sharding(eight_device_mesh())
    assert sharding.shard_shape((8, 5, 3)) == (2, 5, 3)


def test_constrain_does_nothing_outside_a_mesh() -> None:
    x = jnp.ones((4, 4))
    assert constrain(x, "rows", "tokens") is x
    text = jax.jit(lambda x: constrain(x, "rows", "tokens")).lower(x).as_text()
    assert "sharding" not in text


@pytest.mark.parametrize("shape", [(8, 6), (8, 5), (3, 6), (1, 1)])
def test_constrain_splits_what_divides_and_keeps_the_numbers(shape: tuple[int, int]) -> None:
    mesh, x = eight_device_mesh(), jax.random.normal(jax.random.key(0), shape)
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(2 * x, "rows", "tokens"))(x)
    np.testing.assert_array_equal(y, 2 * x)
    rows, tokens = shape
    expected = (rows // 4 if rows % 4 == 0 else rows, tokens // 2 if tokens % 2 == 0 else tokens)
    assert y.sharding.shard_shape(shape) == expected


def test_one_device_holds_everything() -> None:
    parameter = nnx.Param(jnp.zeros((4, 6)), axes=("embed", "mlp"))
    (sharding,) = jax.tree.leaves(parameter_shardings(parameter, one_device_mesh()))
    assert sharding.is_fully_replicated
