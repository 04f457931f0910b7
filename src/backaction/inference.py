"""Maximum a posteriori fit of an experiment's parameters to the averaged spectrum of a record, with Laplace errors.

Each spectral bin is Gamma with N effective averages; with r = measured/model the deviance is 2N(r - 1 - ln r), which is
-2 ln L up to a constant. Normal priors are added as squared residuals. The model is the sampled one (aliases and the
digitiser's averaging included); gradients are exact. Errors are the inverse of the Fisher information of data and
priors, never rescaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.derivatives import stepped
from backaction.errors import InputError, ModelError
from backaction.experiment import Experiment, Prior, unit_bounds
from backaction.matrices import Array
from backaction.records import Digitiser, Spectrum, chi_square_p, gamma_normal_scores
from backaction.sampling import discretise, spectrum_and_slope
from backaction.shot_noise import Calibration
from backaction.steady import instability

SCALE = "calibration.scale"
"""The record's shot-noise level relative to its calibration (or, uncalibrated, the fitted floor itself)."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Result of `fit_spectrum`.

    `names`, `values`, `covariance` in the parameters' own units (the last is `SCALE`, relative); `experiment` at the
    maximum; `model` the spectrum there in the record's density unit; `p` the goodness of fit; `band_ratio` measured over
    model power in the band; `mean_ratio` the unweighted mean of the bins' ratios with `mean_ratio_sd`.
    """

    experiment: Experiment
    names: tuple[str, ...]
    values: Array
    covariance: Array
    priors: Mapping[str, Prior]
    spectrum: Spectrum
    model: Array
    scale: float
    p: float
    band_ratio: float
    mean_ratio: float
    mean_ratio_sd: float
    at_bound: tuple[str, ...]
    condition: float
    status: str
    evaluations: int

    @property
    def sd(self) -> Array:
        """Standard deviations."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Array:
        """Correlation matrix of the parameters."""
        s = self.sd
        return self.covariance / np.outer(s, s)

    def pull(self, name: str) -> float:
        """(value - prior mean)/prior sd; 0 without a normal prior."""
        prior = self.priors.get(name)
        if prior is None or prior.sd is None or prior.mean is None:
            return 0.0
        return float((self.values[self.names.index(name)] - prior.mean) / prior.sd)

    def draws(self, count: int, seed: int) -> Experiment:
        """The experiment with fields drawn from the Laplace posterior, cut at the fields' bounds: a batch of `count`."""
        k = len(self.names) - 1
        if k == 0:
            return self.experiment
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(self.covariance[:k, :k] + 1e-300 * np.eye(k))
        low, high = np.array([_limits(self.experiment, n, self.priors[n]) for n in self.names[:k]]).T
        rows: list[Array] = []
        for _ in range(100):
            x = self.values[:k] + rng.standard_normal((count, k)) @ root.T
            rows += list(x[np.all((x > low) & (x < high), axis=1)])
            if len(rows) >= count:
                break
        if len(rows) < count:
            raise ModelError("the posterior lies almost wholly outside the parameters' bounds: no draws")
        x = np.array(rows[:count])
        return self.experiment.with_values({n: x[:, i] for i, n in enumerate(self.names[:k])}, "draws")


