"""Several sets that are read as one: weighed by name, their captions cut by one tokenizer."""

import bisect
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sora_jax.data.buckets import Bucket, DataConfig
from sora_jax.data.schema import DataError, Encoding
from sora_jax.data.sources import ClipSet, ShardSource, usable
from sora_jax.errors import ConfigError


class Joined:
    """The records of one bucket in several sets, numbered one set after another."""

    def __init__(self, sources: Sequence[ShardSource[Any]]) -> None:
        self._sources = tuple(sources)
        self._ends = list(itertools.accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        return usable(self.records([index])[0])

    def clip(self, index: int) -> tuple[Any, np.ndarray]:
        """As of a ShardSource."""
        return usable(self.clips([index])[0])

    def records(self, indices: Sequence[int]) -> list[Any]:
        """As of a ShardSource."""
        return self._of_each("records", indices)

    def clips(self, indices: Sequence[int]) -> list[Any]:
        """As of a ShardSource."""
        return self._of_each("clips", indices)

    def _of_each(self, what: str, indices: Sequence[int]) -> list[Any]:
        """Every set is asked once, for all that is its own."""
        found: list[Any] = [None] * len(indices)
        numbers = [bisect.bisect_right(self._ends, index) for index in indices]
        for number in dict.fromkeys(numbers):
            source = self._sources[number]
            first = self._ends[number] - len(source)
            places = [place for place, own in enumerate(numbers) if own == number]
            asked = getattr(source, what)([indices[place] - first for place in places])
            for place, each in zip(places, asked, strict=True):
                found[place] = each
        return found


class Mixture:
    """Finished sets by the names that a config gives weights to. Read like a ClipSet."""

    def __init__(self, sets: Mapping[str, ClipSet]) -> None:
        """Raises DataError where one holds clips and another latents, or others' latents."""
        self.sets, self.names = dict(sets), tuple(sets)
        self.directory = ", ".join(f"{name}={each.directory}" for name, each in sets.items())
        first = next(iter(self.sets.values()))
        for each in self.sets.values():
            if _models(each.encoding) != _models(first.encoding):
                raise DataError(
                    f"{first.directory} holds {first.encoding or 'clips'} and {each.directory} "
                    f"{each.encoding or 'clips'}: sets that are read as one hold the same"
                )
        # Records hold captions as text, so one tokenizer does for all.
        self.tokenizer = first.tokenizer
        self.encoding = first.encoding
        named = sorted((name, each.id) for name, each in self.sets.items())
        self.id = hashlib.sha256(repr(named).encode()).hexdigest()

    def empty_caption(self) -> np.ndarray:
        """As of a ClipSet; one model embedded the captions of all sets."""
        return next(iter(self.sets.values())).empty_caption()

    def counts(self, bucket: Bucket) -> list[int]:
        """Records of a bucket, of each set."""
        return [count for each in self.sets.values() for count in each.counts(bucket)]

    def source(self, bucket: Bucket) -> Joined:
        """Records of a bucket."""
        return Joined([each.source(bucket) for each in self.sets.values()])

    def require_pixels(self, purpose: str) -> None:
        """Raises DataError if the sets hold latents."""
        for each in self.sets.values():
            each.require_pixels(purpose)

    def filled_buckets(self, config: DataConfig) -> tuple[int, ...]:
        """Indices into `config.buckets` of those that any set has records for."""
        every = enumerate(config.buckets)
        return tuple(index for index, bucket in every if sum(self.counts(bucket)))


Clips = ClipSet | Mixture


def open_clips(data: Sequence[str], config: DataConfig) -> Clips:
    """What `--data` names: the directory of a set, or NAME=DIRECTORY for every source of a config.

    Raises:
        ConfigError: the names are not those of the config.
        DataError: a set is not whole.
    """
    names = [name for name, _ in config.sources]
    if not names:
        if len(data) != 1:
            raise ConfigError(
                f"--data names {len(data)} sets: give one, or data.sources in the experiment"
            )
        return ClipSet(data[0])
    pairs = [value.partition("=")[::2] for value in data]
    if sorted(name for name, _ in pairs) != sorted(names):
        wanted = " ".join(f"--data {name}=DIRECTORY" for name in names)
        raise ConfigError(f"the experiment draws from {len(names)} sources: give {wanted}")
    directories = dict(pairs)
    return Mixture({name: ClipSet(directories[name]) for name in names})


def _models(encoding: Encoding | None) -> tuple[Any, ...] | None:
    """Which models made what a set holds, whatever it was made of."""
    if encoding is None:
        return None
    return encoding.vae_id, encoding.text_id
