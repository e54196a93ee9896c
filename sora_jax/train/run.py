"""What a run is made of: its config, its data, its model and its step, ready to be scheduled."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from sora_jax.checkpoints import RetentionConfig
from sora_jax.config import ConfigError
from sora_jax.train.clock import Work
from sora_jax.train.executables import Executables
from sora_jax.train.metrics import MetricWriter
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.profile import ProfileWindow
from sora_jax.train.state import TrainState
from sora_jax.train.step import TrainStep
from sora_jax.types import Drawn

STALL_SECONDS = 1800  # a large program takes minutes to compile, and so does a large checkpoint


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length and rhythm of a run, in steps. A step takes `micro_batches` batches, each of its own
    bucket, and makes one update on the mean of their gradients. So many steps in a row whose loss
    or gradients are not finite as `max_skips` says stop the run."""

    steps: int
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = 0.999
    micro_batches: int = 1
    max_skips: int = 10
    log_every: int = 50
    save_every: int = 1_000
    evaluate_every: int = 1_000
    retention: RetentionConfig = RetentionConfig()

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "micro_batches",
            "max_skips",
            "log_every",
            "save_every",
            "evaluate_every",
        ):
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
    """What the loop asks of the loader: batches in order, what the last one was drawn from and of
    which clips, its position to save, and what of it to log."""

    def __next__(self) -> Any: ...
    def drawn(self) -> Drawn: ...
    def clip_ids(self, drawn: Drawn) -> Sequence[str]: ...
    def metrics(self) -> dict[str, float]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """What is called every so many steps, and after the last, with the state, the step and the
    run's writer."""

    every: int
    call: Callable[[TrainState, int, MetricWriter], None]


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
    work: Mapping[str, Work]  # of a batch, by bucket
    peak_flops: float | None = None  # of a device, a second; None where it is not known
    evaluators: Sequence[Evaluator] = ()
    executables: Executables | None = None  # made before the launch
    profiled: ProfileWindow | None = None  # steps to trace
    stall_seconds: float = STALL_SECONDS  # without an end of anything: the run hangs
