"""What `sora sweep run` and `status` refuse, and what status prints."""

from pathlib import Path
from types import ModuleType

import pytest

from sora_jax.cli import sweep_run, sweep_status
from sora_jax.errors import UserError
from sora_jax.scaling.queue import Queue
from tests.sweeps import planned


def call(module: ModuleType, *words: str) -> None:
    name = module.__name__
    try:
        module.main(module.FLAGS([name, *words]))
    finally:
        module.FLAGS.unparse_flags()
        for flag in module.FLAGS:
            module.FLAGS[flag].unparse()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    asked = [f"--queue={tmp_path / 'queue'}", "--data=set", "--vae=run"]
    with pytest.raises(UserError, match="needs --plan, --queue, --data and --vae"):
        call(sweep_run, *asked)
    with pytest.raises(UserError, match="cannot read the plan .*No such file"):
        call(sweep_run, *asked, f"--plan={tmp_path / 'plan.json'}")
    with pytest.raises(UserError, match="no path of this machine: mount the bucket"):
        call(sweep_run, *asked[1:], "--plan=plan.json", "--queue=gs://clips/queue")
    assert not (tmp_path / "queue").exists()


def test_status_is_a_table_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="needs --queue"):
        call(sweep_status)
    with pytest.raises(UserError, match="there is no queue"):
        call(sweep_status, f"--queue={tmp_path / 'queue'}")
    Queue(tmp_path / "queue").add([planned(0), planned(1)])
    before = sorted(tmp_path.rglob("*"))
    call(sweep_status, f"--queue={tmp_path / 'queue'}")
    head, *rows, counts = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "budget", "size", "state", "worker", "step", "loss", "heartbeat"]
    assert [row.split() for row in rows] == [
        ["run-00", "1e+10", "32x2", "planned", "0/12"],
        ["run-01", "2e+10", "32x2", "planned", "0/12"],
    ]
    assert counts == "2 planned"
    assert sorted(tmp_path.rglob("*")) == before
