"""Logical axis -> mesh axis: the one table that decides how every array is laid out."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from sora_jax.config import ConfigError

MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """One field per logical axis. Parameters name theirs where they are made (`axes=...`)."""

    rows: MeshAxes = ("replica", "fsdp")  # of a batch
    tokens: MeshAxes = "context"
    captions: MeshAxes = ("replica", "fsdp", "context")  # rows, where they are encoded
    clips: MeshAxes = "replica"  # of a batch whose pictures are split, over a picture_mesh
    height: MeshAxes = "fsdp"  # of these pictures
    width: MeshAxes = "context"
    embed: MeshAxes = ("fsdp", "context")  # the residual width of a parameter
    mlp: MeshAxes = "tensor"
    heads: MeshAxes = "tensor"
    vocabulary: MeshAxes = "tensor"
    features: MeshAxes = None  # what comes from outside the network: patches, sinusoids of places
    layers: MeshAxes = None

    def spec(self, *logical: str | None) -> PartitionSpec:
        """PartitionSpec of an array whose axes have these names; None is an unsplit axis."""
        axes = tuple(None if name is None else getattr(self, name) for name in logical)
        used = [a for axis in axes if axis for a in ((axis,) if isinstance(axis, str) else axis)]
        if len(used) != len(set(used)):
            raise ConfigError(f"axes {logical} map to {axes}: a mesh axis is used twice")
        return PartitionSpec(*axes)


RULES = ShardingRules()


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of batch arrays: rows split over replica and fsdp, everything else whole."""
    return NamedSharding(mesh, RULES.spec("rows"))


def clips_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of pixels or latents [b t h w c] over a `picture_mesh`."""
    return NamedSharding(mesh, RULES.spec("clips", None, "height", "width"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedSharding for every leaf of a tree of modules (or of optimizer moments shaped like them).

    A parameter inside a stack has one leading axis more than it names: `layers`. An axis that the
    mesh does not divide stays whole, so that odd widths (the patch channels) cost no padding.
    """

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return replicated(mesh)
        if not jax.tree.leaves(leaf):  # optax leaves out the parameters that a part is not for
            return leaf
        logical = tuple(leaf.get_metadata().get("axes", ()))
        value = leaf.get_value()
        shape = np.shape(value) if not hasattr(value, "shape") else value.shape
        logical = ("layers",) * (len(shape) - len(logical)) + logical
        sharding = NamedSharding(mesh, array_spec(shape, mesh, *logical))
        return jax.tree.map(lambda _: sharding, leaf)

    return jax.tree.map(of, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def mesh_of(tree: Any) -> Mesh:
    """The mesh that a tree of arrays, which may be abstract, is laid out over."""
    mesh: Mesh = jax.tree.leaves(tree)[0].sharding.mesh
    return mesh


def over_mesh(tree: Any, mesh: Mesh) -> Any:
    """The tree's arrays as abstract ones that are split alike over another mesh of as many devices
    in the same order: a program lowered for these takes those."""

    def of(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, leaf.sharding.spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(of, tree)


def array_spec(
    shape: Sequence[int], mesh: Mesh | AbstractMesh, *logical: str | None
) -> PartitionSpec:
    """PartitionSpec of an array of this shape, without the axes that the mesh does not divide, and
    without those that a `shard_map` around has split it over already."""
    axes = [_left(axis, mesh) for axis in RULES.spec(*logical)]
    pairs = zip(shape, axes, strict=True)
    return PartitionSpec(*(axis if size % _ways(axis, mesh) == 0 else None for size, axis in pairs))


def ways_split(size: int, mesh: Mesh | AbstractMesh, logical: str) -> int:
    """Over how many devices an axis of this size is split: one if they do not divide it."""
    ways = _ways(_left(getattr(RULES, logical), mesh), mesh)
    return ways if size % ways == 0 else 1


def free_axes(mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """Axes of the mesh that no `shard_map` around has taken."""
    return tuple(name for name in mesh.axis_names if name not in getattr(mesh, "manual_axes", ()))


def _left(axis: MeshAxes, mesh: Mesh | AbstractMesh) -> MeshAxes:
    names = tuple(name for name in _names(axis) if name in free_axes(mesh))
    return names[0] if len(names) == 1 else names or None


def ways_of(logical: str) -> int:
    """Over how many devices the mesh that is set splits an axis; one outside a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else _ways(getattr(RULES, logical), mesh)


def caption_axis(rows: int) -> str:
    """Logical axis of so many captions: `captions` if the mesh that is set divides them."""
    mesh = jax.sharding.get_abstract_mesh()
    whole = mesh.empty or rows % _ways(_left(RULES.captions, mesh), mesh)
    return "rows" if whole else "captions"


def rows_in_parts(x: jax.Array, parts: int) -> jax.Array:
    """[b ...] as [p b/p ...], where every device has as many of its rows in each part, so that none
    moves. Raises ConfigError if a device's rows do not divide into so many parts."""
    mesh = jax.sharding.get_abstract_mesh()
    rows, *rest = x.shape
    ways = 1 if mesh.empty else _ways(_left(RULES.rows, mesh), mesh)
    each, left = divmod(rows, ways * parts)
    if left:
        raise ConfigError(f"{rows} rows on {ways} devices do not divide into {parts} parts")
    by_part = x.reshape(ways, parts, each, *rest).swapaxes(0, 1)
    return constrain(by_part.reshape(parts, ways * each, *rest), None, "rows", *[None] * len(rest))


def _ways(axis: MeshAxes, mesh: Mesh | AbstractMesh) -> int:
    return math.prod(mesh.shape[name] for name in _names(axis))


def _names(axis: MeshAxes) -> tuple[str, ...]:
    return () if axis is None else (axis,) if isinstance(axis, str) else axis


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """Pins an intermediate array to the table inside jit; does nothing outside a mesh.

    An axis that the mesh does not divide stays whole: clips of any size can be sampled.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, array_spec(x.shape, mesh, *logical))
