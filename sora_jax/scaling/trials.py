"""A law on trial: the largest budget predicted from the smaller ones."""

from typing import Any

import numpy as np

from sora_jax.scaling.isoflop import fit_isoflop
from sora_jax.scaling.parametric import Runs, best_law, log_loss
from sora_jax.scaling.points import Points


def held_out_error(points: Points, law: str | None, near: float) -> dict[str, Any]:
    """How far off the laws of the smaller budgets are at the largest; where runs share no budgets,
    those within half of the most FLOPs are held out.

    Args:
        points: all.
        law: name of the parametric law that predicts losses; `parametric_near` fits points near the
            minimum alone, and is tried on such.
        near: how near that is.
    """
    budgets = points.distinct_budgets
    least = budgets[-1] * 0.9 if len(budgets) > 1 else points.flops[-1] / 2
    held_out = points.flops >= least
    found: dict[str, Any] = {"budget": float(budgets[-1]) if len(budgets) > 1 else None}
    found |= _of_losses(points, held_out, law, near) | _of_sizes(points, held_out)
    return found


def _of_losses(points: Points, held_out: Any, law: str | None, near: float) -> dict[str, Any]:
    """Errors of the logarithm of loss: their mean, without and with its sign, over runs."""
    counted = points.near_the_minimum(near) if law == "parametric_near" else held_out | True
    kept, tried = points.of(counted & ~held_out), points.of(counted & held_out)
    if law is None or len(kept.losses) < 8 or len(np.unique(kept.parameters)) < 3:
        return {}
    runs = Runs.of(kept.parameters, kept.tokens, kept.losses)
    theta = runs.centred(best_law(runs, "huber")[0], -1)[None]
    predicted = log_loss(theta, np.log(tried.parameters), np.log(tried.tokens))[0][0]
    errors = predicted - np.log(tried.losses)
    sizes = {"runs": len(errors), "mean_error": float(np.abs(errors).mean())}
    return sizes | {"bias": float(errors.mean()), "law": law}


def _of_sizes(points: Points, held_out: Any) -> dict[str, Any]:
    """Best size and least loss of the largest budget, as the smaller ones have it."""
    isoflop, _ = fit_isoflop(points.of(~held_out), np.random.default_rng(0), 1)
    ((*_, last),) = (fit_isoflop(points.of(held_out), np.random.default_rng(0), 1)[1] or (None,),)
    if isoflop is None or last is None or last.problem:
        return {}
    return {
        "parameters": last.parameters,
        "parameters_predicted": float(isoflop.parameters.at(last.budget)),
        "loss": last.loss,
        "loss_predicted": float(isoflop.loss.at(last.budget)),
    }
