"""Clips -> a set on disk: shards through TFDS, tokenizer, ledger, and the manifest last."""

import dataclasses
import errno
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.buckets import DataConfig
from sora_jax.data.ledger import Ledger
from sora_jax.data.media import encode_clip
from sora_jax.data.schema import (
    LEDGER_FILE,
    TOKENIZER_FILE,
    DataError,
    FileEntry,
    Manifest,
    Record,
    features,
    stored_fields,
)
from sora_jax.data.tokenizer import Tokenizer

RECORDS_PER_SHARD = 4096
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FLUSH_BYTES = 2**26  # of media held back, because TFDS rewrites its own index at each write


@dataclasses.dataclass(frozen=True)
class SourceClip:
    """A clip on its way into a set; its size is that of a bucket, but for frames to spare."""

    clip_id: str
    asset_id: str
    caption: str
    video: UInt8[np.ndarray, "t h w 3"]
    fps: float
    source: str = ""  # what the ledger calls it; the clip id if empty
    changes: tuple[str, ...] = ()  # what was done to it, for the ledger
    duration: int | None = None  # frames of its bucket; None: it has none to spare
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by kind, if of several


def build_set(
    clips: Iterable[SourceClip],
    directory: Path | str,
    config: DataConfig,
    ledger: Ledger | None = None,
    records_per_shard: int = RECORDS_PER_SHARD,
) -> Manifest:
    """Writes a set. The same clips in the same order give the same bytes.

    Everything is written beside `directory` and moved there at the end, so that a failure of any
    kind leaves nothing behind and whatever was there untouched.

    Args:
        clips: each of the size of a bucket of `config`, with a caption and an id of its own.
        directory: must be absent or empty.
        config: its buckets and vocabulary size are used.
        ledger: holds what was dropped before; emitted clips are added to it.
        records_per_shard: the last shard of a bucket is shorter.

    Raises:
        DataError: the directory has something in it, a clip does not fit, two share an id, there
            is no clip at all, or the disk is full.
    """
    directory = Path(directory)
    ledger = Ledger() if ledger is None else ledger
    with replacing(directory) as partial:
        writer = _Writer(partial, config, records_per_shard)
        captions = []
        for clip in clips:
            bucket = writer.add(clip)
            captions.append(clip.caption)
            source, size = clip.source or clip.clip_id, (len(clip.video), clip.fps)
            ledger.emitted(source, clip.clip_id, bucket, clip.changes, *size)
        if not captions:
            reasons = [f"{v} {k}" for k, v in ledger.counts().items() if k.startswith("dropped:")]
            raise DataError(
                f"no clip for {directory} in the input ({', '.join(reasons) or 'empty'})"
            )
        return finish_set(partial, writer.close(), captions, ledger, config)


def finish_set(
    directory: Path,
    shards: Mapping[str, tuple[FileEntry, ...]],
    captions: Sequence[str],
    ledger: Ledger,
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
) -> Manifest:
    """Writes tokenizer, ledger and, last, the manifest of a set whose shards are there.

    Args:
        directory: of the set.
        shards: of each bucket that has any.
        captions: that the tokenizer is trained on, unless one is given.
        ledger: of all that went in.
        config: its vocabulary size and caption length are used.
        tokenizer: of another set, that this one is to be read together with.
    """
    if tokenizer is None:
        tokenizer = Tokenizer.train(captions, config.vocabulary_size)
    (directory / TOKENIZER_FILE).write_bytes(tokenizer.model)
    cut = sum(tokenizer.length(caption) > config.text_length for caption in captions)
    if cut:
        ledger.note("captions", f"{cut} are longer than {config.text_length} tokens: cut")
    ledger.save(directory / LEDGER_FILE)
    manifest = Manifest(
        shards=shards,
        tokenizer=FileEntry.of(directory, TOKENIZER_FILE),
        ledger=FileEntry.of(directory, LEDGER_FILE),
        ledger_counts=ledger.counts(),
    )
    manifest.save(directory)
    return manifest


