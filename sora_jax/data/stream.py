"""A bucket's endless stream: which record stands at a position, and what is drawn for it there."""

import functools
from collections.abc import Sequence

from sora_jax.data.buckets import DataConfig
from sora_jax.data.schedule import Schedule, hash_seed, shuffled
from sora_jax.data.schema import Described


class Stream:
    """Everything follows from the seed, the bucket and the position; nothing from who asks."""

    def __init__(
        self,
        bucket: str,
        config: DataConfig,
        seed: int,
        sizes: Sequence[int],
        mixture: Sequence[tuple[int, Sequence[float]]] = (),
    ) -> None:
        """
        Args:
            bucket: its name.
            config: how captions, starts and rates are drawn, and the names of the sources.
            seed: of the run.
            sizes: records of each source, which are numbered one source after another.
            mixture: (first position, weight of each source from there on), positions ascending from
                0; sources without records have weight 0. One source needs none.
        """
        self._bucket, self._config, self._seed = bucket, config, seed
        self._sizes = tuple(sizes)
        self._firsts = [sum(sizes[:number]) for number in range(len(sizes))]
        # What one source is shuffled by does not depend on what it is called.
        self._names = [f"{bucket} of {name}" for name, _ in config.sources] or [bucket]
        self._sources = None
        if mixture:
            self._sources = Schedule(mixture, hash_seed("sources", seed, bucket))

    def index(self, position: int) -> int:
        """Of the record at a position. Each comes once in an epoch of its source."""
        source, number = (0, position) if self._sources is None else self._sources[position]
        size = self._sizes[source]
        epoch, offset = divmod(number, size)
        seed = _epoch_seed(self._seed, self._names[source], epoch)
        return self._firsts[source] + shuffled(offset, size, seed)

    def caption(self, position: int, record: Described) -> str:
        """Of one kind that the record has, by the kinds' weights, or dropped, that is empty.

        A record without any of the kinds has its first caption.
        """
        if self._draw("caption", position) < self._config.caption_dropout * 2**32:
            return ""
        own = record.captions
        kinds = [(own[kind], weight) for kind, weight in self._config.caption_kinds if kind in own]
        if not kinds:
            return record.caption
        drawn = self._draw("kind", position) / 2**32 * sum(weight for _, weight in kinds)
        for caption, weight in kinds:
            drawn -= weight
            if drawn < 0:
                return caption
        return record.caption

    def window(self, position: int, stored: int, frames: int) -> tuple[int, int]:
        """(First, step from one to the next) of the `frames` that are taken out of a clip of
        `stored`: at a rate of the config that it is long enough for, or in a row.
        """
        spare = {step: stored - (frames - 1) * step for step in self._config.frame_steps}
        steps = [step for step, starts in spare.items() if starts > 0] if frames > 1 else []
        step = steps[self._draw("rate", position) % len(steps)] if steps else 1
        starts = stored - (frames - 1) * step
        return self._draw("start", position) % starts if starts > 1 else 0, step

    def _draw(self, what: str, position: int) -> int:
        """32 bits."""
        return hash_seed(what, self._seed, self._bucket, position)


@functools.lru_cache(maxsize=512)
def _epoch_seed(seed: int, source: str, epoch: int) -> int:
    """The same for all records of an epoch, so made once."""
    return hash_seed("shuffle", seed, source, epoch)
