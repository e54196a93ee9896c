"""`sora vae`: any video into latents and back, in parts, and a stopped job goes on to the bit."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import av
import jax.numpy as jnp
import numpy as np
import pytest

import sora_jax.sample.mp4
from sora_jax import vae_files
from sora_jax.data.footage import MediaError, read_frames
from sora_jax.errors import UserError
from sora_jax.models.vae import VAE, to_uint8, to_unit
from sora_jax.sample import stream
from sora_jax.sample.metadata import read_metadata
from sora_jax.sample.mp4 import Mp4Writer
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.vae_files import decode_file, encode_file
from tests.tiny import randomised
from tests.tiny_videos import CODER, CONFIG, clip, parts, write


@pytest.mark.parametrize("frames", [1, 2, 5, 30, 33])
def test_a_file_is_coded_as_the_clip_at_once(
    frames: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    pictures = clip(frames, 15, 22)
    source = write(tmp_path / "in.mkv", pictures)
    label = encode_file(source, tmp_path / "latents", CODER)
    said = capsys.readouterr().out
    assert (label.frames, label.height, label.width, label.fps) == (frames, 15, 22, 12.5)
    assert "edges repeated from 15x22 to 16x24 (height x width), whole cells of 4" in said
    over = -(frames - 1) % 4
    assert (f"the last is repeated to fill up {frames + over}" in said) == bool(over)
    whole = np.pad(pictures, ((0, over), (0, 1), (0, 2), (0, 0)), mode="edge")[None]
    mean = CODER.vae.encode(to_unit(jnp.asarray(whole)))[0]
    latents = np.concatenate(parts(tmp_path / "latents"))
    np.testing.assert_allclose(latents, (mean[0] - 0.1) / 1.3, rtol=1e-5, atol=1e-5)

    written = []

    class Recording(Mp4Writer):
        def write(self, video: np.ndarray) -> None:
            written.append(video)
            super().write(video)

    monkeypatch.setattr(sora_jax.sample.mp4, "Mp4Writer", Recording)
    decode_file(tmp_path / "latents", tmp_path / "out.mp4", CODER)
    assert "15x22 (height x width) has its edge repeated to 16x22" in capsys.readouterr().out
    expected = np.asarray(to_uint8(CODER.vae.decode(mean)))[0, :frames, :15, :22].astype(int)
    found = np.concatenate(written)
    assert abs(found[:, :15] - expected).max() <= 1
    assert (found[:, 15] == found[:, 14]).all()
    # And as many are in the file, at their rate.
    assert np.stack(list(read_frames(tmp_path / "out.mp4"))).shape == found.shape
    said = json.loads((tmp_path / "latents" / "latents.json").read_text())
    assert read_metadata(tmp_path / "out.mp4") == {"task": "decode", "latents": said}
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(frames) / 12.5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "latents", "out.mp4"]
    assert not list((tmp_path / "latents").glob("*state*"))


class StoppedError(Exception):
    pass


IN_BFLOAT16 = dataclasses.replace(CONFIG, compute="bfloat16")
CODERS = {
    "one device": CODER,
    "split pictures in bfloat16": dataclasses.replace(
        CODER,
        vae=randomised(lambda rngs: VAE(IN_BFLOAT16, rngs=rngs), deviation=0.1),
        mesh=make_mesh(MeshConfig(fsdp=1, context=8)),
    ),
}


@pytest.mark.parametrize(
    ("name", "runs"), [*(("one device", runs) for runs in (0, 1, 4, 5)), (list(CODERS)[1], 3)]
)
@pytest.mark.parametrize("what", ["encode", "decode"])
def test_a_job_that_is_stopped_goes_on_to_the_same_bits(
    what: str,
    name: str,
    runs: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    coder = CODERS[name]
    source = write(tmp_path / "in.mkv", clip(38, 16, 32))
    encode_file(source, tmp_path / "whole", coder)
    decode_file(tmp_path / "whole", tmp_path / "whole.mp4", coder)
    counter = itertools.count()
    program = getattr(stream, f"{what}_chunk")

    def stopping(*arguments: Any) -> Any:
        if next(counter) == runs:
            raise StoppedError
        return program(*arguments)

    def job() -> None:
        if what == "encode":
            encode_file(source, tmp_path / "parts", coder)
        else:
            decode_file(tmp_path / "whole", tmp_path / "parts.mp4", coder)

    with monkeypatch.context() as patch:
        patch.setattr(vae_files, f"{what}_chunk", stopping)
        with pytest.raises(StoppedError):
            job()
    assert not (tmp_path / "parts.mp4").exists()
    held = tmp_path / ("parts" if what == "encode" else "parts.mp4.parts")
    (held / ".000000.npy.1.partial").write_text("of a job that was killed as it wrote")
    capsys.readouterr()
    job()
    assert (f"goes on after part {runs // 2}" in capsys.readouterr().out) == (runs >= 2)
    assert not list(tmp_path.rglob("*.partial"))
    if what == "encode":
        found, expected = parts(tmp_path / "parts"), parts(tmp_path / "whole")
        assert [len(part) for part in expected] == [3, 4, 4]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(
    ("layout", "kept", "said"),
    [
        ("gray", "gray", "grey as red, green and blue"),
        ("gray16le", "gray16le", "scaled from 16 bits to 8; grey as red, green and blue"),
        ("rgb48le", "gbrp16le", "scaled from 16 bits to 8"),
        ("rgba", "bgra", "transparency laid over black"),
    ],
)
def test_any_pixels_are_made_rgb_of_8_bits_and_it_is_said(
    layout: str, kept: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.arange(16 * 24, dtype=np.int64).reshape(1, 16, 24) % 256
    colours = np.stack([values, 255 - values, values // 2], -1)
    alpha = np.where(np.arange(24) < 12, 255, 128)
    pictures: dict[str, np.ndarray] = {
        "gray": values,
        "gray16le": values * 257,
        "rgb48le": colours * 257,
        "rgba": np.concatenate([colours, np.broadcast_to(alpha[:, None], (1, 16, 24, 1))], -1),
    }
    kind = np.uint16 if "16" in layout or "48" in layout else np.uint8
    source = write(tmp_path / "in.mkv", pictures[layout].astype(kind).repeat(2, 0), layout, kept)
    expected = {
        "gray": values[..., None].repeat(3, -1),
        "rgba": (colours * alpha[:, None] + 127) // 255,
    }.get(layout.removesuffix("16le"), colours)
    found = next(read_frames(source)).astype(int)
    assert abs(found - expected[0]).max() <= 1  # FFmpeg rounds 16 bits down
    encode_file(source, tmp_path / "latents", CODER)
    lines = capsys.readouterr().out.splitlines()
    assert lines[: said.count(";") + 1] == [f"{source}: {change}" for change in said.split("; ")]


def test_what_cannot_be_coded_is_said_in_one_sentence(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", clip(9))
    with pytest.raises(MediaError, match="no.mp4: unreadable"):
        encode_file(tmp_path / "no.mp4", tmp_path / "latents", CODER)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match="text.mp4: unreadable"):
        encode_file(tmp_path / "text.mp4", tmp_path / "latents", CODER)
    with pytest.raises(UserError, match="latents holds no latents of a video"):
        decode_file(tmp_path / "latents", tmp_path / "out.mp4", CODER)
    encode_file(source, tmp_path / "latents", CODER)
    with pytest.raises(UserError, match="latents is there and holds something else"):
        encode_file(write(tmp_path / "b.mkv", clip(2)), tmp_path / "latents", CODER)
    other = dataclasses.replace(CODER, vae=randomised(lambda rngs: VAE(CONFIG, rngs=rngs)))
    with pytest.raises(UserError, match="decode them with the run that encoded them"):
        decode_file(tmp_path / "latents", tmp_path / "out.mp4", other)
    (tmp_path / "latents/000000.npy").write_bytes(b"")
    with pytest.raises(UserError, match="000000.npy: .*encode the video again"):
        decode_file(tmp_path / "latents", tmp_path / "out.mp4", CODER)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot"):
        encode_file(source, tmp_path / "file" / "latents", CODER)
