"""Least squares as every calibration uses it: maximum likelihood, Fisher errors, and what the data cannot tell.

Data blocks: `Gaussian` (values with standard deviations, real or complex), `Relative` (a scatter in proportion to the
model) and `Averaged` (periodograms averaged N times, which are Gamma distributed): its deviance 2 N (r - 1 - ln r), r
= y/mu, is minimised through the residual sign(r - 1) sqrt(...), so that Gauss-Newton gives the maximum of the
likelihood; weights taken from the data themselves would bias every level by -2/N. Bins of windowed, padded or smoothed
periodograms are correlated: their covariance is the sandwich H^-1 J R J^T H^-1, and the p-value that of a deviance with
their mean and variance (`records.correlated`). Priors are appended residuals
(theta - mean)/sd. The covariance is the inverse Fisher information at the maximum, never rescaled by chi2. The search
is `scipy.optimize.least_squares` (trust region reflective, bounds), from every start that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from backaction.errors import BackactionError, InputError, ModelError
from backaction.numerics.matrices import Array
from backaction.records.correlated import averages_conflict, correlated, correlation_matrix
from backaction.records.spectrum import Spectrum

Values = Mapping[str, float]
Model = Callable[[Values], Sequence[Any]]

STEP = 1e-3
"""Central differences: this part of an unknown's scale, which after the first search is its standard deviation."""


class Observed(Protocol):
    """A block of data: how far a model is from it, and how strongly the model's changes show."""

    def residual(self, mu: Array) -> Array:
        """Residuals whose squares sum to the deviance, real and flat."""
        ...

    def whitened(self, mu: Array, slope: Array) -> Array:
        """The model's slope over the expected scatter, real and flat: rows of the Fisher Jacobian."""
        ...


