"""Technical noise: what each part of it costs, where unexplained lines may come from, measured floors.

A line in a photocurrent can enter before the cavity (and then drives the membrane too), be a further mode that sees the
same light, or be added at the detector. The record alone does not always tell; the conditional state differs. Lines are
therefore proposed in the words of an experiment, one proposal per place, and never added by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.technical import technical_sources, without
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import ResidualLine
from backaction.states import entanglement
from backaction.systems import steady
from backaction.systems.linear import LinearSystem
from backaction.systems.response import Response, budget
from backaction.systems.sampled import Digitiser, discretise, steady_filter
from backaction.tracking import wiener


@dataclass(frozen=True)
class Cost:
    """A conditional variance with a source of technical noise and without it; `source` "all" is all of them."""

    source: str
    variance: float
    without: float

    @property
    def loss(self) -> float:
        """What the source costs."""
        return self.variance - self.without

    def __str__(self) -> str:
        return f"{self.source} {self.loss:+.4f}"


def costs(experiment: Experiment, digitiser: Digitiser | None = None) -> list[Cost]:
    """What each source of technical noise costs in the conditional state, the largest first, and all of them together.

    For two modes the EPR variance at the full model's (a, angle); else the sum of the quadratures' variances. Of the
    continuous filter, or of the one of a record with this `digitiser`. Costs do not add up: noises hide each other.
    """
    view = experiment.view
    system, modes = view.system, view.modes

    def conditional(s: LinearSystem) -> Array:
        if digitiser is None:
            V = steady.conditional(s).covariance
        else:
            V = steady_filter(discretise(s, *digitiser)).covariance
        return np.asarray(view.of(V))

    full = conditional(system)
    best = entanglement.epr(full) if len(modes) == 2 else None

    def value(V: Array) -> float:
        return float(np.trace(V)) if best is None else float(entanglement.epr_variance(V, best.weight, best.angle_deg))

    sources = technical_sources(system, modes)
    out = [Cost(s, value(full), value(conditional(without(system, [s])))) for s in sources]
    out.sort(key=lambda c: -c.loss)
    if len(sources) > 1:
        out.insert(0, Cost("all", value(full), value(conditional(without(system, sources)))))
    return out


SAMPLING_TOLD = 0.01
"""Share of the efficiency beyond which what sampling costs is said."""


def sampling_loss(experiment: Experiment, sampled: Array) -> float | None:
    """The share of the detectors' efficiency whose loss takes the continuous filter to the filter of samples, V = `sampled`.

    Both are compared by the EPR variance of two reported modes (at the sampled filter's best weight and angle), else by the
    sum of the quadratures' variances. Averages over an interval, aliases and front ends all cost; None where no detector has
    an efficiency, or no efficiency does it.
    """
    from scipy.optimize import brentq

    named = [f"{d.name}.efficiency" for d in experiment.detectors() if "efficiency" in d.keys()]  # noqa: SIM118
    if not named:
        return None
    best = entanglement.epr(sampled) if len(experiment.reported_modes()) == 2 else None

    def value(V: Array) -> float:
        return float(np.trace(V)) if best is None else float(entanglement.epr_variance(V, best.weight, best.angle_deg))

    def excess(share: float) -> float:
        less = experiment.with_values({n: (1 - share) * float(np.real(experiment.value(n))) for n in named})
        return value(less.view.covariance("conditional")) - value(sampled)

    try:
        if excess(0.0) >= 0:
            return 0.0
        return float(brentq(excess, 0.0, 0.999, xtol=1e-5))
    except (ModelError, ValueError):
        return None


def sampling_sentence(loss: float | None) -> str:
    """`sampling costs 19 % of the efficiency`, where that is worth saying; else empty."""
    return f"sampling costs {100 * loss:.2g} % of the efficiency" if loss is not None and loss > SAMPLING_TOLD else ""


@dataclass(frozen=True)
class Proposal:
    """One place where an unexplained line may enter, as the TOML that would say so."""

    line: ResidualLine
    place: str
    toml: str


def proposals(experiment: Experiment, lines: Sequence[ResidualLine]) -> list[Proposal]:
    """For every line: before the first cavity, as a further mode of it, and at the detector.

    The numbers are starting values; give them priors and fit. V_c is quoted only from an experiment that says where its
    lines enter: at the detector the same spectrum leaves another state than before the cavity.
    """
    cavity = next((e for e in experiment.elements if e.mechanical), None)
    detector = experiment.detectors()[0].name if experiment.detectors() else "detector"
    out = []
    for n, line in enumerate(lines, 1):
        width = max(line.width_hz / 3, 1.0)
        noise = (
            '[[element]]\nname = "{name}"\nkind = "technical_noise"\nangle_deg = 90.0\n[[element.lines]]\n'
            f'name = "line{n}"\ncenter_hz = {line.frequency_hz:.7g}\nwidth_hz = {width:.3g}\npeak_sn = {{peak:.3g}}\n'
        )
        places: list[tuple[str, str]] = []
        if cavity is not None:
            places.append(
                (f"on the light, before '{cavity.name}'", noise.format(name=f"technical{n}", peak=line.excess))
            )
            mode = (
                f'[[element.modes]]          # within "{cavity.name}"\nname = "mode{n}"\n'
                f"mechanical_hz = {line.frequency_hz:.7g}\n"
                f"mechanical_linewidth_hz = {_real(cavity.value('mechanical_linewidth_hz')):.3g}\n"
                f"bath_occupation = 1e5\ncoupling_hz = {0.3 * _real(cavity.value('coupling_hz')):.4g}\n"
            )
            places.append((f"as a further mode of '{cavity.name}'", mode))
        places.append((f"at the detector, before '{detector}'", noise.format(name=f"technical{n}", peak=line.excess)))
        out += [Proposal(line, place, text) for place, text in places]
    return out


def _real(value: Any) -> float:
    return float(np.real(value)) if value is not None else 1e5


def measured_floor(
    experiment: Experiment, measured: Spectrum, density: float, duration_s: float, bandwidth_hz: float | None = None
) -> tuple[Array, Array]:
    """V_c of the finite-time Wiener filter for the current's measured spectrum, and for the model's (C6)-(C8).

    Within the measured band the record's own density (in units of `density`, one shot-noise unit) replaces the model's, its
    cross-spectra with the state kept (noise that was added at the detector); outside it the model holds. The excess is
    smoothed over 9 bins and not taken below zero: a filter cannot use statistical dips.

    Raises
    ------
    InputError
        If the band does not lie within `bandwidth_hz` (default: eight times its upper end).
    """
    system, modes = experiment.system, experiment.reported_modes()
    top = bandwidth_hz or 8 * float(measured.frequency_hz[-1])
    if measured.frequency_hz[-1] >= top:
        raise InputError(
            f"measured_floor: bandwidth {top:g} Hz: must be above the band's {measured.frequency_hz[-1]:g} Hz"
        )
    f = np.linspace(0.0, top, max(1 << 13, round(4 * top * duration_s)) + 1)
    model = Response.from_system(system, f, modes)
    own = model.spectrum()[:, -1, -1].real / 0.5
    kernel = np.ones(9) / 9
    at = budget(system, measured.frequency_hz).total
    smooth = np.convolve(np.pad(measured.density / density - at, 4, mode="edge"), kernel, "valid")
    excess = np.interp(f, measured.frequency_hz, np.maximum(smooth, 0.0), left=0.0, right=0.0)
    noisy = model.with_noise(experiment.system.currents[0], excess)
    return tuple(  # type: ignore[return-value]
        wiener.fir(wiener.correlations_from_spectra(r, duration_s, white_sn=float(own[-1]))).conditional
        for r in (noisy, model)
    )
