"""libtpu's flags: each once, with reason and source, and known to the libtpu that is installed."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from launch.flags import FLAGS, REFUSED, libtpu_init_args, warnings
from sora_jax.pod.chips import GENERATIONS
from sora_jax.train.compiler_options import OPTIONS
from tests.launch.runs import launch
from tests.processes import CHECKOUT

SOURCE = r"github\.com/[\w.-]+/[\w.-]+/(blob|tree)/main/[\w./-]+"


def test_every_flag_is_told_once_and_why() -> None:
    names = [flag.name for flag in FLAGS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(OPTIONS["tpu"])
    for flag in FLAGS:
        assert flag.reason
        assert re.fullmatch(SOURCE, flag.source)
        assert flag.values
        assert set(flag.values) <= set(GENERATIONS)


def test_every_refused_flag_has_reason_and_source_and_is_not_given() -> None:
    for refused in REFUSED:
        assert refused.reason
        assert re.fullmatch(SOURCE, refused.source)
        assert set(refused.generations) <= set(GENERATIONS)
        for generation in refused.generations:
            for slices in (1, 2):
                assert f"--{refused.flag}" not in libtpu_init_args(generation, slices).split()
            assert warnings(f"--a=1 --{refused.flag}", generation)
        assert not warnings("--a=1", refused.generations[0])


def test_a_hazard_is_of_its_generation() -> None:
    flag = "--xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true"
    assert len(warnings(flag, "tpu7x")) == 1
    assert warnings(flag, "v6e") == []


@pytest.mark.parametrize("generation", GENERATIONS)
def test_flags_between_slices_are_for_several(generation: str) -> None:
    one, two = (set(libtpu_init_args(generation, slices).split()) for slices in (1, 2))
    assert one < two
    between = {flag.name for flag in FLAGS if flag.only_between_slices}
    assert {flag.removeprefix("--").partition("=")[0] for flag in two - one} == between
    assert not any("megascale" in flag for flag in one)


OPEN = "from sora_jax.pod.topology import open_topology; open_topology('v5e:1x1'); print('opened')"


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_libtpu_knows_the_flags() -> None:
    """It ends the process at one that it does not know."""
    every = " ".join(libtpu_init_args(generation, 2) for generation in GENERATIONS)
    every += " " + " ".join(f"--{refused.flag}" for refused in REFUSED)
    for flags, opened in ((every, True), ("--xla_tpu_no_such_flag=1", False)):
        run = subprocess.run(
            [sys.executable, "-c", OPEN],
            cwd=CHECKOUT,
            env=os.environ | {"LIBTPU_INIT_ARGS": flags},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (run.stdout == "opened\n") == opened, run.stderr[-1000:]


def test_the_command_prints_them() -> None:
    printed = launch("flags", "v5p-256", "--slices", "2")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == libtpu_init_args("v5p", 2) + "\n"
    failed = launch("flags", "v5p")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "launch.flags: there is no accelerator 'v5p'; did you mean 'v5p-8'?\n"
