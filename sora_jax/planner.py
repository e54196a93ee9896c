"""Budgets and sizes -> the runs of a sweep, each a whole experiment that meets its budget.

A budget is a number of training FLOPs by the exact counter (`scaling/flops.py`), padding and the
text encoder that is trained along counted: what the clock of a run comes to at its last step.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
from flax import nnx

from sora_jax.config import fingerprint, to_dict
from sora_jax.data.buckets import ShapeClass
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.models.dit import DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.models.text import TextConfig
from sora_jax.pod.prices import Slice
from sora_jax.scaling.flops import ParameterCount, count_parameters
from sora_jax.scaling.ladder import Ladder, nearest_rung
from sora_jax.scaling.memory import activation_bytes, state_bytes
from sora_jax.scaling.plan import LEAST_SIZES, PlannedRun, run_id
from sora_jax.scaling.rules import Rule
from sora_jax.sharding.mesh import MeshConfig, sharing_a_row
from sora_jax.work import flops_row, steps_for, training_flops, training_tokens

TOLERANCE = 0.01  # of a budget
BATCH_TOLERANCE = 2.0  # times what the rule asks for or that over it, where rows divide no better
HBM_SHARE = 0.9  # that a step may be estimated to take: the rest is the compiler's
MANY_STEPS = 10_000  # over which a mean step is taken
AVERAGED_SHARE = 0.05  # of a run's steps, that the moving average of the weights reaches back


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is asked for. base: all that runs have in common, with the first run's batch and rate.
    optimum: (a, b) of the parameters a x FLOPs^b that are expected to be best; span: the largest
    size over it, and it over the smallest. slices: from the first choice to the last. code, data:
    ids of these. trunks: of every size the longest run alone is trained from its start, and the
    others branch off where their rates begin to fall."""

    base: Experiment
    ladder: Ladder
    rule: Rule
    optimum: tuple[float, float]
    slices: tuple[Slice, ...]
    code: str
    data: str
    sizes: int = LEAST_SIZES
    span: float = 4.0
    warmup_share: float = 0.02
    trunks: bool = False

    def __post_init__(self) -> None:
        if not self.slices:
            raise ConfigError("a sweep needs a slice to run on")
        if not 0 <= self.warmup_share < 0.5 or self.span <= 1 or self.sizes < 1:
            raise ConfigError(
                f"a warm-up over {self.warmup_share} of a run must be from 0 to half of it, a span "
                f"of {self.span} above 1, and {self.sizes} sizes at least 1"
            )
        if self.base.dit_stage.curriculum:
            raise ConfigError(
                f"{self.base.name} has a curriculum, of which runs of different lengths would see "
                "different parts: leave dit_stage.curriculum out"
            )
        training = self.base.dit_stage.training
        if self.trunks and (
            training.optimizer.decay_share == 1 or training.retention.every_steps is None
        ):
            raise ConfigError(
                "branches leave a constant rate, from checkpoints that are kept: set "
                "dit_stage.training.optimizer.decay_share=0.2, and "
                "dit_stage.training.retention.every_steps to a multiple of save_every"
            )

    def rung(self, heads: int) -> Experiment:
        """The base at a size."""
        dit = self.ladder.size(self.base.dit, heads)
        if self.rule.base_width is not None:
            dit = dataclasses.replace(dit, base_width=self.rule.base_width)
        return dataclasses.replace(self.base, dit=dit)

    def count(self, heads: int) -> ParameterCount:
        """Of the transformer at a size, and the text encoder trained with it."""
        made = self.rung(heads)
        return _count(made.dit, made.text, made.vae.channels, made.data.vocabulary_size)

    def parameters(self, heads: int) -> int:
        """All of them."""
        return self.count(heads).total


def planned_runs(sweep: Sweep, budgets: Iterable[float]) -> list[PlannedRun]:
    """The runs of all budgets, from the smallest up, sizes ascending in each.

    Raises:
        ConfigError: the ladder has no sizes around an optimum, a budget is spent in too few steps
            to be met, a batch cannot be laid out, a run fits on no slice, or runs cannot branch.
    """
    rungs = [
        (budget, heads)
        for budget in sorted(set(budgets))
        for heads in sweep.ladder.bracket(
            sweep.parameters, _expected(sweep, budget), sweep.sizes, sweep.span
        )
    ]
    if not sweep.trunks:
        return [planned_run(sweep, budget, heads) for budget, heads in rungs]
    least: dict[int, float] = {}
    for budget, heads in rungs:
        least.setdefault(heads, budget)
    rhythms = {heads: _rhythm(sweep, budget, heads) for heads, budget in least.items()}
    runs = [planned_run(sweep, budget, heads, rhythms[heads]) for budget, heads in rungs]
    return [_branched(run, _trunk(run, runs), sweep) for run in runs]


