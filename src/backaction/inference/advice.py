"""What a posterior says about the next measurement, and about the worst model that the data allow.

Both look at the EPR variance V of one record at its fixed (a, angle), the one that is reported; what to measure next also
at the conditional occupation of the first mode, where no record has two.

* Next: sigma(V)^2 = g^T (sum_r F_r + P)^-1 g with g = dV/du, F_r the Fisher information of record r and P the priors' (the
  identity): a calibration with half its error is P_ii = 4, a record with twice the averages 2 F_r.
* Worst: the largest V over all parameters within the calibrations' intervals |u| <= k and
  2 [ln L_max - ln L(u)] <= delta_chi2, ln L_max the best within the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backaction.errors import InputError, ModelError, nearest
from backaction.inference.model import Systems
from backaction.inference.posterior import Posterior
from backaction.inference.target import Evaluator
from backaction.numerics.matrices import Array
from backaction.states import entanglement, one_mode


@dataclass(frozen=True)
class Gain:
    """Sigma of the quantity `of` (V, or an occupation) now and after one improvement."""

    what: str
    kind: str
    now: float
    after: float
    of: str = "V"

    def __str__(self) -> str:
        return f"{self.what}: sigma({self.of}) {self.now:.4g} -> {self.after:.4g}"


@dataclass(frozen=True)
class Worst:
    """The largest EPR variance that data and calibrations allow, and where; `variance` at the maximum of the posterior."""

    record: str
    variance: float
    worst: float
    weight: float
    angle_deg: float
    delta_chi2: float
    interval: float
    at: dict[str, float]
    pushed: tuple[str, ...]
    status: str

    def __str__(self) -> str:
        words = "entangled even for" if self.worst < 1 else "not shown to be entangled for"
        return (
            f"{self.record}: {words} the worst model that the data allow: V <= {self.worst:.3f} (fit {self.variance:.3f}) "
            f"at a = {self.weight:.3f}, angle {self.angle_deg:.1f} deg, within {self.interval:g} sd of the calibrations and "
            f"chi-square {self.delta_chi2:g} of the best fit"
        )


class _Occupation:
    """Conditional occupation of one record's first mode at u, and its gradient by central differences of the solver."""

    def __init__(self, found: Posterior, record: str | None) -> None:
        names = [r.name for r in found.campaign.records]
        if record is not None and record not in names:
            raise InputError(f"no record '{record}'{nearest(record, names)}")
        self.systems: Systems = found.target.systems(0 if record is None else names.index(record))
        self.symbol = f"occupation of {self.systems.modes[0]}"

    def __call__(self, u: Array) -> Array:
        return np.asarray(one_mode.occupation(self.systems.conditional(u)))

    def slope(self, u: Array, steps: Array) -> Array:
        """Derivatives along the columns of `steps` (P, k)."""
        h, k = 1e-4, steps.shape[1]
        both = self(np.concatenate([u + h * steps.T, u - h * steps.T]))
        return (both[:k] - both[k:]) / (2 * h)


class _Variance(_Occupation):
    """V(u) of one record at its fixed (a, angle)."""

    def __init__(self, found: Posterior, record: str | None) -> None:
        names = [r.name for r in found.campaign.records]
        tails = {n: f"[{n}]" if len(names) > 1 else "" for n in names}
        known = {n: found.derived[k] for n, t in tails.items() if (k := f"conditional.epr.fixed{t}") in found.derived}
        if not known:
            raise InputError(f"{found.campaign.name}: no record with two modes: there is no EPR variance")
        if record is None:
            record = min(known, key=lambda n: float(np.nanmean(known[n].values)))
        elif record not in known:
            raise InputError(f"no record '{record}'{nearest(record, known)}")
        self.record, self.symbol = record, "V"
        self.weight, self.angle_deg = known[record].facts["weight"], known[record].facts["angle_deg"]
        self.systems: Systems = found.target.systems(names.index(record))

    def __call__(self, u: Array) -> Array:
        V = self.systems.conditional(u)
        return np.asarray(entanglement.epr_variance(V, self.weight, self.angle_deg))


def next_measurements(found: Posterior, record: str | None = None) -> list[Gain]:
    """Every calibration with half its error and every record with twice its averages, the most useful first.

    Raises
    ------
    InputError
        If no record has a mode, or `record` is unknown.
    """
    target, u = found.target, found.ready.mode.u
    if not any(n.startswith("conditional.") for n in found.derived):
        raise InputError(f"{found.campaign.name}: no record has a conditional state")
    two = any(n.startswith("conditional.epr.fixed") for n in found.derived)
    asked = _Variance(found, record) if two else _Occupation(found, record)
    g = asked.slope(u, np.eye(target.size))
    at_model = target.with_data(target.models(u))
    eye = np.eye(target.size)
    each = [at_model.only(k).evaluator().hessian(u) - eye for k in range(len(target.campaign.records))]
    total = sum(each) + eye

    def sigma(information: Array) -> float:
        return float(np.sqrt(g @ np.linalg.solve(information, g)))

    now, mix = sigma(total), target.mixing()
    out = []
    for i, p in enumerate(target.parameters):
        if (p.prior.mean is None and p.prior.median is None) or ":" in p.name:
            continue  # no calibration that could be better
        half = eye.copy()
        half[i, i] = 2.0  # of the normal scores z = M u, whose prior covariance is M M^T: twice the precision's root
        mixed = np.linalg.solve(mix, half @ mix)
        better = total - eye + mixed.T @ mixed
        out.append(Gain(f"half the error of {target.labels()[i]}", "calibration", now, sigma(better), asked.symbol))
    for r, F in zip(target.campaign.records, each, strict=True):
        out.append(Gain(f"twice the averages of {r.name}", "record", now, sigma(total + F), asked.symbol))
    if len(each) > 1:
        out.append(Gain("twice the averages of all records", "record", now, sigma(total + sum(each)), asked.symbol))
    return sorted(out, key=lambda x: x.after)


