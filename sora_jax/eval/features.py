"""Features of many clips and their moments, made batch by batch on all devices of all processes.

Every process reads and describes clips of its own, on its own devices; only the results meet. So
features do not depend on how many devices or processes there are, and none waits for another
between two batches.
"""

import dataclasses
import functools
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, UInt8

from sora_jax.data.schema import DataError
from sora_jax.eval.backbone import Backbone
from sora_jax.eval.moments import Moments, merged, moments_of, no_moments
from sora_jax.processes import gathered_bytes

Video = UInt8[np.ndarray, "t h w 3"]

ROWS_PER_DEVICE = 4  # of a batch: I3D takes 0.1 GB for a clip of 33 frames


@dataclasses.dataclass(frozen=True)
class ClipFeatures:
    """Of n clips of so many frames: float32 features of each, and the moments of all."""

    features: Float[np.ndarray, "n d"]
    moments: Moments
    frames: int


def of_rows(features: Float[np.ndarray, "n d"], frames: int) -> ClipFeatures:
    """Of clips that were described one batch at a time."""
    moments = moments_of(jnp.asarray(features), jnp.ones(len(features), bool))
    return ClipFeatures(features, merged(no_moments(features.shape[1]), moments), frames)


def clip_features(backbone: Backbone, clips: Sequence[Video]) -> ClipFeatures:
    """Features of all clips in their order, on every process; all call it with the same clips.

    A process reads clips p, p + processes and so on, each once, and holds a batch of each size.

    Raises:
        DataError: there are no clips, one is too short or is no uint8 [t, h, w, 3], or they differ
            in frames.
    """
    if not len(clips):
        raise DataError("no clips to describe by features: give at least one")
    own = range(jax.process_index(), len(clips), jax.process_count())
    parts = [_read(part) for part in gathered_bytes(_described(backbone, clips, own)) if part]
    frames = sorted({int(each) for part in parts for each in part["frames"]})
    if len(frames) > 1:
        raise DataError(
            f"clips of {frames[0]} and of {frames[-1]} frames have no distribution in common: "
            "cut them to one length"
        )
    features = np.concatenate([part["features"] for part in parts])
    order = np.argsort(np.concatenate([part["indices"] for part in parts]))
    moments = functools.reduce(
        merged, (Moments(part["count"], part["mean"], part["scatter"]) for part in parts)
    )
    return ClipFeatures(features[order], moments, frames[0])


def _described(backbone: Backbone, clips: Sequence[Video], own: range) -> bytes:
    """Features and moments of some of the clips, as `_read` takes them; nothing of none."""
    mesh = Mesh(np.asarray(jax.local_devices()), ("rows",))
    by_row, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("rows",), ()))
    model = jax.device_put(backbone.model, whole)
    indices: list[int] = []
    features: list[np.ndarray] = []
    frames: set[int] = set()
    moments = None
    for batch in _batches(backbone, clips, own, _rows(len(own), mesh.size)):
        real = np.arange(batch.videos.shape[0]) < len(batch.indices)
        videos, mask = jax.device_put((batch.videos, real), by_row)
        described, found = _forward(backbone.features, model, videos, mask)
        features.append(np.asarray(described)[real])
        indices += batch.indices
        frames.add(batch.videos.shape[1])
        moments = merged(moments or no_moments(described.shape[1]), found)
    if moments is None:
        return b""
    content = io.BytesIO()
    np.savez(
        content,
        indices=indices,
        features=np.concatenate(features),
        frames=sorted(frames),
        **dataclasses.asdict(moments),
    )
    return content.getvalue()


def _read(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


@functools.partial(jax.jit, static_argnames="features")
def _forward(
    features: Any, model: Any, videos: UInt8[Array, "b t h w 3"], real: Bool[Array, " b"]
) -> tuple[Float[Array, "b d"], Moments]:
    rows = features(model, videos).astype(np.float32)
    return rows, moments_of(rows, real)


def _rows(clips: int, devices: int) -> int:
    """Rows of a batch, so that batches are as even as can be: filling up costs as clips do."""
    batches = math.ceil(clips / (ROWS_PER_DEVICE * devices))
    return math.ceil(clips / max(batches, 1) / devices) * devices


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Clips of one size; rows after those of the indices repeat the last one."""

    indices: list[int]
    videos: UInt8[np.ndarray, "b t h w 3"]


def _batches(
    backbone: Backbone, clips: Sequence[Video], own: Iterable[int], rows: int
) -> Iterator[_Batch]:
    waiting: dict[tuple[int, ...], list[tuple[int, Video]]] = {}
    for index in own:
        clip = clips[index]
        _check(backbone, index, clip)
        held = waiting.setdefault(clip.shape, [])
        held.append((index, clip))
        if len(held) == rows:
            yield _stacked(waiting.pop(clip.shape), rows)
    for held in waiting.values():
        yield _stacked(held, rows)


def _stacked(held: list[tuple[int, Video]], rows: int) -> _Batch:
    videos = [clip for _, clip in held]
    filled = videos + videos[-1:] * (rows - len(videos))
    return _Batch([index for index, _ in held], np.stack(filled))


def _check(backbone: Backbone, index: int, clip: Video) -> None:
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3:
        raise DataError(
            f"clip {index} is {clip.dtype} {list(clip.shape)}: features are of pixels as they are "
            "stored, uint8 [frames, height, width, 3]"
        )
    if len(clip) < backbone.frames:
        raise DataError(
            f"clip {index} has {len(clip)} frames, and {backbone.name} describes clips of "
            f"{backbone.frames} or more: give longer ones"
        )
