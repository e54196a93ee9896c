"""Two processes embed captions of their own, each by itself, and captions of both over one mesh."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.weights.t5 import import_encoder
from sora_jax.weights.text_encoders import EncodedCaptions, ImportedEncoder
from tests.processes import in_processes
from tests.tiny_t5 import write_folder

OWN = (["a red star", "a blue circle moves left " * 5, ""], ["a small green square"])
SHARED = ["a red star", "a large blue circle", "", "a square"]


def child(port: str, number: str, directory: str) -> None:
    """One of the processes: the first has more batches of its own than the second."""
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    embed = ImportedEncoder(Path(directory) / "encoder")
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    text = EncodedCaptions(embed, embed.restore(mesh)).encode(SHARED, 24)
    own = np.concatenate(embed(OWN[int(number)]))
    np.savez(
        Path(directory) / f"{number}.npz", own=own, shared=np.asarray(text.embeddings, np.float32)
    )


@pytest.mark.slow
def test_two_processes_embed_as_one_does(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", "umt5")
    import_encoder("umt5", source, tmp_path / "encoder", "float32", source)
    in_processes(2, "tests.weights.test_text_encoders_processes", str(tmp_path))
    embed = ImportedEncoder(tmp_path / "encoder")
    shared = EncodedCaptions(embed, embed.here()).encode(SHARED, 24)
    for number, captions in enumerate(OWN):
        found = np.load(tmp_path / f"{number}.npz")
        np.testing.assert_allclose(found["own"], np.concatenate(embed(captions)), atol=1e-5)
        expected = np.asarray(shared.embeddings, np.float32)
        np.testing.assert_allclose(found["shared"], expected, rtol=2**-7, atol=1e-5)
