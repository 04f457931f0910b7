"""How measured bins scatter about the model: the choice of `[likelihood] kind`, scores and replicas.

`gamma`: averaged periodograms are Gamma with N effective averages, y ~ Gamma(N, mu/N); a relative model error e widens
them to 1/N_e = 1/N + e^2. `thomas2021`: Gaussian with sd = 0.08 y + 0.1 SN, y the measured bin (Methods E; that the two
parts add up linearly is our reading). Their compiled densities are `numerics.loops.likelihood`. `innovations`: not the bins
but the samples themselves (`inference.series`), which holds for lines that the record does not resolve. `auto`: that for
records with such lines, `gamma` for the others (`inference.choice`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.experiment.assumptions import LIKELIHOODS, STARTS, allowed
from backaction.experiment.prior import Prior
from backaction.numerics.matrices import Array
from backaction.records.statistics import gamma_normal_scores

KINDS = LIKELIHOODS
RELATIVE, ABSOLUTE_SN = 0.08, 0.1
"""Thomas 2021, Methods E: the scatter of a bin."""


@dataclass(frozen=True)
class Likelihood:
    """How records scatter about the model; see the module's text. `model_error` (of bins) is a number, or a prior of one.

    `start`: how modes that a record does not resolve start in it (`inference.choice.starting`).
    """

    kind: str = "auto"
    model_error: float | Prior = 0.0
    start: str = "free"

    def check(self, where: str) -> None:
        """Refuse what is no likelihood.

        Raises
        ------
        InputError
            For another kind, or a model error of a Gaussian.
        """
        allowed(f"{where}: [likelihood]", "kind", self.kind, KINDS)
        allowed(f"{where}: [likelihood]", "start", self.start, STARTS)
        if self.kind in ("thomas2021", "innovations") and self.model_error != 0.0:
            raise InputError(f"{where}: [likelihood] model_error belongs to kind = 'gamma'")

    @property
    def plain(self) -> bool:
        """Whether bins are Gamma distributed by their averages alone."""
        return self.gamma and self.model_error == 0.0

    @property
    def gamma(self) -> bool:
        """Whether bins are Gamma distributed."""
        return self.kind != "thomas2021"

    def tables(self, y: Array, averages: Array) -> tuple[Array, Array]:
        """What the compiled density (`loops.density`) takes for bins y (SN): N or sd, and the constants of ln L."""
        from scipy import special

        if not self.gamma:
            return self.sd(y), np.zeros(y.shape)
        N = averages
        constant = N * np.log(N) - special.gammaln(N) + (N - 1) * np.log(y)
        return N, constant

    def sd(self, y: Array) -> Array:
        """Standard deviation of a Gaussian bin."""
        return RELATIVE * y + ABSOLUTE_SN

    def scores(self, y: Array, model: Array, averages: Array, error: Any = 0.0) -> Array:
        """Standard-normal scores of bins y about the model."""
        if not self.gamma:
            return (y - model) / self.sd(y)
        return gamma_normal_scores(y / model, 1 / (1 / averages + error**2))

    def replica(self, rng: np.random.Generator, model: Array, y: Array, averages: Array, error: Any = 0.0) -> Array:
        """Bins as another record would have them, about the model."""
        if not self.gamma:
            return model + self.sd(y) * rng.standard_normal(model.shape)
        N = 1 / (1 / averages + error**2)
        return model * rng.gamma(N, 1 / N, model.shape)
