"""The parameters of a campaign: from coordinates u, whose prior is standard normal, to theta and the fields of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.experiment.ties import follow_ties
from backaction.experiment.toml import unit_bounds
from backaction.inference.campaign import MODEL_ERROR, Campaign
from backaction.inference.choice import starting
from backaction.inference.data import Measured
from backaction.inference.parameter import Parameter
from backaction.numerics.matrices import Array

SCALE = "calibration.scale"
"""A record's shot-noise level relative to its calibration (without a shot record: the fitted floor)."""
FLOOR_FACTOR = float(np.exp(1.0))
"""Log-normal width of a floor that no shot record calibrates, about the median of its bins."""


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a record's parameters come from: shared or own coordinates by field, spreads, its scale.

    `starts` are the occupations of modes at its start: coordinates, or numbers.
    """

    record: Measured
    own: Mapping[str, int]
    spread: Mapping[str, tuple[int, int, int]]
    scale: int
    starts: Mapping[str, int | float] = field(default_factory=dict)


class Parameters:
    """What is fitted, in the order of u; `sources` say which of it each record takes.

    theta = F^-1(Phi(z)) of each prior, z = M u with M correlating calibrations; a field that varies with a spread is
    theta_centre + theta_size theta_offset.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.parameters: list[Parameter] = []
        self._robust = all(r.experiment.assumed.robust for r in campaign.records)
        self._at: dict[str, int] = {}
        self.sources = [self._source(r) for r in campaign.records]
        error = campaign.likelihood.model_error
        self.error = self._index(MODEL_ERROR, error) if isinstance(error, Prior) else float(error)
        self._mix = self._mixing() if campaign.correlated else {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(p.name for p in self.parameters)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    def _index(self, name: str, prior: Prior, experiment: Experiment | None = None, field: str = "") -> int:
        if name not in self._at:
            unit, low, high = "1", -np.inf, np.inf
            if experiment is not None:
                unit, low, high = unit_bounds(experiment, field)
            self._at[name] = len(self.parameters)
            made = Parameter(name, prior, unit, low, high, self._robust and experiment is not None)
            if prior.outside(low, high):
                raise InputError(f"prior of '{name}': {made.described()} lies outside the allowed {low:g}..{high:g}")
            self.parameters.append(made)
        return self._at[name]

    def _source(self, record: Measured) -> Origin:
        c, e = self.campaign, record.experiment
        single = len(c.records) == 1
        own: dict[str, int] = {}
        spread: dict[str, tuple[int, int, int]] = {}
        for name, prior in {**record.priors, **c.priors}.items():
            if e.value(name) is None or (name in record.fixed and name not in c.vary and name not in record.priors):
                continue
            mine = record.priors.get(name)
            if mine is None and name in record.fixed:
                mine = prior.moved(float(e.value(name)))
            if name in c.vary and not single:
                width = c.vary[name]
                if width is None or (mine is not None and mine != prior):
                    own[name] = self._index(f"{name}[{record.name}]", mine or prior, e, name)
                    continue
                centre = self._index(name, prior, e, name)
                size = self._index(f"{name}:spread", Prior(lower=0.0, upper=None, mean=0.0, sd=width))
                offset = self._index(f"{name}:offset[{record.name}]", Prior(0.0, 1.0))
                spread[name] = (centre, size, offset)
            elif mine is not None:
                own[name] = self._index(f"{name}[{record.name}]", mine, e, name)
            else:
                own[name] = self._index(name, prior, e, name)
        k = record.calibration
        several = len({r.calibrated_by or r.name for r in c.records}) > 1
        name = f"{SCALE}[{record.calibrated_by or record.name}]" if several and not single else SCALE
        prior = Prior(median=1.0, factor=float(np.exp(max(k.scale_sd, 1e-6))))
        if not k.floor_known:
            level = float(np.median(record.density_sn) / np.median(record.bins().expected(e.system)))
            prior = Prior(median=level, factor=FLOOR_FACTOR)
        scale = self._index(name, prior)
        starts: dict[str, int | float] = {}
        for mode in record.starts:
            name = f"start.{mode}.occupation" + ("" if single else f"[{record.name}]")
            found = starting(e, mode, c.likelihood.start)
            starts[mode] = self._index(name, found) if isinstance(found, Prior) else found
        return Origin(record, own, spread, scale, starts)

    def _mixing(self) -> dict[int, tuple[list[int], Array]]:
        """Rows of the Cholesky factor that correlate normal scores: {index: (indices, weights)}."""
        out: dict[int, tuple[list[int], Array]] = {}
        for names, matrix in self.campaign.correlated:
            for n in names:
                others = np.delete(matrix[names.index(n)], names.index(n))
                apart = n in self.campaign.vary and len(self.campaign.records) > 1
                if np.any(others != 0) and (apart or any(n in r.priors for r in self.campaign.records)):
                    raise InputError(
                        f"{self.campaign.name}: '{n}' comes from a calibration with correlations and cannot vary between "
                        "records or have a record's own prior"
                    )
                if n in self._at and self._at[n] in out:
                    raise InputError(f"{self.campaign.name}: two calibrations know of '{n}': give one of them")
            here = [n for n in names if n in self._at]
            if len(here) < 2:
                continue
            pick = [names.index(n) for n in here]
            L = np.linalg.cholesky(matrix[np.ix_(pick, pick)])
            indices = [self._at[n] for n in here]
            for row, i in enumerate(indices):
                out[i] = (indices[: row + 1], L[row, : row + 1])
        return out

    def normal_scores(self, u: Sequence[Any]) -> list[Any]:
        """The normal scores of the parameters: u itself but for correlated calibrations."""
        out = list(u)
        for i, (indices, weights) in self._mix.items():
            out[i] = sum((float(w) * u[j] for j, w in zip(indices, weights, strict=True)), 0.0)
        return out

    def values(self, u: Any) -> Array:
        """Theta (..., P) at u (..., P); offsets of varying fields are given as the field's value in that record."""
        u = np.asarray(u, dtype=float)
        z = self.normal_scores(list(np.moveaxis(u, -1, 0)))
        theta = [p.value(z[i]) for i, p in enumerate(self.parameters)]
        out = list(theta)
        for plan in self.sources:
            for centre, size, offset in plan.spread.values():
                out[offset] = theta[centre] + theta[size] * theta[offset]
        return np.stack(np.broadcast_arrays(*out), axis=-1)

    def slopes(self, u: Array) -> Array:
        """D theta/du (P, P) at one point, by central differences."""
        out = np.empty((self.size, self.size))
        for i in range(self.size):
            e = np.zeros(self.size)
            e[i] = 1e-5
            out[:, i] = (self.values(u + e) - self.values(u - e)) / 2e-5
        return out

    def poles(self, plan: int, u: Array) -> Array:
        """Poles |f| + i width/2 (Hz) of one record's system at u."""
        values = np.linalg.eigvals(self.experiment(plan, u).system.A) / TWO_PI
        return np.abs(values.imag) + 1j * np.abs(values.real)

    def scores(self, theta: Mapping[str, float]) -> Array:
        """The coordinates u of parameter values (of those not named: the prior's median)."""
        z = np.zeros(self.size)
        for name, value in theta.items():
            z[self._at[name]] = float(self.parameters[self._at[name]].score(value))
        return np.asarray(np.linalg.solve(self.mixing(), z))

    def mixing(self) -> Array:
        """M (P, P) with z = M u the normal scores of the parameters: the identity but for correlated calibrations."""
        M = np.eye(self.size)
        for i, (indices, weights) in self._mix.items():
            M[i] = 0.0
            M[i, indices] = weights
        return M

    def model_error(self, u: Any) -> Array:
        """The relative model error at u (draws, P)."""
        u = np.atleast_2d(u)
        if isinstance(self.error, float):
            return np.full(len(u), self.error)
        return np.asarray(self.values(u)[:, self.error])

    def labels(self) -> list[str]:
        """The names as shown: an offset is the field's value in its record."""
        return [n.replace(":offset[", "[") for n in self.names]

    def fields(self, plan: int, u: Any) -> dict[str, Any]:
        """Values of the fields of one record at u (..., P), ties included: what `Experiment.with_values` takes."""
        columns = list(np.moveaxis(np.asarray(u, dtype=float), -1, 0))
        return self.fields_of(self.sources[plan], columns)

    def fields_of(self, source: Origin, u: Sequence[Any]) -> dict[str, Any]:
        """`fields` for coordinates that are numbers, arrays or variables of a trace."""
        z = self.normal_scores(u)
        made: dict[int, Any] = {}

        def theta(i: int) -> Any:
            if i not in made:
                made[i] = self.parameters[i].value(z[i])
            return made[i]

        out = {f: theta(i) for f, i in source.own.items()}
        for f, (centre, size, offset) in source.spread.items():
            out[f] = theta(centre) + theta(size) * theta(offset)
        tied = {f: rule for f, rule in self.campaign.ties.items() if f not in source.record.fixed}
        return out | follow_ties(tied, source.record.experiment.value, out)

    def experiment(self, plan: int, u: Any) -> Experiment:
        """One record's experiment at u: a single point, or a batch for u (draws, P)."""
        return self.sources[plan].record.experiment.with_values(self.fields(plan, u), "draws")
