"""The numbers of Moller 2017 and how each is computed from Table I. One free Gamma_S per figure where it says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backaction.constants import TWO_PI
from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.papers.frame import Claim, Computed
from backaction.papers.moller2017.context import Figure, Moller, bath_occupation, finesse, zero_point_fm
from backaction.papers.moller2017.formulas import FORMULAS
from backaction.systems.response import budget

CALIBRATION = 0.12
"""Relative error of every absolute QBA variance: C_M = 2.5 +- 0.3, which the paper names as the main one."""
FREE = (
    "One free Gamma_S, fitted to the figure's four ratios, n_S tied to it by C_S = 1.10: n_S = 2.9 (Fig. 3), 2.6 (Fig. 4), which "
    "is not the 0.9 or 1.8 that the text's 2.8 projection noises mean; with those see the table of readings."
)


def _db(x: float) -> float:
    return float(10 * np.log10(x))


def _cooperativity(f: Figure) -> float:
    """g_0^2 N/(2 kappa gamma_M0 n_bath) = Gamma_M/(4 gamma_M0 n_bath), half widths."""
    return f.paper.readout / (4 * f.paper.gamma0 * float(f.cavity.bath_occupation))


def _s1(f: Figure) -> float:
    """Right-hand side of (S1)."""
    p = f.paper
    up, down = (float(np.abs(p.L(s * p.omega))) ** 2 for s in (1, -1))
    return _cooperativity(f) / 2 * (up + down)


def _evasion(c: Moller, half_hz: float) -> Array:
    """QBA of the detuned hybrid over the membrane's at every frequency within `half_hz` of resonance."""
    figure = c.fig4
    f = figure.mechanics[0] + np.linspace(-half_hz, half_hz, 1001)
    hybrid, alone = (_light(e, f) for e in (figure.with_rate(figure.free_rate[0], -1), figure.at(0)))
    return hybrid / alone


def _deepest(c: Moller) -> float:
    """Offset in kHz at which the QBA density of the detuned hybrid is most below the membrane's."""
    figure = c.fig4
    offset = np.linspace(-10e3, 10e3, 2001)
    f = figure.mechanics[0] + offset
    less = _light(figure.at(0), f) - _light(figure.with_rate(figure.free_rate[0], -1), f)
    return float(offset[np.argmax(less)]) / 1e3


def _light(e: Experiment, f: Array) -> Array:
    b = budget(e.system, f)
    return np.asarray(b.total - b.sources["membrane.bath"] - b.sources["spin.bath"] - 1)


def _broadening(f: Figure) -> float:
    """L_0 delta-L at Omega_M over (gamma_M - gamma_M0)/Gamma_M."""
    p = f.paper
    exact = (f.mechanics[1] * TWO_PI - p.gamma0) / p.readout
    first_order = -p.omega * p.delta * p.kappa / (p.kappa**2 + p.delta**2) ** 1.5 * p.lorentzian
    return first_order / exact


def _squeezing(c: Moller, efficiency: float) -> Computed:
    values = [f.squeezing(efficiency, light)[0] for f in (c.fig3, c.fig4) for light in (False, True)]
    return min(values), max(values)


def _width(f: Figure) -> float:
    return f.mechanics[1] / 1e3


def _direct_area(f: Figure) -> float:
    """<X_M^2> by the printed formula, read as (1/Gamma_M) int (S_P - vacuum) dW/2pi, in hbar/(2 m Omega).

    P_out = P_in + sqrt(Gamma_M) X_M with vacuum 1/4 makes it the area above shot noise (SN Hz, one side) over Gamma_M.
    """
    return float(f.alone.total - f.alone.shot) / f.paper.readout


def _over_figures(function: Callable[[Figure], float]) -> Callable[[Moller], Computed]:
    def both(c: Moller) -> Computed:
        values = [function(f) for f in (c.fig3, c.fig4)]
        return min(values), max(values)

    return both


RATIOS = (
    ("fig3", "negative", 5.9 / 7.3, 0.05, True),
    ("fig3", "total", 11.2 / 11.6, 0.02, True),
    ("fig3", "positive", 11.2 / 7.3, 0.08, True),
    ("fig3", "spin", 1.0 / 7.3, 0.019, False),
    ("fig4", "negative", 4.1 / 6.0, 0.05, True),
    ("fig4", "total", 9.6 / 10.4, 0.02, True),
    ("fig4", "positive", 10.3 / 6.0, 0.10, True),
    ("fig4", "spin", 1.1 / 6.0, 0.025, False),
)
"""Figure, ratio, printed value, its error, whether the error is the paper's own."""
DECIBELS = (
    ("fig3", "negative", -1.0, 0.27),
    ("fig3", "positive", 1.7, 0.23),
    ("fig4", "negative", -1.7, 0.32),
    ("fig4", "positive", 2.4, 0.26),
)
"""Figure, ratio, printed value in dB, its error."""


