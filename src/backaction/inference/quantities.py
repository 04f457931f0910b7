"""What every draw of a posterior says of the states: variances, entanglement, occupations, expressions.

Conditional and unconditional covariances come from the compiled doubling, 10,000 draws in a fraction of a second. The EPR
variance is given at one fixed (a, angle), that of the mean covariance, which makes P(V < 1) a statement about one witness;
the optimum of every draw comes second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from backaction.errors import InputError
from backaction.experiment import results, technical
from backaction.experiment.experiment import Experiment
from backaction.experiment.ties import expression
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.states import entanglement, one_mode
from backaction.states.measures import ONE_MODE
from backaction.systems.linear import LinearSystem
from backaction.systems.rates import mode_rates
from backaction.systems.view import STATES


@dataclass(frozen=True, eq=False)
class DerivedQuantity:
    """Values of a derived quantity (chains, draws) and numbers that belong to it (weight, angle, probabilities)."""

    values: Array
    facts: dict[str, float] = field(default_factory=dict)


def quantities(target: Target, u: Array, asked: Mapping[str, str] | None = None) -> dict[str, DerivedQuantity]:
    """All derived quantities at draws u (chains, draws, P), by name; with several records `name[record]`.

    For two modes: `conditional.epr.fixed`, `conditional.epr.variance` (the optimum of each draw), `unconditional.epr.fixed`
    (at the conditional's a, angle), `conditional.ppt_min`, `conditional.log_negativity` (none where the modes do not meet);
    `bare.` the same without technical noise and further modes. For one: `conditional.occupation.MODE` and the other words of
    `states.one_mode`, `unconditional.occupation.MODE`, and `rates.back_action.MODE`, ... in quanta/s (`systems.rates`).
    `asked` adds results by name and expressions over fields.

    Raises
    ------
    InputError
        For an unknown result or field in `asked`.
    """
    flat, shape = u.reshape(-1, u.shape[-1]), u.shape[:-1]
    several = len(target.campaign.records) > 1
    out: dict[str, DerivedQuantity] = {}
    for k, record in enumerate(target.campaign.records):
        tail = f"[{record.name}]" if several else ""
        for prefix, bare in (("", False), ("bare.", True)) if modes(record.experiment) else ():
            if bare and not technical.bare(record.experiment)[0]:
                continue
            found = _of_state(target, k, flat, bare)
            out |= {
                f"{prefix}{name}{tail}": DerivedQuantity(q.values.reshape(shape), q.facts) for name, q in found.items()
            }
        for name, text in (asked or {}).items():
            values = _asked(target, k, flat, text)
            if values is not None:
                out[f"{name}{tail}"] = DerivedQuantity(np.broadcast_to(values, (len(flat),)).reshape(shape).copy())
    return out


def modes(experiment: Experiment) -> tuple[str, ...]:
    """The reported modes, () where there is none."""
    kinds = {m.kind for m in experiment.system.modes}
    return experiment.reported_modes() if experiment.modes or "oscillator" in kinds else ()


def _of_state(target: Target, k: int, u: Array, bare: bool) -> dict[str, DerivedQuantity]:
    systems = target.systems(k, bare)
    V = systems.conditional(u)
    good = np.all(np.isfinite(V), axis=(-2, -1))
    if not np.any(good):
        return {}
    safe = np.where(good[:, None, None], V, np.eye(V.shape[-1]))
    out: dict[str, DerivedQuantity] = {}

    def put(name: str, values: Array, **facts: float) -> None:
        out[name] = DerivedQuantity(np.where(good, values, np.nan), facts)

    if len(systems.modes) != 2:
        U = systems.unconditional(u)
        for i, mode in enumerate(systems.modes):
            own = slice(2 * i, 2 * i + 2)
            for word, of in ONE_MODE.items():
                put(f"conditional.{word}.{mode}", of(safe[:, own, own]))
            put(f"unconditional.occupation.{mode}", one_mode.occupation(U[:, own, own]))
        put("conditional.purity", 1 / (2 ** len(systems.modes) * np.sqrt(np.linalg.det(safe))))
        if not bare:
            built = target.experiment(k, u).system
            for mode in systems.modes:
                for word, values in _rates(built, mode).items():
                    put(f"rates.{word}.{mode}", np.broadcast_to(values, good.shape))
        return out
    if not np.any(safe[:, :2, 2:]):
        return out  # the two modes never meet in this record
    mean = entanglement.epr(np.mean(V[good], axis=0))
    a, b = float(mean.weight), float(mean.angle_deg)
    fixed = entanglement.epr_variance(safe, a, b)
    nu = entanglement.ppt_min(safe)
    put("conditional.epr.fixed", fixed, weight=a, angle_deg=b, probability_below_1=_share(fixed[good] < 1))
    best = entanglement.epr(safe).variance
    put("conditional.epr.variance", best, probability_below_1=_share(best[good] < 1))
    put("conditional.ppt_min", nu, probability_below_half=_share(nu[good] < 0.5))
    put("conditional.log_negativity", np.maximum(0.0, -np.log2(2 * nu)))
    U = systems.unconditional(u)
    put("unconditional.epr.fixed", entanglement.epr_variance(U, a, b), weight=a, angle_deg=b)
    return out


def _rates(system: LinearSystem, mode: str) -> dict[str, Array]:
    """Rates in quanta/s, total efficiency and cooperativity of a mode, by name."""
    r = mode_rates(system, mode)
    return {
        "back_action": r.back_action, "thermal": r.thermal, "decoherence": r.decoherence, "measurement": r.measurement,
        "eta_total": r.eta_total, "cooperativity": r.cooperativity,
    }  # fmt: skip


def _share(inside: Array) -> float:
    return float(np.mean(inside))


def _asked(target: Target, k: int, u: Array, text: str) -> Array | None:
    """A result by name, or an expression over fields, of one record at all draws."""
    experiment = target.experiment(k, u)
    if text.split(".")[0] in (*STATES, results.DYNAMICS):
        return np.asarray(results.evaluate(text, experiment), dtype=float)
    try:
        rule = expression(text)
        if not rule.names:
            raise InputError("names no field")
        with np.errstate(all="ignore"):
            return np.asarray(rule(lambda name: np.asarray(experiment.value(name), dtype=float)), dtype=float)
    except InputError as error:
        raise type(error)(f"[derived] '{text}': {error}") from None
