"""Programs made before a launch are found by all that they were made of, and by nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sora_jax.errors import UserError
from sora_jax.programs import abstract_key
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.compiler_options import OPTIONS, compile_here
from sora_jax.train.executables import Executables
from sora_jax.train.programs import Update, lower_close, lower_step
from sora_jax.train.state import abstract_state, init_state
from sora_jax.train.step import TrainStep
from tests.tiny import eight_device_mesh
from tests.train.test_loop import loss, make_model

MESH = eight_device_mesh()
DEVICES = list(MESH.devices.flat)
BATCH = jax.ShapeDtypeStruct((4, 6), jnp.float32, sharding=rows_sharding(MESH))


@pytest.fixture(autouse=True)
def _compiled_here() -> Iterator[None]:
    """On CPU a program that jax took from its own cache on disk cannot be kept again."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    jax.clear_caches()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_run_loads_what_was_made_for_it_and_compiles_nothing(
    tmp_path: Path, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lowered from shapes alone where it was made, from a state where it is loaded."""
    step = TrainStep(loss, optax.adam(1e-3), 0.9, micro_batches)
    key = jax.device_put(jax.random.key(1), replicated(MESH))
    batches = [jax.device_put(jnp.ones((4, 6)), rows_sharding(MESH))] * micro_batches

    def updated(executables: Executables | None) -> Any:
        state = init_state(make_model, step.optimizer, jax.random.key(0), MESH)
        return Update(step, state, batches, key, executables)(state, batches, key)

    with jax.set_mesh(MESH):
        made = Executables(tmp_path, DEVICES)
        state = abstract_state(make_model, step.optimizer, MESH)
        for lower in (lower_step, lower_close)[:micro_batches]:
            lowered = lower(step, state, BATCH, abstract_key(MESH))
            made.save(lowered, compile_here(lowered))
        compiled = updated(None)

        def refuse(lowered: Any) -> None:
            raise AssertionError("compiled again")

        monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
        found = Executables(tmp_path, DEVICES)
        loaded = updated(found)
    assert found.loaded == micro_batches
    for array, expected in zip(*map(jax.tree.leaves, (loaded, compiled)), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.sharding == expected.sharding


def lowered_sum(rows: int) -> jax.stages.Lowered:
    return jax.jit(lambda x: x + x).lower(jax.ShapeDtypeStruct((rows, 3), np.float32))


def test_what_differs_in_anything_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Executables(tmp_path, DEVICES[:1])
    path = made.save(lowered_sum(4), lowered_sum(4).compile())
    assert [path] == list(tmp_path.iterdir())
    program = made.load(lowered_sum(4))
    assert program is not None
    np.testing.assert_array_equal(program(np.ones((4, 3), np.float32)), np.full((4, 3), 2))
    assert made.load(lowered_sum(5)) is None
    assert Executables(tmp_path, DEVICES[1:2]).load(lowered_sum(4)) is None
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_of_other_kind=true")
    assert made.load(lowered_sum(4)) is None
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    with monkeypatch.context() as patch:
        patch.setitem(OPTIONS, "cpu", {})
        assert made.load(lowered_sum(4)) is None
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    assert made.load(lowered_sum(4)) is None


def test_what_is_broken_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: there is no such directory"):
        Executables(tmp_path / "nowhere", DEVICES)
    made = Executables(tmp_path, DEVICES[:1])
    path = made.save(lowered_sum(4), lowered_sum(4).compile())
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"executable is broken .*delete it, and compile again"):
        made.load(lowered_sum(4))
