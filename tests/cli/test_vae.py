"""`sora vae`: the words and flags of the command, on a tiny autoencoder."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sora_jax.cli import vae
from sora_jax.errors import UserError
from sora_jax.sharding.mesh import MeshConfig
from tests.tiny_videos import CODER, clip, write


@pytest.fixture
def sora_vae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the command with words and flags."""
    experiment = SimpleNamespace(
        mesh=MeshConfig(fsdp=1, context=8), sampling=SimpleNamespace(chunk=2)
    )
    monkeypatch.setattr(vae, "experiment_of", lambda directory: experiment)
    monkeypatch.setattr(vae, "override", lambda experiment, *changes: experiment)
    monkeypatch.setattr(vae, "load_vae", lambda *_: (CODER.vae, CODER.statistics, 7))

    def call(*arguments: str) -> None:
        vae.FLAGS.unparse_flags()
        vae.main(vae.FLAGS(["sora vae", *arguments]))

    yield call
    vae.FLAGS.unparse_flags()
    for name in vae.FLAGS:
        vae.FLAGS[name].unparse()


def test_a_video_goes_there_and_back_over_eight_devices(
    sora_vae: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.mkv", clip(6, 16, 16))
    latents, output = tmp_path / "latents", tmp_path / "out.mp4"
    sora_vae("encode", str(source), "--run=run", f"--output={latents}")
    sora_vae("decode", str(latents), "--run=run", f"--output={output}")
    said = capsys.readouterr().out
    assert "autoencoder of run, step 7, averaged" in said
    assert f"{latents}: latents of 6 frames at 12.5 fps" in said
    assert f"{output}: 6 frames at 12.5 fps" in said
    sora_vae("encode", str(source), "--run=run", f"--output={latents}")
    assert f"{latents}: is there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["shrink"],
            "'sora vae shrink' is not understood: give encode VIDEO, decode LATENTS, score or",
        ),
        (["encode"], "'sora vae encode' is not understood"),
        (["encode", "in.mp4"], "sora vae needs --run, .* and --output"),
        (["decode", "x", "--run=run", "--output=out.avi"], "out.avi: decode writes an .mp4"),
        (["encode", "gs://b/in.mp4", "--run=run", "--output=x"], "no path of this machine"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], sentence: str, sora_vae: Callable[..., None]
) -> None:
    with pytest.raises(UserError, match=sentence):
        sora_vae(*arguments)
