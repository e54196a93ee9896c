"""Checkpoints in a bucket (gs://): saved, kept, restored on other devices, damaged, set aside.

In a process of their own, whose clients find a bucket that stands for Google's.
"""

import os
import subprocess
import sys

import pytest

from tests.bucket import Bucket, serving
from tests.processes import CHECKOUT

pytest.importorskip("gcsfs")
CHILD = """
from absl import flags
from sora_jax.checkpoints import Checkpoints, DamagedError
from tests.test_checkpoints import (
    META, abstract, assert_equal, eight_device_mesh, fresh, one_device_mesh
)

flags.FLAGS(["test"])
checkpoints = Checkpoints("gs://bucket/run/checkpoints")
{body}
checkpoints.close()
"""
SAVES = """
for step in (7, 8, 9):
    checkpoints.save(fresh(eight_device_mesh(), step), META)
    checkpoints.wait()
"""
RESTORES = """
assert checkpoints.steps() == [9, 8], checkpoints.steps()
assert checkpoints.meta() == META
assert_equal(checkpoints.restore(abstract(one_device_mesh())), fresh(one_device_mesh(), 9))
ema = abstract(eight_device_mesh()).ema
assert_equal(checkpoints.restore_ema(ema), fresh(eight_device_mesh(), 9).ema)
"""
SETS_ASIDE = """
try:
    checkpoints.restore(abstract(one_device_mesh()))
    raise AssertionError("restored")
except DamagedError as error:
    assert "gs://bucket/run/checkpoints/9 cannot be read" in str(error), error
place = checkpoints.set_aside(9)
assert str(place) == "gs://bucket/run/damaged_checkpoints/9"
assert checkpoints.steps() == [8]
assert_equal(checkpoints.restore(abstract(one_device_mesh())), fresh(one_device_mesh(), 8))
"""


def run(body: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", CHILD.format(body=body)]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def of_step(bucket: Bucket, step: int, folder: str = "checkpoints") -> set[str]:
    return {name for name in bucket.objects if name.startswith(f"run/{folder}/{step}/")}


def test_a_bucket_holds_checkpoints_as_a_disk_does() -> None:
    with serving() as (bucket, environment):
        run(SAVES, environment)
        assert not of_step(bucket, 7)  # the last two are kept
        assert of_step(bucket, 8)
        assert of_step(bucket, 9)
        run(RESTORES, environment)
        for name in of_step(bucket, 9):
            if "/state/" in name and "/d/" in name:
                del bucket.objects[name]
        left = of_step(bucket, 9)
        run(SETS_ASIDE, environment)
        assert not of_step(bucket, 9)
        assert len(of_step(bucket, 9, "damaged_checkpoints")) == len(left)
