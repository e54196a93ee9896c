"""A million records: every one is found, and what is resident stays below 1 GiB."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loader import MILLION, write_set

# The peak is of the whole process, so the loader has one of its own.
SCRIPT = """
import json, resource, sys
import numpy as np
from benchmarks.loader import BUCKET, CONFIG, CONTENTS, ROWS
from sora_jax.data.pipeline import Steps
from sora_jax.data.sources import ClipSet
steps = Steps(ClipSet(sys.argv[1]), CONFIG, [ROWS], 0)
source = steps.clips.source(BUCKET)
indices = [0, 4095, 4096, 500_000, *range(7, 1_000_000, 9_973), 999_999]
for index, record in zip(indices, source.records(indices), strict=True):
    assert record.clip_id == f"clip-{index}", (index, record.clip_id)
drawn = [steps._index(0, position) for position in range(len(source))]
for step in range(300):
    _, batch = steps[step]
    contents = [drawn[position] % CONTENTS for position in batch.example_id.tolist()]
    assert batch.video[:, 0, 0, 0, 0].tolist() == [content % 256 for content in contents]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"records": len(source), "drawn": len(set(drawn)), "peak": peak}))
"""


@pytest.mark.slow
def test_a_million_records_are_found_in_less_than_a_gibibyte(tmp_path: Path) -> None:
    write_set(tmp_path / "set", MILLION)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "set")]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["records"] == found["drawn"] == MILLION
    assert found["peak"] < 2**30
