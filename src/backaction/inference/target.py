"""The posterior density of a campaign in coordinates whose prior is standard normal, with its exact gradient.

    ln p(u | data) = -|u|^2/2 + sum_records ln L(data | theta(u)) + const

Three values: `Parameters` (u to theta to fields), a `JointProgram` (to the matrices of all records, traced once) and a
`Density` of it for some data (compiled loops, `numerics.loops.density`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.inference.bins import Bins
from backaction.inference.campaign import Campaign
from backaction.inference.density import Density, Evaluator
from backaction.inference.model import JointProgram, Systems
from backaction.inference.parameters import SCALE, Parameters
from backaction.numerics.matrices import Array
from backaction.numerics.tracing import Tape

__all__ = ["SCALE", "Target"]


class Target:
    """Posterior density of a campaign.

    `parameters` are the fitted numbers in the order of u; `names` theirs. `evaluator()` gives density and gradient at one
    point; several threads need one each.
    """

    def __init__(self, campaign: Campaign, density: Density | None = None) -> None:
        for r in campaign.records:
            if len(r.experiment.layout.currents) != 1:
                raise InputError(
                    f"{r.name}: a fit needs exactly one detected current, '{r.experiment.name}' has "
                    f"{', '.join(r.experiment.layout.currents) or 'none'}"
                )
        self.campaign = campaign
        self.likelihood = density or Density.of(JointProgram(Parameters(campaign)))
        self.of = self.likelihood.program.parameters

    # -- the parameters -------------------------------------------------------------------------------------------

    parameters = property(lambda self: self.of.parameters)
    """The fitted numbers, `list[Parameter]`."""
    names = property(lambda self: self.of.names)
    """Names of the parameters."""
    size = property(lambda self: self.of.size)
    """Number of parameters."""

    def values(self, u: Any) -> Array:
        """Theta (..., P) at u (..., P)."""
        return self.of.values(u)

    def slopes(self, u: Array) -> Array:
        """D theta/du (P, P) at one point."""
        return self.of.slopes(u)

    def scores(self, theta: Mapping[str, float]) -> Array:
        """The coordinates u of parameter values (of those not named: the prior's median)."""
        return self.of.scores(theta)

    def mixing(self) -> Array:
        """M (P, P) with z = M u the normal scores of the parameters."""
        return self.of.mixing()

    def model_error(self, u: Any) -> Array:
        """The relative model error at u (draws, P)."""
        return self.of.model_error(u)

    def labels(self) -> list[str]:
        """The names as shown."""
        return self.of.labels()

    def fields(self, plan: int, u: Any) -> dict[str, Any]:
        """Values of the fields of one record at u (..., P)."""
        return self.of.fields(plan, u)

    def poles(self, plan: int, u: Array) -> Array:
        """Poles |f| + i width/2 (Hz) of one record's system at u."""
        return self.of.poles(plan, u)

    def experiment(self, plan: int, u: Any) -> Experiment:
        """One record's experiment at u: a single point, or a batch for u (draws, P)."""
        return self.of.experiment(plan, u)

    # -- densities ------------------------------------------------------------------------------------------------

    @property
    def tape(self) -> Tape:
        """The traced operations, for whoever runs them by itself."""
        return self.likelihood.program.tape

    @property
    def bins(self) -> tuple[Bins, ...]:
        """How the bins of every record come from spectral densities."""
        return self.likelihood.bins

    @property
    def data(self) -> list[Array]:
        """Measured bins (SN) of every record."""
        return self.likelihood.split(self.likelihood.data[0])

    def with_data(self, data: Sequence[Array]) -> Target:
        """The same posterior for other data (SN, one array per record); nothing is traced again."""
        records = [r.with_density(y) for r, y in zip(self.campaign.records, data, strict=True)]
        return Target(self.campaign.with_records(records), self.likelihood.with_data(records))

    def only(self, record: int) -> Target:
        """The posterior of one record's data alone, over the same parameters."""
        return Target(self.campaign, self.likelihood.only(record))

    def evaluator(self) -> Evaluator:
        """Density and gradient with work space of their own (one per thread)."""
        return self.likelihood.evaluator()

    def models(self, u: Any) -> list[Array]:
        """Expected bins (SN, scale included) of every record at u (P,) or (draws, P); NaN where there is none."""
        u = np.asarray(u, dtype=float)
        run = self.evaluator()
        out = np.array([run.model(x) for x in u.reshape(-1, self.size)]).reshape(*u.shape[:-1], -1)
        return self.likelihood.split(out)

    def fisher(self, u: Array, prior: bool = True, rough: bool = False) -> Array:
        """Expected information at u in these coordinates: differences of exact gradients for data equal to the model.

        With the prior's identity unless `prior` is False; `rough`: one-sided differences. Samples have no data that equal
        the model: with them the observed information, its eigenvalues by magnitude and not below the prior's.
        """
        if self.likelihood.in_time:
            return self._observed(u, rough) - (0.0 if prior else np.eye(self.size))
        chosen = self.likelihood.chosen
        counted = [chosen is None or k == chosen for k in range(len(self.campaign.records))]
        models = [np.asarray(m) if own else y for m, y, own in zip(self.models(u), self.data, counted, strict=True)]
        if not np.all(np.isfinite(np.concatenate(models))):
            raise ModelError(f"{self.campaign.name}: the model has no spectrum at this point")
        at = -np.asarray(u) if rough and not self.campaign.likelihood.model_error else None
        H = self.with_data(models).evaluator().hessian(u, at)
        if not isinstance(self.of.error, float):
            # of the scatter: sum [trigamma(N_e) - 1/N_e] (dN_e/du)^2, N_e = 1/(1/N + e^2); none shared with the means
            from scipy import special

            i, e = self.of.error, float(self.model_error(u)[0])
            N = 1 / (1 / np.concatenate([r.tempered for r in self.campaign.records]) + e * e)
            by_u = -2 * e * N**2 * float(self.slopes(u)[i, i])
            H[i, :], H[:, i] = 0.0, 0.0
            H[i, i] = 1.0 + float(np.sum((special.polygamma(1, N) - 1 / N) * by_u**2))
        return H if prior else H - np.eye(self.size)

    def _observed(self, u: Array, rough: bool) -> Array:
        """|H| of minus the second derivatives H of the log-posterior, eigenvalues at least 1: a metric for steps uphill."""
        run = self.evaluator()
        value, slope = run.gradient(np.asarray(u))
        if not np.isfinite(value):
            raise ModelError(f"{self.campaign.name}: the samples have no likelihood at this point")
        w, U = np.linalg.eigh(run.hessian(np.asarray(u), slope if rough else None))
        return np.asarray((U * np.maximum(np.abs(w), 1.0)) @ U.T)

    def systems(self, plan: int, bare: bool = False) -> Systems:
        """The program of one record's matrices alone; `bare` without technical noise and further modes."""
        source = self.of.sources[plan]
        return Systems(source.record.experiment, lambda u: self.of.fields_of(source, u), self.size, bare)
