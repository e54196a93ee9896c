"""Arrays on disk: read in little more memory than they take, and as Orbax itself writes them."""

import json
import math
import subprocess
import sys
from pathlib import Path
from unittest import mock

import orbax.checkpoint as ocp
import pytest

from sora_jax.checkpoints import Checkpoints
from sora_jax.saved_arrays import read_metadata
from tests.test_checkpoints import META, REPOSITORY, abstract, assert_equal, fresh
from tests.tiny import eight_device_mesh, one_device_mesh

MEGABYTES = 256
FIXED = 64  # MB that a restore of any state takes: code, programs, threads
LINUX = sys.platform == "linux"


def restoring(directory: Path, part: str) -> dict[str, float]:
    """What another process says of saving or restoring a state."""
    command = [sys.executable, "-m", "benchmarks.restoring", str(directory), part, str(MEGABYTES)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not LINUX, reason="the peak of a process is reset by Linux alone")
def test_a_restore_holds_little_more_than_what_it_restores(tmp_path: Path) -> None:
    restoring(tmp_path / "run", "save")
    found = restoring(tmp_path / "run", "all")
    assert found["held_mb"] > 0.9 * MEGABYTES
    assert found["grown_mb"] < 1.3 * found["held_mb"] + FIXED


def test_what_orbax_wrote_by_its_own_settings_is_restored(tmp_path: Path) -> None:
    with mock.patch("sora_jax.checkpoints.array_handler", ocp.PyTreeCheckpointHandler):
        before = Checkpoints(tmp_path / "run")
        before.save(fresh(eight_device_mesh(), 7), META)
        before.close()
    assert list((tmp_path / "run" / "7").rglob("_sharding"))
    again = Checkpoints(tmp_path / "run")
    assert_equal(again.restore(abstract(one_device_mesh())), fresh(one_device_mesh(), 7))
    again.close()


def test_large_arrays_are_saved_in_chunks_and_restored_on_another_mesh(tmp_path: Path) -> None:
    with mock.patch("sora_jax.saved_arrays.CHUNK_BYTES", 64):
        checkpoints = Checkpoints(tmp_path / "run")
        checkpoints.save(fresh(eight_device_mesh(), 7), META)
        checkpoints.wait()
    saved = read_metadata(checkpoints.directory / "7" / "state")
    sizes = [math.prod(array.storage.chunk_shape) * 4 for array in saved.values()]
    assert max(sizes) == 64
    assert max(math.prod(array.shape) for array in saved.values()) > 64 / 4
    assert_equal(checkpoints.restore(abstract(one_device_mesh())), fresh(one_device_mesh(), 7))
    checkpoints.close()
