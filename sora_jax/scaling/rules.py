"""Batch and learning rate of a run, by rules: fixed, transferred over width, or power laws."""

import dataclasses
from typing import Protocol

BILLION = 1e9


class Rule(Protocol):
    """From a run's size to its batch and rate. base_width: that rates are of, where the network
    scales them over its width (muP), else None."""

    @property
    def name(self) -> str: ...
    @property
    def base_width(self) -> int | None: ...

    def batch_tokens(self, parameters: float, tokens: float) -> float:
        """Tokens of a step. parameters: of the model; tokens: that the run trains on."""

    def peak_rate(self, parameters: float, tokens: float) -> float:
        """Of the optimizer."""


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same for all. Known to favour some sizes over others (arXiv:2411.17470 finds optima 40 %
    too large); exact where the best rate was looked for at every size."""

    batch: float
    rate: float
    name: str = "fixed"
    base_width: int | None = None

    def batch_tokens(self, parameters: float, tokens: float) -> float:
        del parameters, tokens
        return self.batch

    def peak_rate(self, parameters: float, tokens: float) -> float:
        del parameters, tokens
        return self.rate


@dataclasses.dataclass(frozen=True)
class MuP(Fixed):
    """The rate of a network `base_width` wide, for all: those of hidden matrices are base_width /
    width of it (muP, arXiv:2203.03466), which the network itself sees to."""

    name: str = "mup"


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """coefficient x tokens^a x parameters^b, both in billions, of batch and rate.

    The default is what arXiv:2411.17470 (Yin et al., CVPR 2025) fitted to video diffusion
    transformers of 17 to 260 million parameters. Billions are our reading of its units: the batch
    for 260 million parameters and 5 billion tokens is then 62 thousand tokens, where plain numbers
    would make it 10^14.
    """

    batch: tuple[float, float, float] = (2.18e4, 0.81, 0.19)
    rate: tuple[float, float, float] = (2e-4, -0.045, -0.162)
    name: str = "power_law"
    base_width: int | None = None

    def batch_tokens(self, parameters: float, tokens: float) -> float:
        return _law(self.batch, parameters, tokens)

    def peak_rate(self, parameters: float, tokens: float) -> float:
        return _law(self.rate, parameters, tokens)


def _law(law: tuple[float, float, float], parameters: float, tokens: float) -> float:
    coefficient, of_tokens, of_parameters = law
    scaled = (tokens / BILLION) ** of_tokens * (parameters / BILLION) ** of_parameters
    return float(coefficient * scaled)
