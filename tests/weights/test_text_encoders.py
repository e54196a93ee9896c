"""`sora import t5`: a folder made whole or not at all, and embeddings that captions get by it."""

import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sora_jax.errors import ConfigError, UserError
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.weights.t5 import Kind, import_encoder
from sora_jax.weights.text_encoders import (
    EncodedCaptions,
    ImportedEncoder,
    open_embedder,
)
from tests.tiny_t5 import WIDTH, write_folder

CAPTIONS = ["a red circle moves left", "", "a small blue star " * 9, "a green square"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source"), "umt5")


@pytest.fixture(scope="module")
def imported(source: Path) -> Path:
    output = source.parent / "imported"
    import_encoder("umt5", source, output, "float32", source)
    return output


def make(source: Path, output: Path, kind: Kind = "umt5") -> str:
    return import_encoder(kind, source, output, "float32", source)


def test_the_folder_says_what_it_is(source: Path, tmp_path: Path) -> None:
    said = make(source, tmp_path / "out")
    embed = open_embedder(str(tmp_path / "out"))
    assert isinstance(embed, ImportedEncoder)
    assert said == f"{tmp_path / 'out'}: {embed.id}, 15,816 parameters, float32, 24 wide"
    assert embed.id.startswith("umt5-")
    assert embed.width == WIDTH
    again = import_encoder("umt5", source, tmp_path / "half", "bfloat16", source)
    assert embed.id not in again  # for it makes other numbers
    assert embed.config.compute == "float32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "out"]


def test_a_caption_is_embedded_alone_whatever_its_company(imported: Path) -> None:
    embed = ImportedEncoder(imported)
    found = embed(CAPTIONS)
    assert [len(each) for each in found] == [embed.tokenizer.length(c) for c in CAPTIONS]
    assert {each.shape[1] for each in found} == {WIDTH}
    for caption, together in zip(CAPTIONS, found, strict=True):
        [alone] = embed([caption])
        np.testing.assert_array_equal(alone, together)
    many = embed([CAPTIONS[3]] * 20 + CAPTIONS[:1])  # more than one batch
    np.testing.assert_array_equal(many[-1], found[0])
    np.testing.assert_allclose(many[19], found[3], rtol=0, atol=1e-6)


def test_embeddings_are_the_same_over_any_mesh_and_cut_like_token_ids(imported: Path) -> None:
    embed = ImportedEncoder(imported)
    found = embed(CAPTIONS)
    mesh = make_mesh(MeshConfig(fsdp=2, context=2, tensor=2))
    captions = EncodedCaptions(embed, embed.restore(mesh))
    text = captions.encode(CAPTIONS, 32)
    for row, segments, each in zip(text.embeddings, text.segments, found, strict=True):
        present = min(len(each), 32)
        np.testing.assert_array_equal(segments, [1] * present + [0] * (32 - present))
        assert not np.any(row[present:])
        if len(each) <= 32:
            np.testing.assert_allclose(row[:present].astype(np.float32), each, rtol=0, atol=0.02)
    assert captions.length(CAPTIONS[2]) == len(found[2]) > 32
    tokens = embed.tokenizer.encode(CAPTIONS, 32)
    assert tokens[2, 31] == 1  # an end mark, in the step as here


def test_weights_that_changed_since_are_told(source: Path, tmp_path: Path) -> None:
    make(source, tmp_path / "out")
    said = json.loads((tmp_path / "out/config.json").read_text())
    said["checksums"]["embedding"] += 1
    (tmp_path / "out/config.json").write_text(json.dumps(said))
    with pytest.raises(UserError, match="weights is not what was imported: import the encoder"):
        ImportedEncoder(tmp_path / "out")(CAPTIONS)
    for file in (tmp_path / "out/weights").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match="weights cannot be read: import the encoder again"):
        ImportedEncoder(tmp_path / "out")(CAPTIONS)
    (tmp_path / "out/config.json").unlink()
    with pytest.raises(UserError, match="is no encoder that `sora import` made"):
        open_embedder(str(tmp_path / "out"))


def test_nothing_is_half_made(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = write_folder(tmp_path / "nan", "t5"), tmp_path / "out"
    every = load_file(folder / "model.safetensors")
    every["encoder.final_layer_norm.weight"][3] = np.inf
    save_file(every, folder / "model.safetensors")
    with pytest.raises(UserError, match="final_layer_norm.weight has numbers that are not finite"):
        make(folder, output, "t5")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="model.safetensors is no file of safetensors"):
        make(folder, output, "t5")
    with monkeypatch.context() as patched:
        patched.setattr("sora_jax.weights.text_encoders.write_json", _full)
        with pytest.raises(UserError, match="cannot write .*out: No space left on device"):
            make(source, output)
    assert [path.name for path in tmp_path.iterdir()] == ["nan"]
    output.mkdir()
    with pytest.raises(UserError, match="out is there already: choose another --output"):
        make(source, output)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module("sora_jax.cli.import")

    def call(*words: str) -> str:
        command.FLAGS.unparse_flags()
        command.main(command.FLAGS(["import", *words]))
        return capsys.readouterr().out

    command.FLAGS.set_gnu_getopt(True)
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"needs a kind \(t5, umt5.*\), a folder, and --output"):
        call("t5", str(source))
    with pytest.raises(ConfigError, match="no import of 'umt'; did you mean 'umt5'?"):
        call("umt", str(source), "--output", out)
    with pytest.raises(UserError, match="model_type 'umt5', for 't5'"):
        call("t5", str(source), "--output", out)
    (source / "spiece.model").rename(tmp_path / "spiece.model")
    try:
        with pytest.raises(UserError, match="name the folder that has one with --tokenizer"):
            call("umt5", str(source), "--output", out)
        said = call("umt5", str(source), "--output", out, "--tokenizer", str(tmp_path))
    finally:
        (tmp_path / "spiece.model").rename(source / "spiece.model")
    assert "15,816 parameters, bfloat16, 24 wide" in said
    assert jax.numpy.bfloat16 == ImportedEncoder(tmp_path / "out")(["a"])[0].dtype
