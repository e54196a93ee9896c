"""Two processes of two devices each code clips, and files, to the numbers of one device."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sora_jax import vae_files
from sora_jax.data.footage import read_frames
from sora_jax.models.patches import Grid
from sora_jax.processes import to_host
from sora_jax.sample.stream import decode_clips, encode_clips, whole
from sora_jax.sharding.mesh import MeshConfig, make_mesh, picture_mesh
from tests.processes import in_processes


def child(port: str, number: str, directory: str) -> None:
    """One of the processes: codes a clip, then a file, where it stops and goes on in between."""
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    from tests.tiny_videos import CODER  # makes arrays

    mesh, output = make_mesh(MeshConfig(fsdp=1, context=4)), Path(directory)
    assert picture_mesh(mesh, 1, 4, 6).devices.shape == (1, 2, 2, 1)
    networks = whole(CODER.vae, CODER.statistics, mesh)
    tokens, pixels = coded(networks, mesh)
    np.savez(output / f"{number}.npz", tokens=to_host(tokens), pixels=pixels)
    coder = dataclasses.replace(CODER, vae=networks[0], statistics=networks[1], mesh=mesh)
    encode, calls = vae_files.encode_chunk, []

    def stopping(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise InterruptedError
        return encode(*arguments)

    for program in (stopping, encode):
        vae_files.encode_chunk = program
        try:
            vae_files.encode_file(output / "in.mkv", output / "latents", coder)
        except InterruptedError:
            assert program is stopping
    vae_files.decode_file(output / "latents", output / "out.mp4", coder)


def coded(networks: Any, mesh: Mesh) -> tuple[jax.Array, np.ndarray]:
    """Tokens of a clip, and the pixels of these."""
    from tests.tiny_videos import clip

    how: Any = {"patch": 2, "chunk": 2, "mesh": mesh}
    tokens = encode_clips(*networks, clip(21)[None], **how)
    return tokens, decode_clips(*networks, tokens, Grid(6, 2, 3), **how)


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one_device(tmp_path: Path) -> None:
    from tests.tiny_videos import CODER, clip, parts, write

    source = write(tmp_path / "in.mkv", clip(30))
    in_processes(2, "tests.sample.test_two_processes", str(tmp_path))
    tokens, pixels = coded((CODER.vae, CODER.statistics), CODER.mesh)
    for number in range(2):
        found = np.load(tmp_path / f"{number}.npz")
        np.testing.assert_allclose(found["tokens"], tokens, rtol=1e-5, atol=1e-5)
        assert abs(found["pixels"].astype(int) - pixels).max() <= 1
    vae_files.encode_file(source, tmp_path / "alone", CODER)
    for one, other in zip(parts(tmp_path / "latents"), parts(tmp_path / "alone"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    vae_files.decode_file(tmp_path / "alone", tmp_path / "alone.mp4", CODER)
    shown = [np.stack(list(read_frames(tmp_path / name))) for name in ("out.mp4", "alone.mp4")]
    assert shown[0].shape == shown[1].shape == (30, 16, 24, 3)
    assert abs(shown[0].astype(int) - shown[1]).mean() < 1
