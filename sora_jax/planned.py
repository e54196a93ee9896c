"""A planned run of a sweep, trained and scored in this process: all of a slice do it together."""

import contextlib
import dataclasses
import math
import traceback
from collections.abc import Mapping
from pathlib import Path

import jax

from sora_jax.assemble import dit_run
from sora_jax.checkpoints import CheckpointError, Checkpoints
from sora_jax.config import from_dict
from sora_jax.data.captions import TextEmbedder
from sora_jax.data.mixture import Clips
from sora_jax.data.sources import ClipSet
from sora_jax.errors import RestartableError, UserError
from sora_jax.evaluation import Asked, evaluate_run
from sora_jax.experiment import Experiment
from sora_jax.processes import agree, code_id, gathered, is_first
from sora_jax.run_directory import open_directory
from sora_jax.scaling.lease import Lease, LostLeaseError
from sora_jax.scaling.plan import PlannedRun
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.queue_files import TRAIN, logged, saved
from sora_jax.scaling.records import RunRecord
from sora_jax.scaling.worker import Attempt, conclude, leave, lost
from sora_jax.shared_vae import share_autoencoder
from sora_jax.train.guard import NonFiniteError
from sora_jax.train.loop import PreemptedError, train
from sora_jax.train.run import Run
from sora_jax.work import training_flops, training_tokens

LOSS = "held_out/loss"
ERROR = f"{LOSS}/standard_error"


@dataclasses.dataclass(frozen=True)
class Shared:
    """What the runs of a sweep have in common. clips: to train on; vae: the run whose autoencoder
    they train on; held_out: clips to score, in place of unseen scenes of the world; embed: as of
    `dit_run`; slice: the runs that are planned for it are taken, or all."""

    clips: Clips
    vae: Path
    held_out: ClipSet | None = None
    embed: TextEmbedder | None = None
    slice: str | None = None

    def takes(self, run: PlannedRun) -> bool:
        """Whether a run is for a worker with these."""
        return run.data == self.clips.id and self.slice in (None, run.slice)


def train_next(queue: Queue, shared: Shared, worker: str) -> bool:
    """Trains the next run, whatever comes of it; False if there is none. All processes of a slice
    call it.

    Raises:
        RestartableError: the queue is away, or another has taken the run over.
    """
    devices = jax.devices()
    hardware = f"{len(devices)} x {devices[0].device_kind}"
    lease = queue.claim(worker, hardware, shared.takes) if is_first() else None
    name = gathered(lease.run.run if lease else "")[0]
    if not name:
        return False
    agree({"code": code_id(), "--data": shared.clips.id, "run": name})
    run = lease.run if lease else _of(queue, name)
    with lease.beating(lost) if lease else contextlib.nullcontext():
        attempt = _attempted(queue, shared, run)
    if lease:
        try:
            conclude(lease, attempt, record_of)
        except LostLeaseError as error:
            lost(str(error))
    if is_first():
        print(f"run {name}: {attempt.status}{attempt.reason and f': {attempt.reason}'}", flush=True)
    if attempt.status in ("failed", "stopped") and jax.process_count() > 1:
        leave("the processes of this slice start again together")  # some may wait for others
    return True


