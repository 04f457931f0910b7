"""The maximum of a posterior density: Newton steps from the prior, searches elsewhere, and whitened coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backaction.errors import ModelError
from backaction.inference.target import Evaluator, Target
from backaction.numerics.matrices import Array
from backaction.workers import Progress


@dataclass(frozen=True, eq=False)
class Maximum:
    """The maximum of the posterior in u, its log-density, and `root` L with L L^T the inverse Hessian there.

    `others` are further maxima that were found, with their log-densities below the first; `condition` that of the Fisher
    information with the prior.
    """

    u: Array
    log_density: float
    root: Array
    hessian: Array
    evaluations: int
    others: tuple[tuple[Array, float], ...] = ()

    def place(self, w: Array) -> Array:
        """U at whitened coordinates w (..., P)."""
        return self.u + w @ self.root.T


SCAN = np.linspace(-2.5, 2.5, 11)
"""Coordinates (in sd of the prior) at which scans look: 99 % of the prior, at half-sd steps a line is not missed."""
SCANS, GAIN = 4, 2.0
"""Scans at most, and the gain in ln p below which another is not worth its evaluations."""
SAME_U = 0.05
"""Two climbs that end so near each other ended at one maximum."""
ELSEWHERE_SD, ELSEWHERE_DEPTH = 5.0, 30.0
"""Other maxima are climbed from points so many sd away whose ln p is less than so much below the highest."""
APART_SD, REPORTED_DEPTH = 3.0, 15.0
"""Maxima so many sd apart are separate; those lower by more (a weight of 3e-7) are not reported."""
HIGHER = 1e-3
"""ln p by which another maximum must exceed the first to take its place."""
NEAR = 1.0
"""Below this norm of the gradient (whose scale is that of the prior) the exact Hessian is worth its price."""
LONGEST = 2.0
"""Longest step along a coordinate, in sd of the prior."""
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-6, 1e8
"""Levenberg-Marquardt: relative to the diagonal of the information, at the start and at its ends."""
SETTLED, STALLED = 1e-8, 1e-3
"""g^T H^-1 g (twice the ln p that is left to gain) of a maximum; and of one where rounding ends the climb."""


def find_maximum(target: Target, starts: int = 3, seed: int = 0, progress: Progress | None = None) -> Maximum:
    """The maximum of the posterior density.

    From the best of coordinate scans, and from `starts` - 1 draws of the prior, each improved alike, by steps of
    Levenberg-Marquardt with the expected information and, near the end, Newton steps with the exact Hessian. Of up to three
    starts the last is spared where the first two end at one place. Then other maxima are looked for along each coordinate.

    Raises
    ------
    ModelError
        If no point of the prior has a finite density, or the maximum is not found.
    """
    run, rng = target.evaluator(), np.random.default_rng(seed)
    count = 0
    found: list[tuple[Array, float]] = []
    failure: ModelError | None = None
    for k in range(starts):
        u = np.zeros(target.size) if k == 0 else rng.standard_normal(target.size)
        if progress:
            progress(f"mode: start {k + 1} of {starts}", None)
        u, n = _scanned(run, u)
        count += n
        if not np.isfinite(run.density(u)):
            continue
        try:
            u, value, n = _climbed(target, run, u)
        except ModelError as error:
            failure = error
            continue
        count += n
        found.append((u, value))
        if k == 1 and starts <= 3 and len(found) == 2 and np.max(np.abs(found[0][0] - u)) < SAME_U:
            break  # the first start was not chance
    if not found and failure is not None:
        raise failure
    if not found:
        raise ModelError(f"{target.campaign.name}: no point of the prior has a spectrum: nothing can be fitted")
    found.sort(key=lambda x: -x[1])
    u, value = found[0]
    H, root = _whitening(target, run, u)
    for start in _elsewhere(run, u, value, np.sqrt(np.sum(root**2, axis=1))):
        try:
            v, x, n = _climbed(target, run, start)
        except ModelError:
            continue
        count += n
        found.append((v, x))
    found.sort(key=lambda x: -x[1])
    if found[0][1] > value + HIGHER:
        u, value = found[0]
        H, root = _whitening(target, run, u)
    others: list[tuple[Array, float]] = []
    for v, x in found[1:]:
        apart = [np.max(np.abs(np.linalg.solve(root, v - o))) > APART_SD for o in (u, *(o for o, _ in others))]
        if all(apart) and value - x < REPORTED_DEPTH:
            others.append((v, x))
    return Maximum(u, value, root, H, count, tuple(others))


def _elsewhere(run: Evaluator, u: Array, top: float, sd: Array, most: int = 3) -> list[Array]:
    """Points along each coordinate, far from the maximum in its own width, that are nearly as probable."""
    out: list[tuple[float, Array]] = []
    for i in range(len(u)):
        trial = u.copy()
        for x in (-u[i], *SCAN):
            if abs(x - u[i]) < ELSEWHERE_SD * sd[i]:
                continue
            trial[i] = x
            value = run.density(trial)
            if value > top - ELSEWHERE_DEPTH:
                out.append((value, trial.copy()))
    return [point for _, point in sorted(out, key=lambda item: -item[0])[:most]]


def improved(target: Target, mode: Maximum) -> Maximum:
    """The maximum near a mode that was found for other bins of the same data."""
    run = target.evaluator()
    u, value, count = _climbed(target, run, mode.u)
    H, root = _whitening(target, run, u)
    again = [(o, run.density(o)) for o, _ in mode.others]  # of these bins, too
    others = tuple((o, x) for o, x in again if value - x < REPORTED_DEPTH)
    count += mode.evaluations + len(mode.others)
    return replace(mode, u=u, log_density=value, hessian=H, root=root, evaluations=count, others=others)


def _whitening(target: Target, run: Evaluator, u: Array) -> tuple[Array, Array]:
    """The Hessian at the maximum (the expected information where it is not positive) and the root of its inverse."""
    H = run.hessian(u)
    if not np.linalg.eigvalsh(H)[0] > 0:
        H = target.fisher(u)
    if not np.linalg.eigvalsh(H)[0] > 0:
        raise ModelError(f"{target.campaign.name}: the posterior is not determined at its maximum: give more priors")
    return H, np.linalg.inv(np.linalg.cholesky(H)).T


def _scanned(run: Evaluator, u: Array) -> tuple[Array, int]:
    """Best point of coordinate scans over the prior's +-2.5, until they gain little."""
    best, count = run.density(u), 0
    for _ in range(SCANS):
        before = best
        for i in range(len(u)):
            trial = u.copy()
            for x in SCAN:
                trial[i] = x
                value = run.density(trial)
                count += 1
                if value > best:
                    u, best = trial.copy(), value
        if best - before < GAIN:
            break
    return u, count


