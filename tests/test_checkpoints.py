"""Checkpoints: onto any mesh, the average alone, and one sentence for each that cannot be used."""

import contextlib
import dataclasses
import functools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from sora_jax.checkpoints import CheckpointError, Checkpoints, named, unnamed
from sora_jax.nn.attention import Attention
from sora_jax.saved_arrays import bytes_read
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.train.optimizer import OptimizerConfig, make_optimizer
from sora_jax.train.state import TrainState, abstract_state, init_state
from tests.tiny import eight_device_mesh, one_device_mesh

OPTIMIZER = make_optimizer(OptimizerConfig(), 10)
REPOSITORY = Path(__file__).resolve().parent.parent
META = {"fingerprint": "abc", "position": {"step": 7}}


def make_model(width: int, rngs: nnx.Rngs) -> Attention:
    return Attention(width, 8, 2, rngs=rngs)


def fresh(mesh: Mesh, step: int = 0, width: int = 16) -> TrainState:
    """A state whose every number is another."""
    make = functools.partial(make_model, width)
    state = init_state(make, OPTIMIZER, jax.random.key(step), mesh)
    noise = iter(np.random.default_rng(step).standard_normal(100_000).astype(np.float32))

    def fill(leaf: jax.Array) -> jax.Array:
        values = np.fromiter(noise, np.float32, leaf.size).reshape(leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    state = jax.tree.map(fill, state)
    return dataclasses.replace(state, step=jax.device_put(jnp.asarray(step), state.step.sharding))


def abstract(mesh: Mesh, width: int = 16) -> TrainState:
    return abstract_state(functools.partial(make_model, width), OPTIMIZER, mesh)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[Checkpoints]:
    """With a checkpoint of step 7 in it, saved on eight devices."""
    made = Checkpoints(tmp_path / "run")
    made.save(fresh(eight_device_mesh(), 7), META)
    made.wait()
    yield made
    made.close()


def assert_equal(found: Any, expected: Any) -> None:
    assert named(found).keys() == named(expected).keys()
    for name, array in named(expected).items():
        np.testing.assert_array_equal(named(found)[name], array, err_msg=name)


def test_leaves_have_the_names_they_have_in_the_code() -> None:
    model = jax.eval_shape(lambda: make_model(16, nnx.Rngs(0)))
    names = [f"{part}.kernel" for part in ("key", "out", "query", "value")]
    norms = ["key_norm.scale", "query_norm.scale"]
    assert sorted(named(model)) == sorted([*names, *norms, "out.bias"])


def test_names_lead_back_into_the_tree() -> None:
    state = fresh(one_device_mesh(), 3)
    assert_equal(unnamed(named(state), state), state)
    assert len(named(state)) == len(jax.tree.leaves(state))
    assert "opt_state.1.0.mu.value.kernel" in named(state)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2, 2, 1), (1, 2, 1, 2)])
def test_a_state_is_restored_onto_any_mesh(
    checkpoints: Checkpoints, sizes: tuple[int, int, int, int]
) -> None:
    wanted = abstract(make_mesh(MeshConfig(*sizes), jax.devices()[-math.prod(sizes) :]))
    found = checkpoints.restore(wanted)
    assert_equal(found, fresh(one_device_mesh(), 7))
    for name, leaf in named(found).items():
        assert leaf.sharding == named(wanted)[name].sharding, name
        assert leaf.dtype == named(wanted)[name].dtype
    assert checkpoints.meta() == META


def test_the_average_is_restored_without_the_rest(checkpoints: Checkpoints) -> None:
    # Not even readable, the rest is not needed.
    for file in Path(checkpoints.directory, "7", "state").rglob("d/*"):
        file.write_bytes(b"")
    found = checkpoints.restore_ema(abstract(one_device_mesh()).ema)
    assert_equal(found, fresh(one_device_mesh(), 7).ema)


def test_meta_is_what_it_was_when_it_was_saved(checkpoints: Checkpoints) -> None:
    """It is written while the run goes on."""
    for step in range(8, 14):
        meta = {"seen": {"number": 0}}
        checkpoints.save(fresh(one_device_mesh(), step), meta)
        for _ in range(1000):
            meta["seen"]["number"] += 1
        checkpoints.wait()
        assert checkpoints.meta(step) == {"seen": {"number": 0}}


def test_the_model_is_restored_without_average_and_moments(checkpoints: Checkpoints) -> None:
    mesh = make_mesh(MeshConfig(fsdp=2), jax.devices()[:2])
    found = checkpoints.restore_model(abstract(mesh).model)
    assert_equal(found, fresh(one_device_mesh(), 7).model)
    assert jax.tree.leaves(found)[0].sharding.mesh == mesh
    with pytest.raises(CheckpointError, match="model.extra is missing"):
        checkpoints.restore_model({**named(abstract(mesh).model), "extra": abstract(mesh).step})