def _flat(values: Any) -> Array:
    values = np.ravel(np.asarray(values))
    return np.concatenate([values.real, values.imag]) if np.iscomplexobj(values) else values.astype(float)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Values y with standard deviation `sd` (of each quadrature, where y is complex)."""

    y: Array
    sd: Any

    def residual(self, mu: Array) -> Array:
        """(mu - y)/sd."""
        return _flat((mu - self.y) / self.sd)

    def whitened(self, mu: Array, slope: Array) -> Array:
        """Slope/sd."""
        return _flat(slope / self.sd)


@dataclass(frozen=True, eq=False)
class Averaged:
    """Densities y, each an average of `averages` independent periodograms.

    `neighbours` (`Spectrum.neighbours`) are the correlations of bins 1, 2, ... apart, `place` the bins' places in their
    spectrum (default 0, 1, 2, ...). The likelihood of correlated bins is tempered, N -> N/(1 + 2 sum rho): right for what is
    smooth over bins, and in its weight against priors.
    """

    y: Array
    averages: Any
    neighbours: tuple[float, ...] = ()
    place: Array | None = None

    @classmethod
    def of(cls, s: Spectrum, keep: Array | slice = slice(None)) -> Averaged:
        """Some bins of a spectrum."""
        averages = np.broadcast_to(np.asarray(s.averages, dtype=float), s.density.shape)[keep]
        return cls(s.density[keep], averages, s.neighbours, np.arange(s.density.size)[keep])

    @property
    def places(self) -> Array:
        """Places of the bins in their spectrum."""
        return np.arange(np.size(self.y)) if self.place is None else np.ravel(self.place)

    @property
    def temper(self) -> float:
        """1 + 2 sum rho."""
        return 1 + 2 * sum(self.neighbours)

    def scores(self, mu: Array) -> Array:
        """sign(r - 1) sqrt(2 N (r - 1 - ln r)), r = y/mu: nearly standard normal for each bin."""
        mu = np.maximum(np.real(mu), 1e-300)
        r = self.y / mu
        return np.ravel(np.sign(1 - r) * np.sqrt(2 * self.averages * np.maximum(r - 1 - np.log(r), 0.0)))

    def residual(self, mu: Array) -> Array:
        """The scores over the root of `temper`."""
        return self.scores(mu) / np.sqrt(self.temper)

    def whitened(self, mu: Array, slope: Array) -> Array:
        """sqrt(N/temper) d ln mu."""
        return np.ravel(np.sqrt(self.averages / self.temper) * slope / np.maximum(np.real(mu), 1e-300))


@dataclass(frozen=True, eq=False)
class Relative:
    """Real values y whose standard deviation is `relative` times the model (iterated, not the noisy data), and `floor`."""

    y: Array
    relative: Any
    floor: Any = 0.0
    sd: Array | None = None

    def settled(self, mu: Array) -> Relative:
        """The same with the scatter of the model `mu`."""
        return replace(self, sd=np.hypot(self.relative * self._size(mu), self.floor))

    def _size(self, mu: Array) -> Array:
        return np.maximum(np.abs(mu), 1e-6 * float(np.max(np.abs(mu), initial=1e-300)))

    def _scatter(self) -> Array:
        return np.hypot(self.relative * self._size(self.y), self.floor) if self.sd is None else self.sd

    def residual(self, mu: Array) -> Array:
        """(mu - y)/sd."""
        return np.ravel((mu - self.y) / self._scatter())

    def whitened(self, mu: Array, slope: Array) -> Array:
        """Slope/sd."""
        return np.ravel(slope / self._scatter())


@dataclass(frozen=True)
class Unknown:
    """A number to be found: where the search starts, over what scale the model changes, bounds, and what was known."""

    name: str
    start: float
    scale: float
    unit: str = "1"
    lower: float = -np.inf
    upper: float = np.inf
    prior: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """The maximum with its Fisher covariance; see the module's text.

    `condition` is that of the Jacobian with normalised columns (without unknowns at a bound, whose errors are zero:
    all others are conditional on them). `residuals` are those of each block; `tested` is False where the scatter was
    taken from them, so that the deviance tests nothing. `moments` are mean and variance of the deviance of a right model
    where bins are correlated (`correlated`); `conflicts` say where stated averages contradict the bins.
    """

    unknowns: tuple[Unknown, ...]
    best: Array
    covariance: Array
    deviance: float
    dof: int
    condition: float
    at_bound: tuple[str, ...]
    residuals: tuple[Array, ...]
    tested: bool = True
    moments: tuple[float, float] | None = None
    conflicts: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the unknowns."""
        return tuple(u.name for u in self.unknowns)

    @property
    def values(self) -> dict[str, float]:
        """The maximum by name."""
        return dict(zip(self.names, self.best.tolist(), strict=True))

    @property
    def p(self) -> float:
        """Probability of a larger deviance if the model is right: chi2, with the `moments` where bins are correlated."""
        return _tail(self.deviance, self.dof, self.moments)

    def __getitem__(self, name: str) -> float:
        return float(self.best[self.names.index(name)])

    def sd(self, name: str) -> float:
        """Standard deviation of one unknown."""
        k = self.names.index(name)
        return float(np.sqrt(self.covariance[k, k]))

    def correlation(self, a: str, b: str) -> float:
        """Correlation coefficient of two unknowns (0 where one is at a bound)."""
        i, j = self.names.index(a), self.names.index(b)
        product = self.sd(a) * self.sd(b)
        return float(self.covariance[i, j] / product) if product > 0 else 0.0

    def derived(self, functions: Mapping[str, Callable[[Values], float]]) -> tuple[Array, Array]:
        """Values of functions of the unknowns and their covariance, to first order."""
        at = np.array([f(self.values) for f in functions.values()], dtype=float)
        slopes = np.zeros((len(functions), len(self.best)))
        for k, name in enumerate(self.names):
            h = STEP * float(np.sqrt(self.covariance[k, k]))
            if h > 0:
                up, down = (dict(self.values) | {name: self.best[k] + s * h} for s in (1, -1))
                slopes[:, k] = [(f(up) - f(down)) / (2 * h) for f in functions.values()]
        return at, slopes @ self.covariance @ slopes.T