def record_of(clip: SourceClip, config: DataConfig) -> tuple[str, Record]:
    """The name of a clip's bucket, and the clip as it is stored.

    Raises:
        DataError: it has not the size of a bucket, no caption, or no sensible rate.
    """
    names = {(b.frames, b.height, b.width): b.stored for b in config.buckets}
    frames, height, width = clip.video.shape[:3]
    bucket = names.get((clip.duration or frames, height, width))
    pixels = clip.video.dtype == np.uint8 and clip.video.shape[3:] == (3,)
    if bucket is None or frames < (clip.duration or 1) or not pixels:
        raise DataError(
            f"clip {clip.clip_id} is {clip.video.dtype} {clip.video.shape}: not a bucket of "
            f"{', '.join(names.values())}"
        )
    if not clip.caption.strip():
        raise DataError(f"clip {clip.clip_id} has an empty caption")
    if not (math.isfinite(clip.fps) and clip.fps > 0):
        raise DataError(f"clip {clip.clip_id} has {clip.fps} frames per second")
    media, media_format = encode_clip(clip.video, clip.fps)
    return bucket, Record(
        clip_id=clip.clip_id,
        asset_id=clip.asset_id,
        caption=clip.caption,
        captions=clip.captions,
        media=media,
        media_format=media_format,
        frames=frames,
        height=height,
        width=width,
        fps=clip.fps,
    )


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yields an empty directory beside `directory`, renamed to it if the body succeeds."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise DataError(f"{directory} is not empty: remove it or choose another --output")
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        with telling_of_no_space(directory, "nothing was changed there"):
            partial.mkdir(parents=True)
            yield partial
            os.replace(partial, directory)  # an empty directory may be replaced, a full one not
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def telling_of_no_space(directory: Path, then: str) -> Iterator[None]:
    """Raises DataError where the disk is full; `then` is the end of its sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # ArrayRecord raises RuntimeError, with the system's words for the error in it.
        if any(os.strerror(code) in str(error) for code in NO_SPACE):
            raise DataError(
                f"no space left on the disk while writing {directory}: {then}"
            ) from error
        raise


class _Writer:
    """Appends records to the shards of their buckets, one TFDS split each."""

    def __init__(self, directory: Path, config: DataConfig, records_per_shard: int) -> None:
        import tensorflow_datasets as tfds

        self._directory = directory
        self._config = config
        buckets = [bucket.stored for bucket in config.stored_buckets()]
        identity = tfds.core.dataset_info.DatasetIdentity(
            name="sora",
            version=tfds.core.Version("1.0.0"),
            data_dir=os.fspath(directory),
            module_name="sora_jax.data",
        )
        self._writer = tfds.core.SequentialWriter(
            tfds.core.DatasetInfo(builder=identity, features=features(), description="clips"),
            max_examples_per_shard=records_per_shard,
            file_format="array_record",
        )
        self._writer.initialize_splits(buckets)
        self._records_per_shard = records_per_shard
        self._counts = dict.fromkeys(buckets, 0)
        self._ids: set[str] = set()
        self._pending: dict[str, list[dict[str, Any]]] = {}
        self._pending_bytes = 0

    def add(self, clip: SourceClip) -> str:
        """Queues a clip; returns the name of its bucket."""
        if clip.clip_id in self._ids:
            raise DataError(f"two clips have the id {clip.clip_id}")
        bucket, record = record_of(clip, self._config)
        self._ids.add(clip.clip_id)
        self._counts[bucket] += 1
        self._pending.setdefault(bucket, []).append(stored_fields(record))
        self._pending_bytes += len(record.media)
        if self._pending_bytes > FLUSH_BYTES:
            self._flush()
        return bucket

    def _flush(self) -> None:
        self._writer.add_examples(self._pending)
        self._pending, self._pending_bytes = {}, 0

    def close(self) -> dict[str, tuple[FileEntry, ...]]:
        """Finishes every shard and returns the shards of each bucket that has any."""
        self._flush()
        self._writer.close_all()
        shards = {}
        for bucket, total in self._counts.items():
            lengths = [self._records_per_shard] * (total // self._records_per_shard)
            lengths += [rest] if (rest := total % self._records_per_shard) else []
            shards[bucket] = tuple(
                FileEntry.of(self._directory, f"sora-{bucket}.array_record-{i:05d}", length)
                for i, length in enumerate(lengths)
            )
        return {bucket: files for bucket, files in shards.items() if files}
