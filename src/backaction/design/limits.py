"""What limits a result and what to change: logarithmic sensitivities, and the value with each imperfection removed.

    sensitivity of f to a field p    d ln|f| / d ln|p| = (p/f) df/dp        from exact gradients
    without an imperfection A        f with the fields of A at their ideal values, all else as it is
    two at a time, where             |f(AB) - f(A) - f(B) + f| > 10 % of the larger single change

Removing one thing says what it costs while the others stay; where two hide each other, neither costs much alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.derivatives import value_and_gradient
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import evaluate, parse
from backaction.numerics.matrices import Array

IDEAL: dict[str, tuple[str, str, float]] = {
    "transmission": ("loss", "transmission", 1.0),
    "overcoupling": ("cavity loss", "overcoupling", 1.0),
    "mode_matching": ("mismatch", "mode_matching", 1.0),
    "efficiency": ("inefficiency", "efficiency", 1.0),
    "electronic_noise_sn": ("electronic noise", "electronic_noise_sn", 0.0),
    "floor_sn": ("technical noise", "floor_sn", 0.0),
    "peak_sn": ("technical noise", "peak_sn", 0.0),
    "excess_sn": ("technical noise", "excess_sn", 0.0),
    "broadband_noise_sn": ("broadband noise", "broadband_noise_sn", 0.0),
    "broadband_readout_rate_hz": ("broadband noise", "broadband_readout_rate_hz", 0.0),
    "purity": ("impurity", "purity", 1.0),
    "occupation": ("temperature", "occupation", 0.0),
    "temperature_k": ("temperature", "occupation", 0.0),
    "bath_occupation": ("temperature", "bath_occupation", 0.0),
    "bath_temperature_k": ("temperature", "bath_occupation", 0.0),
}
"""By the name of a field: what it makes imperfect, the field that is set instead, and its ideal value."""
NOT_IMPERFECT = {"beam_splitter"}
"""Kinds of elements whose transmission is what they are for."""
LOSSES = ("loss", "cavity loss", "mismatch", "inefficiency")
TOGETHER = ("all losses", "all of these")
"""What is removed together."""
INTERACTING, WORTH_SAYING = 0.1, 1e-3
"""Share of the larger single change beyond which two interact, and share of the value below which none is said."""
PAIRED = 12
"""Imperfections with the largest changes, of which two at a time are looked at."""
DRAWS = 200
"""Draws of a posterior for an interval."""


@dataclass(frozen=True)
class FieldSensitivity:
    """Derivative of a result by one field, and the logarithmic one where value and field are not zero."""

    field: str
    value: float
    derivative: float | None
    log_derivative: float | None

    def document(self) -> dict[str, Any]:
        """Plain data."""
        return vars(self).copy()


@dataclass(frozen=True)
class Without:
    """The result with something removed; `value` is None with a `reason` where there is no answer.

    `interaction` of two at a time: f(AB) - f(A) - f(B) + f. `interval`: 5 and 95 % over the draws of a posterior.
    """

    what: str
    fields: tuple[str, ...]
    value: float | None
    change: float | None
    reason: str = ""
    interaction: float | None = None
    interval: tuple[float, float] | None = None

    def document(self) -> dict[str, Any]:
        """Plain data; `q05`, `q95`, `interaction`, `reason` where there are any."""
        out: dict[str, Any] = {
            "what": self.what,
            "fields": list(self.fields),
            "value": self.value,
            "change": self.change,
        }
        if self.interval is not None:
            out |= {"q05": self.interval[0], "q95": self.interval[1]}
        if self.interaction is not None:
            out["interaction"] = self.interaction
        return out | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Limits:
    """What `find_limits` found: sensitivities and what removing things does, the largest first."""

    experiment: str
    of: str
    value: float
    sensitivities: tuple[FieldSensitivity, ...]
    without: tuple[Without, ...]
    interval: tuple[float, float] | None = None

    @property
    def singles(self) -> tuple[Without, ...]:
        """One imperfection removed."""
        return tuple(w for w in self.without if w.interaction is None and w.what not in TOGETHER)

    @property
    def pairs(self) -> tuple[Without, ...]:
        """Two removed that interact."""
        return tuple(w for w in self.without if w.interaction is not None)

    @property
    def together(self) -> tuple[Without, ...]:
        """All losses, and everything."""
        return tuple(w for w in self.without if w.what in TOGETHER)

    def document(self) -> dict[str, Any]:
        """The JSON document of `backaction limits`: schema `backaction/limits/1`."""
        out: dict[str, Any] = {
            "schema": "backaction/limits/1", "experiment": self.experiment, "of": self.of, "value": self.value,
        }  # fmt: skip
        if self.interval is not None:
            out |= {"q05": self.interval[0], "q95": self.interval[1]}
        return out | {
            "sensitivities": [s.document() for s in self.sensitivities],
            "without": [w.document() for w in self.without],
        }


def default_result(experiment: Experiment) -> str:
    """The EPR variance of two modes, else the occupation of the first; conditional where something is detected."""
    modes = experiment.reported_modes()
    state = "conditional" if experiment.layout.currents else "unconditional"
    return f"{state}.epr.variance" if len(modes) == 2 else f"{state}.occupation.{modes[0]}"


@dataclass(frozen=True)
class Imperfection:
    """Something that could be better: a word, where it is, and the ideal values of its fields."""

    kind: str
    what: str
    ideal: Mapping[str, float]


def imperfections(experiment: Experiment) -> list[Imperfection]:
    """Losses, inefficiencies, mismatch, technical noise, temperatures and further modes, element by element."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for path in experiment.fields():
        owner, _, name = path.rpartition(".")
        element = experiment.element(path.partition(".")[0])
        if element.mechanical and "." in owner and name in ("coupling_hz", "single_photon_coupling_hz"):
            kind, goal, ideal = "further mode", name, 0.0
        elif name in IDEAL and element.kind not in NOT_IMPERFECT:
            kind, goal, ideal = IDEAL[name]
        else:
            continue
        if np.any(np.real(np.asarray(experiment.value(path))) != ideal):
            where = element.name if kind == "technical noise" else owner
            found.setdefault((kind, where), {})[f"{owner}.{goal}"] = ideal
    return [Imperfection(kind, f"{kind} of {where}", values) for (kind, where), values in found.items()]