@np.errstate(all="ignore")  # a step may leave what an element can be; what comes out is looked at
def fit(
    model: Model,
    observed: Sequence[Observed],
    unknowns: Sequence[Unknown],
    starts: Sequence[Values] = (),
    what: str = "fit",
) -> Fit:
    """D(theta) = sum r(mu(theta), y)^2 + sum ((theta - mean)/sd)^2, at its minimum: the unknowns nearest data and priors.

    r are the residuals of the blocks y, and mu(theta) = `model(values)`, one array per block.

    Parameters
    ----------
    starts
        Further starts, as values that replace the unknowns' own, tried until a search describes the data (p > 1e-3); if
        none does, the best of all counts.
    what
        Words for error messages.

    Raises
    ------
    InputError
        For data that are not finite, or fewer than the unknowns.
    ModelError
        If no search converges, or the data leave a combination of the unknowns open.
    """
    count = _count(observed, what)
    unknowns = tuple(unknowns)
    known = sum(u.prior is not None for u in unknowns)
    if count + known < len(unknowns):
        raise InputError(f"{what}: {count} data for {len(unknowns)} unknowns")
    best = _best_of(model, observed, unknowns, starts, count, what)
    found = _refined(model, observed, unknowns, best, what)
    return replace(found, conflicts=_conflicts(observed, found))


def _count(observed: Sequence[Observed], what: str) -> int:
    """Number of real data; refuses values that are not finite, and densities that are not above zero."""
    count = 0
    for block in observed:
        y = np.asarray(block.y)  # type: ignore[attr-defined]
        if not np.all(np.isfinite(y)):
            raise InputError(f"{what}: the data hold {np.count_nonzero(~np.isfinite(y))} values that are not finite")
        if isinstance(block, Averaged) and np.any(y <= 0):
            raise InputError(
                f"{what}: a density of {np.min(y):.3g}: spectra are linear and > 0 here; if they are in dB, say unit = dB"
            )
        count += y.size * (2 if np.iscomplexobj(y) else 1)
    return count


def _best_of(
    model: Model,
    observed: Sequence[Observed],
    unknowns: Sequence[Unknown],
    starts: Sequence[Values],
    count: int,
    what: str,
) -> Array:
    """The search of least deviance among the starts, up to the first that describes the `count` data (p > 1e-3)."""
    known = sum(u.prior is not None for u in unknowns)
    # of correlated bins: their deviance scatters more, but a search that ends elsewhere misses by far
    worst = float(np.mean([b.temper if isinstance(b, Averaged) else 1.0 for b in observed]))
    good = []
    for s in ({}, *starts):
        run = _search(model, observed, unknowns, dict(s))
        good += [run] if run is not None else []
        if run is not None and count > len(unknowns) and _tail(run[1] * worst, count + known - len(unknowns)) > 1e-3:
            break
    if not good:
        raise ModelError(
            f"{what}: no start converged ({1 + len(starts)} tried): look at the data beside the model's start"
        )
    return min(good, key=lambda r: r[1])[0]


def _refined(model: Model, observed: Sequence[Observed], unknowns: Sequence[Unknown], best: Array, what: str) -> Fit:
    """The maximum near `best`, searched again with the errors as scales and the scatter that the model implies."""
    for _ in range(4):
        before = best
        mu = model(_named(unknowns, best))
        observed = [
            b.settled(np.asarray(m)) if isinstance(b, Relative) else b for b, m in zip(observed, mu, strict=True)
        ]
        found = _at(model, observed, unknowns, best, what)
        scale = np.sqrt(np.diag(found.covariance))
        unknowns = tuple(replace(u, scale=float(s) or u.scale) for u, s in zip(unknowns, scale, strict=True))
        again = _search(model, observed, unknowns, dict(zip(found.names, best.tolist(), strict=True)))
        if again is not None:
            best = again[0]
        if np.all(np.abs(best - before) < 1e-4 * np.where(scale > 0, scale, np.inf)):
            break
    return _at(model, observed, unknowns, best, what)


