"""Priors as maps of a standard normal: theta = F^-1(Phi(u)), so that a sampler sees unit Gaussians.

Written for numbers, arrays and the variables of `tracing` alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.experiment.prior import Prior
from backaction.numerics.matrices import Array
from backaction.numerics.tracing import Var

REACH = 8.0
"""Standard deviations beyond which a bound of a normal prior does not matter."""


@dataclass(frozen=True)
class Parameter:
    """A fitted number: its name (`element.field`, `element.field[record]`, ...), prior, unit and its field's bounds.

    `robust`: a normal prior is Student-t with 4 degrees of freedom instead, of the same centre and scale.
    """

    name: str
    prior: Prior
    unit: str = "1"
    lower: float = -np.inf
    upper: float = np.inf
    robust: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The narrower of the prior's and the field's bounds."""
        low = self.lower if self.prior.lower is None else max(self.lower, self.prior.lower)
        high = self.upper if self.prior.upper is None else min(self.upper, self.prior.upper)
        return low, high

    @property
    def calibrated(self) -> bool:
        """Whether the prior is knowledge of a value (normal, log-normal), not only of a range."""
        return self.prior.mean is not None or self.prior.median is not None

    @property
    def one_sided(self) -> bool:
        """Whether the prior is half-normal: nothing is the most that it expects."""
        return self.prior.mean is not None and self.prior.lower == self.prior.mean

    @property
    def heavy_tailed(self) -> bool:
        """Whether scores hide how far a value is: then deviations count in the prior's stated sd."""
        return self.robust and self.prior.mean is not None and not self.one_sided

    def deviation(self, value: Any, score: Any) -> Any:
        """How far a value is from the prior's centre in prior sd: its normal score, but for heavy-tailed priors."""
        if not self.heavy_tailed or self.prior.mean is None or self.prior.sd is None:
            return score
        return (value - self.prior.mean) / self.prior.sd

    @property
    def reach(self) -> float:
        """How far |u| may go in a search: where a bounded parameter is as good as at its bound, or very far."""
        p = self.prior
        if p.median is not None:
            return 50.0
        if p.mean is None or p.sd is None:
            return 6.0
        low, high = self.bounds
        a, b = (low - p.mean) / p.sd, (high - p.mean) / p.sd
        free = a < -REACH and b > REACH and not self.robust
        return float(min(50.0, -0.999 * a, 0.999 * b)) if free else 6.0

    def value(self, u: Any) -> Any:
        """Theta at the standard-normal coordinate u."""
        p = self.prior
        if p.median is not None and p.factor is not None:
            return p.median * _exp(float(np.log(p.factor)) * u)
        low, high = self.bounds
        if p.mean is None or p.sd is None:
            return low + (high - low) * _normal(u)
        a, b = (low - p.mean) / p.sd, (high - p.mean) / p.sd
        if self.robust:
            first, last = float(_student_cdf(a)), float(_student_cdf(b))
            inside = u if last - first == 1.0 else _quantile(first + (last - first) * _normal(u))
            return p.mean + p.sd * _student(inside)
        if a < -REACH and b > REACH:
            return p.mean + p.sd * u
        if a >= 0:  # in the upper tail: counted from there
            first, last = _normal(-b), _normal(-a)
            return p.mean - p.sd * _quantile(first + (last - first) * _normal(-1.0 * u))
        first, last = _normal(a), _normal(b)
        return p.mean + p.sd * _quantile(first + (last - first) * _normal(u))

    def score(self, value: Any) -> Any:
        """The coordinate u of a value theta."""
        from scipy import stats

        p, value = self.prior, np.asarray(value, dtype=float)
        if p.median is not None and p.factor is not None:
            return np.log(value / p.median) / np.log(p.factor)
        low, high = self.bounds
        if p.mean is None or p.sd is None:
            return stats.norm.ppf((value - low) / (high - low))
        a, b = (low - p.mean) / p.sd, (high - p.mean) / p.sd
        z = (value - p.mean) / p.sd
        if self.robust:
            first, last = _student_cdf(a), _student_cdf(b)
            return stats.norm.ppf((_student_cdf(z) - first) / (last - first))
        if a < -REACH and b > REACH:
            return z
        if a >= 0:
            return -stats.norm.ppf((stats.norm.sf(z) - stats.norm.sf(b)) / (stats.norm.sf(a) - stats.norm.sf(b)))
        first = stats.norm.cdf(a)
        return stats.norm.ppf((stats.norm.cdf(z) - first) / (stats.norm.cdf(b) - first))

    def quantiles(self, p: Any) -> Array:
        """Quantiles of the prior."""
        from scipy import stats

        return np.asarray(self.value(stats.norm.ppf(p)))

    def described(self) -> str:
        """The prior in words."""
        p = self.prior
        if ":offset[" in self.name:
            return "centre +- spread"
        if self.name.endswith(":spread"):
            return f"half-normal, {p.sd:.4g}"
        if p.median is not None:
            return f"{p.median:.6g} */ {p.factor:.4g}"
        if p.mean is not None:
            cut = [f"{word} {v:g}" for word, v in ((">", p.lower), ("<", p.upper)) if v is not None]
            cut += ["Student-t, 4 degrees of freedom"] if self.robust else []
            return f"{p.mean:.6g} +- {p.sd:.3g}" + (f" ({', '.join(cut)})" if cut else "")
        return f"{self.bounds[0]:.4g} .. {self.bounds[1]:.4g}"


def _student(u: Any) -> Any:
    """The Student-t variable (4 degrees of freedom) at the normal score u.

    Its distribution is F(t) - 1/2 = (3/8) (s - s^3/12), s = t/sqrt(1 + t^2/4). With s = 4 sin(phi) that is sin(3 phi)/2, so
    that phi = pi/6 - psi/3 with sin^2(psi/2) = 1 - F, and t = s/sqrt(1 - s^2/4).
    """
    tail, rest = _normal(-1.0 * u), _normal(u)
    psi = 2.0 * np.arctan(np.sqrt(tail / rest))
    x = 2.0 / 3.0 * psi
    return 4.0 * np.sin(np.pi / 6 - psi / 3) / np.sqrt(3**0.5 * np.sin(x) - 2.0 * np.sin(x / 2) ** 2)


def _student_cdf(t: Any) -> Any:
    from scipy import stats

    return stats.t.cdf(t, 4)


def _exp(x: Any) -> Any:
    return x.exp() if isinstance(x, Var) else np.exp(x)


def _normal(x: Any) -> Any:
    if isinstance(x, Var):
        return x.normal()
    from scipy import special

    return special.ndtr(x)


def _quantile(x: Any) -> Any:
    if isinstance(x, Var):
        return x.quantile()
    from scipy import special

    return special.ndtri(x)