def test_a_state_may_be_donated_as_soon_as_save_returns(checkpoints: Checkpoints) -> None:
    mesh = eight_device_mesh()
    overwrite = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 + 1, state), donate_argnums=0)
    for step in (8, 9, 10):
        state = fresh(mesh, step)
        checkpoints.save(state, META)
        jax.block_until_ready(overwrite(state))
        checkpoints.wait()
        assert_equal(checkpoints.restore(abstract(mesh)), fresh(mesh, step))


def test_the_last_two_are_kept(checkpoints: Checkpoints) -> None:
    for step in (8, 9):
        checkpoints.save(fresh(one_device_mesh(), step), META)
    checkpoints.wait()
    steps = sorted(path.name for path in checkpoints.directory.iterdir())
    assert steps == ["8", "9"]
    assert_equal(checkpoints.restore(abstract(one_device_mesh()), 8), fresh(one_device_mesh(), 8))


def test_another_model_is_told_by_the_names_that_differ(checkpoints: Checkpoints) -> None:
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(abstract(one_device_mesh(), width=32))
    assert str(error.value).startswith(
        f"checkpoint {checkpoints.directory}/7 is of another model: model.key.kernel is [8, 16], "
        "the model's [8, 32], "
    )
    assert str(error.value).endswith(" more; use the config saved beside it")


def test_a_tensor_more_or_less_is_named(checkpoints: Checkpoints) -> None:
    ema = named(abstract(one_device_mesh()).ema)
    extra = ema.pop("out.bias")
    with pytest.raises(CheckpointError, match="out.bias is not in the model"):
        checkpoints.restore_ema(ema)
    with pytest.raises(CheckpointError, match="out.bias2 is missing"):
        checkpoints.restore_ema({**ema, "out.bias": extra, "out.bias2": extra})


def test_nothing_to_restore_is_said(tmp_path: Path) -> None:
    empty = Checkpoints(tmp_path / "none")
    assert empty.latest() is None
    sentence = f"no complete checkpoint in {tmp_path}/none: train first"
    for restore in (empty.meta, lambda: empty.restore(abstract(one_device_mesh()))):
        with pytest.raises(CheckpointError, match=sentence):
            restore()
    empty.close()


@pytest.mark.parametrize(
    "damaged",
    ["meta/metadata", "state/_METADATA", "state/manifest.ocdbt", "ema/_METADATA", "state/**/d/*"],
)
def test_a_file_cut_short_is_told_with_its_checkpoint(
    checkpoints: Checkpoints, damaged: str
) -> None:
    files = sorted(Path(checkpoints.directory, "7").glob(damaged))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = Checkpoints(checkpoints.directory)
    sentence = f"checkpoint {checkpoints.directory}/7 cannot be read .*: remove it to go on from"
    restore: Any = again.meta if damaged.startswith("meta") else again.restore
    inputs = [] if damaged.startswith("meta") else [abstract(one_device_mesh())]
    with pytest.raises(CheckpointError, match=sentence) as error:
        restore(*inputs)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    again.close()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=f"cannot use {tmp_path}/file/run: Not a directory"):
        Checkpoints(tmp_path / "file" / "run")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from sora_jax.checkpoints import CheckpointError, Checkpoints
from tests.test_checkpoints import META, fresh
from tests.tiny import one_device_mesh

checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(fresh(one_device_mesh(), 1, 64), META)
checkpoints.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    checkpoints.save(fresh(one_device_mesh(), 2, 64), META)
    checkpoints.close()
except CheckpointError as error:
    print(error)
"""


def test_a_disk_that_is_full_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: writing fails half-way as there.
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # it would be cut too
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY
    )
    assert result.stdout == (
        f"cannot save a checkpoint in {tmp_path}: File too large; that of step 1 is whole\n"
    )
    again = Checkpoints(tmp_path)
    assert again.latest() == 1
    found = again.restore(abstract(one_device_mesh(), 64))
    assert_equal(found, fresh(one_device_mesh(), 1, 64))
    again.save(fresh(one_device_mesh(), 2, 64), META)  # there is room again
    again.wait()
    assert_equal(again.restore(abstract(one_device_mesh(), 64)), fresh(one_device_mesh(), 2, 64))
    again.close()


@pytest.mark.parametrize("part", ["ema", "raw", "all"])
def test_no_more_is_read_than_is_asked_for(tmp_path: Path, part: str) -> None:
    """The state holds the model, two moments of it, and the average apart."""
    mesh = eight_device_mesh()
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        state = init_state(functools.partial(make_model, 512), OPTIMIZER, jax.random.key(0), mesh)
        state = jax.tree.map(lambda leaf: leaf + 1, state)  # chunks of zeros are not written
        checkpoints.save(state, META)
        checkpoints.wait()
        like, before = abstract(mesh, 512), bytes_read()
        if part == "all":
            checkpoints.restore(like)
        else:
            restore = checkpoints.restore_ema if part == "ema" else checkpoints.restore_model
            restore(like.ema)
    of_a_model = sum(leaf.nbytes for leaf in jax.tree.leaves(state.ema))
    copies = 4 if part == "all" else 1
    read = bytes_read() - before  # small arrays are in the index, which may be in memory
    assert 0.99 * copies * of_a_model < read < 1.1 * copies * of_a_model
