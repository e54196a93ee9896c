"""Compiles an experiment's step or its sampling for a topology, and reports what it takes."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from sora_jax.data.buckets import ShapeClass
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.nn.block_sizes import LANES, Blocks
from sora_jax.pod.chips import Chip
from sora_jax.pod.compiler import Options, OutOfMemory, compile_for
from sora_jax.pod.cost import Cost, KernelUse, cost_of
from sora_jax.pod.report import ClassReport, Work, joined, report_of, report_of_overflow
from sora_jax.pod.schedule import Probe, kernel_cycles
from sora_jax.pod.topology import Topology
from sora_jax.programs import bytes_by_kind, bytes_of, lowered_step
from sora_jax.sampling_programs import Clip, What, program_of
from sora_jax.scaling.flops import hardware_flops, train_flops
from sora_jax.sharding.mesh import make_mesh, mesh_for_rows
from sora_jax.train.compiler_options import OPTIONS
from sora_jax.train.executables import Executables
from sora_jax.work import flops_row

SCHEDULES = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sora_jax/schedules"


def check_class(
    experiment: Experiment,
    shape_class: ShapeClass,
    topology: Topology,
    executables: Executables | None = None,
) -> ClassReport:
    """What a training step on a class takes on the topology; its programs are kept among
    `executables`."""
    experiment.check_class(shape_class)
    mesh = make_mesh(experiment.mesh, topology.devices)
    programs, state = lowered_step(experiment, shape_class, mesh)
    class_mesh = mesh_for_rows(mesh, shape_class.context)
    work = _work(experiment, shape_class, bytes_by_kind(state), class_mesh)
    updates = dataclasses.replace(work, rows=0, model_flops=0, hardware_flops=0)
    blocks = experiment.dit.attention.blocks
    return joined(
        [
            (
                _check(lowered, each, class_mesh, blocks, topology, OPTIONS["tpu"], executables),
                times,
            )
            for (lowered, times), each in zip(programs, (work, updates), strict=False)
        ]
    )


def check_clip(experiment: Experiment, what: What, clip: Clip, topology: Topology) -> ClassReport:
    """What a program of sampling clips of a size takes on the topology.

    Raises:
        RequestError: the networks do not divide the size; names the nearest that they do.
    """
    mesh = make_mesh(experiment.mesh, topology.devices)
    program = program_of(experiment, what, clip, mesh)
    work = Work(
        name=f"{experiment.name} {what} {clip.frames}x{clip.height}x{clip.width}",
        rows=program.rows,
        tokens=program.tokens,
        state_bytes={kind: bytes_of(tree) for kind, tree in program.held.items()},
        model_flops=program.flops,
        hardware_flops=program.flops,
        runs=program.runs,
    )
    blocks = experiment.dit.attention.blocks
    return _check(program.lowered, work, program.mesh, blocks, topology, options={})


def _check(
    lowered: jax.stages.Lowered,
    work: Work,
    mesh: Mesh,
    blocks: Blocks | None,
    topology: Topology,
    options: Options,
    executables: Executables | None = None,
) -> ClassReport:
    """Compiles what was lowered for the topology, and reads what was made of it."""
    devices = len(topology.devices)
    try:
        compilation = compile_for(lowered, options)
    except OutOfMemory as overflow:
        if overflow.space != "hbm":
            raise
        return report_of_overflow(work, topology.chip, devices, overflow.needed, overflow.available)
    if executables is not None:
        executables.save(lowered, compilation.compiled)
    cost = cost_of(str(compilation.compiled.as_text()), mesh, topology.chip)
    return report_of(
        work,
        topology.chip,
        devices,
        compilation.memory,
        cost,
        kernel_seconds=kernel_seconds(cost, blocks, topology.chip),
        compile_seconds=compilation.seconds,
    )


def _work(
    experiment: Experiment, shape_class: ShapeClass, state_bytes: dict[str, int], mesh: Mesh
) -> Work:
    """What a step on a class is asked to do."""
    row = flops_row(experiment, shape_class)
    rows, dit, text = shape_class.rows, experiment.dit, experiment.text
    return Work(
        name=f"{experiment.name} {rows}x{shape_class.tokens}",
        rows=rows,
        tokens=shape_class.tokens,
        state_bytes=state_bytes,
        model_flops=rows * train_flops(dit, row, text),
        hardware_flops=rows * hardware_flops(dit, row, text),
        parts=shape_class.parts,
        context=mesh.shape["context"],
    )


def kernel_seconds(cost: Cost, blocks: Blocks | None, chip: Chip) -> float:
    """Seconds of all calls of flash kernels, by the schedules that libtpu makes of them.

    Raises:
        ConfigError: there is another kernel, which nothing is known of.
    """
    topology = f"{chip.generation}:" + ("2x2x1" if chip.torus_axes == 3 else "2x2")
    total = 0.0
    for use in cost.kernels:
        if not use.name.startswith("flash_"):
            raise ConfigError(f"kernel {use.name}: only the schedules of flash kernels are counted")
        cycles = kernel_cycles(_probe(use, blocks), topology, SCHEDULES)
        total += use.calls * cycles[use.name].cycles / chip.clock_hz
    return total


def _probe(use: KernelUse, blocks: Blocks | None) -> Probe:
    """The kernel alone, at the shapes it is used with: queries and keys are its first operands that
    have heads."""
    wide: Sequence[Any] = [s for s in use.operands if len(s) == 3 and s[-1] % LANES == 0]
    (joined, queries, width), (_, keys, _) = wide[:2]
    rows = next(shape[0] for shape in use.operands if len(shape) == 3 and shape[1] == 1)
    arguments = {
        "rows": rows,
        "heads": joined // rows,
        "queries": queries,
        "keys": keys,
        "width": width,
        "blocks": blocks and dataclasses.asdict(blocks),
    }
    return Probe(f"sora_jax.nn.probes:{use.name}", arguments)
