"""Clips that a run shows of itself while it trains, beside its curves in TensorBoard."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from sora_jax.eval.reconstruction import reconstruct
from sora_jax.models.judged_vae import autoencoder_of
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request

Video = UInt8[np.ndarray, "t h w 3"]


class Board(Protocol):
    """Where a run's clips are shown."""

    def video(self, step: int, name: str, video: np.ndarray, fps: float) -> None: ...


Preview = Callable[[Any, int, Board], None]
"""Called with a training state, whose averaged model is `ema`, after so many steps."""


def reconstruction_preview(clips: Sequence[Video], fps: float) -> Preview:
    """Shows each clip above what the averaged autoencoder makes of it."""

    def show(state: Any, step: int, board: Board) -> None:
        for number, (clip, decoded) in enumerate(
            zip(clips, reconstruct(autoencoder_of(state.ema), clips), strict=True)
        ):
            board.video(step, f"reconstruction/{number}", np.concatenate([clip, decoded], 1), fps)

    return show


def sample_preview(make_sampler: Callable[[Any], Sampler], requests: Sequence[Request]) -> Preview:
    """Shows what the averaged generator makes of fixed requests: the same noise every time."""

    def show(state: Any, step: int, board: Board) -> None:
        for number, sample in enumerate(make_sampler(state.ema).generate(requests)):
            board.video(step, f"sample/{number}", sample.video, sample.request.fps)

    return show
