"""Where a run's numbers go: the terminal, metrics.jsonl and TensorBoard."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from sora_jax.processes import is_first


class MetricWriter:
    """Writes named scalars and videos of a run into its directory; prints a line per log.

    Of several processes one writes: what they would write is the same.
    """

    def __init__(self, directory: Path, name: str, total_steps: int, start_step: int):
        self._writes = is_first()
        self._last = (start_step, time.monotonic())
        if not self._writes:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._name, self._total = name, total_steps
        self._path = directory / "metrics.jsonl"
        self._keep_until(start_step)
        # What TensorBoard has of later steps will be written again.
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=start_step + 1)

    def _keep_until(self, step: int) -> None:
        """Drops lines of steps that a restart will write again, and one that a kill cut short."""
        if self._path.exists():
            lines = self._path.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            partial = self._path.with_suffix(".partial")
            partial.write_text("".join(x for x in whole if json.loads(x)["step"] <= step))
            partial.replace(self._path)

    def scalars(self, step: int, values: Mapping[str, float], tokens: int = 0) -> None:
        """Values after update `step`; `tokens` is how many were trained on since the last call
        that gave any. Evaluators give none, and have no rates."""
        if not self._writes:
            return
        rates = self._rates(step, tokens) if tokens else {}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **values, **rates}) + "\n")
        for name, value in {**values, **rates}.items():
            self._board.add_scalar(name, value, step)
        self._print(step, values, rates)

    def _rates(self, step: int, tokens: int) -> dict[str, float]:
        (last_step, last_time), self._last = self._last, (step, time.monotonic())
        seconds = max(self._last[1] - last_time, 1e-9)
        return {
            "steps_per_second": (step - last_step) / seconds,
            "tokens_per_second": tokens / seconds,
        }

    def _print(self, step: int, values: Mapping[str, float], rates: Mapping[str, float]) -> None:
        shown = [f"{name} {value:.4g}" for name, value in values.items()]
        if rates:
            left = round((self._total - step) / rates["steps_per_second"])
            shown.append(f"{rates['tokens_per_second']:,.0f} tokens/s")
            shown.append(f"ETA {left // 60}:{left % 60:02}")
        print(f"{self._name} {step}/{self._total}  {'  '.join(shown)}", flush=True)

    def video(self, step: int, name: str, video: UInt8[np.ndarray, "t h w 3"], fps: float) -> None:
        """A clip for TensorBoard, as an animated GIF, which is what it plays."""
        if not self._writes:
            return
        frames = [Image.fromarray(frame) for frame in video]
        encoded = io.BytesIO()
        duration = round(1000 / fps)
        frames[0].save(
            encoded, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0
        )
        height, width = video.shape[1:3]
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded.getvalue()
        )
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._board.file_writer.add_summary(summary, step)

    def close(self) -> None:
        if self._writes:
            self._board.close()
