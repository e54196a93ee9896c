"""Memory of decoding a file is that of a short one, whatever its duration."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sora_jax.files import write_json
from sora_jax.vae_files import LABEL, LatentsFile
from tests.processes import CHECKOUT

SIDE = 256  # pixels; 957 frames as bytes are 188 MB, far more than what is allowed
CHILD = """
import dataclasses, resource, sys
from pathlib import Path
from sora_jax.encoded import vae_id
from sora_jax.vae_files import decode_file
from tests.tiny_videos import CODER
latents = Path(sys.argv[1])
label = latents / "latents.json"
label.write_text(label.read_text().replace("VAE", vae_id(CODER.vae, CODER.mesh)))
decode_file(latents, latents.with_suffix(".mp4"), dataclasses.replace(CODER, part=8))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(directory: Path, frames: int) -> int:
    """Of a process that decodes so many latent frames."""
    cells, parts = SIDE // 4, -(-frames // 16)
    label = LatentsFile("in.mp4", "0", "VAE", 4 * frames - 3, SIDE, SIDE, 24.0, parts)
    write_json(directory / LABEL, dataclasses.asdict(label))
    one = np.random.default_rng(0).normal(size=(cells, cells, 4)).astype(np.float32)
    for part in range(parts):
        length = min(16, frames - 16 * part)
        np.save(directory / f"{part:06d}.npy", np.broadcast_to(one, (length, *one.shape)))
    command = [sys.executable, "-c", CHILD, str(directory)]
    # Pools of the C library, one for each of many threads, fill up in their own time.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{label.frames} of {label.frames} frames" in done.stdout
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_decoding_240_latent_frames_holds_no_more_than_15(tmp_path: Path) -> None:
    assert peak(tmp_path / "long", 240) <= 1.2 * peak(tmp_path / "short", 15)
