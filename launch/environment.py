"""The environment variables of a run's processes, on GKE as on TPU VMs."""

from collections.abc import Mapping, Sequence

from launch.flags import libtpu_init_args
from sora_jax.errors import ConfigError
from sora_jax.processes import COUNT, DEFAULT_JOIN_SECONDS, JOIN_SECONDS

# jax.distributed's own port moved from 8476 to 8482 in jax 0.8.1, where firewalls that had let the
# old one through stopped runs (github.com/jax-ml/jax/issues/35905): it is said, so that it stays.
COORDINATOR_PORT = 8476
LIBTPU = "LIBTPU_INIT_ARGS"


def environment(generation: str, slices: int, own: Mapping[str, str]) -> dict[str, str]:
    """What every process is told, then the user's. Which of them it is, jax learns from the pod:
    GKE sets TPU_WORKER_* and, between slices, MEGASCALE_*, and a TPU VM asks its metadata."""
    usual = {
        "JAX_PLATFORMS": "tpu,cpu",  # no TPU is an error then, not a slow run on CPUs
        "JAX_COORDINATOR_PORT": str(COORDINATOR_PORT),
        COUNT: "auto",
        JOIN_SECONDS: str(DEFAULT_JOIN_SECONDS),
        # Which program a host runs and what libtpu complains of, into its log: when hosts wait for
        # each other that is all there is to see.
        "TPU_STDERR_LOG_LEVEL": "0",
        "TPU_VMODULE": "real_program_continuator=1",
        LIBTPU: libtpu_init_args(generation, slices),
    }
    flags = f"{usual[LIBTPU]} {own.get(LIBTPU, '')}".strip()  # of two of a name the last counts
    return usual | dict(own) | {LIBTPU: flags}


def own_environment(words: Sequence[str]) -> dict[str, str]:
    """The variables of `--env NAME=VALUE`, in their order."""
    for word in words:
        if "=" not in word:
            raise ConfigError(f"--env {word}: write NAME=VALUE")
    pairs = [word.partition("=") for word in words]
    return {name: value for name, _, value in pairs}
