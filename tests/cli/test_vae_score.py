"""`sora vae score` and `sora vae sizes`: flags reach the call, and what is missing is said."""

from pathlib import Path

import pytest

from sora_jax.cli import vae
from sora_jax.config import ConfigError, load_experiment
from sora_jax.scaling.vae_sizes import sizes_table


def run(*arguments: str) -> None:
    vae.FLAGS.set_gnu_getopt(True)
    vae.main(vae.FLAGS(["sora vae", *arguments]))


@pytest.fixture(autouse=True)
def _own_flags() -> None:
    vae.FLAGS.unparse_flags()
    for name in vae.FLAGS:
        vae.FLAGS[name].unparse()


def test_flags_of_score_reach_the_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(vae, "score_autoencoder", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(vae, "ClipSet", str)
    monkeypatch.setattr(vae, "keep_on_disk", lambda: None)
    run("score", "--run", str(tmp_path), "--data", "set", "--clips", "5", "--lpips", "vgg.pth")
    run(
        "score",
        "--run",
        str(tmp_path),
        "--data",
        "set",
        "--output",
        "there",
        "--i3d",
        "i3d.ckpt",
        "--nofvd",
    )
    assert calls == [
        (tmp_path, "set", tmp_path / "vae" / "scores", 5, "vgg.pth", "", True),
        (tmp_path, "set", Path("there"), 5, "vgg.pth", "i3d.ckpt", False),
    ]


def test_what_score_needs_is_said() -> None:
    with pytest.raises(ConfigError, match="sora vae score needs --run, a run with .* and --data"):
        run("score", "--run", "somewhere")


def test_sizes_are_those_of_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    run("sizes", "demo", "dit_2b", "--set", "vae.channels=24")
    shown = capsys.readouterr().out
    names = ("demo", "dit_2b")
    configs = {name: load_experiment(name, ["vae.channels=24"]).vae for name in names}
    assert sizes_table(configs).text() in shown
    assert "17x256x256" in shown


def test_no_experiment_is_said() -> None:
    with pytest.raises(ConfigError, match="'sora vae sizes' is not understood: give encode"):
        run("sizes")
