"""What laws say of a budget: size, tokens, batch, rate and loss of the run to spend it on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from sora_jax.errors import UserError
from sora_jax.page import Table
from sora_jax.scaling.fit import BUDGETS
from sora_jax.scaling.parametric import ALPHA, BETA, LOG_A, LOG_B, log_loss
from sora_jax.scaling.power_laws import CI_80, CI_95, PowerLaw

SMALLER = 0.7  # of the best size; what a model costs that is this much cheaper to serve
FAR = 10.0  # times the largest budget, from where a prediction says how far it reaches


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its intervals of 80 and 95 %."""

    value: float
    ci_80: tuple[float, float]
    ci_95: tuple[float, float]

    @classmethod
    def of(cls, value: float, draws: Float[Array, "r"]) -> "Estimate":
        """With quantiles of the draws that are finite."""
        finite = draws[np.isfinite(draws)]
        low_80, high_80 = np.quantile(finite, CI_80).tolist()
        low_95, high_95 = np.quantile(finite, CI_95).tolist()
        return cls(float(value), (low_80, high_80), (low_95, high_95))


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The run that spends `flops` best.

    Attributes:
        flops: of training.
        parameters, tokens: of which the loss is least. Their intervals are of the law.
        size_by: which law the size is of.
        batch_tokens, peak_rate: at that size and those tokens; None where no run told.
        loss: held-out; the intervals are of a run's loss, noise of runs included.
        penalty: share by which the loss of a model of 0.7 of the size is above, at the same FLOPs.
        warnings: those of the fit, and how far this reaches beyond its runs.
    """

    flops: float
    parameters: Estimate
    tokens: Estimate
    size_by: str
    batch_tokens: Estimate | None
    peak_rate: Estimate | None
    loss: Estimate
    penalty: Estimate | None
    warnings: tuple[str, ...]

    def table(self) -> Table:
        """For people."""
        rows = [
            ("parameters", self.parameters),
            ("tokens", self.tokens),
            ("batch, tokens", self.batch_tokens),
            ("peak rate", self.peak_rate),
            ("loss", self.loss),
            ("loss of 0.7 of the size, above, %", self.penalty),
        ]
        cells = [
            (name, *(_interval(each, 100 if "%" in name else 1)))
            for name, each in rows
            if each is not None
        ]
        return Table(f"{self.flops:.3g} training FLOPs", ("", "best", "80 %", "95 %"), tuple(cells))


def _interval(each: Estimate, scale: float) -> tuple[str, str, str]:
    ends = [" to ".join(f"{scale * end:.4g}" for end in ci) for ci in (each.ci_80, each.ci_95)]
    return f"{scale * each.value:.4g}", ends[0], ends[1]


def read_fit(path: Path) -> dict[str, Any]:
    """What `fit.write_fit` wrote. Raises UserError for anything else."""
    try:
        fit = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(fit, dict) or fit.get("schema") != 1 or "flops_of_token" not in fit:
        raise UserError(f"{path} is no fit: `sora sweep fit --output` writes one")
    return fit


def predict(fit: Mapping[str, Any], flops: float) -> Prediction:
    """The best run of a budget, by the laws of a fit.

    The size is that of the IsoFLOP law where it is of six minima or more, else of the parametric
    law that the fit holds physical; the loss is of that one, else of a power of FLOPs.

    Raises:
        UserError: FLOPs are not positive, or no law gives the size.
    """
    if not (np.isfinite(flops) and flops > 0):
        raise UserError(f"--flops {flops} is no budget: give a positive number, such as 1e22")
    cost = PowerLaw.from_plain(fit["flops_of_token"])
    name, warnings = fit["predicts_with"], list(fit["warnings"])
    theta = draws = None
    if name is not None:
        theta, draws = np.array(fit[name]["theta"])[None], np.array(fit[name]["draws"], float)
    minima = sum(each["problem"] is None for each in fit["budgets"])
    if fit["isoflop"] is not None and (minima >= BUDGETS or theta is None):
        size_law, size_by = PowerLaw.from_plain(fit["isoflop"]["parameters"]), "IsoFLOP"
        parameters = Estimate.of(size_law.at(flops), size_law.draws_at(flops))
        sizes = size_law.draws_at(flops)
    elif theta is not None and draws is not None:
        size_by, sizes = name, best_size(draws, cost, flops)
        parameters = Estimate.of(best_size(theta, cost, flops)[0], sizes)
    else:
        raise UserError("the fit has no law that gives a size: " + "; ".join(warnings))
    size = parameters.value
    tokens = Estimate.of(flops / cost.at(size), flops / cost.at(sizes))
    largest = fit["flops"][1]
    if flops > FAR * largest:
        warnings.append(
            f"{flops:.3g} FLOPs are {flops / largest:.3g} times the largest run of the fit: "
            "intervals hold only if the laws go on that far"
        )
    loss, penalty = _loss(fit, theta, draws, cost, size, flops)
    if theta is None:
        warnings.append("no physical parametric law: the loss is of a power of FLOPs without floor")
    batch, rate = (_setting(fit[each], tokens.value, size) for each in ("batch", "rate"))
    warnings += [
        f"{each}: {fit[each]['of']}"
        for each in ("batch", "rate")
        if fit[each] is not None and "basins" not in fit[each]["of"]
    ]
    return Prediction(
        flops, parameters, tokens, size_by, batch, rate, loss, penalty, tuple(warnings)
    )


def best_size(theta: Float[Array, "r 5"], cost: PowerLaw, flops: float) -> Float[Array, "r"]:
    """The N at which the parametric law is least where FLOPs = c N**k D: there
    alpha A N**-alpha = k beta B D**-beta. NaN where the law has no minimum."""
    coefficient, exponent = np.log(cost.coefficient), cost.exponents["parameters"]
    alpha, beta = theta[:, ALPHA], theta[:, BETA]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        logs = (
            np.log(alpha / (exponent * beta))
            + theta[:, LOG_A]
            - theta[:, LOG_B]
            + beta * (np.log(flops) - coefficient)
        ) / (alpha + exponent * beta)
        return np.exp(logs)


def _loss(
    fit: Mapping[str, Any],
    theta: Float[Array, "1 5"] | None,
    draws: Float[Array, "r 5"] | None,
    cost: PowerLaw,
    size: float,
    flops: float,
) -> tuple[Estimate, Estimate | None]:
    """Of a run of that size, and by how much one of 0.7 of it is above."""
    rng = np.random.default_rng(0)
    if theta is None or draws is None:
        law = PowerLaw.from_plain(fit["isoflop"]["loss"])
        others = law.draws_at(flops)
        noise = np.exp(law.scatter * rng.standard_normal(len(others)))
        return Estimate.of(law.at(flops), others * noise), None
    sizes = size * np.array([1.0, SMALLER])
    model, data = np.log(sizes), np.log(flops / cost.at(sizes))
    best, other = log_loss(theta, model, data)[0][0], log_loss(draws, model, data)[0]
    noise = fit[fit["predicts_with"]]["scatter"] * rng.standard_normal(len(other))
    loss = Estimate.of(np.exp(best[0]), np.exp(other[:, 0] + noise))
    above = np.expm1(other[:, 1] - other[:, 0])
    return loss, Estimate.of(np.expm1(best[1] - best[0]), above)


def _setting(plain: dict[str, Any] | None, tokens: float, size: float) -> Estimate | None:
    if plain is None:
        return None
    law = PowerLaw.from_plain(plain)
    return Estimate.of(law.at(tokens, size), law.draws_at(tokens, size))
