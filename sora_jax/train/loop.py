"""The schedule of one run: step, log, evaluate, save. It knows nothing of what is trained."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from sora_jax.checkpoints import CheckpointError, Checkpoints
from sora_jax.config import ConfigError, UserError
from sora_jax.train.executables import Executables
from sora_jax.train.metrics import MetricWriter
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.programs import Update
from sora_jax.train.state import TrainState
from sora_jax.train.step import TrainStep


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length and rhythm of a run, in steps. A step takes `micro_batches` batches, each of its own
    bucket, and makes one update on the mean of their gradients."""

    steps: int
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = 0.999
    micro_batches: int = 1
    log_every: int = 50
    save_every: int = 1_000
    evaluate_every: int = 1_000

    def __post_init__(self) -> None:
        for name in ("steps", "micro_batches", "log_every", "save_every", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be positive")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay={self.ema_decay} must lie in [0, 1)")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A batch on its devices, and how many tokens of it are trained on."""

    batch: Any
    tokens: int


class DataStream(Protocol):
    """What the loop asks of the loader: batches in order, its position to save, and what of it to
    log."""

    def __next__(self) -> Any: ...
    def metrics(self) -> dict[str, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


Evaluator = Callable[[TrainState, int, MetricWriter], None]


class NonFiniteError(UserError):
    """The loss is no longer a number."""


@dataclasses.dataclass(frozen=True)
class Run:
    """All that the loop schedules, made by `assemble`."""

    name: str
    directory: Path
    config: TrainConfig
    mesh: Mesh
    step: TrainStep
    batches: Sequence[Any]  # abstract: every shape that `prepare` gives
    key: PRNGKeyArray
    data: DataStream
    prepare: Callable[[Any], Prepared]
    init: Callable[[], TrainState]
    abstract: Callable[[], TrainState]
    meta: Mapping[str, Any]
    evaluators: Sequence[Evaluator] = ()
    executables: Executables | None = None  # made before the launch


def train(run: Run) -> TrainState:
    """Trains to the run's last step, from its newest checkpoint if there is one."""
    checkpoints = Checkpoints(run.directory / "checkpoints")
    try:
        with jax.set_mesh(run.mesh):
            state = _start(run, checkpoints)
            if int(state.step) >= run.config.steps:
                return state
            writer = MetricWriter(run.directory, run.name, run.config.steps, int(state.step))
            state = _steps(run, state, checkpoints, writer)
            writer.close()
    finally:
        checkpoints.close()
    return state


def _start(run: Run, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint's state with the data moved to its position, or a fresh state."""
    if checkpoints.latest() is None:
        return run.init()
    meta = checkpoints.meta()
    if meta["fingerprint"] != run.meta["fingerprint"]:
        raise CheckpointError(
            f"{run.directory} holds a run of config {meta['fingerprint']}, this one is "
            f"{run.meta['fingerprint']}: continue with the config saved there, or choose "
            "another directory"
        )
    run.data.restore(meta["position"])
    state = checkpoints.restore(run.abstract())
    print(f"{run.name}: continuing from step {int(state.step)}", flush=True)
    return state


def _prepared(run: Run) -> Iterator[tuple[Prepared, dict[str, Any]]]:
    """Batches on their devices, each with the data position after it."""
    while True:
        yield run.prepare(next(run.data)), run.data.state()


def _steps(
    run: Run, state: TrainState, checkpoints: Checkpoints, writer: MetricWriter
) -> TrainState:
    """The loop. Metrics of a step are read while the next one runs, so the host never waits."""
    config = run.config
    update = Update(run.step, state, run.batches, run.key, run.executables)
    loaded = f", {run.executables.loaded} of them made beforehand" if run.executables else ""
    print(
        f"{run.name}: {update.count} programs ready in {update.seconds:.1f} s{loaded}", flush=True
    )
    waiting: list[tuple[int, dict[str, Any], int]] = []
    tokens, first, batches = 0, int(state.step), _prepared(run)
    for step in range(first + 1, config.steps + 1):
        taken = list(itertools.islice(batches, config.micro_batches))
        with jax.transfer_guard("disallow"):
            state, metrics = update(state, [prepared.batch for prepared, _ in taken], run.key)
        tokens += sum(prepared.tokens for prepared, _ in taken)
        _log(run, writer, waiting)
        if step % config.log_every == 0 or step in (first + 1, config.steps):
            waiting, tokens = [(step, metrics, tokens)], 0
        evaluates = step % config.evaluate_every == 0 or step == config.steps
        saves = step % config.save_every == 0 or step == config.steps
        if evaluates or saves:
            # Now: a run that is killed after the save never comes by this step again.
            _log(run, writer, waiting)
        if evaluates:
            for evaluator in run.evaluators:
                evaluator(state, step, writer)
        if saves:
            _check_finite(run, step, metrics)
            checkpoints.save(state, {**run.meta, "position": taken[-1][1]})
    return state


def _log(run: Run, writer: MetricWriter, waiting: list[tuple[int, dict[str, Any], int]]) -> None:
    """Writes the metrics that wait, and empties the list."""
    while waiting:
        step, metrics, tokens = waiting.pop()
        _check_finite(run, step, metrics)
        values = {name: float(value) for name, value in metrics.items()}
        writer.scalars(step, values | run.data.metrics(), tokens)


def _check_finite(run: Run, step: int, metrics: dict[str, Any]) -> None:
    """Stops before a broken state is saved over a good one: the loss tells of the parameters
    before the update, the update's norm of those after it."""
    for name in ("loss", "update_norm"):
        if not math.isfinite(float(metrics[name])):
            raise NonFiniteError(
                f"{run.name}: the {name} of step {step} is not finite; the checkpoint before it "
                "is whole, lower the learning rate"
            )
