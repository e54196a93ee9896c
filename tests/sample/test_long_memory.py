"""Memory of making a clip is that of its first window, whatever the duration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import CHECKOUT

WINDOW = 17  # frames; eight windows of 512 x 512 pixels are 107 MB, more than what is allowed
CHILD = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
from flax import nnx
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.diffusion.times import TimesConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.long import LongRequest
from sora_jax.sample.long_files import write_long
from sora_jax.sample.requests import Request
from tests.tiny import one_device_mesh

vae = VAE(VAEConfig(channels=4, widths=(8,), folds=((4, 8),), blocks=1), rngs=nnx.Rngs(0))
text = TextConfig(depth=1, width=16, heads=2)
dit = DiTConfig(depth=1, width=32, heads=2, patch=8)
generator = Generator(dit, text, channels=4, vocabulary=64, rngs=nnx.Rngs(1))
sampler = Sampler(
    generator,
    vae,
    LatentStatistics(jnp.zeros(4), jnp.ones(4)),
    Tokenizer.train(["a red circle"], vocabulary_size=64),
    text_length=8,
    times=TimesConfig(),
    config=SamplingConfig(steps=2, rows=1, chunk=1),
    mesh=one_device_mesh(),
)
first = Request("a red circle", 17, 512, 512, 8.0, 0)
write_long(sampler, LongRequest(first, int(sys.argv[2]), 5, 3), Path(sys.argv[1]), {})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(path: Path, frames: int) -> int:
    """Of a process that makes so many frames, in kB."""
    command = [sys.executable, "-c", CHILD, str(path), str(frames)]
    # Pools of the C library, one for each of many threads, fill up in their own time.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{frames} of {frames} frames" in done.stdout
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_eight_windows_hold_no_more_than_one(tmp_path: Path) -> None:
    short, long = peak(tmp_path / "1.mp4", WINDOW), peak(tmp_path / "8.mp4", 8 * WINDOW)
    assert long <= 1.15 * short, (long, short)
