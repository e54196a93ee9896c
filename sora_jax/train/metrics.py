"""Where a run's numbers go: the terminal, metrics.jsonl and TensorBoard."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from sora_jax.files import keep_lines
from sora_jax.processes import is_first


class MetricWriter:
    """Writes named scalars and videos of a run into its directory; prints a line per log.

    Of several processes one writes: what they would write is the same. The files' lines have no
    step twice, and are those of a run that nothing stopped.
    """

    def __init__(self, directory: Path, name: str, total_steps: int, start_step: int):
        self._writes = is_first()
        self.latest: dict[str, float] = {}  # by name, in every process
        if not self._writes:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._name, self._total = name, total_steps
        self._path = directory / "metrics.jsonl"
        keep_lines(self._path, start_step)
        # What TensorBoard has of later steps will be written again.
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=start_step + 1)

    def scalars(
        self, step: int, values: Mapping[str, float], times: Mapping[str, float] | None = None
    ) -> None:
        """Values after update `step`, which follow from the run, and what it took, which does not:
        rates, seconds, memory. Evaluators give values alone."""
        self.latest.update(values)
        if not self._writes:
            return
        all_values = {**values, **(times or {})}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **all_values}) + "\n")
        for name, value in all_values.items():
            self._board.add_scalar(name, value, step)
        self._print(step, values, times or {})

    def _print(self, step: int, values: Mapping[str, float], times: Mapping[str, float]) -> None:
        """What is overall; the parts of it are in the files."""
        shown = [f"{name} {value:.4g}" for name, value in values.items() if "/" not in name]
        if not shown:  # of an evaluator: the first is what the others are parts of
            shown = [f"{name} {value:.4g}" for name, value in values.items()][:1]
        if times:
            left = round((self._total - step) / times["steps_per_second"])
            shown.append(f"{times['tokens_per_second']:,.0f} tokens/s")
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
