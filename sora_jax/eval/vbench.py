"""Dimensions of VBench (arXiv:2311.17982) that need no trained network, by its formulas.

Temporal flickering is VBench's own number. Its other dimensions use networks: RAFT for flow, AMT-S
for the frame between two, DINO for looks. Here DIS flow (arXiv:1603.03590) stands for the first two
and coarse pixels for the third, and metrics are named so: their values are not VBench's, whose own
tool is given what `sora sample --vbench` writes.

Every dimension is a number of a video, and a score the mean over videos, however many processes
there are. A frozen frame does well in all but one, so it is scored beside.
"""

import itertools
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.errors import ConfigError

Video = UInt8[np.ndarray, "t h w 3"]
Flow = Float[np.ndarray, "h w 2"]

RATE = 8.0  # frames a second at which motion is looked for
LEAST_SHIFT = 6 / 256  # of the shorter side, that is motion from one looked-at frame to the next
FASTEST = 0.05  # share of the pixels, those that move most, whose mean is taken
MOVING = 4 / 16  # share of the frames that motion is needed in
GRID = 8  # cells per side of coarse pixels
LEAST_FLOW_SIDE = 64  # DIS finds nothing in smaller pictures

# What VBench takes for the range of a dimension, and its weight among those of quality.
RANGES = {
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness_dis": (0.706, 0.9975, 1.0),
    "dynamic_degree_dis": (0.0, 1.0, 0.5),
    "subject_consistency_pixels": (0.1462, 1.0, 1.0),
}


def dimensions(video: Video, fps: float) -> dict[str, float]:
    """All of a video of three frames or more, and `quality_4_of_7`: their weighted mean, each in
    its range and no more than its best.

    Raises:
        ConfigError: the video has fewer frames.
    """
    if len(video) < 3:
        raise ConfigError(f"a video of {len(video)} frames has no motion to score: make 3 or more")
    found = {
        "temporal_flickering": temporal_flickering(video),
        "motion_smoothness_dis": motion_smoothness(video),
        "dynamic_degree_dis": float(is_dynamic(video, fps)),
        "subject_consistency_pixels": consistency(coarse_pixels(video)),
    }
    total = sum(
        weight * min((found[name] - low) / (high - low), 1.0)
        for name, (low, high, weight) in RANGES.items()
    )
    weights = sum(weight for _, _, weight in RANGES.values())
    return {**found, "quality_4_of_7": total / weights}


def temporal_flickering(video: Video) -> float:
    """1 less the mean absolute difference of successive frames, of 255 levels. VBench gives it
    videos that should stand still."""
    frames = video.astype(np.float32)
    return 1.0 - float(np.abs(np.diff(frames, axis=0)).mean()) / 255


def motion_smoothness(video: Video) -> float:
    """1 less the mean absolute difference, of 255 levels, between every second frame and the one
    that is interpolated between its neighbours."""
    inner = range(1, len(video) - 1, 2)
    off = [
        np.abs(between(video[n - 1], video[n + 1]).astype(np.float32) - video[n]).mean()
        for n in inner
    ]
    return 1.0 - float(np.mean(off)) / 255


def between(first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """The frame in the middle, uint8 [h, w, 3]: both carried half of the way, and averaged."""
    ahead, back = flow(first, second), flow(second, first)
    halves = [_carried(first, -0.5 * ahead), _carried(second, -0.5 * back)]
    return np.round(0.5 * (halves[0] + halves[1])).astype(np.uint8)


def is_dynamic(video: Video, fps: float) -> bool:
    """Whether the fastest twentieth of the pixels move far enough in a quarter of the frames that
    are looked at, 8 a second."""
    frames = video[:: max(1, round(fps / RATE))]
    least = max(1.0, RATE / fps) * LEAST_SHIFT * min(video.shape[1:3])
    moving = 0
    for first, second in itertools.pairwise(frames):
        speeds = np.sort(np.linalg.norm(flow(first, second), axis=-1).ravel())
        moving += bool(speeds[-max(1, int(FASTEST * speeds.size)) :].mean() > least)
    return moving >= max(1, round(MOVING * len(frames)))


def consistency(features: Float[np.ndarray, "t d"]) -> float:
    """Mean over frames after the first of the cosine to the frame before and of that to the first
    frame, each no less than 0, halved."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    before = np.maximum((unit[1:] * unit[:-1]).sum(1), 0)
    first = np.maximum(unit[1:] @ unit[0], 0)
    return float((before + first).mean() / 2)


def coarse_pixels(video: Video) -> Float[np.ndarray, "t d"]:
    """Frames averaged to 8 x 8 cells, less their mean colour: where there is what, roughly."""
    small = [cv2.resize(frame, (GRID, GRID), interpolation=cv2.INTER_AREA) for frame in video]
    cells = np.stack(small).astype(np.float64)
    return (cells - cells.mean((1, 2), keepdims=True)).reshape(len(video), -1)


def flow(first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]) -> Flow:
    """Pixels (x, y) that each place of the first frame moves by to the second, by DIS. Small frames
    are enlarged for it."""
    height, width = first.shape[:2]
    scale = max(1, -(-LEAST_FLOW_SIDE // min(height, width)))
    large = (scale * width, scale * height)
    grey = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), large, interpolation=cv2.INTER_CUBIC)
        for frame in (first, second)
    ]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    empty = np.zeros((*grey[0].shape, 2), np.float32)
    found = finder.calc(grey[0], grey[1], empty)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA) / scale


def _carried(frame: UInt8[np.ndarray, "h w 3"], shift: Flow) -> Float[np.ndarray, "h w 3"]:
    """A frame read at each place plus a shift, bilinear, edges held."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    places = (x + shift[..., 0].astype(np.float32), y + shift[..., 1].astype(np.float32))
    carried = cv2.remap(
        frame.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(carried, np.float32)


def results(values: Mapping[str, Sequence[float]], paths: Sequence[str]) -> dict[str, list[object]]:
    """In the form of VBench's files of results: of each dimension the mean, and the videos'."""
    return {
        name: [
            float(np.mean(own)),
            [
                {"video_path": path, "video_results": value}
                for path, value in zip(paths, own, strict=True)
            ],
        ]
        for name, own in values.items()
    }
