"""CLIPScore (arXiv:2104.08718): how well the frames of clips match prompts, by CLIP.

Of a frame and a prompt it is 2.5 max(cos, 0) of their features, and of a clip the mean over its
frames. Prompts are taken as they are, as scores of videos commonly are; the paper puts "A photo
depicts " before captions of photographs.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.errors import UserError
from sora_jax.eval.clip_model import CLIP, by_row_and_whole, image_features, text_features

Video = UInt8[np.ndarray, "t h w 3"]
Features = Float[np.ndarray, "n p"]  # of unit length, float64

SCALE = 2.5
# Of the pictures that CLIP was trained on, in red, green and blue, of 1.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
ROWS_PER_DEVICE = 64  # of a batch: ViT-L/14 takes 1 GB for them


def clip_scores(
    model: CLIP, videos: Sequence[Video], prompts: Sequence[str]
) -> Float[np.ndarray, " n"]:
    """CLIPScore of each clip with its prompt, 0 to 2.5.

    Raises:
        UserError: a clip is no uint8 [t, h, w, 3] of one frame or more.
    """
    return scores(frame_features(model, videos), prompt_features(model, prompts))


def scores(frames: Sequence[Features], prompts: Features) -> Float[np.ndarray, " n"]:
    """CLIPScore of n clips, of the features of their frames, with a prompt each."""
    pairs = zip(frames, prompts, strict=True)
    return np.array([SCALE * np.maximum(own @ prompt, 0).mean() for own, prompt in pairs])


def frame_features(model: CLIP, videos: Sequence[Video]) -> list[Features]:
    """Of each clip, those of its frames. Frames of all clips share batches, a batch at a time.

    Raises:
        UserError: a clip is no uint8 [t, h, w, 3] of one frame or more.
    """
    for number, video in enumerate(videos):
        if video.dtype != np.uint8 or video.ndim != 4 or not len(video) or video.shape[3] != 3:
            raise UserError(
                f"clip {number} is {video.dtype} {list(video.shape)}: CLIPScore is of frames, "
                "uint8 [t, h, w, 3]"
            )
    places = [(number, frame) for number, each in enumerate(videos) for frame in range(len(each))]

    def features(batch: list[int]) -> jax.Array:
        frames = (videos[number][frame] for number, frame in (places[place] for place in batch))
        pixels = np.stack([prepared(frame, model.config.side) for frame in frames])
        return image_features(model.arrays, _by_row(pixels), model.config)

    every = _in_batches(len(places), features)
    return np.split(every, np.cumsum([len(video) for video in videos])[:-1])


def prompt_features(model: CLIP, prompts: Sequence[str]) -> Features:
    """Of each prompt, cut to the context that CLIP has."""
    tokens = [model.tokens(prompt) for prompt in prompts]

    def features(batch: list[int]) -> jax.Array:
        rows = np.zeros((len(batch), model.config.context), np.int32)
        for row, place in enumerate(batch):
            rows[row, : len(tokens[place])] = tokens[place]
        ends = np.array([_end(tokens[place], model.config.end) for place in batch], np.int32)
        return text_features(model.arrays, _by_row(rows), _by_row(ends), model.config)

    return _in_batches(len(prompts), features)


def _end(tokens: Sequence[int], end: int | None) -> int:
    """The place that a text is read at: the first end token, which a prompt itself may hold."""
    return tokens.index(max(tokens) if end is None else end)


def prepared(frame: UInt8[np.ndarray, "h w 3"], side: int) -> Float[np.ndarray, "s s 3"]:
    """A frame as CLIP takes it: its shorter side resized to `side`, bicubic with a low-pass filter,
    the square in its middle, normalised."""
    from PIL import Image

    height, width = frame.shape[:2]
    short = min(height, width)
    size = tuple(side * length // short for length in (width, height))
    left, top = (round((length - side) / 2) for length in size)
    resized = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
    square = np.asarray(resized)[top : top + side, left : left + side]
    normalised = (square / 255 - np.array(MEAN)) / np.array(DEVIATION)
    return normalised.astype(np.float32)


def _by_row(rows: np.ndarray) -> jax.Array:
    return jax.device_put(rows, by_row_and_whole()[0])


def _in_batches(count: int, features: Callable[[list[int]], jax.Array]) -> Features:
    """Those of `count` things, as `features` finds them of a list of places. Batches are of one
    size, as small as makes no more of them, and the last is filled up by repeating its last row."""
    devices = jax.local_device_count()
    batches = math.ceil(count / (ROWS_PER_DEVICE * devices))
    rows = math.ceil(count / batches / devices) * devices
    found = [
        np.asarray(features([min(place, count - 1) for place in range(start, start + rows)]))
        for start in range(0, count, rows)
    ]
    every = np.concatenate(found)[:count].astype(np.float64)
    return every / np.linalg.norm(every, axis=1, keepdims=True)
