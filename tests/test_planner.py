"""Planned runs meet their budgets by the counter of the run itself, and keep their ids."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sora_jax.cli.data import build_world_set
from sora_jax.config import ConfigError, from_dict, load_experiment
from sora_jax.data.buckets import Period
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.sources import ClipSet
from sora_jax.experiment import Experiment
from sora_jax.planner import Sweep, planned_run, planned_runs, run_at, with_batch
from sora_jax.pod.prices import find_slice
from sora_jax.scaling.experiment_file import changes, write_experiment
from sora_jax.scaling.ladder import Ladder
from sora_jax.scaling.plan import (
    check_reach,
    load_plan,
    merged,
    plan_table,
    save_plan,
    within_hours,
)
from sora_jax.scaling.rules import Fixed, MuP, PowerLaw
from sora_jax.sharding.mesh import MeshConfig
from sora_jax.work import dit_work, training_flops, training_tokens

BASE: Experiment = load_experiment("sweep")
# Buckets of three lengths, so that what a run costs depends on what is drawn.
MIXED: Experiment = load_experiment("demo", ["text.depth=1", "text.width=32"])
BRANCHING = (
    "dit_stage.training.optimizer.decay_share=0.2",
    "dit_stage.training.save_every=20",
    "dit_stage.training.retention.every_steps=20",
)


def sweep(base: Experiment = BASE, **changed: Any) -> Sweep:
    asked = {
        "ladder": Ladder(head_width=16, aspect=32.0),
        "rule": Fixed(512.0, 3e-3),
        "optimum": (0.25, 0.5),
        "slices": (find_slice("cpu-2"),),
        "code": "code",
        "data": "data",
        "sizes": 3,
    }
    return Sweep(base, **{**asked, **changed})


def test_every_run_meets_its_budget_and_brackets_the_optimum() -> None:
    runs = planned_runs(sweep(), [4e11, 2e11])
    assert [run.budget for run in runs] == [2e11] * 3 + [4e11] * 3
    for run in runs:
        made = from_dict(Experiment, run.experiment)
        training = made.dit_stage.training
        assert run.flops == training_flops(made, training.steps) == pytest.approx(run.budget, 0.01)
        assert run.tokens == training_tokens(made, run.steps) == run.steps * 512
        assert (run.width, run.depth) == (made.dit.width, made.dit.depth)
        assert run.width == 16 * run.heads
        assert training.optimizer.warmup_steps == run.warmup_steps == round(0.02 * run.steps)
        assert training.ema_decay == 1 - 1 / round(0.05 * run.steps)
        assert run.hours == find_slice("cpu-2").hours(run.flops)
    sizes = [run.parameters for run in runs if run.budget == 4e11]
    assert sizes[0] < 0.25 * 4e11**0.5 < sizes[-1]
    assert len({run.run for run in runs}) == len(plan_table(runs).rows) == 6


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_the_budget_is_what_the_loader_draws(tmp_path: Path, micro_batches: int) -> None:
    base = load_experiment(
        "demo", ["text.width=32", f"dit_stage.training.micro_batches={micro_batches}"]
    )
    batch = training_tokens(base, 10_000) / 10_000
    run = planned_run(sweep(base, rule=Fixed(batch, 1e-2)), 1.5e11, heads=4)
    made = from_dict(Experiment, run.experiment)
    build_world_set(36, tmp_path / "set", made.data, made.world)
    clips, stage = ClipSet(tmp_path / "set"), made.dit_stage
    filled = clips.filled_buckets(made.data)
    steps = Steps(
        clips, made.data, made.batch_clips(), made.seed, buckets=filled, curriculum=stage.periods()
    )
    batches, work, spent = Batches(steps), dit_work(made, encodes=False), 0
    for _ in range(run.steps * stage.training.micro_batches):
        next(batches)
        spent += work[batches.drawn().bucket].model
    assert spent == run.flops == pytest.approx(run.budget, rel=0.01)


def test_ids_are_of_what_decides_a_run() -> None:
    run = planned_run(sweep(), 4e11, heads=4)
    computed = load_experiment("sweep", ["dit.unroll=False", "dit_stage.training.save_every=7"])
    assert planned_run(sweep(computed), 4e11, heads=4).run == run.run
    assert planned_run(sweep(slices=(find_slice("cpu-8"),)), 4e11, heads=4).run == run.run
    others = [
        sweep(load_experiment("sweep", ["seed=1"])),
        sweep(rule=Fixed(512.0, 1e-3)),
        sweep(code="other"),
        sweep(data="other"),
    ]
    ids = {planned_run(each, 4e11, heads=4).run for each in others}
    assert len(ids | {run.run}) == 5


def test_a_plan_is_kept_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    first = planned_runs(sweep(), [4e11])
    save_plan(path, first)
    assert load_plan(path) == first
    later = planned_runs(sweep(code="later"), [8e11, 4e11])
    plan = merged(load_plan(path), later)
    assert plan[:3] == first  # also their code: what was done is not done again
    assert [run.code for run in plan] == ["code"] * 3 + ["later"] * 3
    path.write_text('{"schema": 1, "runs": [{"run": "a"}]}')
    with pytest.raises(ConfigError, match="plan.json is no plan of `sora sweep plan`"):
        load_plan(path)
    path.write_text('{"schema": 9, "runs": []}')
    with pytest.raises(ConfigError, match="is a plan of version 9"):
        load_plan(path)


def test_batches_follow_the_rule_in_rows_and_micro_batches() -> None:
    before = training_tokens(MIXED, 100) / 100
    for times, micro_batches in ((0.5, 1), (1.0, 1), (1.5, 2), (4.0, 4)):
        made = with_batch(MIXED, times * before)
        assert made.dit_stage.training.micro_batches == micro_batches
        assert training_tokens(made, 100) / 100 == pytest.approx(times * before, rel=0.1)
        for old, new in zip(MIXED.data.shape_classes, made.data.shape_classes, strict=True):
            assert new.rows <= old.rows
    split = dataclasses.replace(MIXED, mesh=MeshConfig(fsdp=8))
    assert {each.rows % 8 for each in with_batch(split, before / 2).data.shape_classes} == {0}
    with pytest.raises(ConfigError, match="a batch of 5 tokens is asked for, and the nearest that"):
        with_batch(split, 5.0)
    law = planned_run(sweep(MIXED, rule=PowerLaw((4e3, 0.1, 0.1), (1e-2, -0.1, -0.2))), 4e12, 4)
    tokens, parameters = law.tokens / 1e9, law.parameters / 1e9
    assert law.peak_rate == pytest.approx(1e-2 * tokens**-0.1 * parameters**-0.2, rel=0.02)
    assert law.batch_tokens == pytest.approx(4e3 * (tokens * parameters) ** 0.1, rel=0.15)


def test_rates_are_transferred_over_width_by_the_network() -> None:
    asked = sweep(rule=MuP(512.0, 3e-3, base_width=64))
    narrow, wide = (planned_run(asked, 4e11, heads) for heads in (4, 8))
    assert narrow.peak_rate == wide.peak_rate == 3e-3
    assert narrow.parametrisation == "mup" != planned_run(sweep(), 4e11, 4).parametrisation
    assert {from_dict(Experiment, run.experiment).dit.base_width for run in (narrow, wide)} == {64}


def test_branches_share_a_trunk_and_leave_it_where_its_rate_is_still_constant() -> None:
    asked = sweep(load_experiment("sweep", BRANCHING), trunks=True, sizes=5)
    runs = planned_runs(asked, [4e11, 8e11])
    trunks = {run.run: run for run in runs if run.branch_of is None}
    branches = [run for run in runs if run.branch_of is not None]
    assert branches
    for run in branches:
        trunk = trunks[run.branch_of or ""]
        assert run.cluster == trunk.run == trunk.cluster
        assert (run.width, run.warmup_steps, run.peak_rate) == (
            trunk.width,
            trunk.warmup_steps,
            trunk.peak_rate,
        )
        assert 0.7 * run.steps < (run.branch_step or 0) <= 0.8 * run.steps < trunk.steps
        assert run.hours < 0.35 * find_slice("cpu-2").hours(run.flops)
    with pytest.raises(ConfigError, match="branches leave a constant rate, from checkpoints"):
        sweep(trunks=True)
    with pytest.raises(ConfigError, match="so none branches off another"):
        planned_runs(dataclasses.replace(asked, rule=PowerLaw((1e3, 0.1, 0.0))), [4e11, 8e11])


def test_hours_leave_whole_budgets_out() -> None:
    run = planned_run(sweep(), 4e11, heads=4)
    runs = [dataclasses.replace(run, budget=budget, hours=1.0) for budget in (1.0, 1.0, 2.0, 2.0)]
    kept, dropped = within_hours(runs, 3.5)
    assert ([run.budget for run in kept], [run.budget for run in dropped]) == ([1, 1], [2, 2])
    assert within_hours(runs, 4.0) == (runs, [])


def test_too_little_for_an_exponent_is_refused() -> None:
    check_reach([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 7)
    with pytest.raises(ConfigError, match="5 budgets over 16x tell no exponent: give 6 or more"):
        check_reach([1.0, 2.0, 4.0, 8.0, 16.0, 1.0], 7)
    with pytest.raises(ConfigError, match="6 budgets over 31x"):
        check_reach([1.0, 2.0, 4.0, 8.0, 16.0, 31.0], 7)
    with pytest.raises(ConfigError, match="5 sizes a budget tell no optimum"):
        check_reach([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 5)


def test_what_cannot_be_planned_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"a budget of 1e\+10 FLOPs is .* steps of width 64"):
        planned_run(sweep(), 1e10, heads=4)
    small = dataclasses.replace(find_slice("cpu-2"), device_bytes=2**20)
    with pytest.raises(
        ConfigError, match=r"width 64 x depth 2 is estimated to take 0.0 GiB on cpu"
    ):
        planned_run(sweep(slices=(small,)), 4e11, heads=4)
    assert planned_run(sweep(slices=(small, find_slice("cpu-8"))), 4e11, 4).slice == "cpu-8"
    copies = load_experiment("sweep", ["mesh.replica=8", "mesh.fsdp=1"])
    with pytest.raises(
        ConfigError, match="v5p-8 has 4 devices, which the experiment's mesh.replica"
    ):
        planned_run(sweep(copies, slices=(find_slice("v5p-8"),)), 4e11, heads=4)
    laid_out = planned_run(sweep(slices=(find_slice("v5p-8"),)), 4e11, heads=4)
    assert from_dict(Experiment, laid_out.experiment).mesh.fsdp == 4
    stage = dataclasses.replace(MIXED.dit_stage, curriculum=(Period(9, (("1x32x32", 0.0),)),))
    with pytest.raises(ConfigError, match="demo has a curriculum, of which runs of different len"):
        sweep(dataclasses.replace(MIXED, dit_stage=stage))
    with pytest.raises(ConfigError, match="a warm-up over 0.5 of a run"):
        sweep(warmup_share=0.5)


def test_a_predicted_run_is_an_experiment_file(tmp_path: Path) -> None:
    run = run_at(sweep(), parameters=1.1 * sweep().parameters(5), budget=1e12)
    assert run.heads == 5
    made, path = from_dict(Experiment, run.experiment), tmp_path / "predicted.py"
    write_experiment(path, "sweep", changes(BASE, made), run, "1e12 FLOPs as they are best spent.")
    assert load_experiment(str(path)) == made
    assert "Hardware: cpu-2;" in path.read_text()