def _climbed(target: Target, run: Evaluator, u: Array, most: int = 100) -> tuple[Array, float, int]:
    """The maximum uphill of u within the reach of the coordinates, its log-density, and the evaluations it took.

    Steps solve (H + damp diag H) du = g over the coordinates that are not held at an end.
    """
    reach = np.array([p.reach for p in target.parameters])
    u = np.clip(u, -reach, reach)
    value, g = run.gradient(u)
    damp, count = DAMPING, 1
    for _ in range(most):
        free = (np.abs(u) < reach) | (g * u < 0)  # not held at the end of a bounded coordinate
        H = target.fisher(u, rough=True)
        count += len(u)
        if np.linalg.norm(g[free]) < NEAR:  # near: the exact Hessian where it is positive
            exact = run.hessian(u)
            count += 2 * len(u)
            H = exact if np.linalg.eigvalsh(exact)[0] > 0 else H
        G, slope = H[np.ix_(free, free)], g[free]
        left = float(slope @ np.linalg.solve(G, slope)) if np.any(free) else 0.0
        moved = False
        for _ in range(12):
            step = np.zeros(len(u))
            step[free] = np.linalg.solve(G + damp * np.diag(np.diag(G)), slope)
            size = np.max(np.abs(step), initial=0.0)
            trial = np.clip(u + step * min(1.0, LONGEST / size if size > 0 else 1.0), -reach, reach)
            new, at = run.gradient(trial)
            count += 1
            if new > value - 1e-9 * abs(value):
                moved = new - value > 1e-9
                u, g, damp, value = trial, at, damp / 5, max(new, value)
                break
            damp = max(10 * damp, LEAST_DAMPING)
        if left < SETTLED or (not moved and left < STALLED):
            return u, value, count
        if not moved and damp > MOST_DAMPING:
            break
    raise ModelError(
        f"{target.campaign.name}: the maximum of the posterior was not found in {most} steps "
        f"(the gradient there: {float(np.linalg.norm(g)):.2g})"
    )
