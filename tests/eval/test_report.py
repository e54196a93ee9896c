"""The report is one page that needs nothing else, and its tables hold the numbers."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest

from sora_jax.errors import UserError
from sora_jax.eval.evaluator import Evaluation, Exhibit
from sora_jax.eval.report import read_curves, write_report
from sora_jax.eval.tables import table_text, tables
from tests.pages import Tags

METRICS = {
    "text_to_video/colour_accuracy": 0.96875,
    "text_to_video/colour_accuracy/low": 0.9,
    "text_to_video/colour_accuracy/high": 1.0,
    "text_to_video/ceiling_vae/colour_accuracy": 0.99,
    "text_to_video/floor_shuffled/colour_accuracy": 0.21,
    "text_to_video/prompts_cut": 0.0,
    "vae/psnr_db": 31.25,
    "vae/psnr_baseline_db": 22.0,
}


def clip(frames: int) -> np.ndarray:
    video = np.zeros((frames, 24, 40, 3), np.uint8)
    video[:, :, 8:16] = (250, 30, 30)
    return video


def page(path: Path, **changes: object) -> str:
    exhibits = {
        "animate": [Exhibit("a <red> bar & more", 8.0, {"given": clip(1), "generated": clip(9)})],
        "text_to_image": [Exhibit("an image", 8.0, {"generated": clip(1), "true": clip(1)})],
    }
    arguments = {
        "curves": {"vae": {"loss": ([1, 50], [1.5, 0.1])}, "dit": {"loss": ([1, 9], [2.0, 1.0])}},
        "made_by": {"command": "sora evaluate --run 'a <b>'"},
    }
    write_report(path, Evaluation(METRICS, exhibits), **(arguments | changes))
    return path.read_text()


def test_the_page_is_whole_and_needs_no_other_file(tmp_path: Path) -> None:
    parser = Tags()
    parser.feed(page(tmp_path / "report.html"))
    assert parser.open == []
    media = [source for source in parser.sources if not source.startswith("#")]
    assert [source.partition(";")[0] for source in media] == ["data:image/png", "data:video/mp4"]


def test_the_videos_play(tmp_path: Path) -> None:
    import av

    text = page(tmp_path / "report.html")
    found = re.search(r"<video autoplay loop muted.*?base64,([^']+)'", text)
    assert found
    with av.open(io.BytesIO(base64.b64decode(found[1]))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert len(frames) == 9  # the given frame stays beside the clip
    assert abs(frames[8][60, 60].astype(int) - (250, 30, 30)).max() < 12


def test_texts_are_escaped(tmp_path: Path) -> None:
    text = page(tmp_path / "report.html")
    assert "a &lt;red&gt; bar &amp; more" in text
    assert "<red>" not in text
    assert "'a <b>'" not in text


def test_tables_hold_the_scores_beside_their_bounds() -> None:
    captions, rest = tables(METRICS)
    assert captions.rows == (("colour", "0.969 (0.900 to 1.000)", "0.990", "0.210"),)
    assert [name.partition(":")[0] for name in captions.header] == [
        "",
        "generated",
        "ceiling",
        "floor",
    ]
    assert rest.rows == (("autoencoder, PSNR", "31.2 dB", "22.0 dB bilinear, as many numbers"),)
    assert "colour  0.969 (0.900 to 1.000)" in table_text(METRICS)


def test_scores_of_a_set_make_a_report_too(tmp_path: Path) -> None:
    metrics = {"vae/psnr_db": 30.0, "vae/psnr_baseline_db": 25.0}
    write_report(tmp_path / "report.html", Evaluation(metrics, {}), curves={}, made_by={})
    assert "30.0 dB" in (tmp_path / "report.html").read_text()


def test_curves_are_what_was_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 50, "loss": 1.5, "psnr_db": 20.0}\n')
    assert read_curves(path) == {"loss": ([1, 50], [2.0, 1.5]), "psnr_db": ([50], [20.0])}


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = page(tmp_path / "report.html")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="cannot write .*report.html: No space left on device"):
        page(tmp_path / "report.html", made_by={})
    assert (tmp_path / "report.html").read_text() == old
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
