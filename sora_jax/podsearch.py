"""Looks for the mesh, the attention across devices, the memory policy and the micro-batches of the
fastest step that fits."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from sora_jax.config import override
from sora_jax.data.buckets import ShapeClass
from sora_jax.errors import ConfigError, UserError
from sora_jax.experiment import Experiment
from sora_jax.nn.stack import Remat
from sora_jax.pod.report import ClassReport

Check = Callable[[Experiment, ShapeClass], ClassReport]

WIDEST_CONTEXT = 16  # devices that share a row
MICRO_BATCHES = (1, 2, 4)
POLICIES: tuple[Remat, ...] = ("none", "matmuls", "attention", "offload", "full")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One way to compute a step. `rows`: of the step, over all its micro-batches."""

    rows: int
    fsdp: int
    context: int
    tensor: int
    between: str
    ulysses: int
    remat: str
    micro_batches: int

    @property
    def overrides(self) -> list[str]:
        """What `--set` takes."""
        return [
            f"mesh.fsdp={self.fsdp}",
            f"mesh.context={self.context}",
            f"mesh.tensor={self.tensor}",
            f"dit.attention.context={self.between}",
            f"dit.attention.ulysses={self.ulysses}",
            f"dit.remat={self.remat}",
            f"dit_stage.training.micro_batches={self.micro_batches}",
        ]


@dataclasses.dataclass(frozen=True)
class Found:
    """A choice, and what was found of it: its report, or why there is none."""

    choice: Choice
    report: ClassReport | None
    reason: str = ""

    @property
    def seconds(self) -> float:
        """Of the step at the upper end of its interval; infinite if it does not fit."""
        steps = self.report.step_seconds if self.report and self.report.fits else None
        return steps["high"] if steps else math.inf


def search(
    experiment: Experiment, rows: int, tokens: int, devices: int, check: Check
) -> list[Found]:
    """All choices that were compiled, fastest first, for steps of so many rows and tokens.

    One thing is changed at a time, each from the best so far: the mesh, then how its context meets,
    then what is kept for the backward pass, then the micro-batches. `devices`: of one replica.

    Raises:
        ConfigError: no mesh divides the rows and tokens.
    """
    seen: dict[Choice, Found] = {}

    def best_of(choices: Sequence[Choice]) -> Choice:
        for choice in choices:
            if choice not in seen:
                seen[choice] = _found(experiment, choice, tokens, check)
        return min(choices, key=lambda choice: seen[choice].seconds)

    start = list(_meshes(experiment, rows, tokens, devices))
    if not start:
        raise ConfigError(
            f"--search: {rows} rows of {tokens} tokens do not divide over {devices} devices, at "
            f"most {WIDEST_CONTEXT} to a row: give more rows in --shape_class"
        )
    best = best_of(start)
    best = best_of([best, *_ways_to_meet(experiment, best)])
    best = best_of([best, *(dataclasses.replace(best, remat=policy) for policy in POLICIES)])
    best_of([best, *_parted(best, experiment.mesh.replica)])
    return sorted(seen.values(), key=lambda found: found.seconds)


def _meshes(experiment: Experiment, rows: int, tokens: int, devices: int) -> Iterator[Choice]:
    """Meshes with the experiment's policy and micro-batches."""
    dit, micro_batches = experiment.dit, experiment.dit_stage.training.micro_batches
    for context, tensor in itertools.product(_powers(WIDEST_CONTEXT), (1, 2)):
        fsdp, rest = divmod(devices, context * tensor)
        ways = fsdp * max(experiment.mesh.replica, 1) * micro_batches
        whole = not (rest or tokens % context or dit.heads % tensor)
        if whole and fsdp and rows % ways == 0:
            yield Choice(rows, fsdp, context, tensor, "gather", 1, dit.remat, micro_batches)


def _ways_to_meet(experiment: Experiment, best: Choice) -> Iterator[Choice]:
    """Rings and traded heads, and both, where a row is split."""
    if best.context == 1:
        return
    for between, ulysses in itertools.product(("gather", "ring"), _powers(best.context)):
        one_group = ulysses == best.context
        if experiment.dit.heads % (ulysses * best.tensor) == 0 and not (
            one_group and between == "ring"
        ):
            yield dataclasses.replace(best, between=between, ulysses=ulysses)


def _parted(best: Choice, replicas: int) -> Iterator[Choice]:
    """The same rows in more micro-batches, as far as the mesh divides theirs."""
    for count in MICRO_BATCHES:
        if best.rows % (best.fsdp * max(replicas, 1) * count) == 0:
            yield dataclasses.replace(best, micro_batches=count)


def _found(experiment: Experiment, choice: Choice, tokens: int, check: Check) -> Found:
    shape_class = ShapeClass(choice.rows // choice.micro_batches, tokens)
    try:
        changed = override(alone(experiment, shape_class), *choice.overrides)
        return Found(choice, check(changed, shape_class))
    except UserError as error:  # of the config, or of a kernel that does not fit on its chip
        return Found(choice, None, str(error))


def alone(experiment: Experiment, shape_class: ShapeClass) -> Experiment:
    """The experiment with this class and the buckets that it holds, whatever rows others have."""
    held = tuple(
        bucket
        for bucket in experiment.data.buckets
        if experiment.tokens(bucket) <= shape_class.tokens
    )
    data = dataclasses.replace(experiment.data, shape_classes=(shape_class,), buckets=held)
    stage = dataclasses.replace(experiment.vae_stage, buckets=())
    return dataclasses.replace(experiment, data=data, vae_stage=stage)


def _powers(most: int) -> list[int]:
    return [2**k for k in range(most.bit_length()) if 2**k <= most]


def ranking(found: Sequence[Found]) -> str:
    """Lines to read, fastest first."""
    lines = []
    for one in found:
        what = " ".join(one.choice.overrides)
        if one.report is None:
            lines.append(f"  refused: {one.reason}  {what}")
        elif not one.report.fits:
            over = (one.report.peak_bytes - one.report.hbm_bytes) / 2**30
            lines.append(f"  {over:.1f} GiB too much  {what}")
        else:
            lines.append(
                f"  {one.seconds:8.3f} s  {one.report.peak_bytes / 2**30:5.1f} GiB  {what}"
            )
    return "\n".join(lines)
