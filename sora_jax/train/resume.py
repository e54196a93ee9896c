"""Where a run begins: at its newest whole checkpoint, or afresh where nothing was saved."""

from collections.abc import Mapping
from typing import Any

from sora_jax.checkpoints import CheckpointError, Checkpoints, DamagedError, state_checksums
from sora_jax.processes import agree
from sora_jax.train.run import Run
from sora_jax.train.state import TrainState


def resume(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, Mapping[str, Any] | None]:
    """The state that was saved, with the run's data moved to its position, and what was saved with
    it; or a fresh state and None. Damaged checkpoints are told of and moved out of the way.

    Raises:
        CheckpointError: there are checkpoints and none can be used.
        DisagreementError: processes found different ones.
    """
    damaged = []
    for step in checkpoints.steps():
        try:
            meta = checkpoints.meta(step)
            _check_fingerprint(run, meta)
            _check_trained(run, meta)
            state = checkpoints.restore(run.abstract(), step)
        except DamagedError as error:
            damaged.append(step)
            print(f"{run.name}: {error}", flush=True)
            continue
        for each in damaged:
            place = checkpoints.set_aside(each)
            print(f"{run.name}: the damaged checkpoint {each} is now {place}", flush=True)
        agree({"step": str(step), "position": str(meta["position"])})
        run.data.restore(meta["position"])
        print(f"{run.name}: continuing from step {step}", flush=True)
        return state, meta
    if damaged:
        raise CheckpointError(
            f"{run.name}: none of the checkpoints of steps {damaged} in "
            f"{checkpoints.directory} can be read: put one back from a copy, or choose "
            "another directory to start anew"
        )
    state = run.init()
    state_checksums(state)  # compiles what a save will ask for
    return state, None


def _check_trained(run: Run, meta: Mapping[str, Any]) -> None:
    if "imported_from" in meta:
        raise CheckpointError(
            f"{run.directory} holds what was imported from {meta['imported_from']}: to train it "
            "further, give another --workdir and this run as --start"
        )


def _check_fingerprint(run: Run, meta: Mapping[str, Any]) -> None:
    if meta["fingerprint"] != run.meta["fingerprint"]:
        raise CheckpointError(
            f"{run.directory} holds a run of config {meta['fingerprint']}, this one is "
            f"{run.meta['fingerprint']}: continue with the config saved there, or choose "
            "another directory"
        )
