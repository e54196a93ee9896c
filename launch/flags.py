"""What libtpu is told of a pod, by generation: the flags of LIBTPU_INIT_ARGS, each with its reason.

    LIBTPU_INIT_ARGS="$(python -m launch.flags v5p-256 --slices 2)" sora compile --experiment ...

prints them, so that a step is compiled ahead of time as the pod compiles it; kept programs
(`sora compile --executables`) are found again only with the same flags. What every run compiles
with, on any TPU, stands in sora_jax/train/compiler_options.py. libtpu ends at a flag it does not
know; the tests start it with all of these.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

from launch.command_line import Parser, exit_code_of
from sora_jax.pod.accelerators import accelerator
from sora_jax.pod.chips import GENERATIONS

AXLEARN = "github.com/apple/axlearn/blob/main/axlearn/common/compiler_options.py"
MAXTEXT = "github.com/AI-Hypercomputer/maxtext/blob/main/benchmarks/xla_flags_library.py"
JAX = "github.com/jax-ml/jax/blob/main/jax/_src/cloud_tpu_init.py"


# Left out, though others' recipes have them. Measured with `sora compile` on two slices of v5p-8 (4
# blocks of dit_30m, 8 rows of 4,096 tokens, libtpu 0.0.42): async collective fusion and async
# all-gathers change the estimate of a step by less than 1%, and xla_tpu_scoped_vmem_limit_kib=65472
# takes it from 16.8-25.3% of the peak down to 15.2-21.9%.


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag. values: by generation; hazard: what is known to go wrong with it."""

    name: str
    values: Mapping[str, str]
    reason: str
    source: str
    hazard: str = ""
    only_between_slices: bool = False


def _everywhere(value: str) -> dict[str, str]:
    return dict.fromkeys(GENERATIONS, value)


FLAGS = (
    Flag(
        "xla_tpu_use_enhanced_launch_barrier",
        _everywhere("true"),
        "jax adds it where there is a TPU; said here, the flags are the same on the machine that "
        "compiles ahead of time, and the pod finds those programs",
        JAX,
    ),
    Flag(
        "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
        {"v6e": "false", "tpu7x": "false"},
        "on by default on tpu7x; off until a run on hardware gives the same losses",
        AXLEARN,
        "on, others saw a loss of quality on v6e and abnormal losses on tpu7x",
    ),
    Flag(
        "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter",
        {"tpu7x": "false"},
        "on by default on tpu7x; off until a run on hardware gives the same losses",
        AXLEARN,
        "on, others saw abnormal losses on tpu7x",
    ),
    Flag(
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        _everywhere("true"),
        "gradients are summed between slices while those of the next layer are computed",
        MAXTEXT,
        only_between_slices=True,
    ),
    Flag(
        "xla_tpu_data_parallel_opt_different_sized_ops",
        _everywhere("true"),
        "the same for gradients of several sizes, which those of a layer are",
        MAXTEXT,
        only_between_slices=True,
    ),
    Flag(
        "megascale_grpc_premap_memory_bytes",
        _everywhere(str(16 * 2**30)),
        "with the default of 4 GiB others saw steps take twice as long",
        AXLEARN,
        "so much of each host's memory is taken for the whole run",
        only_between_slices=True,
    ),
    Flag(
        "megascale_graph_hang_threshold",
        _everywhere("10m"),
        "a transfer between slices that takes so long is reported as a hang",
        AXLEARN,
        "a host that is slow to compile its first step may be taken for one that hangs",
        only_between_slices=True,
    ),
    Flag(
        "megascale_error_reporter_abort_on_hang",
        _everywhere("true"),
        "a hang ends the process by a signal, so the run starts again instead of waiting for ever",
        AXLEARN,
        only_between_slices=True,
    ),
    Flag(
        "megascale_error_reporter_abort_on_error",
        _everywhere("true"),
        "so does a lost slice, which the others would wait for",
        AXLEARN,
        only_between_slices=True,
    ),
)


@dataclasses.dataclass(frozen=True)
class Refused:
    """A flag that others' recipes have and that is warned of here. generations: where."""

    flag: str
    generations: tuple[str, ...]
    reason: str
    source: str


# Nor are flags taken from another generation's recipe: a whole set of those for tpu7x hung on v5p,
# says github.com/AI-Hypercomputer/tpu-recipes/tree/main/training/v5p of its WAN 2.1.
REFUSED = (
    Refused(
        "xla_tpu_enable_sparse_core_collective_offload_all_reduce=true",
        ("v6e", "tpu7x"),
        "trained to a worse quality on v6e and to abnormal losses on tpu7x",
        AXLEARN,
    ),
    Refused(
        "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter=true",
        ("tpu7x",),
        "trained to abnormal losses",
        AXLEARN,
    ),
)


def libtpu_init_args(generation: str, slices: int) -> str:
    """The flags of a pod, as LIBTPU_INIT_ARGS has them."""
    chosen = [flag for flag in FLAGS if slices > 1 or not flag.only_between_slices]
    return " ".join(
        f"--{flag.name}={flag.values[generation]}" for flag in chosen if generation in flag.values
    )


def warnings(arguments: str, generation: str) -> list[str]:
    """A sentence for each of a user's flags that is known to do harm on a generation."""
    given = {argument.removeprefix("--") for argument in arguments.split()}
    return [
        f"{refused.flag} on {generation} {refused.reason} ({refused.source})"
        for refused in REFUSED
        if refused.flag in given and generation in refused.generations
    ]


def main(arguments: Sequence[str]) -> None:
    """Prints the flags of an accelerator."""
    parser = Parser("launch.flags", __doc__)
    parser.add_argument("accelerator", help="such as v5p-256")
    parser.add_argument("--slices", type=int, default=1)
    chosen = parser.parse_args(arguments)
    print(libtpu_init_args(accelerator(chosen.accelerator).chip.generation, chosen.slices))


if __name__ == "__main__":
    sys.exit(exit_code_of(main, "launch.flags", sys.argv[1:]))
