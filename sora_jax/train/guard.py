"""What a run does about steps out of line: counts those skipped, tells of losses that jump.

A step that was skipped has changed nothing (see step.py). Many in a row say that the run is broken:
it stops. Each, and each jump of the loss, is a line of incidents.jsonl with the clips of its batch.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.errors import UserError
from sora_jax.files import keep_lines
from sora_jax.processes import is_first
from sora_jax.types import Drawn

DECAY = 0.98  # of the mean and variance of a bucket's losses
SEEN_BEFORE = 30  # losses of a bucket that tell what is out of line
DEVIATIONS = 6.0  # of a bucket's losses from their mean
SHOWN_CLIPS = 64


class NonFiniteError(UserError):
    """Losses or gradients are no numbers, again and again."""


class Guard:
    """Looks at every step of a run once it has ended; `clip_ids` tells the clips of a batch."""

    def __init__(
        self,
        name: str,
        directory: Path,
        max_skips: int,
        clip_ids: Callable[[Drawn], Sequence[str]],
    ):
        self._name, self._path = name, directory / "incidents.jsonl"
        self._max_skips, self._clip_ids = max_skips, clip_ids
        self._in_a_row = 0
        self._losses: dict[str, list[float]] = {}  # bucket: seen, mean, variance

    def look(self, step: int, metrics: Mapping[str, np.ndarray], drawn: Sequence[Drawn]) -> None:
        """At the metrics of a step, of which those of the loss have an axis over its batches.

        Raises:
            NonFiniteError: so many steps in a row were skipped, or the model is no longer finite.
        """
        losses = [float(loss) for loss in metrics["loss"]]
        if metrics["skipped"]:
            self._in_a_row += 1
            for loss, batch in zip(losses, drawn, strict=True):
                self._tell(step, "skipped", batch, loss)
        else:
            self._in_a_row = 0
            for loss, batch in zip(losses, drawn, strict=True):
                self._compare(step, loss, batch)
        if self._in_a_row >= self._max_skips:
            raise NonFiniteError(
                f"{self._name}: loss or gradients of {self._in_a_row} steps in a row, the last "
                f"{step}, are not finite; their clips are in {self._path}; lower the learning rate "
                "or look at the clips, and go on from the checkpoint before"
            )
        if not metrics["skipped"] and not math.isfinite(metrics["update_norm"]):
            raise NonFiniteError(
                f"{self._name}: the update of step {step} is not finite though its gradients are; "
                "the checkpoint before it is whole, lower the learning rate"
            )

    def _compare(self, step: int, loss: float, batch: Drawn) -> None:
        """With the losses of the bucket so far; one that jumps lifts them no more than it may."""
        seen, mean, variance = self._losses.get(batch.bucket, [0, loss, 0.0])
        limit = mean + DEVIATIONS * math.sqrt(variance)
        if seen >= SEEN_BEFORE and loss > limit:
            self._tell(step, "loss", batch, loss, mean=mean, deviation=math.sqrt(variance))
            loss = limit
        share = max(1 - DECAY, 1 / (seen + 1))
        change = loss - mean
        variance = (1 - share) * (variance + share * change * change)
        self._losses[batch.bucket] = [seen + 1, mean + share * change, variance]

    def _tell(self, step: int, what: str, batch: Drawn, loss: float, **more: float) -> None:
        """A line in the file, and one on the terminal."""
        if not is_first():
            return
        clips = list(self._clip_ids(batch))
        line = {
            "step": step,
            "what": what,
            "bucket": batch.bucket,
            "positions": [batch.positions.start, batch.positions.stop],
            "loss": loss if math.isfinite(loss) else str(loss),
            **more,
            "clips": clips[:SHOWN_CLIPS],
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        told = "is skipped" if what == "skipped" else f"is far above its mean of {more['mean']:.4g}"
        print(
            f"{self._name}: step {step} of bucket {batch.bucket}, loss {loss:.4g}, {told}; its "
            f"clips are in {self._path}",
            flush=True,
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a restarted run tells of the same steps."""
        return {"in_a_row": self._in_a_row, "losses": dict(self._losses)}

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Goes back to what was at a step; later lines will be written again."""
        if is_first():
            keep_lines(self._path, step)
        self._in_a_row, self._losses = state["in_a_row"], dict(state["losses"])
