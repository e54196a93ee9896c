"""train the planned runs of a sweep: on one machine, or on many that see the same queue.

    sora sweep run --plan sweeps/one/plan.json --queue sweeps/one/queue \
        --data sets/latents --vae runs/vae --held_out sets/held_out

Each run is trained once, in a process of its own, to a line of QUEUE/records.jsonl, which `sora
sweep fit` reads. Start as many of these commands as there are slices, at any time. One that is
stopped or killed goes on when it is given again, or another takes its run over; a run that fails
twice is left, and the rest go on. Given again with a plan of more runs, it trains those.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import from_dict
from sora_jax.data.mixture import open_clips
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError, UserError
from sora_jax.experiment import Experiment
from sora_jax.files import local_path
from sora_jax.networks import experiment_of
from sora_jax.planned import Shared, record_of, train_next
from sora_jax.processes import join
from sora_jax.scaling.plan import PlannedRun, load_plan
from sora_jax.scaling.queue import LEASE_SECONDS as DEFAULT_LEASE
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.status import status_lines, status_table
from sora_jax.scaling.worker import NOTHING_LEFT, leave_with_worker, work, worker_name
from sora_jax.train.executables import keep_on_disk
from sora_jax.weights.text_encoders import open_embedder

FLAGS = flags.FlagValues()
PLAN = flags.DEFINE_string("plan", None, "plan.json of `sora sweep plan`", flag_values=FLAGS)
QUEUE = flags.DEFINE_string(
    "queue", None, "directory that all machines see, for runs and records", flag_values=FLAGS
)
DATA = flags.DEFINE_multi_string(
    "data", [], "set that was planned for, or NAME=DIRECTORY for each source", flag_values=FLAGS
)
VAE = flags.DEFINE_string(
    "vae", None, "run whose trained autoencoder all runs share", flag_values=FLAGS
)
HELD_OUT = flags.DEFINE_string(
    "held_out",
    None,
    "set of clips to score runs on (default: unseen scenes of the world, as `sora evaluate`)",
    flag_values=FLAGS,
)
EMBED = flags.DEFINE_string(
    "embed", None, "as of `sora train`, for runs on embeddings of captions", flag_values=FLAGS
)
SLICE = flags.DEFINE_string(
    "slice", None, "take only runs that are planned for this slice: v5p-8", flag_values=FLAGS
)
LEASE_SECONDS = flags.DEFINE_float(
    "lease_seconds",
    DEFAULT_LEASE,
    "without a heartbeat, after which others take a run over",
    lower_bound=1.0,
    flag_values=FLAGS,
)
WORKER = flags.DEFINE_string(
    "worker",
    None,
    "train one run for the worker of this name: what this command starts itself with",
    flag_values=FLAGS,
)


def main(argv: Sequence[str]) -> None:
    """Trains all runs that are left, or for a worker the next."""
    if len(argv) > 1 or not (PLAN.value and QUEUE.value and DATA.value and VAE.value):
        raise ConfigError("sora sweep run needs --plan, --queue, --data and --vae, and no words")
    queue = Queue(local_path(QUEUE.value), LEASE_SECONDS.value)
    plan = load_plan(local_path(PLAN.value))
    if not plan:
        raise ConfigError(f"{PLAN.value} plans no runs")
    if WORKER.value:
        leave_with_worker()
        join()
        keep_on_disk()
        sys.exit(0 if train_next(queue, _shared(plan), WORKER.value) else NOTHING_LEFT)
    _check(plan, _shared(plan))
    print(f"{queue.directory}: {queue.add(plan)} runs added", flush=True)
    name = worker_name()
    words = [sys.executable, "-m", "sora_jax.cli.sweep_run", f"--worker={name}"]
    work(queue, [*words, *FLAGS.flags_into_string().splitlines()], name, record_of)
    entries = queue.look()
    print("\n".join([status_table(entries).text(), *status_lines(entries)]))
    print(queue.collect())
    if any(entry.run is None for entry in entries):
        raise UserError(f"some runs of {queue.directory} are damaged: give the plan they are of")


def _shared(plan: Sequence[PlannedRun]) -> Shared:
    data = from_dict(Experiment, plan[0].experiment).data
    return Shared(
        clips=open_clips(DATA.value, data),
        vae=local_path(VAE.value or ""),
        held_out=ClipSet(HELD_OUT.value) if HELD_OUT.value else None,
        embed=open_embedder(EMBED.value) if WORKER.value else None,  # it may use devices
        slice=SLICE.value,
    )


def _check(plan: Sequence[PlannedRun], shared: Shared) -> None:
    """What would be wrong with every run."""
    if not any(shared.takes(run) for run in plan):
        wanted = sorted({f"set {run.data} on {run.slice}" for run in plan})
        raise ConfigError(
            f"{PLAN.value} is for {', '.join(wanted)}, and none of its runs for set "
            f"{shared.clips.id}{f' on {shared.slice}' * bool(shared.slice)}: give --data that set"
        )
    theirs, planned = experiment_of(shared.vae), from_dict(Experiment, plan[0].experiment)
    if theirs.vae.trained() != planned.vae.trained():
        raise ConfigError(
            f"--vae {shared.vae} has the autoencoder {theirs.vae}, and {PLAN.value} is for "
            f"{planned.vae}"
        )
    if not (shared.vae / "vae" / "latents.json").exists():
        raise ConfigError(f"--vae {shared.vae} is not trained: sora train --stage vae first")


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
