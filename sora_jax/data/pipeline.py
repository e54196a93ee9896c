"""The loader: the batch of step k is a pure function of (seed, k), on every host.

A schedule maps the step to a bucket and to the number of the batch in that bucket. Batch n of a
bucket holds the positions [n * clips, (n + 1) * clips) of the bucket's endless stream (stream.py):
its records, shuffled anew in every epoch, or those of several sources in exact proportions. A host
reads the clips of the rows that its devices own. So the stream is the same on any number of hosts,
and the only state to save is the step.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from sora_jax.data.bad_records import TRIES, BadRecords
from sora_jax.data.buckets import Bucket, DataConfig, Period, sources_by_period, weights_by_period
from sora_jax.data.captions import TokenEmbedder, filled_up
from sora_jax.data.mixture import Clips
from sora_jax.data.schedule import Schedule
from sora_jax.data.schema import DataError, Described
from sora_jax.data.stream import Stream
from sora_jax.errors import ConfigError
from sora_jax.types import Drawn, EncodedBatch, VideoBatch

THREADS = 2  # PyAV, zlib and ArrayRecord work outside the interpreter lock
PREFETCHED_BATCHES = 2


class Steps:
    """Random access to the batches of this host: element k is its share of step k."""

    def __init__(
        self,
        clips: Clips,
        config: DataConfig,
        batch_clips: Sequence[int],
        seed: int,
        shardings: Sequence[jax.sharding.Sharding] | None = None,
        buckets: Sequence[int] | None = None,
        latents: Mapping[int, np.ndarray] | None = None,
        curriculum: Sequence[Period] = (),
        tokens: Callable[[np.ndarray], np.ndarray] | None = None,
        embedded: bool = False,
        reader: TokenEmbedder | None = None,
    ) -> None:
        """Checks everything that later reads rely on; reads no record.

        Args:
            clips: the set, or those of the config's sources.
            config: which buckets and sources, how often, and how captions are encoded and dropped.
            batch_clips: of a batch, over all processes, for each bucket of `config`.
            seed: of schedule, shuffling and caption dropout.
            shardings: of each bucket's clips; by default this process supplies all.
            buckets: indices into `config.buckets` to draw from; all of them by default.
            latents: of every record of each bucket, [records, n, c]; then batches hold these and
                no video is decoded.
            curriculum: changes of the weights of buckets and sources, at steps of this stream.
            tokens: of a set of latents, what makes a batch of them, [b, t, h, w, c], normalised
                patches [b, n, c].
            embedded: captions are the set's embeddings of them, not token ids.
            reader: whose token ids captions are, in place of those of the set's tokenizer.

        Raises:
            DataError: the set has no record for one of the buckets, or holds latents and `tokens`
                is not given.
            ConfigError: `batch_clips` and buckets or `clips` and sources disagree, a weight is too
                small to schedule, or a period of the curriculum draws from none of `buckets`, or
                for one of them from no source.
        """
        _check_counts(clips, config, batch_clips)
        self.clips, self.config, self.seed = clips, config, seed
        self.batch_clips = tuple(batch_clips)
        self.buckets = tuple(range(len(config.buckets)) if buckets is None else buckets)
        self._latents, self._tokens = latents, tokens
        self.tokenizer = reader.tokenizer if reader else clips.tokenizer
        self._reader_id = reader.id if reader else None
        self._empty_caption = clips.empty_caption() if embedded else None
        if tokens is None:
            clips.require_pixels("this stage of training")
        self._own: dict[int, Sequence[int]] = {
            bucket: own_rows(shardings[bucket], count) if shardings else range(count)
            for bucket, count in ((each, batch_clips[each]) for each in self.buckets)
        }
        self._sources = {bucket: _filled(clips, config.buckets[bucket]) for bucket in self.buckets}
        self.bad_records = BadRecords()
        self.curriculum = tuple(curriculum)
        self._schedule = Schedule(self._weights(), seed)
        self.streams = {
            bucket: self._stream(bucket, choice) for choice, bucket in enumerate(self.buckets)
        }

    def _weights(self) -> list[tuple[int, list[float]]]:
        """(First step, weights from there on of the buckets that are drawn from)."""
        periods = []
        for start, weights in weights_by_period(self.config.buckets, self.curriculum):
            drawn = [weights[bucket] for bucket in self.buckets]
            if not any(drawn):
                raise ConfigError(
                    f"curriculum: from step {start} on every bucket that is drawn from has weight "
                    f"0: give one that {self.clips.directory} has clips for some"
                )
            periods.append((start, drawn))
        return periods

    def _stream(self, bucket: int, choice: int) -> Stream:
        """Of a bucket; `choice`: its number among those that are drawn from."""
        size, sizes = self.config.buckets[bucket], self.clips.counts(self.config.buckets[bucket])
        if not self.config.sources:
            return Stream(size.name, self.config, self.seed, sizes)
        mixture: dict[int, list[float]] = {}
        periods = sources_by_period(self.config.sources, self.curriculum)
        for (start, weights), bases in zip(periods, self._schedule.bases, strict=True):
            there = [weight * (count > 0) for weight, count in zip(weights, sizes, strict=True)]
            if not any(there):
                raise ConfigError(
                    f"curriculum: from step {start} on bucket {size.name} is drawn from sources "
                    "that have no clip for it: give another source a weight"
                )
            mixture[bases[choice] * self.batch_clips[bucket]] = there
        return Stream(size.name, self.config, self.seed, sizes, list(mixture.items()))

    def __len__(self) -> int:
        return sys.maxsize

    def __repr__(self) -> str:  # Grain prints it
        return f"Steps({self.clips.directory}, {len(self.buckets)} buckets)"

    def fingerprint(self) -> str:
        """12 hex digits over all that decides the stream, and nothing that does not (the hosts)."""
        config = dataclasses.asdict(self.config)
        del config["shape_classes"]  # of which only the clips of a batch matter here
        content = {
            "config": config,
            "clips": self.batch_clips,
            "seed": self.seed,
            "buckets": self.buckets,
            "curriculum": [dataclasses.asdict(period) for period in self.curriculum],
            "set": self.clips.id,
            **({"captions": self._reader_id} if self._reader_id else {}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def __getitem__(self, step: int) -> tuple[int, Any]:
        """Returns (index into `config.buckets`, batch of NumPy arrays with this host's rows): a
        VideoBatch, or an EncodedBatch of the latents given.

        Where a record cannot be read or decoded, the next of its bucket's stream stands in for it;
        the example id stays that of the position.

        Raises:
            DataError: too many records are bad, or a shard cannot be read; names it.
        """
        bucket, all_positions = self._drawn(step)
        stream, frames = self.streams[bucket], self.config.buckets[bucket].frames
        positions = [all_positions[own] for own in self._own[bucket]]
        clips = self._read(bucket, positions)
        captions = [stream.caption(p, each) for p, (each, _) in zip(positions, clips, strict=True)]
        rates = [record.fps for record, _ in clips]
        values = [value for _, value in clips]
        is_video = self._latents is None and self._tokens is None
        if is_video:
            for place, (position, video) in enumerate(zip(positions, values, strict=True)):
                if len(video) > frames:
                    start, every = stream.window(position, len(video), frames)
                    values[place] = video[start::every][:frames]
                    rates[place] /= every
        stacked = np.stack(values)
        arrays: dict[str, Any] = {
            "video" if is_video else "latents": self._tokens(stacked) if self._tokens else stacked,
            "text": self._text([record for record, _ in clips], captions),
            "fps": np.asarray(rates, np.float32),
            "example_id": (np.asarray(positions, np.int64) % 2**31).astype(np.int32),
        }
        return bucket, (VideoBatch if is_video else EncodedBatch)(**arrays)

    def drawn(self, step: int) -> Drawn:
        """What the batch of a step is drawn from, over all processes; reads nothing."""
        bucket, positions = self._drawn(step)
        return Drawn(self.config.buckets[bucket].name, positions)

    def _drawn(self, step: int) -> tuple[int, range]:
        choice, number = self._schedule[step]
        bucket = self.buckets[choice]
        first = number * self.batch_clips[bucket]
        return bucket, range(first, first + self.batch_clips[bucket])

    def clip_ids(self, drawn: Drawn) -> list[str]:
        """The clips that stand where a batch was drawn, or why one cannot be used."""
        [bucket] = [each for each in self.buckets if self.config.buckets[each].name == drawn.bucket]
        indices = [self.streams[bucket].index(position) for position in drawn.positions]
        found = self._sources[bucket].records(indices)
        return [str(each) if isinstance(each, DataError) else each.clip_id for each in found]

    def _text(self, records: Sequence[Any], captions: Sequence[str]) -> Any:
        """Token ids [b, l] of captions, or their embeddings."""
        empty, length = self._empty_caption, self.config.text_length
        if empty is None:
            return self.tokenizer.encode(captions, length)
        pairs = zip(records, captions, strict=True)
        return filled_up([record.text if text else empty for record, text in pairs], length)

    def _read(self, bucket: int, positions: Sequence[int]) -> list[tuple[Described, np.ndarray]]:
        """The clips at positions of a bucket's stream. Where one is bad, that of the next position
        stands in, and so on: the same on any number of hosts and after a restart.

        Raises:
            DataError: too many in a row, or of all, are bad, or a shard cannot be read; names it.
        """
        stream = self.streams[bucket]
        indices = [stream.index(position) for position in positions]
        clips = []
        found = self._clips(bucket, indices)
        for position, index, clip in zip(positions, indices, found, strict=True):
            after = position
            while isinstance(clip, DataError):
                self.bad_records.bad(bucket, index, clip)
                after += 1
                if after == position + TRIES:
                    raise DataError(f"{TRIES} records in a row cannot be used; the last: {clip}")
                index = stream.index(after)
                [clip] = self._clips(bucket, [index])
            clips.append(clip)
        return clips

    def _clips(
        self, bucket: int, indices: Sequence[int]
    ) -> Sequence[tuple[Described, np.ndarray] | DataError]:
        """Records with their pixels, or with the latents made of these."""
        self.bad_records.read(len(indices))
        source = self._sources[bucket]
        if self._latents is None:
            return source.clips(indices)
        records = source.records(indices)
        latents = self._latents[bucket]
        return [
            record if isinstance(record, DataError) else (record, latents[index])
            for record, index in zip(records, indices, strict=True)
        ]


def _check_counts(clips: Clips, config: DataConfig, batch_clips: Sequence[int]) -> None:
    """Raises ConfigError unless there is a count for each bucket, and a set for each source."""
    if len(batch_clips) != len(config.buckets):
        raise ConfigError(f"{len(batch_clips)} clip counts for {len(config.buckets)} buckets")
    wanted = tuple(name for name, _ in config.sources)
    if tuple(clips.names) != wanted:
        raise ConfigError(
            f"data.sources names {wanted}, in this order, and {clips.directory} is {clips.names}"
        )


def _filled(clips: Clips, bucket: Bucket) -> Any:
    """The records of a bucket; raises DataError if there are none."""
    source = clips.source(bucket)
    if not len(source):
        raise DataError(
            f"{clips.directory} has no clip for bucket {bucket.name}: build the set with this "
            "experiment, or remove the bucket"
        )
    return source


class Batches(Iterator[tuple[int, Any]]):
    """Endless iterator over `Steps`, read ahead by threads. Its state is the step."""

    def __init__(self, steps: Steps, start_step: int = 0) -> None:
        self._steps, self._next = steps, start_step
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> tuple[int, Any]:
        if self._iterator is None:
            self._iterator = read_ahead(self._steps, self._next)
        element = next(self._iterator)
        self._next += 1
        return element

    def drawn(self) -> Drawn:
        """What the last batch was drawn from."""
        return self._steps.drawn(self._next - 1)

    def clip_ids(self, drawn: Drawn) -> list[str]:
        """The clips that stand where a batch was drawn."""
        return self._steps.clip_ids(drawn)

    def metrics(self) -> dict[str, float]:
        """What a log should show: reads that failed in this process, once there are any."""
        bad = self._steps.bad_records.count
        return {"bad_records": bad} if bad else {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the next step, and what it is a step of."""
        return {"step": self._next, "fingerprint": self._steps.fingerprint()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved state, at a cost that does not depend on the step.

        Raises:
            DataError: the state is of another set, seed, or data config.
        """
        if state["fingerprint"] != self._steps.fingerprint():
            raise DataError(
                f"the checkpoint's data position is of {state['fingerprint']}, this run's data is "
                f"{self._steps.fingerprint()}: use the same set, seed and data config"
            )
        self.close()
        self._next = int(state["step"])

    def close(self) -> None:
        """Stops reading ahead."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def read_ahead(batches: Any, first: int = 0) -> grain.DatasetIterator:
    """The elements of a sequence of batches from the `first` on, made by threads."""
    # An element is a whole batch: Grain's default of 500 read ahead would fill the memory.
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=PREFETCHED_BATCHES)
    return iter(grain.MapDataset.source(batches)[first:].to_iter_dataset(options))


def own_rows(sharding: jax.sharding.Sharding, rows: int) -> list[int]:
    """The rows of a batch that this process must supply, ascending, asked of the sharding.

    Right also when several processes hold the same rows (a model axis across hosts), where counting
    by process index would hand each of them other rows, and where a process's rows are not in one
    piece, as the box of chips of a TPU host need not be along the mesh.
    """
    try:
        indices = sharding.addressable_devices_indices_map((rows,)).values()
    except ValueError as error:
        raise ConfigError(
            f"a mesh of {sharding.num_devices} devices does not divide the {rows} rows of a batch: "
            "change the rows, or let more devices share one (mesh.context, the class's context)"
        ) from error
    return sorted({row for index in indices if index is not None for row in range(rows)[index[0]]})