def fit_spectrum(
    experiment: Experiment,
    spectrum: Spectrum,
    calibration: Calibration,
    digitiser: Digitiser,
    progress: Callable[[str], None] | None = None,
) -> Fit:
    """Fit every field that has a prior, and the scale, to a measured spectrum (density in the record's own unit).

    Starts from the better of the experiment's own values and the best point of a coordinate scan over the priors, then
    Levenberg-Marquardt steps in a trust region (scipy).

    Raises
    ------
    ModelError
        If the model has no spectrum at the start, or the fit does not converge or is not determined.
    """
    from scipy import optimize

    names = tuple(experiment.priors)
    priors = dict(experiment.priors)
    centre, width, low, high = _coordinates(experiment, names, calibration)
    data, N, f = spectrum.density / calibration.density, spectrum.averages, spectrum.frequency_hz

    def model(theta: Array, slopes: bool) -> tuple[Array, Array]:
        moved = experiment.with_values({n: float(v) for n, v in zip(names, theta, strict=False)}, "fit")
        if np.max(np.linalg.eigvals(moved.system.A).real, initial=-1.0) >= 0:
            raise ModelError(instability(moved.system))
        sampled = discretise(moved.system, *digitiser)
        step = discretise(stepped(moved, names), *digitiser) if slopes and names else None
        return spectrum_and_slope(sampled, step, f)

    first, _ = model(centre, False)
    if not np.all(np.isfinite(first)) or np.any(first <= 0):
        raise ModelError("the model has no positive spectrum at its starting values")
    if not calibration.floor_known:
        level = float(np.median(data / first))
        data = data / level
    else:
        level = 1.0
    start = _scan(experiment, names, centre, width, low, high, data, N, f, digitiser, progress)
    cache: dict[bytes, tuple[Array, Array]] = {}
    count = 0

    known = calibration.floor_known
    prior_rows = sum(priors[n].sd is not None for n in names) + known

    def residuals(u: Array) -> Array:
        nonlocal count
        count += 1
        try:
            mu, slope = model(centre + width * u[:-1], True)
        except ModelError:  # an unstable trial point: so bad that the step is taken back
            cache[u.tobytes()] = (np.ones(f.size), np.zeros((len(names), f.size)))
            return np.full(f.size + prior_rows, 1e6)
        factor = np.exp(u[-1] * width_scale)
        cache.clear()
        cache[u.tobytes()] = (mu * factor, slope * factor)
        if progress:
            progress(f"fit: evaluation {count}")
        return np.concatenate([_deviance(data / (mu * factor), N), _prior_residuals(u, names, priors, known)])

    width_scale = min(max(calibration.relative_sd, 1e-4), 0.5) if calibration.floor_known else 0.5

    def jacobian(u: Array) -> Array:
        if u.tobytes() not in cache:
            residuals(u)
        mu, slope = cache[u.tobytes()]
        d_rho = _deviance_slope(data / mu, N)
        rows = (
            np.concatenate([slope.T * width / mu[:, None], np.full((len(mu), 1), width_scale)], axis=1) * d_rho[:, None]
        )
        prior = np.eye(len(u))[[i for i, n in enumerate(names) if priors[n].sd is not None] + [len(names)] * known]
        return np.concatenate([rows, prior])

    lower = np.append((low - centre) / width, -20.0)
    upper = np.append((high - centre) / width, 20.0)
    u0 = np.clip(np.append((start - centre) / width, 0.0), lower + 1e-9, upper - 1e-9)
    result = optimize.least_squares(
        residuals, u0, jacobian, bounds=(lower, upper), x_scale=1.0, ftol=1e-10, xtol=1e-10, gtol=1e-10, max_nfev=200
    )
    if result.status <= 0:
        raise ModelError(f"the fit did not converge in {result.nfev} evaluations: {result.message}")
    u = result.x
    mu, slope = model(centre + width * u[:-1], True)
    factor = float(np.exp(u[-1] * width_scale))
    log_slope = np.concatenate([slope.T * width / mu[:, None], np.full((len(mu), 1), width_scale)], axis=1)
    fisher = N * log_slope.T @ log_slope
    for i, n in enumerate(names):
        fisher[i, i] += 1.0 if priors[n].sd is not None else 0.0
    fisher[-1, -1] += 1.0 if calibration.floor_known else 0.0
    condition = float(np.linalg.cond(fisher))
    if condition > 1e14:
        raise ModelError(f"the fit is not determined: condition number {condition:.1g}; give priors to more parameters")
    scales = np.append(width, width_scale * factor * level)
    covariance = np.linalg.inv(fisher) * np.outer(scales, scales)
    ratio = data / (mu * factor)
    values = np.append(centre + width * u[:-1], factor * level)
    bound = tuple(n for n, a, lo, hi in zip(names, u, lower, upper, strict=False) if a - lo < 1e-6 or hi - a < 1e-6)
    fitted = int(np.sum(np.diag(np.linalg.inv(fisher)) < 0.5))
    best = experiment.with_values({n: float(v) for n, v in zip(names, values, strict=False)}, "fit")
    return Fit(
        best, (*names, SCALE), values, covariance, priors, spectrum, mu * factor * level * calibration.density,
        factor * level, chi_square_p(gamma_normal_scores(ratio, N), fitted), float(np.sum(data) / np.sum(mu * factor)),
        float(np.mean(ratio)), float(1 / np.sqrt(N * ratio.size)), bound, condition, "converged", count,
    )  # fmt: skip


