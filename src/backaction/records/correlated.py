"""What correlated bins do to a fit: errors, the deviance of a right model; and whether stated averages are the bins' own.

Scores z of bins have the correlation matrix R, R_ij = rho at their distance. A fit of a tempered likelihood (each bin
counting 1/v, v = 1 + 2 sum rho) projects z/sqrt(v) off the columns U of its Jacobian (orthonormal): with T = R/v and D = v,
    Cov(theta) = H^-1/2 U^T T U H^-1/2,    <z^T z> = tr W D,  Var z^T z = 2 tr (W D)^2,   W = (1 - U U^T) T (1 - U U^T),
exact for Gaussian scores. In a spectrum that is not smooth over the window R is that of white noise still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backaction.numerics.matrices import Array

CONFLICT_P = 1e-3
"""Bins that scatter as the stated averages do with a smaller p contradict them."""
FEWEST = 16
"""Triples of bins from which a scatter is told, at least."""
FAR = 5.0
"""Scores beyond this are no statistics: a triple with one tells nothing of the averages."""


def correlation_matrix(places: Array, neighbours: Sequence[float]) -> Any:
    """R (sparse) of bins at these places of their spectrum."""
    from scipy import sparse

    order = np.argsort(places)
    at = places[order]
    R = sparse.identity(at.size, format="csr")
    for distance, rho in enumerate(neighbours, start=1):
        j = np.minimum(np.searchsorted(at, at + distance), at.size - 1)
        i = np.flatnonzero(at[j] == at + distance)
        if i.size:
            pair = sparse.csr_matrix((np.full(i.size, rho), (order[i], order[j[i]])), shape=R.shape)
            R = R + pair + pair.T
    return R


def correlated(blocks: Sequence[tuple[int, float, Any]], U: Array) -> tuple[Array, tuple[float, float] | None]:
    """(U^T T U, mean and variance of the deviance); see the module's text.

    `blocks` are (rows, v, R) from the top of U on, R None where bins are independent; further rows are priors. Without
    correlations the first is the unit matrix, and the second None.
    """
    from scipy import sparse

    if all(R is None for _, _, R in blocks):
        return np.eye(U.shape[1]), None
    rest = U.shape[0] - sum(rows for rows, _, _ in blocks)
    parts = [sparse.identity(rows) if R is None else R / v for rows, v, R in blocks]
    T = sparse.block_diag([*parts, sparse.identity(rest)], format="csr")
    D = np.concatenate([*(np.full(rows, v) for rows, v, _ in blocks), np.ones(rest)])
    F = T @ U
    G = U.T @ F
    one = np.eye(U.shape[1])
    P, K = np.hstack([U, F]), np.block([[-G, one], [one, 0 * one]])  # W = T - P K P^T
    inside = P.T @ (D[:, None] * P)
    through = P.T @ (D[:, None] * (T @ (D[:, None] * P)))
    DT = sparse.diags(D) @ T
    mean = float(DT.diagonal().sum() - np.trace(K @ inside))
    square = float(DT.multiply(DT.T).sum() - 2 * np.trace(K @ through) + np.trace(K @ inside @ K @ inside))
    return G, (mean, 2 * square)


def correlated_p(scores: Array, neighbours: Sequence[float], fitted: int = 0) -> float:
    """p-value of the sum of squared normal scores of neighbouring correlated bins, `fitted` smooth quantities taken out.

    Chi-square of the same mean n - v fitted and variance 2 (sum R^2 - v^2 fitted).
    """
    from scipy import special

    rho, n = np.asarray(neighbours), scores.size
    v = 1 + 2 * float(np.sum(rho))
    mean = max(n - v * fitted, 1.0)
    variance = 2 * max(n + 2 * float(np.sum((n - np.arange(1, rho.size + 1)) * rho**2)) - v**2 * fitted, 1.0)
    return float(special.chdtrc(2 * mean**2 / variance, float(np.sum(scores**2)) * 2 * mean / variance))


def averages_conflict(scores: Array, places: Array, neighbours: Sequence[float], averages: float) -> str:
    """A sentence where bins scatter about their neighbours as the stated averages do not; else empty.

    The second difference z_-d - 2 z + z_d of scores hardly sees a smooth misfit; its mean square has a known mean and
    variance, from the stated correlations. d is the distance at which they fall below 0.6.
    """
    from scipy import special

    rho = np.concatenate([[1.0], neighbours, np.zeros(6)])
    d = int(np.flatnonzero(rho < 0.6)[0])
    order = np.argsort(places)
    at, z = places[order], scores[order]
    sound = np.abs(z) < FAR
    ends = np.minimum(np.searchsorted(at, at[:, None] + np.array([d, 2 * d])), at.size - 1)
    whole = np.all(at[ends] == at[:, None] + np.array([d, 2 * d]), axis=1) & sound & np.all(sound[ends], axis=1)
    first = np.flatnonzero(whole)
    if first.size < FEWEST:
        return ""
    bend = z[first] - 2 * z[ends[first, 0]] + z[ends[first, 1]]

    def covariance(lag: int) -> float:
        """Of two second differences so many bins apart."""
        terms = zip((1, -4, 6, -4, 1), (-2, -1, 0, 1, 2), strict=True)
        return float(sum(k * rho[min(abs(lag + m * d), rho.size - 1)] for k, m in terms))

    lags = np.arange(1, rho.size + 2 * d)
    ratio = np.array([covariance(int(k)) for k in lags]) / covariance(0)
    freedom = first.size / (1 + 2 * float(np.sum(ratio**2)))
    scatter = float(np.mean(bend**2)) / covariance(0)
    p = 2 * min(special.chdtr(freedom, scatter * freedom), special.chdtrc(freedom, scatter * freedom))
    if p >= CONFLICT_P:
        return ""
    return _words(z, at, rho, scatter, averages, float(p))


def _words(z: Array, at: Array, rho: Array, scatter: float, averages: float, p: float) -> str:
    """What is stated, what is seen, and the likely reason: unsaid correlations, or another number of averages."""

    def apart(distance: int) -> float:
        """Half the mean square difference of bins so far apart: sigma^2 (1 - rho)."""
        j = np.minimum(np.searchsorted(at, at + distance), at.size - 1)
        both = (at[j] == at + distance) & (np.abs(z) < FAR) & (np.abs(z[j]) < FAR)
        return float(np.mean((z[both] - z[j[both]]) ** 2)) / 2 if np.count_nonzero(both) > 4 else np.nan

    far = apart(6 + int(np.count_nonzero(rho > 0.1)))
    seen = 1 - apart(1) / far if far > 0 else np.nan
    told = f"{averages:.4g} averages are stated, but neighbouring bins scatter like "
    if seen - rho[1] > max(0.1, 1.5 / np.sqrt(z.size)):
        known = f"; {rho[1]:.2f} follows from what is said" if rho[1] else ""
        return told + (
            f"{averages / far:.3g} averages with a correlation of {seen:.2f} between neighbours{known} (p = {p:.1g}): is a "
            "window, an overlap, zero padding or smoothing not stated?"
        )
    if scatter > 1:
        return told + (
            f"{averages / scatter:.3g} (p = {p:.1g}): are overlapping periodograms counted as independent ones, or is there "
            "structure finer than the model's?"
        )
    return told + (
        f"{averages / scatter:.3g} (p = {p:.1g}): are there more averages, or is a window, zero padding or smoothing "
        "not stated?"
    )
