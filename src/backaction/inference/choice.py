"""Which likelihood a record is compared with: its bins about the stationary density, or its samples.

A periodogram's bins are Gamma about the stationary density where the record is much longer than the correlation time of
every line: width x duration large. Where it is not, the record holds one realisation of the line: its width in the
periodogram is that of the window, its strength a single draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from backaction.errors import BackactionError, InputError
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.experiment.toml import unit_bounds
from backaction.inference.data import Measured
from backaction.inference.parameter import Parameter
from backaction.inference.scatter import Likelihood
from backaction.inference.series import samples_of
from backaction.records.record import Record
from backaction.records.taken import band_of
from backaction.systems.poles import narrowest, pole
from backaction.systems.steady import unconditional

RESOLVED = 20.0
"""Width x duration from which a line is resolved: it is then drawn anew some sixty times in the record."""
ALLOWED_SD = 2.0
"""How far from the centre of its prior a parameter may be for a line to be unresolved."""
CENTRE = "at their centre"
"""Where a width is looked at first."""
START_FACTOR = 1000.0
"""Occupation of a free start over the stationary one; and the log-normal width of a fitted one (two of it: 10^6)."""


def compared(own: Measured, record: Record, shared: Mapping[str, Prior], likelihood: Likelihood) -> Measured:
    """The record with its samples, if these are to be compared with the model, and why.

    Raises
    ------
    InputError
        If `innovations` are asked for of a record that has no such likelihood.
    """
    kind = likelihood.kind
    if kind in ("gamma", "thomas2021") or (kind == "auto" and likelihood.model_error != 0.0):
        asked = f"kind = '{kind}'" if kind != "auto" else "a model error"
        return replace(own, why=f"{asked} was asked for")
    band = own.experiment.band_hz or band_of(own.experiment, record)
    priors = {**shared, **own.priors}
    width, at = narrow(own, priors, band)
    product = width * record.duration_s
    facts = f"a line of {width:.3g} Hz is allowed by the priors ({at})" if np.isfinite(width) else "there is no line"
    facts += f" in {record.duration_s:.3g} s: width x duration = {product:.2g}" if np.isfinite(width) else ""
    if kind == "auto" and not product < RESOLVED:
        return replace(own, why=f"{facts}: every line is resolved")
    reason = _impossible(own, record)
    if reason and kind == "innovations":
        raise InputError(f"{own.name}: [likelihood] kind = 'innovations': {reason}")
    if reason:
        why = (
            f"{facts}: not resolved, but {reason}: its bins are taken about the stationary density, where they are not"
        )
        return replace(own, why=why, warnings=(*own.warnings, why))
    starts = unresolved(own, priors, band, record.duration_s) if likelihood.start != "stationary" else ()
    why = (
        f"{facts}: "
        + ("not resolved, " if product < RESOLVED else "")
        + "the samples are fitted (innovations), not bins"
    )
    if starts:
        how = "anywhere" if likelihood.start == "free" else "with an occupation that is fitted"
        why += f"; {', '.join(starts)} may start {how}"
    more = (why,) if kind == "auto" else ()
    return replace(
        own, series=samples_of(record, own.calibration, band), starts=starts, why=why, warnings=(*own.warnings, *more)
    )


def _impossible(own: Measured, record: Record) -> str:
    """Why the samples of a record have no likelihood here ("": they have)."""
    if record.shots > 1:
        return f"{record.shots} shots have no innovations likelihood yet"
    if not own.experiment.layout.currents:
        return "nothing is detected"
    return ""


def _within(own: Measured, priors: Mapping[str, Prior]) -> Iterator[tuple[str, Experiment]]:
    """The experiment at the centre of its priors, and at both ends of each."""
    centre: dict[str, float] = {}
    ends: list[tuple[str, float]] = []
    e = own.experiment
    for name, prior in priors.items():
        if e.value(name) is None or (name in own.fixed and name not in own.priors):
            continue
        parameter = Parameter(name, prior, *unit_bounds(e, name))
        centre[name] = float(parameter.value(0.0))
        ends += [(name, float(parameter.value(u))) for u in (-ALLOWED_SD, ALLOWED_SD)]
    yield CENTRE, e.with_values(centre, "prior")
    for name, value in ends:
        yield f"{name} = {value:.4g}", e.with_values({**centre, name: value}, "prior")


def narrow(own: Measured, priors: Mapping[str, Prior], band_hz: tuple[float, float]) -> tuple[float, str]:
    """Full width of the narrowest line in the band (inf: none), and where.

    Of the reported modes: the least that the priors allow. Of all others the width at the priors' centre: somewhere in wide
    priors of several of them one is always dark, and of no strength.
    """
    least, at = np.inf, ""
    for where, e in _within(own, priors):
        try:
            widths = [w for _, w in _lines(e, band_hz, e.reported_modes())]
            everything = narrowest(e.system, band_hz) if where == CENTRE else None
        except BackactionError:  # no such model there
            continue
        width = min([*widths, *([] if everything is None else [everything])], default=np.inf)
        if width < least:
            least, at = width, where
    return float(least), at


def _lines(e: Experiment, band_hz: tuple[float, float], names: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The named modes whose pole lies in the band, and their full widths."""
    for name in names:
        rows = e.system.mode(name)
        if rows.stop - rows.start != 2:
            continue
        frequency, _ = pole(e.system, f"frequency_hz.{name}")
        if band_hz[0] <= frequency <= band_hz[1]:
            yield name, float(pole(e.system, f"linewidth_hz.{name}")[0])


def unresolved(
    own: Measured, priors: Mapping[str, Prior], band_hz: tuple[float, float], duration_s: float
) -> tuple[str, ...]:
    """The modes of such lines whose width x duration is small."""
    found: set[str] = set()
    for where, e in _within(own, priors):
        try:
            names = [m.name for m in e.system.modes] if where == CENTRE else e.reported_modes()
            found |= {n for n, width in _lines(e, band_hz, names) if 0 < width * duration_s < RESOLVED}
        except BackactionError:
            continue
    return tuple(m.name for m in own.experiment.system.modes if m.name in found)


def starting(experiment: Experiment, mode: str, start: str) -> float | Prior:
    """Occupation of an unresolved mode at the start: a number (`start` = "free"), or the prior of one ("fitted").

    The first state of such a mode says nothing about its stationary one: a particle that was just loaded, cooled or driven
    is not there yet, and one that is there is a single draw of an exponential distribution. Free: its complex amplitude is a
    parameter with a flat prior (a Gaussian of 10^3 times the stationary occupation), integrated over exactly by the filter:
    width and bath are then learnt from the motion alone. Fitted: the amplitude is Gaussian with an occupation whose prior is
    log-normal about the stationary one, by orders of magnitude. (Durbin and Koopman, Time Series Analysis by State Space
    Methods, 2nd ed., ch. 5.)
    """
    system = experiment.system
    rows = system.mode(mode)
    V = unconditional(system)[rows, rows]
    stationary = max(float(np.trace(V)) / 2 - 0.5, 1.0)
    return START_FACTOR * stationary if start == "free" else Prior(median=stationary, factor=START_FACTOR)
