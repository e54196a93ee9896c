"""Power laws, of one cause or several: straight lines in logarithms, with draws for intervals."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

CI_80, CI_95 = (0.1, 0.9), (0.025, 0.975)
# Of the standard errors of lines through few points: at one degree of freedom they have no bound.
LARGEST_SPREAD = 50.0


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """y = exp(c0 + sum_j c_j (log x_j - centre_j)).

    Attributes:
        causes: names of x.
        centre: mean logarithms of x; there c0 is least tied to the exponents.
        coefficients: c0 and the exponents.
        draws: as many coefficients of other samples of the same runs, r times.
        scatter: standard deviation of log y about the law.
        interval_from: what the draws are of.
    """

    causes: tuple[str, ...]
    centre: Float[Array, "x"]
    coefficients: Float[Array, "c"]
    draws: Float[Array, "r c"]
    scatter: float
    interval_from: str

    def at(self, *x: Any) -> Any:
        """y where the causes are `x`, numbers or arrays alike."""
        return np.exp(self.coefficients @ self._design(x))

    def draws_at(self, *x: Any) -> Any:
        """y of every draw: of one number a cause r of them; of as many numbers as there are draws,
        each with its own."""
        design = self._design(x)
        return np.exp(
            np.einsum("rc,c...->r..." if design.ndim == 1 else "rc,cr->r", self.draws, design)
        )

    def band(self, x: Float[Array, "n"], quantiles: tuple[float, float]) -> Float[Array, "2 n"]:
        """Quantiles of y along a single cause."""
        return np.exp(np.quantile(self.draws @ self._design((x,)), quantiles, axis=0))

    def _design(self, x: tuple[Any, ...]) -> Float[Array, "c *n"]:
        columns = [np.log(each) - middle for each, middle in zip(x, self.centre, strict=True)]
        return np.stack(np.broadcast_arrays(1.0, *columns))

    @property
    def coefficient(self) -> float:
        """y where all causes are 1."""
        return float(np.exp(self.coefficients[0] - self.coefficients[1:] @ self.centre))

    @property
    def exponents(self) -> dict[str, float]:
        """By cause."""
        return dict(zip(self.causes, self.coefficients[1:].tolist(), strict=True))

    def interval(self, cause: str, quantiles: tuple[float, float] = CI_95) -> list[float]:
        """Of an exponent."""
        return np.quantile(self.draws[:, 1 + self.causes.index(cause)], quantiles).tolist()

    def to_plain(self) -> dict[str, Any]:
        """As JSON data; `from_plain` gives it back, with no more draws than `KEPT_DRAWS`."""
        return {
            "coefficient": self.coefficient,
            "exponents": self.exponents,
            "intervals": {cause: self.interval(cause) for cause in self.causes},
            "interval_from": self.interval_from,
            "scatter": self.scatter,
            "centre": self.centre.tolist(),
            "coefficients": self.coefficients.tolist(),
            "draws": kept(self.draws),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "PowerLaw":
        """The law of `to_plain`."""
        return cls(
            tuple(plain["exponents"]),
            np.array(plain["centre"]),
            np.array(plain["coefficients"]),
            np.array(plain["draws"], float),
            plain["scatter"],
            plain["interval_from"],
        )


KEPT_DRAWS = 500


def kept(draws: Float[Array, "r c"]) -> list[list[float]]:
    """What a file keeps of draws, which are in no order: seven digits of the first ones."""
    return [[float(f"{value:.7g}") for value in draw] for draw in draws[:KEPT_DRAWS]]


def fit_power_law(
    causes: dict[str, Float[Array, "n"]],
    y: Float[Array, "n"],
    rng: np.random.Generator,
    resamples: int,
    other_y: Float[Array, "r n"] | None = None,
) -> PowerLaw:
    """The line of least squares through logarithms.

    Its draws are of Student's t about the line, from the scatter of the points: exact for errors
    that are normal, alike and independent. Where the noise of runs is known to move the points
    (`other_y`) and moves the exponent by more than that, the draws are lines through such points:
    errors that points share, as branches of one run do, scatter little about a line.

    Args:
        causes: x by name; positive, and more points than coefficients.
        y: positive.
        rng: for the draws.
        resamples: how many draws.
        other_y: y as other noise would have had it.
    """
    logs = [np.log(x) for x in causes.values()]
    centre = np.array([x.mean() for x in logs])
    design = np.stack([np.ones(len(y)), *(x - m for x, m in zip(logs, centre, strict=True))], -1)
    solver = np.linalg.pinv(design)
    coefficients = solver @ np.log(y)
    residuals = np.log(y) - design @ coefficients
    freedom = len(y) - len(coefficients)
    scatter = float(np.sqrt(residuals @ residuals / freedom))
    root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
    normal = rng.standard_normal((resamples, len(coefficients)))
    spread = np.sqrt(freedom / rng.chisquare(freedom, (resamples, 1)))
    moves = np.minimum(spread, LARGEST_SPREAD) * normal @ root.T
    draws, source = coefficients + scatter * moves, "scatter about the line"
    if other_y is not None:
        others = np.log(other_y) @ solver.T
        others += coefficients - others.mean(0)  # noise on noise is off in the mean
        width = np.quantile(np.abs(others[:, 1] - coefficients[1]), 0.95)
        if width > scatter * np.quantile(np.abs(moves[:, 1]), 0.95):
            draws, source = others, "noise of runs"
    return PowerLaw(tuple(causes), centre, coefficients, draws, scatter, source)
