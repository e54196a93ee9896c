"""Runs that follow a known law, with noise: what the tests of fits put in."""

import dataclasses
from typing import Any

import numpy as np

from sora_jax.scaling.records import RunRecord

TRUTH = {"A": 480.0, "B": 2100.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}
EXPONENT = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])


def loss_at(parameters: float, tokens: float) -> float:
    """Of the law, without noise."""
    model = TRUTH["A"] / parameters ** TRUTH["alpha"]
    return model + TRUTH["B"] / tokens ** TRUTH["beta"] + TRUTH["E"]


def best_size(flops: float) -> float:
    """Parameters of least loss where FLOPs are 6 N D."""
    alpha, beta = TRUTH["alpha"], TRUTH["beta"]
    ratio = alpha * TRUTH["A"] / (beta * TRUTH["B"])
    return float((ratio * (flops / 6) ** beta) ** (1 / (alpha + beta)))


def sweep(
    seed: int = 0,
    noise: float = 0.005,
    budgets: int = 8,
    sizes: int = 8,
    spread: float = 1.0,
    **fields: Any,
) -> list[RunRecord]:
    """Budgets from 1e17 FLOPs, each twice the one before, with sizes about the best one."""
    rng = np.random.default_rng(seed)
    runs = []
    for budget in 1e17 * 2.0 ** np.arange(budgets):
        for step in np.linspace(-spread, spread, sizes) * np.log(4):
            parameters = round(best_size(budget) * np.exp(step))
            tokens = budget / (6 * parameters)
            loss = loss_at(parameters, tokens) * np.exp(noise * rng.standard_normal())
            run = RunRecord(
                run=f"{budget:.3g}-{parameters}",
                sweep="law",
                flops=budget,
                parameters=parameters,
                tokens=tokens,
                loss=loss,
            )
            runs.append(dataclasses.replace(run, **fields))
    return runs
