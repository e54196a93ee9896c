"""What real clips are by a backbone, with what the same clips say of the distance itself.

Kept on disk beside all that they depend on, so that clips are described once; a file of other
clips, frames, weights or resizing is refused, never used.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.data.schema import DataError
from sora_jax.eval.backbone import Backbone
from sora_jax.eval.degraded import Degraded, Video, shuffled, with_grain
from sora_jax.eval.distribution import frechet_of_features, null_distances
from sora_jax.eval.features import ClipFeatures, clip_features
from sora_jax.eval.moments import Moments
from sora_jax.files import write_file
from sora_jax.processes import gathered, is_first, wait_for_all

LEAST_CLIPS = 8  # of which a quarter still has a covariance
VERSION = 1  # of the figures in a file, and of how they are made

DEGRADED = {"grain": with_grain, "shuffled": shuffled}


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """All that statistics of real clips depend on."""

    dataset: str  # its id, with whatever chooses clips of it and their size
    clips: int
    frames: int
    fps: float
    weights: str
    resize: str
    version: int = VERSION


@dataclasses.dataclass(frozen=True)
class Kept:
    """Where statistics of real clips are kept, on a disk of all processes, and what the clips are:
    `dataset` is the id of their set, with whatever chooses clips of it and their size."""

    path: Path
    dataset: str
    fps: float


@dataclasses.dataclass(frozen=True)
class RealStatistics:
    """Real clips, and Fréchet distances between halves of them, by name.

    null_mean, null_sd and null_max are over random halves, which differ by nothing. grain and
    shuffled are of a half to the other half, degraded: a backbone to which grain is farther than
    frames without order sees texture before motion, as I3D does (arXiv:2404.12391).
    """

    described: ClipFeatures
    distances: dict[str, float]


def real_statistics(
    clips: Sequence[Video], backbone: Backbone, frames: int, kept: Kept | None = None
) -> RealStatistics:
    """Statistics of clips of so many frames: those kept, if there are any, or else made and kept.
    All processes call it with the same clips, which are read only where nothing is kept.

    Raises:
        DataError: there are too few clips, or of other frames; what is kept is of something else,
            or no such file.
    """
    if len(clips) < LEAST_CLIPS:
        raise DataError(f"a distribution of {len(clips)} real clips: give {LEAST_CLIPS} or more")
    if kept is None:
        return _made(clips, backbone, frames)
    expected = Fingerprint(
        kept.dataset, len(clips), frames, kept.fps, backbone.weights, backbone.resize
    )
    # As the first process sees it: all take one way.
    if gathered("kept" if kept.path.exists() else "")[0]:
        return load(kept.path, expected)
    made = _made(clips, backbone, frames)
    if is_first():
        save(kept.path, made, expected)
    wait_for_all("statistics of real clips are kept")
    return made


def _made(clips: Sequence[Video], backbone: Backbone, frames: int) -> RealStatistics:
    described = clip_features(backbone, clips)
    if described.frames != frames:
        raise DataError(
            f"real clips have {described.frames} frames and the others {frames}: distances are "
            "between clips of one length"
        )
    null = null_distances(described.features)
    order = np.random.default_rng(0).permutation(len(clips))
    reference, others = order[: len(clips) // 2], order[len(clips) // 2 :]
    distances = {"null_mean": null.mean(), "null_sd": null.std(ddof=1), "null_max": null.max()}
    for name, change in DEGRADED.items():
        worse = clip_features(backbone, Degraded(clips, others.tolist(), change))
        distances[name] = frechet_of_features(described.features[reference], worse.features)
    return RealStatistics(described, {name: float(each) for name, each in distances.items()})


def save(path: Path, statistics: RealStatistics, fingerprint: Fingerprint) -> None:
    """Writes statistics and what they are of whole, or leaves what was there.

    Raises:
        UserError: the file cannot be written.
    """
    of = dataclasses.asdict(fingerprint)
    described, content = statistics.described, io.BytesIO()
    np.savez(
        content,
        about=json.dumps({"fingerprint": of, "distances": statistics.distances}),
        features=described.features,
        **dataclasses.asdict(described.moments),
    )
    write_file(path, content.getvalue())


def load(path: Path, expected: Fingerprint) -> RealStatistics:
    """Statistics that were saved there of the same.

    Raises:
        DataError: they are of something else, which is named, or the file is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about: dict[str, Any] = json.loads(str(arrays["about"]))
            found, distances = about["fingerprint"], about["distances"]
            features = arrays["features"]
            moments = Moments(*(arrays[field.name] for field in dataclasses.fields(Moments)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no file of statistics of real clips: remove it") from error
    for name, value in dataclasses.asdict(expected).items():
        if found.get(name) != value:
            raise DataError(
                f"{path} has statistics of other real clips or of another way to describe them: "
                f"{name} is {found.get(name)} there and {value} here; name another file, or "
                "remove this one"
            )
    return RealStatistics(ClipFeatures(features, moments, expected.frames), distances)
