"""Buckets (frames, height, width), shape classes (rows, tokens), and which clip goes where."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from sora_jax.errors import ConfigError

MAX_SHAPE_CLASSES = 8  # each is a compiled program


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Clips of one size; a step draws all its rows from one bucket. An image has one frame.

    To each clip others are appended that are cut out of it, of so many frames each, which the model
    is given beside it (diffusion/patterns.py). Such a bucket reads what one without them does."""

    frames: int
    height: int
    width: int
    weight: float = 1.0  # share of the steps, relative to the other buckets
    appended: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.width, *self.appended) < 1:
            raise ConfigError(f"bucket {self.name}: sizes must be positive")
        if max(self.appended, default=0) > self.frames:
            raise ConfigError(
                f"bucket {self.name}: clips cannot be cut out of one that has fewer frames"
            )
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise ConfigError(f"bucket {self.name}: weight {self.weight} must be positive")

    @property
    def stored(self) -> str:
        """Name of its clips in a set."""
        return f"{self.frames}x{self.height}x{self.width}"

    @property
    def name(self) -> str:
        return "+".join((self.stored, *map(str, self.appended)))


@dataclasses.dataclass(frozen=True)
class ShapeClass:
    """Shape of a batch of token rows, and so of one compiled step."""

    rows: int  # of the global batch, over all devices
    tokens: int  # per row; a bucket with fewer is padded
    parts: int = 1  # turns that the step takes them in, of as many rows each, to save memory
    context: int | None = None  # devices that share a row, of more in the mesh; None: all of these
    clips: int = 1  # that a row has places for, each with a caption; as many as its tokens hold

    def __post_init__(self) -> None:
        shared = 1 if self.context is None else self.context
        if min(self.rows, self.tokens, self.parts, shared, self.clips) < 1:
            raise ConfigError(
                f"shape class {self.rows} rows x {self.tokens} tokens of {self.clips} clips in "
                f"{self.parts} parts over context={self.context}: not positive"
            )

    def clips_in_row(self, tokens: int) -> int:
        """How many clips of so many tokens share a row."""
        return min(self.clips, self.tokens // tokens)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the loader emits. The directory of the set is no part of it: sets move."""

    buckets: tuple[Bucket, ...]
    shape_classes: tuple[ShapeClass, ...]
    fps: float = 8.0  # of clips that are rendered or sampled; footage keeps its own
    text_length: int = 32  # tokens of a caption, end mark included; longer ones are cut
    vocabulary_size: int = 512  # at most; a set with few captions supports fewer
    caption_dropout: float = 0.1  # share of rows with an empty caption, for guidance
    caption_kinds: tuple[tuple[str, float], ...] = ()  # (kind, weight) where a record has several
    sources: tuple[tuple[str, float], ...] = ()  # (name, weight) of several sets that are mixed
    spare_frames: int = 0  # that stored clips may have beyond their bucket's, to draw a start from
    frame_steps: tuple[int, ...] = (1,)  # of stored frames from one taken to the next, drawn too

    def __post_init__(self) -> None:
        _check_weights("data.caption_kinds", self.caption_kinds)
        _check_weights("data.sources", self.sources)
        if self.spare_frames < 0 or not self.frame_steps or min(self.frame_steps) < 1:
            raise ConfigError(
                f"data.spare_frames {self.spare_frames} must not be negative and "
                f"data.frame_steps {self.frame_steps} must be positive, and at least one"
            )
        names = [bucket.name for bucket in self.buckets]
        if not names:
            raise ConfigError("data.buckets is empty: name at least one bucket")
        if len(set(names)) < len(names):
            raise ConfigError(f"data.buckets names a bucket twice: {', '.join(names)}")
        if not 1 <= len(self.shape_classes) <= MAX_SHAPE_CLASSES:
            raise ConfigError(
                f"data.shape_classes has {len(self.shape_classes)} classes: "
                f"between 1 and {MAX_SHAPE_CLASSES} are allowed"
            )
        tokens = [shape_class.tokens for shape_class in self.shape_classes]
        if len(set(tokens)) < len(tokens):
            raise ConfigError(f"data.shape_classes has two classes of as many tokens: {tokens}")
        if self.text_length < 1 or self.vocabulary_size < 8:
            raise ConfigError(
                f"data.text_length {self.text_length} must be at least 1 and "
                f"data.vocabulary_size {self.vocabulary_size} at least 8"
            )
        if not (self.fps > 0 and math.isfinite(self.fps)):
            raise ConfigError(f"data.fps {self.fps} must be positive")
        if not 0 <= self.caption_dropout <= 1:
            raise ConfigError(f"data.caption_dropout {self.caption_dropout} is not in [0, 1]")

    def stored_buckets(self) -> tuple[Bucket, ...]:
        """What a set has clips of: the buckets without what is appended, each once, with the
        weights of all that read it."""
        weights: dict[tuple[int, int, int], float] = {}
        for bucket in self.buckets:
            size = (bucket.frames, bucket.height, bucket.width)
            weights[size] = weights.get(size, 0.0) + bucket.weight
        return tuple(Bucket(*size, weight) for size, weight in weights.items())


def _check_weights(field: str, weights: Sequence[tuple[str, float]]) -> None:
    """Raises ConfigError unless every name is there once, with a weight from 0 up."""
    names = [name for name, _ in weights]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{field} names {twice[0]} twice")
    for name, weight in weights:
        if not (weight >= 0 and math.isfinite(weight)):
            raise ConfigError(f"{field}: weight {weight} of {name} is not 0 or above")


@dataclasses.dataclass(frozen=True)
class Period:
    """From step `start_step` on the buckets and sources named have these weights, and the others
    keep theirs. What has weight 0 is not drawn. The step need not be special in any way: streams go
    on there without hole or repeat."""

    start_step: int
    weights: tuple[tuple[str, float], ...] = ()  # (name of the bucket, weight)
    sources: tuple[tuple[str, float], ...] = ()  # (name of the source, weight)

    def __post_init__(self) -> None:
        if self.start_step < 0 or not (self.weights or self.sources):
            raise ConfigError(
                f"curriculum: the period from step {self.start_step} must start at 0 or later and "
                "name a bucket or a source"
            )
        _check_weights("curriculum", self.weights)
        _check_weights("curriculum", self.sources)


def weights_by_period(
    buckets: Sequence[Bucket], curriculum: Sequence[Period]
) -> list[tuple[int, list[float]]]:
    """(First step, weight of each bucket from there on), the first from step 0.

    Raises:
        ConfigError: a period names an unknown bucket, leaves none to draw from, or does not start
            after the one before it.
    """
    weights = [(bucket.name, bucket.weight) for bucket in buckets]
    return _by_period("bucket", weights, [(each.start_step, each.weights) for each in curriculum])


def sources_by_period(
    sources: Sequence[tuple[str, float]], curriculum: Sequence[Period]
) -> list[tuple[int, list[float]]]:
    """As `weights_by_period`, at the same steps, of the sources of a config."""
    return _by_period("source", sources, [(each.start_step, each.sources) for each in curriculum])


def _by_period(
    kind: str,
    named: Sequence[tuple[str, float]],
    changes: Sequence[tuple[int, Sequence[tuple[str, float]]]],
) -> list[tuple[int, list[float]]]:
    weights = dict(named)
    periods = [(0, list(weights.values()))]
    for index, (start, changed) in enumerate(changes):
        before = periods[-1][0]
        if index and start <= before:
            raise ConfigError(
                f"curriculum: the period from step {start} follows the one from step {before}: put "
                "periods in the order of their steps"
            )
        for name, weight in changed:
            if name not in weights:
                there = ", ".join(weights) or "none"
                raise ConfigError(f"curriculum: there is no {kind} {name}; there are {there}")
            weights[name] = weight
        if start == 0:
            periods.pop()
        periods.append((start, list(weights.values())))
    for start, values in periods:
        if values and not any(values):
            raise ConfigError(f"curriculum: from step {start} on every {kind} has weight 0")
    return periods


def check_buckets(config: DataConfig, temporal: int, spatial: int) -> None:
    """Checks that the autoencoder and the patches divide every bucket.

    Args:
        config: the buckets.
        temporal: frames per latent frame after the first (4: 1+4k frames -> 1+k latent frames).
        spatial: pixels per patch side, the autoencoder's compression times the patch size.

    Raises:
        ConfigError: a bucket has other than 1 + temporal * k frames, or an indivisible side.
    """
    for bucket in config.buckets:
        for frames in (bucket.frames, *bucket.appended):
            if (frames - 1) % temporal:
                raise ConfigError(f"bucket {bucket.name}: {frames} frames are not 1 + {temporal}k")
        if bucket.height % spatial or bucket.width % spatial:
            raise ConfigError(
                f"bucket {bucket.name}: {bucket.height} x {bucket.width} pixels are not "
                f"multiples of {spatial}"
            )


def bucket_classes(
    config: DataConfig, tokens_of: Callable[[Bucket], int]
) -> tuple[ShapeClass, ...]:
    """The smallest shape class that holds each bucket, in the order of `config.buckets`.

    Raises:
        ConfigError: a bucket has more tokens than any class.
    """
    ascending = sorted(config.shape_classes, key=lambda shape_class: shape_class.tokens)
    classes = []
    for bucket in config.buckets:
        tokens = tokens_of(bucket)
        fitting = [shape_class for shape_class in ascending if shape_class.tokens >= tokens]
        if not fitting:
            raise ConfigError(
                f"bucket {bucket.name} needs {tokens} tokens, more than any shape class "
                f"({ascending[-1].tokens}): add a class or remove the bucket"
            )
        classes.append(fitting[0])
    return tuple(classes)


def nearest_size(height: int, width: int, buckets: Sequence[Bucket]) -> tuple[int, int] | None:
    """Bucket size (height, width) for a picture: no upscale, nearest aspect ratio, then largest.

    Returns None if the picture is smaller than every bucket.
    """
    sizes = {(b.height, b.width) for b in buckets if b.height <= height and b.width <= width}
    if not sizes:
        return None

    def order(size: tuple[int, int]) -> tuple[float, int, tuple[int, int]]:
        distance = abs(math.log(size[1] / size[0]) - math.log(width / height))
        return (round(distance, 9), -size[0] * size[1], size)

    return min(sizes, key=order)


def split_lengths(frames: int, durations: Sequence[int], spare: int = 0) -> list[tuple[int, int]]:
    """Cuts a shot into consecutive clips of the longest duration that fits, then shorter.

    Returns (duration, frames) of each, where frames are the duration and up to `spare` more, as far
    as the shot goes. What is left over is shorter than the shortest duration.
    """
    lengths: list[tuple[int, int]] = []
    for duration in sorted(set(durations), reverse=True):
        while frames >= duration:
            lengths.append((duration, min(duration + spare, frames)))
            frames -= lengths[-1][1]
    return lengths
