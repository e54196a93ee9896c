"""The schedule of one run: step, log, evaluate, save. It knows nothing of what is trained."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from sora_jax.checkpoints import Checkpoints
from sora_jax.errors import RestartableError
from sora_jax.processes import told_of_lost_processes
from sora_jax.train.clock import Clock
from sora_jax.train.events import EventLog
from sora_jax.train.guard import Guard
from sora_jax.train.memory import memory
from sora_jax.train.metrics import MetricWriter
from sora_jax.train.profile import Profiler
from sora_jax.train.programs import Update
from sora_jax.train.resume import resume
from sora_jax.train.roll_call import RollCall
from sora_jax.train.run import Evaluator, Run
from sora_jax.train.state import TrainState
from sora_jax.train.step import OF_THE_STEP
from sora_jax.train.watchdog import Watchdog
from sora_jax.train.window import Window
from sora_jax.types import Drawn


class PreemptedError(RestartableError):
    """The run was asked to stop, and has saved all that it did."""

    leaves_together = True


def train(run: Run) -> TrainState:
    """Trains to the run's last step, from its newest checkpoint if there is one.

    Raises:
        PreemptedError: it was stopped by SIGTERM, in this process or another, and has saved.
        LostError: another process of the run has ended.
        NonFiniteError: too many steps in a row were skipped.
        CheckpointError: nothing can be restored or saved.
    """
    run.directory.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run.directory / "checkpoints", run.config.retention)
    with (
        told_of_lost_processes(run.name),
        jax.set_mesh(run.mesh),
        Watchdog(run.stall_seconds, run.directory, run.name) as watchdog,
        contextlib.closing(checkpoints),
    ):
        return _Loop(run, checkpoints, watchdog).train()


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step that was started: what it will come to, and what it was made on."""

    number: int
    metrics: Mapping[str, jax.Array]
    drawn: Sequence[Drawn]
    tokens: int


class _Loop:
    """A run under way. Metrics of a step are read while the next one runs, so the host never
    waits."""

    def __init__(self, run: Run, checkpoints: Checkpoints, watchdog: Watchdog):
        self.run, self.config = run, run.config
        self.checkpoints, self.watchdog = checkpoints, watchdog
        self.window = Window()
        self.guard = Guard(run.name, run.directory, run.config.max_skips, run.data.clip_ids)
        self.roll_call, self.events = RollCall(), EventLog(run.directory)
        self.profiler = Profiler(run.profiled, run.directory / "tensorboard")
        self.waiting: _Step | None = None

    def train(self) -> TrainState:
        """To the last step."""
        state, kept = resume(self.run, self.checkpoints)
        if kept is not None:
            self.window.restore(kept["window"])
            self.guard.restore(kept["guard"], int(state.step))
        first = int(state.step)
        if first >= self.config.steps:
            return state
        self.writer = MetricWriter(self.run.directory, self.run.name, self.config.steps, first)
        with (
            contextlib.closing(self.writer),
            contextlib.closing(self.profiler),
            self.events.session(first),
            told_of_lost_processes(self.run.name),
            self.roll_call,
        ):
            update = self._compiled(state)
            self.clock = Clock(self.run.work, self.run.mesh.size, self.run.peak_flops)
            self.events.steps(first, self.clock.totals())
            for step in range(first + 1, self.config.steps + 1):
                state = self._step(update, state, step)
                stops = self.roll_call.stops(step)
                due = [each for each in self.run.evaluators if self._is_time(step, each.every)]
                saves = self._is_time(step, self.config.save_every) or stops
                compares = self.roll_call.several and self._is_time(step, self.config.log_every)
                if due or saves or compares:
                    # Now: a run that is killed after the save never comes by this step again.
                    self._settle()
                if saves or compares:
                    self.roll_call.compare(step)
                if due:
                    self._evaluate(due, state, step)
                if saves:
                    self._save(state, step)
                if stops and step < self.config.steps:
                    self._stop(step)
        return state

    def _is_time(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.steps

    def _compiled(self, state: TrainState) -> Update:
        run = self.run
        update = Update(run.step, state, run.batches, run.key, run.executables)
        loaded = f", {run.executables.loaded} of them made beforehand" if run.executables else ""
        print(
            f"{run.name}: {update.count} programs ready in {update.seconds:.1f} s{loaded}",
            flush=True,
        )
        self.events.event("compile_end", programs=update.count, seconds=update.seconds)
        self.watchdog.beat("the first step")
        return update

    def _step(self, update: Update, state: TrainState, step: int) -> TrainState:
        """Starts a step, and then ends the one before."""
        self.checkpoints.check()
        self.profiler.before(step)
        with self.clock.spent("data"):
            taken, drawn = [], []
            for _ in range(self.config.micro_batches):
                taken.append(self.run.prepare(next(self.run.data)))
                drawn.append(self.run.data.drawn())
        with self.clock.spent("compute"), jax.transfer_guard("disallow"):
            state, metrics = update(state, [each.batch for each in taken], self.run.key)
        self.roll_call.note(step, drawn)
        self._settle()
        self.waiting = _Step(step, metrics, drawn, sum(each.tokens for each in taken))
        return state

    def _settle(self) -> None:
        """Ends the step that waits: reads what it came to."""
        if self.waiting is None:
            return
        ended, self.waiting = self.waiting, None
        with self.clock.spent("compute"):
            metrics = {name: np.asarray(value) for name, value in ended.metrics.items()}
        self.profiler.after(ended.number)
        self.watchdog.beat(f"after step {ended.number}")
        for name in metrics.keys() - set(OF_THE_STEP):  # of the loss: each of a micro-batch
            each = metrics[name]
            metrics[name] = each if self.config.micro_batches > 1 else each[None]
        self.clock.step(ended.drawn, ended.tokens)
        self.events.steps(ended.number, self.clock.totals())
        self.window.add(metrics, ended.drawn)
        self.guard.look(ended.number, metrics, ended.drawn)
        if ended.number == 1 or self._is_time(ended.number, self.config.log_every):
            times = self.clock.close() | memory()
            self.writer.scalars(ended.number, self.window.close() | self.run.data.metrics(), times)

    def _evaluate(self, evaluators: Sequence[Evaluator], state: TrainState, step: int) -> None:
        with self.clock.spent("evaluate"):
            for evaluator in evaluators:
                evaluator.call(state, step, self.writer)
                self.watchdog.beat(f"evaluating after step {step}")

    def _save(self, state: TrainState, step: int) -> None:
        kept = {
            "position": self.run.data.state(),
            "window": self.window.state(),
            "guard": self.guard.state(),
        }
        start = time.monotonic()
        with self.clock.spent("checkpoint"):
            self.checkpoints.save(state, {**self.run.meta, **kept}, self.writer.latest)
        self.events.event("checkpoint", step=step, seconds=time.monotonic() - start)
        self.watchdog.beat(f"after the save of step {step}")

    def _stop(self, step: int) -> None:
        self.checkpoints.wait()
        raise PreemptedError(
            f"{self.run.name}: stopped by SIGTERM after step {step}, which is saved; the same "
            "command goes on"
        )