def _prior_residuals(u: Array, names: tuple[str, ...], priors: Mapping[str, Prior], known: bool) -> Array:
    normal = [u[i] for i, n in enumerate(names) if priors[n].sd is not None]
    return np.array(normal + [u[-1]] * known)


def _coordinates(
    experiment: Experiment, names: tuple[str, ...], calibration: Calibration
) -> tuple[Array, Array, Array, Array]:
    """Centre and width of each parameter, so that the fit sees unit normals, and its limits."""
    centre, width, low, high = [], [], [], []
    for name in names:
        prior = experiment.priors[name]
        lo, hi = _limits(experiment, name, prior)
        if prior.mean is not None and prior.sd is not None:
            centre.append(prior.mean)
            width.append(prior.sd)
        else:
            assert prior.lower is not None
            assert prior.upper is not None
            value = float(np.real(experiment.value(name)))
            centre.append(min(max(value, prior.lower), prior.upper))
            width.append((prior.upper - prior.lower) / 4)
        if not lo <= centre[-1] <= hi:
            raise InputError(f"prior of '{name}': mean {centre[-1]:g} is outside [{lo:g}, {hi:g}]")
        low.append(lo)
        high.append(hi)
    return np.array(centre), np.array(width), np.array(low), np.array(high)


def _limits(experiment: Experiment, name: str, prior: Prior) -> tuple[float, float]:
    _, lo, hi = unit_bounds(experiment, name)
    lo = max(lo, -np.inf if prior.lower is None else prior.lower)
    hi = min(hi, np.inf if prior.upper is None else prior.upper)
    return lo, hi


def _scan(
    experiment: Experiment,
    names: tuple[str, ...],
    centre: Array,
    width: Array,
    low: Array,
    high: Array,
    data: Array,
    N: float,
    f: Array,
    digitiser: Digitiser,
    progress: Callable[[str], None] | None,
) -> Array:
    """Best point of coordinate scans over +-2.5 widths, on every few bins (each scan is one broadcast call)."""
    if not names:
        return centre
    thin = slice(None, None, max(1, f.size // 400))
    own = np.array([float(np.real(experiment.value(n))) for n in names])
    points = [np.clip(centre, low, high), np.clip(own, low, high)]
    grid = np.linspace(-2.5, 2.5, 11)

    def objective(values: dict[str, Any], thetas: Array) -> Array:
        system = experiment.with_values(values, "fit").build()
        stable = np.all(np.linalg.eigvals(system.A).real < 0, axis=-1)
        mu = discretise(system, *digitiser).spectrum(f[thin])
        good = stable & np.all(mu > 0, axis=-1)
        r = np.where(good[..., None], data[thin] / np.where(mu > 0, mu, 1.0), 1.0)
        prior = np.sum(((thetas - centre) / width) ** 2, axis=-1)
        return np.where(good, np.sum(2 * N * (r - 1 - np.log(r)), axis=-1) + prior, np.inf)

    best = points[0]
    start = np.array(points)
    cost = objective({n: start[:, i] for i, n in enumerate(names)}, start)
    best, least = points[int(np.argmin(cost))], float(np.min(cost))
    for sweep in range(2):
        before = least
        for i, _ in enumerate(names):
            if progress:
                progress(f"start: scan {sweep + 1}, {names[i]}")
            trial = np.repeat(best[None], grid.size, axis=0)
            trial[:, i] = np.clip(centre[i] + width[i] * grid, low[i] + 1e-9 * width[i], high[i] - 1e-9 * width[i])
            cost = objective({n: trial[:, k] for k, n in enumerate(names)}, trial)
            if np.min(cost) < least:
                best, least = trial[int(np.argmin(cost))], float(np.min(cost))
        if before - least < 1.0:
            break
    return best


def _deviance(r: Array, N: float) -> Array:
    """Signed root of 2N(r - 1 - ln r)."""
    return np.sign(r - 1) * np.sqrt(np.maximum(2 * N * (r - 1 - np.log(r)), 0.0))


def _deviance_slope(r: Array, N: float) -> Array:
    """Slope d rho/d ln mu = N (1 - r)/rho, continued to -sqrt(N) at r = 1."""
    rho = _deviance(r, N)
    small = np.abs(r - 1) < 1e-4
    return np.where(small, -np.sqrt(N) * (1 + (r - 1) / 3), N * (1 - r) / np.where(small, 1.0, rho))
