"""Where a run's wall time goes, and what of the devices' peak its training comes to."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from sora_jax.types import Drawn

Kind = Literal["data", "compute", "checkpoint", "evaluate"]
KINDS: tuple[Kind, ...] = ("data", "compute", "checkpoint", "evaluate")
OTHER = "other"
ASIDE = ("checkpoint", "evaluate")  # no part of the time that a step takes


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs of training on one batch, over all devices: what the model asks for, padding counted,
    and what the devices do for it, with what is computed again and what is encoded on the way."""

    model: int
    hardware: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.model + other.model, self.hardware + other.hardware)


@dataclasses.dataclass
class _Steps:
    """Of steps that count together."""

    seconds: float = 0.0
    work: Work = Work(0, 0)


class Clock:
    """Says what every second since it was made went into.

    A second counts for the innermost `spent` that it passes in, and for "other" outside of all. So
    the kinds sum to the wall time.

    Rates of FLOPs are of the time from step to step, checkpoints and evaluation left out, and of
    one jax device. On TPU that is a chip, and on tpu7x a core, which is half of one: `mfu` and
    `hfu` are shares of the peak of such a device in bfloat16, by model and by hardware FLOPs.
    `mfu/BUCKET` is of the steps that have all their micro-batches of that bucket: what time each
    of a step's micro-batches took is not known. `mfu` is of all steps.
    """

    def __init__(
        self,
        work: Mapping[str, Work],
        devices: int,
        peak_flops: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        """`work`: of a batch of each bucket by name. `devices`: that share it. `peak_flops`: of one
        of them, a second; None where it is not known, and then there is no `mfu`."""
        self._work, self._devices, self._peak, self._now = work, devices, peak_flops, now
        self._spent = dict.fromkeys((*KINDS, OTHER), 0.0)
        self._within: list[str] = []
        self._last = now()
        self._stepped = self._in_steps()
        self._opened = dict(self._spent)
        self._steps = self._tokens = 0
        self._by_bucket: dict[str, _Steps] = {}
        self._all = _Steps()

    @contextlib.contextmanager
    def spent(self, kind: Kind) -> Iterator[None]:
        """What passes inside counts as `kind`, less what passes in one inside of it."""
        self._pass()
        self._within.append(kind)
        try:
            yield
        finally:
            self._pass()
            self._within.pop()

    def totals(self) -> dict[str, float]:
        """Seconds of each kind, and of "other", since the clock was made."""
        self._pass()
        return dict(self._spent)

    def step(self, drawn: Sequence[Drawn], tokens: int) -> None:
        """A step is done, as its metrics have arrived: what its micro-batches were drawn from, and
        how many tokens of them are trained on."""
        in_steps = self._in_steps()
        seconds, self._stepped = in_steps - self._stepped, in_steps
        self._steps, self._tokens = self._steps + 1, self._tokens + tokens
        work = sum((self._work[one.bucket] for one in drawn), Work(0, 0))
        counted = [self._all]
        if len(buckets := {one.bucket for one in drawn}) == 1:
            counted.append(self._by_bucket.setdefault(buckets.pop(), _Steps()))
        for steps in counted:
            steps.seconds += seconds
            steps.work += work

    def close(self) -> dict[str, float]:
        """Of the steps since the last call that gave any; nothing if there were none.

        `seconds/KIND` are means a step, and sum to `seconds/step`; steps and tokens per second are
        of all of this time too.
        """
        if not self._steps:
            return {}
        totals = self.totals()
        spent = {kind: totals[kind] - self._opened[kind] for kind in totals}
        wall = max(sum(spent.values()), 1e-9)
        values = {
            "steps_per_second": self._steps / wall,
            "tokens_per_second": self._tokens / wall,
            "seconds/step": wall / self._steps,
            **{f"seconds/{kind}": seconds / self._steps for kind, seconds in spent.items()},
            **self._rates("", self._all),
        }
        for bucket, steps in sorted(self._by_bucket.items()):
            values |= self._rates(f"/{bucket}", steps)
        self._opened, self._steps, self._tokens = totals, 0, 0
        self._by_bucket, self._all = {}, _Steps()
        return values

    def _rates(self, suffix: str, steps: _Steps) -> dict[str, float]:
        device_seconds = max(steps.seconds, 1e-9) * self._devices
        model, hardware = steps.work.model / device_seconds, steps.work.hardware / device_seconds
        rates = {f"model_tflops_per_device{suffix}": model / 1e12}
        if self._peak is not None:
            rates[f"mfu{suffix}"] = model / self._peak
            rates[f"hfu{suffix}"] = hardware / self._peak
        return rates

    def _pass(self) -> None:
        """Counts the time since the last call for what it passed in."""
        last, self._last = self._last, self._now()
        self._spent[self._within[-1] if self._within else OTHER] += self._last - last

    def _in_steps(self) -> float:
        self._pass()
        return sum(seconds for kind, seconds in self._spent.items() if kind not in ASIDE)
