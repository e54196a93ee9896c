"""The estimate of a step's memory is near XLA's, and what is computed again is not kept."""

import dataclasses

import jax
import pytest

from sora_jax.nn.stack import Remat
from sora_jax.scaling.memory import activation_bytes, state_bytes
from tests.scaling.test_flops import LARGE, LARGE_ROW, training_program


@pytest.mark.parametrize("remat", ["none", "full"])
def test_activations_are_near_what_xla_takes(remat: Remat) -> None:
    config = dataclasses.replace(LARGE, depth=4, remat=remat, unroll=False)
    step, *arguments = training_program(config, LARGE_ROW, None)
    memory = jax.jit(step).lower(*arguments).compile().memory_analysis()
    assert activation_bytes(config, LARGE_ROW) == pytest.approx(memory.temp_size_in_bytes, rel=0.15)


def test_less_is_kept_of_what_is_computed_again() -> None:
    policies: tuple[Remat, ...] = ("none", "matmuls", "attention", "full")
    kept = [
        activation_bytes(dataclasses.replace(LARGE, depth=8, remat=p), LARGE_ROW) for p in policies
    ]
    assert kept == sorted(kept, reverse=True)
    half = dataclasses.replace(LARGE, compute="bfloat16")
    assert activation_bytes(half, LARGE_ROW) < activation_bytes(LARGE, LARGE_ROW)
    assert state_bytes(1000) == 20_000  # weights, average, two moments, gradient
    assert state_bytes(1000, moment_bytes=2) == 16_000