def _ratio_claims() -> tuple[Claim, ...]:
    """The four ratios of each figure and the same in decibels."""
    text = {
        "negative": "QBA, negative mass over mechanics",
        "total": "total variance, negative mass over mechanics",
        "positive": "QBA, positive mass over mechanics",
        "spin": "spin thermal (negative) over mechanical QBA",
    }
    out = []
    for key, name, printed, error, stated in RATIOS:

        def compute(c: Moller, key: str = key, name: str = name) -> float:
            figure: Figure = getattr(c, key)
            return figure.fitted[name]

        where = "main text, Fig. " + key[-1]
        note = (
            FREE + " Printed: total - QBA - mechanical thermal; its error is that of C_S." if name == "spin" else FREE
        )
        out.append(Claim(f"{key}-{name}", where, text[name], printed, error, compute, stated=stated, note=note))
    for key, name, printed, error in DECIBELS:

        def decibels(c: Moller, key: str = key, name: str = name) -> float:
            figure: Figure = getattr(c, key)
            return _db(figure.fitted[name])

        where, words = "main text, Fig. " + key[-1], text[name] + " in dB"
        note = FREE + " Error: the stated one of the percentage, in dB."
        out.append(Claim(f"{key}-{name}-db", where, words, printed, error, decibels, "dB", note=note))
    return tuple(out)


def _absolute(key: str, qba: float, values: dict[str, float]) -> tuple[Claim, ...]:
    """Variances in hbar/(2 m Omega); their error is that of the membrane's QBA, 12 % by C_M."""
    hybrid = "main text, Fig. " + key[-1]
    notes = {
        "x2-qba": "2 n_min gamma_opt/gamma_M, without the vacuum unit that (S1) and the area contain, is within 2 % of the printed.",
        "x2-total": "Thermal 2 n_th plus QBA.",
    }

    def claim(name: str, text: str, compute: Callable[[Figure], float], where: str, error: float) -> Claim:
        def on(c: Moller) -> float:
            return float(compute(getattr(c, key)))

        printed = values[name]
        note = notes.get(name, FREE if "mass" in text else "") + (
            f" Error: {100 * CALIBRATION:g} % of the QBA, by C_M."
            if name != "x2-thermal"
            else " Error: +-0.5 K of 7 K."
        )
        return Claim(f"{key}-{name}", where, text, printed, error, on, "x_zpf^2", note=note.strip())

    def back_action(sign: int) -> Callable[[Figure], float]:
        return lambda f: f.x2(float(f.band(f.with_rate(f.free_rate[0], sign)).back_action))

    def total(f: Figure) -> float:
        b = f.band(f.with_rate(f.free_rate[0], -1))
        return f.x2(float(b.total - b.shot))

    own = "Methods, Fig. 2d" if key == "fig3" else hybrid
    return (
        claim(
            "x2-thermal", "thermal variance of the membrane", lambda f: f.x2(float(f.alone.thermal)), own, 4.3 * 0.5 / 7
        ),
        claim(
            "x2-qba", "QBA variance of the membrane", lambda f: f.x2(float(f.alone.back_action)), own, CALIBRATION * qba
        ),
        claim(
            "x2-total",
            "total variance of the membrane",
            lambda f: f.x2(float(f.alone.total - f.alone.shot)),
            own,
            CALIBRATION * qba,
        ),
        claim(
            "x2-negative", "QBA variance, negative mass", back_action(-1), hybrid, CALIBRATION * values["x2-negative"]
        ),
        claim("x2-negative-total", "total variance, negative mass", total, hybrid, CALIBRATION * values["x2-negative"]),
        claim(
            "x2-positive", "QBA variance, positive mass", back_action(1), hybrid, CALIBRATION * values["x2-positive"]
        ),
    )