def _tail(deviance: float, dof: int, moments: tuple[float, float] | None = None) -> float:
    from scipy import special

    mean, variance = moments or (max(1, dof), 2.0 * max(1, dof))
    return float(special.chdtrc(2 * mean**2 / variance, deviance * 2 * mean / variance))


def _named(unknowns: Sequence[Unknown], theta: Array) -> dict[str, float]:
    return {u.name: float(t) for u, t in zip(unknowns, theta, strict=True)}


def _known(unknowns: Sequence[Unknown], theta: Array) -> Array:
    return np.array([(t - u.prior[0]) / u.prior[1] for u, t in zip(unknowns, theta, strict=True) if u.prior])


def _slopes(model: Model, unknowns: Sequence[Unknown], theta: Array) -> list[list[Array]]:
    """Central (one-sided at a bound) differences: for each unknown, one array per block."""
    out = []
    for k, u in enumerate(unknowns):
        h = STEP * u.scale
        up, down = theta.copy(), theta.copy()
        up[k], down[k] = min(theta[k] + h, u.upper), max(theta[k] - h, u.lower)
        a, b = model(_named(unknowns, up)), model(_named(unknowns, down))
        out.append([(np.asarray(x) - np.asarray(y)) / (up[k] - down[k]) for x, y in zip(a, b, strict=True)])
    return out


def _search(
    model: Model, observed: Sequence[Observed], unknowns: Sequence[Unknown], start: Mapping[str, float]
) -> tuple[Array, float] | None:
    """(theta, deviance) of one search, in units of the scales; None where it does not converge."""
    from scipy import optimize

    scale = np.array([u.scale for u in unknowns])
    low, high = (np.array([getattr(u, k) for u in unknowns]) for k in ("lower", "upper"))
    origin = np.array([start.get(u.name, u.start) for u in unknowns], dtype=float)
    origin = np.clip(origin, low, high)
    inside = (
        np.where(np.isfinite(low), low + 1e-9 * scale, -np.inf),
        np.where(np.isfinite(high), high - 1e-9 * scale, np.inf),
    )
    origin = np.clip(origin, *inside)

    ys = [np.asarray(b.y) for b in observed]  # type: ignore[attr-defined]
    size = sum(2 * y.size if np.iscomplexobj(y) else y.size for y in ys)
    size += sum(u.prior is not None for u in unknowns)

    def residual(x: Array) -> Array:
        theta = origin + scale * x
        try:
            mu = model(_named(unknowns, theta))
        except BackactionError:  # a step into values that no element has: turned back
            return np.full(size, 1e8)
        rows = [b.residual(np.asarray(m)) for b, m in zip(observed, mu, strict=True)]
        out = np.concatenate([*rows, _known(unknowns, theta)])
        return np.where(np.isfinite(out), out, 1e8)

    def jacobian(x: Array) -> Array:
        theta = origin + scale * x
        mu = [np.asarray(m) for m in model(_named(unknowns, theta))]
        columns = []
        slopes = _slopes(model, unknowns, theta)
        for k, u in enumerate(unknowns):
            rows = [_chain(b, m, d) for b, m, d in zip(observed, mu, slopes[k], strict=True)]
            prior = np.array([float(j == k) / v.prior[1] for j, v in enumerate(unknowns) if v.prior])
            columns.append(np.concatenate([*rows, prior]) * u.scale)
        return np.nan_to_num(np.array(columns).T)

    with np.errstate(all="ignore"):
        try:
            found = optimize.least_squares(
                residual,
                np.zeros(len(unknowns)),
                jacobian,
                ((low - origin) / scale, (high - origin) / scale),
                x_scale="jac",
                xtol=1e-11,
                ftol=1e-11,
                gtol=1e-11,
                max_nfev=400,
            )
        except (ValueError, ZeroDivisionError, np.linalg.LinAlgError):
            return None
    if not (found.success and np.isfinite(found.cost) and found.cost < 1e15):
        return None
    return origin + scale * found.x, 2 * float(found.cost)


