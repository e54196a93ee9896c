"""What the compiler is told of a run's programs, by platform."""

import jax

OPTIONS: dict[str, dict[str, str | bool]] = {
    # Matmuls by Eigen, not by YNNPACK, and what waits for nothing at once: a step of 30 million
    # parameters takes 0.86 to 0.95 of the time.
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "",
        "xla_cpu_enable_concurrency_optimized_scheduler": True,
    },
    # Weights are gathered, then multiplied. Multiplied piece by piece while they come, a matrix of
    # width 768 over 16 chips is in pieces of 48, which fill a fifth of a matrix unit: matmuls of a
    # step of 120 million parameters took 2.3 times as long.
    "tpu": {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"},
}


def compile_here(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles a program of a run for the devices of this machine."""
    return lowered.compile(OPTIONS.get(jax.default_backend()))