CLAIMS: tuple[Claim, ...] = (
    # -- what a hybrid with one free Gamma_S gives --------------------------------------------------------------------
    *_ratio_claims(),
    *_absolute(
        "fig3",
        7.3,
        {
            "x2-thermal": 4.3,
            "x2-qba": 7.3,
            "x2-total": 11.6,
            "x2-negative": 5.9,
            "x2-negative-total": 11.2,
            "x2-positive": 11.2,
        },
    ),
    *_absolute(
        "fig4",
        6.0,
        {
            "x2-thermal": 4.4,
            "x2-qba": 6.0,
            "x2-total": 10.4,
            "x2-negative": 4.1,
            "x2-negative-total": 9.6,
            "x2-positive": 10.3,
        },
    ),
    Claim(
        "meet-negative",
        "main text, Fig. 3b",
        "spectra meet at the joint resonance: negative mass over membrane",
        1.0,
        0.05,
        lambda c: c.fig3.meeting()[0],
        note=FREE,
    ),
    Claim(
        "meet-positive",
        "main text, Fig. 3b",
        "spectra meet at the joint resonance: positive mass over membrane",
        1.0,
        0.05,
        lambda c: c.fig3.meeting()[1],
        note=FREE,
    ),
    Claim(
        "at-resonance",
        "main text, Fig. 4",
        "detuned hybrid: QBA is evaded at Omega_M (ratio < 1; 1: yes)",
        1,
        0.1,
        lambda c: float(_evasion(c, 10e3)[500] < 1),
        note="0.66 there. " + FREE,
    ),
    Claim(
        "broadband",
        "main text, Fig. 4",
        "detuned hybrid: broadband evasion, largest QBA ratio within 10 kHz",
        1,
        0.02,
        lambda c: float(np.max(_evasion(c, 10e3))),
        reason="near the spins' resonance, 5 kHz above, the model's QBA is 10 % above the membrane's; elsewhere below",
    ),
    Claim(
        "most-pronounced",
        "main text, Fig. 4",
        "detuned hybrid: offset from Omega_M at which the QBA density falls most",
        0,
        1,
        _deepest,
        "kHz",
        note="In density; as a ratio the evasion grows into the wings.",
    ),
    Claim(
        "phase",
        "main text",
        "rotation between the systems that suppresses best at 5.2 kHz",
        -7,
        0.5,
        lambda c: c.fig4.best_phase()[0],
        "deg",
        reason="the optimum of the model is -9 degrees, but flat: the suppression at -7 is 0.688 instead of 0.664",
        note="The paper prints 7 degrees; this sign for |Omega_S| above Omega_M. " + FREE,
    ),
    Claim(
        "classical",
        "main text",
        "hybrid over mechanical response to classical white noise",
        0.40,
        0.05,
        lambda c: (c.fig4.classical(-1), c.fig3.classical(-1)),
        note="Range: the two columns; the run is not specified.",
    ),
    # -- arithmetic of the printed numbers ----------------------------------------------------------------------------
    Claim(
        "fig3-negative-db-printed",
        "main text",
        "-1.0 dB from the printed 5.9/7.3",
        -1.0,
        0.05,
        lambda c: _db(5.9 / 7.3),
        "dB",
    ),
    Claim(
        "fig3-positive-db-printed",
        "main text",
        "1.7 dB from the printed 11.2/7.3",
        1.7,
        0.05,
        lambda c: _db(11.2 / 7.3),
        "dB",
        reason="the printed numbers give 1.86 dB (53 %), the text says 1.7 dB (50 %)",
    ),
    Claim("fig3-total-printed", "main text", "97 % from the printed 11.2/11.6", 0.97, 0.005, lambda c: 11.2 / 11.6),
    Claim(
        "fig4-negative-db-printed",
        "main text",
        "-1.7 dB from the printed 4.1/6.0",
        -1.7,
        0.05,
        lambda c: _db(4.1 / 6.0),
        "dB",
    ),
    Claim(
        "fig4-positive-db-printed",
        "main text",
        "2.4 dB from the printed 10.3/6.0",
        2.4,
        0.05,
        lambda c: _db(10.3 / 6.0),
        "dB",
    ),
    Claim("fig4-total-printed", "main text", "93 % from the printed 9.6/10.4", 0.93, 0.005, lambda c: 9.6 / 10.4),
    Claim("eta1-printed", "Methods, Table I", "eta_1 = 0.61 x 0.88", 0.53, 0.005, lambda c: 0.61 * 0.88),
    Claim("eta2-printed", "Methods, Table I", "eta_2 = 0.72 x 0.89", 0.64, 0.005, lambda c: 0.72 * 0.89),
    Claim(
        "eta2-fig4",
        "Methods, Table I",
        "eta_2 with the second column's 75 %: 0.75 x 0.89",
        0.64,
        0.005,
        lambda c: 0.75 * 0.89,
        reason="0.67; the Methods state one eta_2 = 0.64, which is used for both columns",
    ),
    Claim(
        "squeezing-printed",
        "Methods",
        "-1.7 dB corrected for 72 %",
        -2.6,
        0.05,
        lambda c: _db((10**-0.17 - 0.28) / 0.72),
        "dB",
    ),
    # -- optomechanics ------------------------------------------------------------------------------------------------
    Claim("cm", "main text", "C_M of Figs. 2 and 3", 2.5, 0.3, lambda c: _cooperativity(c.fig3), stated=True),
    Claim(
        "cm-table",
        "Table I",
        "C_M, first column",
        2.6,
        0.05,
        lambda c: _cooperativity(c.fig3),
        note="The entries of the table give 2.53; the text says 2.5.",
    ),
    Claim(
        "cm-fig4",
        "main text, Table I",
        "C_M of Fig. 4",
        2.2,
        0.05,
        lambda c: _cooperativity(c.fig4),
        note="2.11 from the entries of the table, at the edge of the rounding.",
    ),
    Claim(
        "broadening",
        "Methods F",
        "L_0 delta-L over (gamma_M - gamma_M0)/Gamma_M",
        1,
        0.01,
        lambda c: _broadening(c.fig3),
        note="Equal to lowest order only.",
    ),
    Claim(
        "s1",
        "(S1)",
        "QBA over thermal area equals C_M/2 (|L(W)|^2 + |L(-W)|^2)",
        1,
        0.01,
        lambda c: float(c.fig3.alone.back_action / c.fig3.alone.thermal) / _s1(c.fig3),
        note="0.7 % apart: the area counts the response of the filtered vacuum, (S1) is of weak coupling.",
    ),
    Claim("gamma-m", "Table I", "gamma_M, first column", 2.7, 0.05, lambda c: _width(c.fig3), "kHz"),
    Claim(
        "gamma-m-fig4",
        "Table I",
        "gamma_M, second column",
        2.7,
        0.05,
        lambda c: _width(c.fig4),
        "kHz",
        reason="2.55 kHz at N = 4.2e6; 2.58 at the 4.25e6 that 38 uW gives",
    ),
    Claim(
        "spring",
        "Methods",
        "optical spring shift",
        -10,
        2,
        lambda c: ((c.fig3.mechanics[0] - 1.28e6) / 1e3, (c.fig4.mechanics[0] - 1.28e6) / 1e3),
        "kHz",
        note="Said to be about 10 kHz.",
    ),
    Claim(
        "photons",
        "Table I",
        "intracavity photons from 54 uW",
        5.7,
        0.05,
        lambda c: c.fig3.photons(54e-6),
        "10^6",
        note="Needs the mode matching; without it 6.31.",
    ),
    Claim(
        "photons-fig4", "Table I", "intracavity photons from 38 uW", 4.2, 0.05, lambda c: c.fig4.photons(38e-6), "10^6"
    ),
    Claim("bath", "Table I", "n_bath at 7 K", 114, 0.5, lambda c: bath_occupation(), "10^3"),
    Claim("n-th", "Table I", "mean thermal occupancy, first column", 2.1, 0.05, lambda c: c.fig3.n_thermal()),
    Claim(
        "n-th-fig4",
        "Table I",
        "mean thermal occupancy, second column",
        2.1,
        0.05,
        lambda c: c.fig4.n_thermal(),
        reason="2.24: the table prints one value for both columns",
    ),
    Claim(
        "zpf",
        "Table I",
        "zero-point fluctuations",
        1,
        0.5,
        lambda c: zero_point_fm(),
        "fm",
        note="sqrt(hbar/(m Omega)) of the text; the printed variances are in units of half its square.",
    ),
    Claim("quality", "Methods", "mechanical quality factor", 13, 0.5, lambda c: 1.28e6 / (2 * 0.05) / 1e6, "10^6"),
    Claim("finesse", "Methods", "finesse at kappa = 7.7 MHz", 7500, 50, lambda c: finesse(7.7e6)),
    Claim("finesse-bare", "Methods", "finesse at kappa = 13 MHz", 4500, 50, lambda c: finesse(13e6)),
    Claim("finesse-mirrors", "Methods", "finesse from 20 and 1400 ppm", 4500, 50, lambda c: float(TWO_PI / 1420e-6)),
    Claim("ports", "Methods", "kappa_1/kappa_2 of the bare cavity from the mirrors", 70, 0.5, lambda c: 1400 / 20),
    Claim(
        "squeezing",
        "Methods, Fig. 2b",
        "ponderomotive squeezing of the reflected amplitude",
        -1.7,
        0.05,
        lambda c: _squeezing(c, 0.72),
        "dB",
        note="Range: both columns, with and without the unmatched light.",
    ),
    Claim(
        "squeezing-corrected",
        "Methods",
        "the same for a perfect detector",
        -2.6,
        0.05,
        lambda c: _squeezing(c, 1.0),
        "dB",
        note="Range as before.",
    ),
    Claim(
        "variance-formula",
        "Methods B",
        "<X_M^2> by int(P^2/Gamma_M - 1) over that by the thermal calibration",
        1,
        0.05,
        _over_figures(lambda f: _direct_area(f) / f.x2(float(f.alone.total - f.alone.shot))),
        reason="with detuning, a second port and losses the prefactor is not Gamma_M; shot noise is to be subtracted before",
    ),
    *FORMULAS,
)