def _chain(block: Observed, mu: Array, slope: Array) -> Array:
    """Derivative of the residual itself (not its expectation) along one unknown."""
    if isinstance(block, Averaged):
        r = block.y / np.maximum(np.real(mu), 1e-300)
        size = np.sqrt(np.maximum(2 * (r - 1 - np.log(r)), 0.0))
        ratio = np.where(np.abs(r - 1) < 1e-6, 1.0, np.abs(r - 1) / np.maximum(size, 1e-300))
        return np.ravel(np.sqrt(block.averages / block.temper) * ratio * slope / np.maximum(np.real(mu), 1e-300))
    return block.whitened(mu, slope)


def _at(model: Model, observed: Sequence[Observed], unknowns: Sequence[Unknown], theta: Array, what: str) -> Fit:
    """Fisher information and report at `theta`."""
    mu = [np.asarray(m) for m in model(_named(unknowns, theta))]
    slopes = _slopes(model, unknowns, theta)
    columns = []
    for k in range(len(unknowns)):
        rows = [b.whitened(m, d) for b, m, d in zip(observed, mu, slopes[k], strict=True)]
        prior = np.array([float(j == k) / v.prior[1] for j, v in enumerate(unknowns) if v.prior])
        columns.append(np.concatenate([*rows, prior]))
    J = np.array(columns).T
    scale = np.array([u.scale for u in unknowns])
    bound = np.array(
        [t - u.lower < 1e-6 * u.scale or u.upper - t < 1e-6 * u.scale for u, t in zip(unknowns, theta, strict=True)]
    )
    free = np.flatnonzero(~bound)
    norm = np.linalg.norm(J[:, free], axis=0)
    if np.any(norm * scale[free] < 1e-9) or not np.all(np.isfinite(J)):
        flat = next(
            (unknowns[int(k)].name for k, n in zip(free, norm, strict=True) if not n * unknowns[int(k)].scale > 1e-9),
            "?",
        )
        raise ModelError(f"{what}: the data do not depend on '{flat}': it cannot be found from them")
    rows = [b.scores(m) if isinstance(b, Averaged) else b.residual(m) for b, m in zip(observed, mu, strict=True)]
    U, s, Vt = np.linalg.svd(J[:, free] / norm, full_matrices=False)
    condition = float(s[0] / s[-1]) if s.size else 1.0
    if condition > 1e9:
        parts = [unknowns[int(free[i])].name for i in np.argsort(-np.abs(Vt[-1]))[:3] if abs(Vt[-1][i]) > 0.1]
        raise ModelError(f"{what}: the data leave a combination of {', '.join(parts)} open (condition {condition:.1g})")
    covariance = np.zeros((len(unknowns), len(unknowns)))
    spread, moments = correlated([_block(b, r) for b, r in zip(observed, rows, strict=True)], U)
    covariance[np.ix_(free, free)] = (Vt.T / s) @ spread @ (Vt.T / s).T / np.outer(norm, norm)
    prior = _known(unknowns, theta)
    deviance = float(sum(np.sum(r**2) for r in rows) + np.sum(prior**2))
    dof = sum(r.size for r in rows) + prior.size - free.size
    return Fit(
        tuple(unknowns),
        theta,
        covariance,
        deviance,
        dof,
        condition,
        tuple(u.name for u, b in zip(unknowns, bound, strict=True) if b),
        tuple(rows),
        moments=moments,
    )


def _block(block: Observed, rows: Array) -> tuple[int, float, Any]:
    """(rows, temper, correlation matrix) of a block."""
    if not (isinstance(block, Averaged) and block.neighbours):
        return rows.size, 1.0, None
    return rows.size, block.temper, correlation_matrix(block.places, block.neighbours)


def _conflicts(observed: Sequence[Observed], found: Fit) -> tuple[str, ...]:
    """Where stated averages contradict the bins, one sentence a block."""
    out = (
        averages_conflict(z, b.places, b.neighbours, float(np.mean(b.averages)))
        for b, z in zip(observed, found.residuals, strict=True)
        if isinstance(b, Averaged)
    )
    return tuple(dict.fromkeys(words for words in out if words))
