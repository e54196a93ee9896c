"""The search tries what divides, keeps the best of each kind of change, and ranks what it tried."""

import dataclasses

import pytest

from sora_jax.config import ConfigError, load_experiment, override
from sora_jax.data.buckets import ShapeClass
from sora_jax.experiment import Experiment
from sora_jax.pod.compiler import OutOfMemory
from sora_jax.pod.report import ClassReport
from sora_jax.podsearch import ranking, search

EXPERIMENT: Experiment = load_experiment("dit_400m:p720")
TOKENS = 75_776


def check(experiment: Experiment, shape_class: ShapeClass) -> ClassReport:
    """As if context 4 by a ring was fastest, keeping everything did not fit, and nothing else
    than more micro-batches saved memory."""
    mesh, dit = experiment.mesh, experiment.dit
    parts = experiment.dit_stage.training.micro_batches
    seconds = 10.0 + abs(mesh.context - 4) + 3 * (mesh.tensor - 1) + 0.1 * dit.attention.ulysses
    seconds -= dit.attention.context == "ring"
    seconds += {"none": -3, "matmuls": -1, "attention": 0, "offload": 1, "full": 2}[
        dit.remat
    ] + parts
    fits = dit.remat not in ("none", "matmuls") or parts > 1
    return ClassReport(
        name="",
        rows=shape_class.rows * parts,
        tokens=shape_class.tokens,
        state_bytes={},
        temporary_bytes=0,
        peak_bytes=2**30 if fits else 2**32,
        hbm_bytes=2**31,
        fits=fits,
        model_flops_per_chip=1.0,
        hardware_flops_per_chip=1.0,
        step_seconds={"low": 0.0, "high": seconds} if fits else None,
    )


def test_the_best_is_found_by_one_change_at_a_time() -> None:
    found = search(EXPERIMENT, rows=16, tokens=TOKENS, devices=64, check=check)
    best = found[0].choice
    assert (best.fsdp, best.context, best.tensor) == (16, 4, 1)
    assert (best.between, best.ulysses, best.remat, best.micro_batches) == (
        "ring",
        1,
        "attention",
        1,
    )
    seconds = [one.seconds for one in found]
    assert seconds == sorted(seconds)
    assert len({one.choice for one in found}) == len(found) < 20
    assert {one.choice.remat for one in found[-2:]} == {"none", "matmuls"}
    assert "2.0 GiB too much" in ranking(found)
    for one in found:  # each is a config of this class that `sora compile --set` takes
        shape_class = ShapeClass(16 // one.choice.micro_batches, TOKENS)
        data = dataclasses.replace(EXPERIMENT.data, shape_classes=(shape_class,))
        assert one.choice.fsdp * one.choice.context * one.choice.tensor == 64
        held = tuple(b for b in data.buckets if EXPERIMENT.tokens(b) <= TOKENS)
        data = dataclasses.replace(data, buckets=held)
        override(dataclasses.replace(EXPERIMENT, data=data), *one.choice.overrides)


def test_rows_that_fit_no_mesh_are_named() -> None:
    with pytest.raises(ConfigError, match="1 rows of 75776 tokens do not divide over 64 devices"):
        search(EXPERIMENT, rows=1, tokens=TOKENS, devices=64, check=check)


def test_a_refused_choice_is_ranked_last() -> None:
    def refuse(experiment: Experiment, shape_class: ShapeClass) -> ClassReport:
        if experiment.mesh.context == 4:
            raise OutOfMemory("vmem", 2, 1, "flash_forward")
        return check(experiment, shape_class)

    found = search(EXPERIMENT, rows=16, tokens=TOKENS, devices=64, check=refuse)
    assert found[-1].report is None
    assert found[0].choice.context != 4
    assert "refused: the kernel flash_forward needs" in ranking(found)