def find_limits(
    experiment: Experiment, of: str | None = None, draws: Mapping[str, Array] | None = None, pairs: bool = True
) -> Limits:
    """What limits `of` (a result's name; default: `default_result`).

    With `draws`, {field: values (draws,)} of a posterior, the experiment should be at their mean; values without something
    then carry the 5 and 95 % of up to 200 draws.

    Raises
    ------
    InputError
        For an unknown result.
    ModelError
        If the result itself has no answer.
    """
    of = of or default_result(experiment)
    parse(of, experiment)
    value = float(np.real(evaluate(of, experiment)))
    if not np.isfinite(value):
        raise ModelError(f"{of} has no value for '{experiment.name}'")
    ask = _Asked(of, experiment, value, _thinned(draws))
    parts = imperfections(experiment)
    singles = [ask.without(p.what, [p]) for p in parts]
    out = sorted(singles, key=_size)
    if pairs:
        known = [p for p in zip(parts, singles, strict=True) if p[1] in out[:PAIRED]]
        both = [ask.pair(*two) for two in combinations(known, 2)]
        out += sorted((b for b in both if b is not None), key=lambda w: -abs(w.interaction or 0.0))
    lossy = [p for p in parts if p.kind in LOSSES]
    if len(lossy) > 1:
        out.append(ask.without(TOGETHER[0], lossy))
    if len(parts) > max(1, len(lossy)):
        out.append(ask.without(TOGETHER[1], parts))
    slopes = _sensitivities(of, experiment, value, ask.draws)
    return Limits(experiment.name, of, value, slopes, tuple(out), ask.interval({}))


def _size(w: Without) -> float:
    return -abs(w.change) if w.change is not None else 0.0


def _thinned(draws: Mapping[str, Array] | None) -> dict[str, Array]:
    out = {}
    for field, values in (draws or {}).items():
        flat = np.ravel(values)
        out[field] = flat[np.linspace(0, flat.size - 1, min(DRAWS, flat.size)).astype(int)]
    return out


@dataclass(frozen=True)
class _Asked:
    """A result of an experiment with some fields at their ideal values."""

    of: str
    experiment: Experiment
    value: float
    draws: Mapping[str, Array]

    def without(self, what: str, parts: Sequence[Imperfection], spread: bool = True) -> Without:
        changes = {k: v for p in parts for k, v in p.ideal.items()}
        fields = tuple(changes)
        try:
            found = float(np.real(evaluate(self.of, self.experiment.with_values(changes, "limits"))))
        except (ModelError, InputError) as error:
            return Without(what, fields, None, None, str(error))
        if not np.isfinite(found):
            return Without(what, fields, None, None, "no value")
        return Without(what, fields, found, found - self.value, interval=self.interval(changes) if spread else None)

    def pair(self, a: tuple[Imperfection, Without], b: tuple[Imperfection, Without]) -> Without | None:
        """Both removed, where that is more or less than the sum of the two."""
        (first, one), (second, other) = a, b
        if one.change is None or other.change is None:
            return None
        both = self.without(f"{first.what} and {second.what}", [first, second], False)
        if both.change is None:
            return None
        interaction = both.change - one.change - other.change
        larger = max(abs(one.change), abs(other.change))
        if abs(interaction) <= max(INTERACTING * larger, WORTH_SAYING * abs(self.value)):
            return None
        interval = self.interval({**first.ideal, **second.ideal})
        return replace(both, interaction=interaction, interval=interval)

    def interval(self, changes: Mapping[str, float]) -> tuple[float, float] | None:
        """5 and 95 % over the draws, None without any."""
        if not self.draws:
            return None
        try:
            values = evaluate(self.of, self.experiment.with_values(self.draws, "draws").with_values(changes, "limits"))
        except (ModelError, InputError):
            return None
        good = np.asarray(values)[np.isfinite(values)] if np.ndim(values) else np.empty(0)
        return (float(np.quantile(good, 0.05)), float(np.quantile(good, 0.95))) if good.size else None


def _sensitivities(
    of: str, experiment: Experiment, value: float, drawn: Collection[str]
) -> tuple[FieldSensitivity, ...]:
    """All fields with a prior or of a posterior, and all numbers that are not zero."""
    known = {*experiment.priors, *drawn}
    fields = [f for f in experiment.fields() if f in known or float(np.real(experiment.value(f))) != 0]
    if not fields:
        return ()
    slopes = value_and_gradient(of, experiment, fields)[1]
    out = []
    for field, slope in zip(fields, np.real(slopes), strict=True):
        at = float(np.real(experiment.value(field)))
        there = bool(np.isfinite(slope))
        log = float(at * slope / value) if there and value != 0 and at != 0 else None
        out.append(FieldSensitivity(field, at, float(slope) if there else None, log))
    return tuple(sorted(out, key=lambda s: (s.log_derivative is None, -abs(s.log_derivative or 0.0), s.field)))
