"""A run's compiled programs: every one is made before the first step, and none after it."""

import concurrent.futures
import contextlib
import ctypes
import functools
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from sora_jax.errors import UserError
from sora_jax.sharding.rules import mesh_of, over_mesh
from sora_jax.train.compiler_options import compile_here
from sora_jax.train.executables import Executables
from sora_jax.train.state import TrainState
from sora_jax.train.step import Metrics, Moment, Sums, TrainStep


class ShapeError(UserError):
    """A batch has a shape that no program was compiled for."""


class Programs:
    """One function, compiled for every shape of batch that it will meet and for no other."""

    def __init__(
        self,
        name: str,
        lowered: Iterable[tuple[Any, jax.stages.Lowered]],
        executables: Executables | None = None,
    ):
        """Compiles in parallel what was lowered for each of some batches, which may be abstract;
        or loads it, where it is among `executables`."""
        self._name = name
        by_shapes = {_shapes(batch): each for batch, each in lowered}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = pool.map(lambda each: _compiled(each, executables), by_shapes.values())
            self._compiled = dict(zip(by_shapes, compiled, strict=True))
        _return_free_memory()

    def __len__(self) -> int:
        return len(self._compiled)

    def of(self, batch: Any) -> jax.stages.Compiled:
        """The program for a batch.

        Raises:
            ShapeError: there is none.
        """
        program = self._compiled.get(_shapes(batch))
        if program is None:
            known = "; ".join(_in_words(shapes) for shapes in self._compiled)
            raise ShapeError(
                f"{self._name}: no program was compiled for a batch of {_in_words(_shapes(batch))}"
                f", only for {known}: compiling it now would stop every host for minutes; name its "
                "shape class in the experiment"
            )
        return program


def lower_step(
    step: TrainStep, state: TrainState, batch: Any, key: PRNGKeyArray
) -> jax.stages.Lowered:
    """The program that a batch goes to, over the memory of what it replaces: the whole update, or
    the sums of gradients if the step has more micro-batches. All arguments may be abstract.

    It is split as the batch's mesh says, whose devices are in the order of the state's. What comes
    out is laid out like what goes in, whatever the compiler would prefer.
    """
    mesh = mesh_of(batch)
    class_state, class_key = over_mesh((state, key), mesh)
    with jax.set_mesh(mesh):
        if step.micro_batches == 1:
            shardings = (_shardings(state), None)
            update = jax.jit(step, donate_argnums=0, out_shardings=shardings)
            return update.lower(class_state, batch, class_key)
        sums = abstract_sums(step, class_state, batch, class_key)
        add = jax.jit(step.add, donate_argnums=1, out_shardings=_shardings(sums))
        return add.lower(class_state, sums, batch, class_key)


def lower_close(
    step: TrainStep, state: TrainState, batch: Any, key: PRNGKeyArray
) -> jax.stages.Lowered:
    """The program that ends a step of several micro-batches, of which `batch` is like one."""
    sums = abstract_sums(step, state, batch, key)
    shardings = (_shardings(state), _shardings(sums), None)
    close = jax.jit(step.close, donate_argnums=(0, 1), out_shardings=shardings)
    return close.lower(state, sums)


def abstract_sums(step: TrainStep, state: TrainState, batch: Any, key: PRNGKeyArray) -> Sums:
    """Shapes, dtypes and shardings of the sums over micro-batches: gradients laid out like their
    parameters, a copy in each replica."""
    gradients = functools.partial(step.gradients, rows=1)  # whose number is in no shape
    model, class_key = over_mesh((state.model, key), mesh_of(batch))
    _, metrics = jax.eval_shape(gradients, model, batch, Moment(class_key, state.step))
    mesh = mesh_of(state)
    replicas = mesh.shape["replica"]

    def stacked(leaf: Any, spec: PartitionSpec, *before: int) -> jax.ShapeDtypeStruct:
        shape = (replicas, *before, *leaf.shape)
        sharding = NamedSharding(mesh, PartitionSpec("replica", *spec))
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)

    return Sums(
        jax.tree.map(lambda leaf: stacked(leaf, leaf.sharding.spec), state.model),
        jax.tree.map(lambda leaf: stacked(leaf, PartitionSpec(), step.micro_batches), metrics),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec())),
    )


class Update:
    """The step of a run, ready to be called: a program for each shape of batch, and one more that
    closes the step where micro-batches are accumulated."""

    def __init__(
        self,
        step: TrainStep,
        state: TrainState,
        batches: Sequence[Any],
        key: PRNGKeyArray,
        executables: Executables | None = None,
    ):
        """Compiles for states laid out like `state`; it and the batches may be abstract."""
        start = time.perf_counter()
        self._programs = Programs(
            "the step",
            [(batch, lower_step(step, state, batch, key)) for batch in batches],
            executables,
        )
        self._close: jax.stages.Compiled | None = None
        self._sums: Sums | None = None
        if step.micro_batches > 1:
            self._close = _compiled(lower_close(step, state, batches[0], key), executables)
            self._sums = _zeros(abstract_sums(step, state, batches[0], key))
        self.count = len(self._programs) + (self._close is not None)
        self.seconds = time.perf_counter() - start

    def __call__(
        self, state: TrainState, batches: Iterable[Any], key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        """The next state, and metrics of the update on the step's batches.

        Raises:
            ShapeError: a batch has another shape than those compiled for.
        """
        if self._close is None:
            [batch] = batches
            return self._programs.of(batch)(state, batch, key)
        for batch in batches:
            self._sums = self._programs.of(batch)(state, self._sums, batch, key)
        state, self._sums, metrics = self._close(state, self._sums)
        return state, metrics


def _compiled(lowered: jax.stages.Lowered, executables: Executables | None) -> jax.stages.Compiled:
    loaded = executables.load(lowered) if executables else None
    return loaded or compile_here(lowered)


def _return_free_memory() -> None:
    """Gives the system what the compiler has freed: a fifth of all that a small run holds, and kept
    by glibc for good otherwise. Other C libraries have no such function."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _zeros(abstract: Any) -> Any:
    """Zeros in the shapes and layout of abstract arrays."""

    def make() -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)

    return jax.jit(make, out_shardings=_shardings(abstract))()


def _shardings(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _shapes(batch: Any) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(batch)
    return tuple(
        (jax.tree_util.keystr(path, simple=True), leaf.shape, str(leaf.dtype))
        for path, leaf in leaves
    )


def _in_words(shapes: Any) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}".strip() for name, shape, _ in shapes)