def advice(found: Posterior) -> list[Gain]:
    """`next_measurements`, [] where there is nothing that it could be asked of."""
    try:
        return next_measurements(found)
    except (InputError, ModelError, np.linalg.LinAlgError):
        return []


def worst_case(
    found: Posterior, record: str | None = None, delta_chi2: float = 4.0, interval: float = 2.0, seed: int = 0
) -> Worst:
    """The largest EPR variance that data and calibrations allow (SLSQP from several starts, exact data gradients).

    Raises
    ------
    InputError
        For a delta_chi2 or interval that is not positive.
    ModelError
        If no start leads to a maximum.
    """
    if not (delta_chi2 > 0 and interval > 0):
        raise InputError(f"worst case: chi-square {delta_chi2:g} and interval {interval:g} must be > 0")
    target, mode = found.target, found.ready.mode
    variance = _Variance(found, record)
    run = target.evaluator()
    centre, top = _best_within(run, mode.u, interval)
    best, u, status = _largest(variance, run, centre, mode.root, top, delta_chi2, interval, seed)
    if not np.isfinite(best):
        raise ModelError(f"{target.campaign.name}: no worst case was found within {interval:g} sd of the calibrations")
    labels = target.labels()
    values = target.values(u)
    order = np.argsort(-np.abs(u))
    pushed = tuple(labels[i] for i in order if abs(u[i]) > 0.98 * interval)
    return Worst(
        variance.record, float(variance(mode.u[None])[0]), best, variance.weight, variance.angle_deg, delta_chi2, interval,
        {labels[i]: float(values[i]) for i in order}, pushed, status,
    )  # fmt: skip


def _log_likelihood(run: Evaluator, u: Array) -> tuple[float, Array]:
    """Ln L of the data alone and its gradient: the posterior's without the prior's |u|^2/2."""
    value, slope = run.gradient(u)
    return value + 0.5 * float(u @ u), slope + u


def _best_within(run: Evaluator, start: Array, interval: float) -> tuple[Array, float]:
    """Where ln L is greatest within the intervals |u| <= `interval`, and its value."""
    from scipy import optimize

    inside = optimize.minimize(
        lambda u: tuple(-np.asarray(x) for x in _log_likelihood(run, u)), np.clip(start, -interval, interval), jac=True,
        method="L-BFGS-B", bounds=[(-interval, interval)] * start.size, options={"maxiter": 500},
    )  # fmt: skip
    return inside.x, -float(inside.fun)


def _largest(
    variance: _Variance,
    run: Evaluator,
    centre: Array,
    root: Array,
    top: float,
    delta_chi2: float,
    interval: float,
    seed: int,
) -> tuple[float, Array, str]:
    """The largest V (-inf where there is none), its u and how the search ended; searched in w, u = centre + root w."""
    from scipy import optimize

    def place(w: Array) -> Array:
        return centre + root @ w

    def room(w: Array) -> float:
        return delta_chi2 - 2 * (top - _log_likelihood(run, place(w))[0])

    constraints = [
        {"type": "ineq", "fun": room, "jac": lambda w: 2 * root.T @ _log_likelihood(run, place(w))[1]},
        {"type": "ineq", "fun": lambda w: interval - place(w), "jac": lambda w: -root},
        {"type": "ineq", "fun": lambda w: interval + place(w), "jac": lambda w: root},
    ]
    rng = np.random.default_rng(seed)
    g = variance.slope(centre, root)
    uphill = g / max(float(np.linalg.norm(g)), 1e-300)
    size = centre.size
    starts = [0.5 * uphill, 1.5 * uphill, 0.5 * (uphill + 0.5 * rng.standard_normal(size) / size**0.5)]
    best, best_w, status = -np.inf, np.zeros(size), "not converged"
    for start in starts:
        result = optimize.minimize(
            lambda w: -float(variance(place(w)[None])[0]), start, jac=lambda w: -variance.slope(place(w), root),
            constraints=constraints, method="SLSQP", options={"maxiter": 200, "ftol": 1e-7},
        )  # fmt: skip
        feasible = room(result.x) > -1e-3 * delta_chi2 and np.max(np.abs(place(result.x))) < interval * (1 + 1e-6)
        if feasible and -result.fun > best:
            best, best_w = -float(result.fun), result.x
            status = "maximum" if result.success else "not converged"
    return best, place(best_w), status


__all__ = ["Gain", "Worst", "advice", "next_measurements", "worst_case"]