def planned_run(
    sweep: Sweep, budget: float, heads: int, rhythm: "Rhythm | None" = None
) -> PlannedRun:
    """The run of one size that spends a budget. `rhythm`: where it is not by its own length."""
    experiment, count = sweep.rung(heads), sweep.count(heads)
    tokens = budget * training_tokens(experiment, MANY_STEPS)
    tokens /= training_flops(experiment, MANY_STEPS)
    experiment = with_batch(experiment, sweep.rule.batch_tokens(count.total, tokens))
    steps = steps_for(experiment, budget)
    flops = training_flops(experiment, steps)
    if abs(flops / budget - 1) > TOLERANCE:
        raise ConfigError(
            f"a budget of {budget:.3g} FLOPs is {budget / training_flops(experiment, 1):.1f} steps "
            f"of {_size(experiment)}, too few to meet it within {TOLERANCE:.0%}: give a larger "
            "budget or a smaller batch"
        )
    rate = sweep.rule.peak_rate(count.total, tokens)
    rhythm = rhythm or Rhythm.of_length(steps, sweep.warmup_share)
    experiment = _timed(experiment, steps, rate, rhythm)
    memory, taken = _fitting(experiment, count.total, sweep.slices)
    experiment = dataclasses.replace(experiment, mesh=_mesh(experiment.mesh, taken))
    mark, hours = fingerprint(experiment.trained()), taken.hours(flops)
    run = run_id(mark, sweep.code, sweep.data, experiment.seed)
    return PlannedRun(
        run=run,
        cluster=run,
        budget=budget,
        flops=flops,
        parameters=count.total,
        parameters_without_embedding=count.without_embedding,
        width=experiment.dit.width,
        depth=experiment.dit.depth,
        heads=heads,
        steps=steps,
        tokens=training_tokens(experiment, steps),
        batch_tokens=training_tokens(experiment, steps) / steps,
        peak_rate=rate,
        warmup_steps=rhythm.warmup_steps,
        rule=sweep.rule.name,
        parametrisation="standard" if sweep.rule.base_width is None else "mup",
        seed=experiment.seed,
        memory_bytes=memory,
        slice=taken.name,
        hours=hours,
        cost=hours * taken.dollars_an_hour,
        code=sweep.code,
        data=sweep.data,
        fingerprint=mark,
        experiment=to_dict(experiment),
    )


def run_at(sweep: Sweep, parameters: float, budget: float) -> PlannedRun:
    """The run of the ladder's size with the nearest parameters that spends a budget: of what a fit
    predicts. Raises ConfigError as `planned_runs`."""
    return planned_run(sweep, budget, nearest_rung(sweep.parameters, parameters))


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """What of a run goes by its length, or of branches by that of the shortest."""

    warmup_steps: int
    averaged_steps: int  # that the moving average of the weights reaches back

    @classmethod
    def of_length(cls, steps: int, warmup_share: float) -> "Rhythm":
        return cls(round(warmup_share * steps), max(1, round(AVERAGED_SHARE * steps)))


def with_batch(experiment: Experiment, tokens: float) -> Experiment:
    """The experiment with steps of about so many tokens: in as many micro-batches as it takes for
    none to have more rows than the base's, for which its layout is made.

    Raises:
        ConfigError: the mesh does not divide such a batch.
    """
    training = experiment.dit_stage.training
    before = training_tokens(experiment, MANY_STEPS) / MANY_STEPS
    batches = tokens / before * training.micro_batches  # of as many rows
    micro_batches = max(1, math.ceil(batches - 1e-6))

    def resized(shape_class: ShapeClass) -> ShapeClass:
        unit = _divisor(experiment.mesh, shape_class)
        rows = shape_class.rows * batches / micro_batches
        return dataclasses.replace(shape_class, rows=unit * max(1, round(rows / unit)))

    classes = tuple(resized(each) for each in experiment.data.shape_classes)
    stage = dataclasses.replace(
        experiment.dit_stage, training=dataclasses.replace(training, micro_batches=micro_batches)
    )
    data = dataclasses.replace(experiment.data, shape_classes=classes)
    made = dataclasses.replace(experiment, data=data, dit_stage=stage)
    after = training_tokens(made, MANY_STEPS) / MANY_STEPS
    if not 1 / BATCH_TOLERANCE <= after / tokens <= BATCH_TOLERANCE:
        raise ConfigError(
            f"{_size(experiment)}: a batch of {tokens:,.0f} tokens is asked for, and the nearest "
            f"that the mesh divides has {after:,.0f}: give data.shape_classes shorter rows, or "
            "another rule"
        )
    return made


def _expected(sweep: Sweep, budget: float) -> float:
    coefficient, exponent = sweep.optimum
    return float(coefficient * budget**exponent)


def _size(experiment: Experiment) -> str:
    return f"width {experiment.dit.width} x depth {experiment.dit.depth}"


