"""The roll call: SIGTERM in one process stops all after the same step, other batches stop all."""

import os
import signal
from pathlib import Path

import pytest

from sora_jax.processes import DisagreementError, join
from sora_jax.train.roll_call import RollCall
from sora_jax.types import Drawn
from tests.processes import in_processes


def drawn(step: int) -> list[Drawn]:
    return [Drawn("5x16x16", range(8 * step, 8 * step + 8))]


def test_a_process_alone_stops_where_it_is_asked_and_listens_no_longer_than_it_runs() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with RollCall() as roll_call:
        roll_call.note(1, drawn(1))
        assert not roll_call.stops(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert roll_call.stops(2)
        roll_call.compare(2)
    assert signal.getsignal(signal.SIGTERM) == before


def child(port: str, number: str, directory: str) -> None:
    """One of three processes: the second is asked to stop, later the third draws something else."""
    address = {"SORA_COORDINATOR": f"localhost:{port}", "SORA_JOIN_SECONDS": "60"}
    join({**address, "SORA_PROCESSES": "3", "SORA_PROCESS": number})
    with RollCall() as roll_call:
        for step in range(1, 100_000):
            roll_call.note(step, drawn(step))
            if step == 40 and number == "1":
                os.kill(os.getpid(), signal.SIGTERM)
            if roll_call.stops(step):
                break
            if step % 20 == 0:
                roll_call.compare(step)
        roll_call.compare(step)
        Path(directory, number).write_text(str(step))
        for again in range(step + 1, step + 21):
            roll_call.note(again, drawn(again + (number == "2" and again == step + 7)))
        with pytest.raises(DisagreementError) as told:
            roll_call.compare(step + 20)
    assert f"since step {step + 1} process 2 trained on other batches" in str(told.value)


def test_several_stop_after_the_same_step_and_find_who_draws_other_batches(tmp_path: Path) -> None:
    in_processes(3, "tests.train.test_roll_call", str(tmp_path))
    steps = {path.name: int(path.read_text()) for path in tmp_path.iterdir()}
    assert len(steps) == 3
    assert len(set(steps.values())) == 1
    assert steps["0"] > 40