def record_of(lease: Lease, attempt: Attempt) -> RunRecord | None:
    """The point that a run has become; None where it ended before it had spent anything.

    Steps, tokens and FLOPs follow from the experiment and where its log ends, however often the run
    was stopped on the way.
    """
    run, done = lease.run, attempt.status == "done"
    experiment = from_dict(Experiment, run.experiment)
    steps = run.steps if done else min(logged(lease.directory)[0], run.steps)
    if not steps:
        return None
    metrics = {
        name: value
        for name, value in attempt.metrics.items()
        if name not in (LOSS, ERROR) and not name.endswith(("/low", "/high"))
    }
    return RunRecord(
        run=run.run,
        sweep=experiment.name,
        status=attempt.status,  # type: ignore[arg-type]
        cluster=run.cluster,
        budget=run.budget,
        flops=float(training_flops(experiment, steps)),
        parameters=run.parameters,
        parameters_without_embedding=run.parameters_without_embedding,
        tokens=float(training_tokens(experiment, steps)),
        steps=steps,
        batch_tokens=run.batch_tokens,
        peak_rate=run.peak_rate,
        warmup_share=run.warmup_share,
        width=run.width,
        depth=run.depth,
        heads=run.heads,
        parametrisation=run.parametrisation,  # type: ignore[arg-type]
        rule=run.rule,
        seed=run.seed,
        loss=attempt.metrics[LOSS] if done else None,
        loss_error=attempt.metrics[ERROR] if done else None,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        experiment=run.fingerprint,
        code=code_id(),
        data=run.data,
        hardware=lease.holding.hardware,
        seconds=round(lease.seconds, 3),
    )


def _attempted(queue: Queue, shared: Shared, run: PlannedRun) -> Attempt:
    """Trains and scores a run; whatever is raised is how it ended."""
    directory = queue.directory / run.run
    before = saved(directory)
    try:
        metrics = trained(queue, shared, run)
    except PreemptedError as error:
        return Attempt("stopped", str(error))
    except NonFiniteError as error:
        return Attempt("diverged", str(error))
    except RestartableError as error:
        # Not the run's fault, unless it never comes any further.
        return Attempt("stopped" if saved(directory) > before else "failed", str(error))
    except UserError as error:
        return Attempt("failed", str(error))
    except Exception as error:
        traceback.print_exc()
        return Attempt("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    if is_first() and not math.isfinite(metrics[LOSS]):
        return Attempt("diverged", f"the loss on held-out clips is {metrics[LOSS]}")
    return Attempt("done", metrics=metrics)


def trained(queue: Queue, shared: Shared, run: PlannedRun) -> Mapping[str, float]:
    """Trains a run to its end, from where it is, and scores it on held-out clips: the metrics, in
    the first process. Raises whatever `train` and `evaluate_run` do."""
    experiment = from_dict(Experiment, run.experiment)
    directory = queue.directory / run.run / TRAIN
    open_directory(experiment, shared.clips, directory)
    share_autoencoder(shared.vae, directory, experiment)
    made = dit_run(experiment, shared.clips, directory, shared.embed)
    if run.branch_of is not None and run.branch_step is not None:
        branch(made, queue.directory / run.branch_of / TRAIN / made.name, run.branch_step)
    train(dataclasses.replace(made, evaluators=()))  # previews of so many runs nobody looks at
    asked = Asked(directory, directory, ("loss",), clips=shared.held_out, embed=shared.embed)
    return evaluate_run(asked).metrics


def branch(run: Run, trunk: Path, step: int) -> None:
    """Gives a run that has no checkpoint that of another's step, to go on from. One whose trunk has
    none either is trained from the start, to the same end."""
    own = Checkpoints(run.directory / "checkpoints", run.config.retention)
    theirs = Checkpoints(trunk / "checkpoints")
    with contextlib.closing(own), contextlib.closing(theirs), jax.set_mesh(run.mesh):
        if own.latest() is not None or step not in theirs.steps():
            return
        try:
            state, meta = theirs.restore(run.abstract(), step), theirs.meta(step)
        except CheckpointError as error:
            print(f"{run.name}: trained from its start: {error}", flush=True)
            return
        own.save(state, {**meta, **run.meta})
        print(f"{run.name}: branches off {trunk} at step {step}", flush=True)


def _of(queue: Queue, name: str) -> PlannedRun:
    """A run by its id; raises RestartableError where this host does not see it yet."""
    for entry in queue.look():
        if entry.run is not None and entry.run.run == name:
            return entry.run
    raise RestartableError(f"{queue.directory} does not show run {name} here yet")
