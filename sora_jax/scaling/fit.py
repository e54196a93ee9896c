"""From runs of a sweep to its laws, each with intervals and with what speaks against it."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.errors import UserError
from sora_jax.files import write_file
from sora_jax.scaling.basins import Basin, basins_of, law_of_basins, law_of_use
from sora_jax.scaling.envelope import Envelope, best_runs, fit_envelope
from sora_jax.scaling.isoflop import IsoFlop, Valley, fit_isoflop
from sora_jax.scaling.parametric import (
    ALPHA,
    BETA,
    LOG_A,
    LOG_B,
    LOG_E,
    Loss,
    ParametricFit,
    fit_parametric,
    numbers,
)
from sora_jax.scaling.points import Points, points_of
from sora_jax.scaling.power_laws import CI_80, CI_95, PowerLaw, fit_power_law, kept
from sora_jax.scaling.records import RunRecord
from sora_jax.scaling.trials import held_out_error

RESAMPLES = 1000
RUNS_OF_LAW = 8  # of the parametric law, which has five numbers
NEAR = 0.08  # how far above its budget's lowest loss a run is still near the minimum
# What a sweep needs for an exponent that can be trusted: 3 budgets over 4 times of the FLOPs gave
# anything from .37 to .59 on a set whose exponent is .50, 6 over 32 times gave .47 to .52.
BUDGETS, RANGE = 6, 32
FLOPS_SCATTER = 0.1  # of FLOPs a token about their law; more, and N alone does not say what D costs


@dataclasses.dataclass(frozen=True)
class Fit:
    """All laws of a sweep; None where the runs do not allow one.

    Attributes:
        points: what is fitted to.
        isoflop, valleys: best sizes by parabolas.
        envelope: best sizes as the best runs have them.
        parametric: by name `parametric_huber`, `parametric_lad` (all points) and `parametric_near`
            (by Huber, the points within 8 % of their budget's lowest loss).
        problems: of each of these, why it is not physical; empty where it is.
        flops_of_token: FLOPs a token, as a law of parameters.
        settings: laws of batch and rate, and whether of the best ones found or those used.
        basins: the batches and rates tried.
        metrics: laws of scores of the best runs against FLOPs.
        held_out: how well the largest budget is predicted from the others.
    """

    points: Points
    isoflop: IsoFlop | None
    valleys: tuple[Valley, ...]
    envelope: Envelope | None
    parametric: dict[str, ParametricFit]
    problems: dict[str, list[str]]
    flops_of_token: PowerLaw
    settings: dict[str, tuple[PowerLaw, str]]
    basins: list[Basin]
    metrics: dict[str, PowerLaw]
    held_out: dict[str, Any]
    warnings: list[str]

    @property
    def predicts_with(self) -> str | None:
        """The parametric law that losses are predicted by: of all points, unless it is not physical
        and that of the points near the minimum is."""
        names = ("parametric_huber", "parametric_near")
        return next((name for name in names if self.problems.get(name) == []), None)


def fit_sweep(records: Sequence[RunRecord], where: str, resamples: int = RESAMPLES) -> Fit:
    """Fits every law that the runs allow.

    Raises:
        UserError: they allow none, and why; `where` names their file.
    """
    points, warnings = points_of(records, where)
    rng = np.random.default_rng(0)
    warnings += _range_warnings(points)
    isoflop, valleys = fit_isoflop(points, rng, resamples)
    warnings += [f"budget {each.budget:.3g}: {each.problem}" for each in valleys if each.problem]
    parametric = _parametric_fits(points, resamples)
    if isoflop is None:
        warnings.append("no IsoFLOP exponent: fewer than 3 budgets have a minimum")
    if not parametric:
        warnings.append(f"no parametric law: it needs {RUNS_OF_LAW} runs of 3 sizes or more")
    if isoflop is None and not parametric:
        raise UserError(f"{where}: no law can be fitted: " + "; ".join(warnings))
    problems = {name: problems_of(fit, points) for name, fit in parametric.items()}
    warnings += [f"{name}: {text}" for name, texts in problems.items() for text in texts]
    cost = points.flops / points.tokens
    flops_of_token = fit_power_law({"parameters": points.parameters}, cost, rng, resamples)
    if flops_of_token.scatter > FLOPS_SCATTER:
        warnings.append(
            f"FLOPs a token scatter by {flops_of_token.scatter:.0%} about their law of parameters"
        )
    settings, basins = _settings(points, records, rng, resamples)
    metrics, unfit = _metrics(points, rng, resamples)
    fit = Fit(
        points, isoflop, valleys, fit_envelope(points, resamples), parametric, problems,
        flops_of_token, settings, basins, metrics, {}, warnings + unfit,
    )  # fmt: skip
    return dataclasses.replace(fit, held_out=held_out_error(points, fit.predicts_with, NEAR))


def _range_warnings(points: Points) -> list[str]:
    budgets = points.distinct_budgets
    outside = int(np.isnan(points.budgets).sum())
    warnings = []
    clusters = int(points.clusters.max()) + 1
    if clusters < RUNS_OF_LAW:
        warnings.append(f"{clusters} clusters of runs: too few to resample, intervals mean nothing")
    if outside:
        warnings.append(f"{outside} runs share no budget with enough sizes: not used for IsoFLOP")
    if len(budgets) < BUDGETS or budgets[-1] < RANGE * budgets[0]:
        span = f" over {budgets[-1] / budgets[0]:.3g} times" if len(budgets) > 1 else ""
        warnings.append(
            f"{len(budgets)} budgets{span}, where an exponent needs {BUDGETS} over {RANGE} times "
            "or more: quote it with its interval, or not at all"
        )
    return warnings


def _parametric_fits(points: Points, resamples: int) -> dict[str, ParametricFit]:
    everywhere = np.ones(len(points.losses), bool)
    near = points.near_the_minimum(NEAR)
    asked: dict[str, tuple[Points, Loss]] = {
        "parametric_huber": (points.of(everywhere), "huber"),
        "parametric_lad": (points.of(everywhere), "lad"),
    }
    if not near.all() and len(points.distinct_budgets) > 1:
        asked["parametric_near"] = (points.of(near), "huber")
    return {
        name: fit_parametric(
            some.parameters, some.tokens, some.losses, some.clusters, loss, resamples
        )
        for name, (some, loss) in asked.items()
        if len(some.losses) >= RUNS_OF_LAW and len(np.unique(some.parameters)) > 2
    }


def problems_of(fit: ParametricFit, points: Points) -> list[str]:
    """Why a law is not physical, or not found: each a sentence."""
    law = {name: float(value) for name, value in numbers(fit.theta).items()}
    lowest, problems = float(points.losses.min()), []
    if law["E"] >= lowest:
        problems.append(
            f"unphysical: the floor E = {law['E']:.4g} is above the lowest loss, {lowest:.4g}"
        )
    if law["E"] < 1e-3 * lowest:
        problems.append("unphysical: there is no floor, E is next to nothing")
    if law["alpha"] <= 0 or law["beta"] <= 0:
        problems.append("unphysical: loss would rise with parameters or with tokens")
    if fit.agreeing < 0.5:
        problems.append(f"only {fit.agreeing:.0%} of the starts agree: the optimum is not sure")
    return problems


def _settings(
    points: Points, records: Sequence[RunRecord], rng: np.random.Generator, resamples: int
) -> tuple[dict[str, tuple[PowerLaw, str]], list[Basin]]:
    laws, basins = {}, []
    for name, setting in (("batch", "batch_tokens"), ("rate", "peak_rate")):
        tried = basins_of(records, setting)  # type: ignore[arg-type]
        basins += tried
        best = law_of_basins(tried, rng, resamples)
        used = law_of_use(points.records, setting, rng, resamples)  # type: ignore[arg-type]
        if best is not None:
            laws[name] = (best, f"minima of {len(tried)} basins")
        elif used is not None:
            laws[name] = (used, "what the runs used, not shown to be best")
    return laws, basins


def _metrics(
    points: Points, rng: np.random.Generator, resamples: int
) -> tuple[dict[str, PowerLaw], list[str]]:
    """Laws of each metric of the best runs, and warnings about those that have none."""
    bins = np.unique(np.round(2 * np.log2(points.flops)), return_inverse=True)[1]
    best = best_runs(points.losses, bins)
    laws, warnings = {}, []
    for name in sorted({name for each in best for name in points.records[each].metrics}):
        runs = [each for each in best if name in points.records[each].metrics]
        values = np.array([points.records[each].metrics[name] for each in runs])
        if len(runs) < 4 or values.min() <= 0:
            warnings.append(f"no law of {name}: it needs 4 best runs or more with positive values")
        else:
            laws[name] = fit_power_law({"flops": points.flops[runs]}, values, rng, resamples)
    return laws, warnings


def to_plain(fit: Fit) -> dict[str, Any]:
    """As JSON data; what `predict` reads."""
    points, found = fit.points, fit.isoflop
    plain: dict[str, Any] = {
        "schema": 1,
        "points": len(points.losses),
        "flops": [float(points.flops[0]), float(points.flops[-1])],
        "lowest_loss": float(points.losses.min()),
        "budgets": [_valley(each) for each in fit.valleys],
        "predicts_with": fit.predicts_with,
        "warnings": fit.warnings,
        "held_out": fit.held_out,
        "isoflop": None,
        "envelope": None,
    }
    if found is not None:
        law = found.parameters
        plain["isoflop"] = {
            "exponent": law.exponents["flops"],
            "ci": law.interval("flops"),
            "ci_80": law.interval("flops", CI_80),
            **{name: getattr(found, name).to_plain() for name in ("parameters", "tokens", "loss")},
        }
    if fit.envelope is not None:
        law = fit.envelope.parameters
        plain["envelope"] = {
            "exponent": law.exponents["flops"],
            "ci": law.interval("flops"),
            "runs": [points.records[each].run for each in fit.envelope.runs],
        }
    plain |= {name: _law(each, fit.problems[name]) for name, each in fit.parametric.items()}
    plain["flops_of_token"] = fit.flops_of_token.to_plain()
    for name in ("batch", "rate"):
        law_of, source = fit.settings.get(name, (None, ""))
        plain[name] = None if law_of is None else {"of": source} | law_of.to_plain()
    plain["metrics"] = {name: law.to_plain() for name, law in fit.metrics.items()}
    return plain


def _valley(each: Valley) -> dict[str, Any]:
    minimum = {"parameters": each.parameters, "tokens": each.tokens, "loss": each.loss}
    return {"budget": each.budget, "problem": each.problem} | ({} if each.problem else minimum)


def _law(fit: ParametricFit, problems: list[str]) -> dict[str, Any]:
    draws = numbers(fit.draws)
    correlations = np.corrcoef(fit.draws.T)
    pairs = {"A, alpha": (LOG_A, ALPHA), "B, beta": (LOG_B, BETA), "E, alpha": (LOG_E, ALPHA)}
    pairs |= {"E, beta": (LOG_E, BETA), "alpha, beta": (ALPHA, BETA)}
    return {
        **{name: float(value) for name, value in numbers(fit.theta).items()},
        "intervals": {name: np.quantile(each, CI_95).tolist() for name, each in draws.items()},
        "intervals_80": {name: np.quantile(each, CI_80).tolist() for name, each in draws.items()},
        "standard_errors": {name: float(each.std()) for name, each in draws.items()},
        "correlations": {name: float(correlations[pair]) for name, pair in pairs.items()},
        "floor_by_profile": list(fit.floor),
        "agreeing_starts": fit.agreeing,
        "objective": fit.objective,
        "points": len(fit.residuals),
        "scatter": float(np.sqrt(np.mean(fit.residuals**2))),
        "physical": not problems,
        "theta": fit.theta.tolist(),
        "draws": kept(fit.draws),
    }


def write_fit(path: Path, fit: Fit) -> None:
    """Writes `fit.json`, whole or not at all; a list of numbers takes a line."""
    text = json.dumps(to_plain(fit), indent=2, ensure_ascii=False)
    # Of a law that resamples send to infinity.
    text = re.sub(r'(?<!["\w])-?(NaN|Infinity)(?!["\w])', "null", text)
    text = re.sub(r"\[[-+.\deE,\snul]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    write_file(path, (text + "\n").encode())