@functools.lru_cache(maxsize=256)
def _count(dit: DiTConfig, text: TextConfig, channels: int, vocabulary: int) -> ParameterCount:
    make = functools.partial(Generator, dit, text, channels=channels, vocabulary=vocabulary)
    return count_parameters(jax.eval_shape(lambda: make(rngs=nnx.Rngs(0))))


def _timed(experiment: Experiment, steps: int, rate: float, rhythm: Rhythm) -> Experiment:
    """The experiment over so many steps."""
    training = experiment.dit_stage.training
    optimizer = dataclasses.replace(
        training.optimizer, peak_rate=rate, warmup_steps=rhythm.warmup_steps
    )
    training = dataclasses.replace(
        training, steps=steps, optimizer=optimizer, ema_decay=1 - 1 / rhythm.averaged_steps
    )
    stage = dataclasses.replace(experiment.dit_stage, training=training)
    return dataclasses.replace(experiment, dit_stage=stage)


# ---- layout


def _mesh(mesh: MeshConfig, taken: Slice) -> MeshConfig:
    """All devices of a slice, those left over from the other axes in `fsdp`."""
    others = mesh.replica * mesh.context * mesh.tensor
    if taken.devices == 1 or others < 0:  # CPUs, of which a process has as many as it is told
        return mesh
    if taken.devices % others:
        raise ConfigError(
            f"{taken.name} has {taken.devices} devices, which the experiment's mesh.replica x "
            f"context x tensor = {others} do not divide: change these, or --slice"
        )
    return dataclasses.replace(mesh, fsdp=taken.devices // others)


def _divisor(mesh: MeshConfig, shape_class: ShapeClass) -> int:
    """What the rows of a class are a multiple of (see `Experiment.check_class`)."""
    context = max(mesh.context, 1)
    others = context // sharing_a_row(context, shape_class.context)
    return max(mesh.replica, 1) * max(mesh.fsdp, 1) * others * shape_class.parts


def _fitting(experiment: Experiment, parameters: int, slices: Sequence[Slice]) -> tuple[int, Slice]:
    """(Bytes of a device, the first slice that has them)."""
    sizes: Mapping[str, int] = {}
    for each in slices:
        mesh = _mesh(experiment.mesh, each)
        memory = _device_bytes(dataclasses.replace(experiment, mesh=mesh), parameters)
        if memory <= HBM_SHARE * each.device_bytes:
            return memory, each
        sizes = {**sizes, each.name: memory}
    tried = ", ".join(f"{size / 2**30:.1f} GiB on {name}" for name, size in sizes.items())
    raise ConfigError(
        f"{_size(experiment)} is estimated to take {tried} a device, more than "
        f"{HBM_SHARE:.0%} of what these have: give a larger --slice"
    )


def _device_bytes(experiment: Experiment, parameters: int) -> int:
    mesh, optimizer = experiment.mesh, experiment.dit_stage.training.optimizer
    fsdp, context, tensor = (max(size, 1) for size in mesh.sizes[1:])
    of_state = state_bytes(parameters, 2 if optimizer.moments == "bfloat16" else 4)
    of_rows = max(
        activation_bytes(experiment.dit, flops_row(experiment, each)) * each.rows // each.parts
        for each in experiment.data.shape_classes
    )
    replicas = max(mesh.replica, 1)
    return of_state // (fsdp * context * tensor) + of_rows // (replicas * fsdp * context * tensor)


# ---- branches


def _rhythm(sweep: Sweep, budget: float, heads: int) -> Rhythm:
    """That of the run of a size with its smallest budget, which all others of the size share."""
    return Rhythm.of_length(planned_run(sweep, budget, heads).steps, sweep.warmup_share)


def _trunk(run: PlannedRun, runs: Sequence[PlannedRun]) -> PlannedRun:
    """The longest run of its size."""
    return max((one for one in runs if one.heads == run.heads), key=lambda one: one.budget)


def _branched(run: PlannedRun, trunk: PlannedRun, sweep: Sweep) -> PlannedRun:
    """`run` from where it leaves the trunk, whose results it shares until its rate begins to fall.

    Raises:
        ConfigError: the two have different batches or rates.
    """
    if run is trunk:
        return run
    if run.peak_rate != trunk.peak_rate or run.batch_tokens != trunk.batch_tokens:
        raise ConfigError(
            f"rule {run.rule} gives runs of one size other batches and rates by their length, so "
            "none branches off another: plan without branches, or with another rule"
        )
    training = sweep.base.dit_stage.training
    step = math.floor((1 - training.optimizer.decay_share) * run.steps)
    step -= step % (training.retention.every_steps or 1)
    taken = next(each for each in sweep.slices if each.name == run.slice)
    hours = run.hours * (1 - step / run.steps)
    return dataclasses.replace(
        run,
        cluster=trunk.run,
        branch_of=trunk.run if step else None,
        branch_step=step or None,
        hours=hours,
        cost=hours * taken.dollars_an_hour,
    )
