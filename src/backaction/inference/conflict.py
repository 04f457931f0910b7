"""Whether data and priors contradict each other: every calibration, every measured direction, and all together.

In coordinates u whose prior is standard normal a posterior mean m with covariance C has, over data that the priors allow,
m ~ N(0, 1 - C). So z_i = m_i/sqrt(1 - C_ii) is standard normal for every calibration, (posterior - prior mean) over
sqrt(prior^2 - posterior^2 variance); z_k = (U^T m)_k/sqrt(w_k) for every eigenvector of 1 - C, whose w_k say how much of the
prior's variance the data took away; and the sum of the latter's squares is chi-square. The largest of many is judged by the
chance of so many looks (Sidak): one calibration at 5.8 sd of 16 has p = 1e-7 there, and 0.07 in the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backaction.inference.maximum import Maximum
from backaction.inference.samplers import Draws
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.records.statistics import LEVEL, Check, chi_square_p, normal_p

FAMILY = 1e-3
"""Share of right models in which some calibration or direction may be said to contradict the data."""
TOLD = 0.05
"""Share of the prior's variance that data must take away for a direction to be looked at."""


@dataclass(frozen=True, eq=False)
class Conflict:
    """Scores z of calibrations by name and of measured directions (D,) with their unit vectors (D, P) in u.

    `errors` are the Monte Carlo errors of the pulls: those of the means of the draws.
    """

    pulls: dict[str, float]
    errors: dict[str, float]
    scores: Array
    directions: Array

    @property
    def looks(self) -> int:
        """How many scores were looked at."""
        return int(np.sum([z != 0.0 for z in self.pulls.values()])) + self.scores.size

    @property
    def largest(self) -> tuple[float, str]:
        """The largest score and what it is of."""
        name = max(self.pulls, key=lambda n: abs(self.pulls[n]))
        k = int(np.argmax(np.abs(self.scores))) if self.scores.size else -1
        if k < 0 or abs(self.pulls[name]) >= abs(self.scores[k]):
            return self.pulls[name], name
        v = self.directions[k]
        labels = list(self.pulls)
        parts = [labels[i] for i in np.argsort(-np.abs(v)) if abs(v[i]) > 0.3][:3]
        return float(self.scores[k]), " and ".join(parts) or "a combination of many"

    @property
    def family_p(self) -> float:
        """Chance that the largest of so many is as large."""
        return normal_p(self.largest[0], self.looks)

    def checks(self) -> list[Check]:
        """The sum over all measured directions, and the largest by itself."""
        p = chi_square_p(self.scores) if self.scores.size else 1.0
        z, what = self.largest
        words = "compatible" if p >= LEVEL else "NOT compatible"
        off = f" +- {self.errors[what]:.2g}" if what in self.errors else ""
        own = "no calibration contradicts" if self.family_p >= FAMILY else "a calibration CONTRADICTS"
        return [
            Check(
                "data against priors", p >= LEVEL, float(np.sum(self.scores**2)), p,
                f"data and priors are {words} (p = {p:.2g} over {self.scores.size} measured directions)",
            ),
            Check(
                "calibrations", self.family_p >= FAMILY, z, self.family_p,
                f"{own} the data (largest conflict {z:+.1f}{off} sigma: {what}; p = {self.family_p:.2g} in "
                f"{self.looks} looks)",
                FAMILY,
            ),
        ]  # fmt: skip


def conflict(target: Target, mode: Maximum, draws: Draws) -> Conflict:
    """Data against priors: means of the draws, variances of the exact Hessian at the maximum.

    1 - C is a small difference where the data say little: from a few thousand draws it would be noise. Only calibrations
    are looked at (normal and log-normal priors), correlated ones by their own scores z = M u; a half-normal prior is
    contradicted by too much, not by nothing; deviations from a heavy-tailed prior count in its stated sd.
    """
    from scipy.linalg import eigh

    M, labels = target.mixing(), target.labels()
    C = mode.root @ mode.root.T
    z = draws.u @ M.T
    values, slopes = target.values(draws.u), np.diag(target.slopes(mode.u))
    m, size = np.mean(z, axis=(0, 1)), np.ones(target.size)
    for i, p in enumerate(target.parameters):
        if p.heavy_tailed and p.prior.sd is not None:
            m[i], size[i] = np.mean(p.deviation(values[..., i], z[..., i])), slopes[i] / p.prior.sd
        m[i] = max(m[i], 0.0) if p.one_sided else m[i]
    posterior = size[:, None] * (M @ C @ M.T) * size
    of = np.array([p.calibrated for p in target.parameters])
    room = np.where(of, 1 - np.diag(posterior), 0.0)
    pulls = {n: float(x / np.sqrt(r)) if r > TOLD else 0.0 for n, x, r in zip(labels, m, room, strict=True)}
    errors = _errors_of_means(z, draws.facts) * size / np.sqrt(np.maximum(room, TOLD))
    prior = (M @ M.T)[np.ix_(of, of)]
    w, V = eigh(prior - posterior[np.ix_(of, of)], prior) if np.any(of) else (np.zeros(0), np.zeros((0, 0)))
    kept = w > TOLD
    directions = np.zeros((int(np.sum(kept)), target.size))
    directions[:, of] = (V / np.linalg.norm(V, axis=0)).T[kept]
    scores = (V.T @ m[of])[kept] / np.sqrt(w[kept])
    return Conflict(pulls, dict(zip(labels, errors.tolist(), strict=True)), scores, directions)


def _errors_of_means(scores: Array, facts: Mapping[str, float]) -> Array:
    """Standard errors (P,) of the means of draws (chains, draws, P): sd over the root of the effective draws."""
    from arviz_stats.base import array_stats

    sd = np.std(scores, axis=(0, 1))
    if "effective_draws" in facts:  # of weights, before draws were made equal
        return np.asarray(sd / np.sqrt(facts["effective_draws"]))
    size = [array_stats.ess(scores[..., i], method="mean", chain_axis=0, draw_axis=1) for i in range(sd.size)]
    return np.asarray(sd / np.sqrt(np.maximum(size, 1.0)))
