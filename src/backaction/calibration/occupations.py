"""Temperatures of several reservoirs from one emission spectrum: a linear problem, solved with the bounds n >= 0.

The density of an output field in quanta is N(f) = c(f) + sum_k r_k(f) n_k, and every covariance is linear in the n_k too, so
that variances of the state follow with their errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError, nearest
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.numerics.matrix_equations import lyapunov
from backaction.systems.linear import LinearSystem
from backaction.systems.response import flux_of, transfer
from backaction.systems.steady import unconditional


@dataclass(frozen=True, eq=False)
class Occupations:
    """Occupations of the named inputs with their covariance; `at_bound` are those held at 0.

    `condition` is that of the column-normalised design: how well the spectrum tells them apart.
    """

    sources: tuple[str, ...]
    values: Array
    covariance: Array
    condition: float
    chi2: float
    degrees: int
    at_bound: tuple[str, ...]
    system: LinearSystem = field(repr=False)

    def sd(self) -> Array:
        """Standard deviations."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    def correlation(self) -> Array:
        """Correlation matrix."""
        s = self.sd()
        return self.covariance / np.where(s > 0, s, 1.0)[:, None] / np.where(s > 0, s, 1.0)

    def variance(self, measure: Callable[[Array], Any], modes: Sequence[str]) -> tuple[float, float]:
        """(value, standard deviation) of a measure that is linear in the covariance of `modes`, such as that of P_-."""
        index = self.system.indices(modes)
        base, slopes = linear_covariance(self.system, self.sources)
        pick = np.ix_(index, index)
        row = np.array([float(measure(s[pick])) for s in slopes])
        return float(measure(base[pick]) + row @ self.values), float(np.sqrt(row @ self.covariance @ row))


def _columns(system: LinearSystem, source: str) -> slice:
    names = [p.name for p in system.inputs if p.kind in ("field", "bath")]
    if source not in names:
        raise InputError(f"no reservoir '{source}'{nearest(source, names)}; here: {', '.join(names)}")
    return system.input(source)


def linear_covariance(system: LinearSystem, sources: Sequence[str]) -> tuple[Array, list[Array]]:
    """V = V_0 + sum_k n_k V_k: V_0 with the named inputs cold (1/2), and each V_k."""
    cold = system.with_noise({s: 0.5 * np.eye(_width(system, s)) for s in sources})
    slopes = []
    for s in sources:
        B = system.B[:, _columns(system, s)]
        slopes.append(lyapunov(system.A, B @ B.T))
    return unconditional(cold), slopes


def _width(system: LinearSystem, source: str) -> int:
    columns = _columns(system, source)
    return int(columns.stop - columns.start)


def flux_design(system: LinearSystem, frequency_hz: Any, output: str, sources: Sequence[str]) -> tuple[Array, Array]:
    """(c(f), r (f, k)) of N(f) = c + r n in quanta at an output field."""
    H = transfer(system, frequency_hz, [output])
    cold = system.with_noise({s: 0.5 * np.eye(_width(system, s)) for s in sources})
    constant = flux_of(H @ cold.S @ np.conj(np.swapaxes(H, -1, -2)))
    columns = []
    for s in sources:
        part = H[..., _columns(system, s)]
        columns.append(flux_of(part @ np.conj(np.swapaxes(part, -1, -2))) + 0.5)
    return constant, np.stack(columns, axis=-1)


def fit_occupations(
    experiment: Experiment, frequency_hz: Any, flux: Any, sd: Any, output: str, sources: Sequence[str]
) -> Occupations:
    """Bounded weighted least squares for the occupations of `sources`.

    Parameters
    ----------
    frequency_hz, flux, sd
        Frequencies in the output field's frame, measured density in quanta, its standard deviation (number or per point).
    output
        Name of the output field, such as `drums.out`.
    sources
        Inputs whose occupation is fitted, such as `drums.internal`, `drums.drum1_bath`.

    Raises
    ------
    InputError
        For unknown inputs or outputs, or fewer points than occupations.
    ModelError
        If the spectrum does not tell them apart.
    """
    from scipy import optimize

    system = experiment.system
    f, y = np.atleast_1d(np.asarray(frequency_hz, dtype=float)), np.asarray(flux, dtype=float)
    error = np.broadcast_to(np.asarray(sd, dtype=float), f.shape)
    if y.shape != f.shape or f.size < len(sources) or np.any(error <= 0) or not np.all(np.isfinite(y)):
        raise InputError(
            "fit_occupations: needs finite flux and a positive sd at as many frequencies, and at least as many as sources"
        )
    constant, design = flux_design(system, f, output, sources)
    M = design / error[:, None]
    size = np.linalg.norm(M, axis=0)
    condition = float(np.linalg.cond(M / np.where(size > 0, size, 1.0)))
    if np.any(size == 0) or condition > 1e8:
        raise ModelError(
            f"fit_occupations: the spectrum does not tell {', '.join(sources)} apart (condition {condition:.3g})"
        )
    found = optimize.lsq_linear(M, (y - constant) / error, bounds=(0.0, np.inf), tol=1e-14)
    free = found.x > 1e-9 * np.max(found.x, initial=1e-300)
    covariance = np.zeros((len(sources), len(sources)))
    covariance[np.ix_(free, free)] = np.linalg.inv(M[:, free].T @ M[:, free])
    held = tuple(s for s, ok in zip(sources, free, strict=True) if not ok)
    return Occupations(
        tuple(sources), found.x, covariance, condition, 2 * float(found.cost), f.size - len(sources), held, system
    )


def combined(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Inverse-variance mean of independent estimates (value, sd) of one number."""
    weights = np.array([1 / sd**2 for _, sd in estimates])
    return float(weights @ [v for v, _ in estimates] / weights.sum()), float(weights.sum() ** -0.5)
