"""The numbers of Moller 2017 and how each is computed from Table I. One free Gamma_S per figure where it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.papers.frame import Claim, Computed
from backaction.papers.moller2017.context import Figure, Moller, bath_occupation, finesse, zero_point_fm
from backaction.papers.moller2017.formulas import FORMULAS

ABSOLUTE = (
    "the full model is 12-14 % above the printed QBA variances; 2 n_min gamma_opt/gamma_M, i.e. without the vacuum unit "
    "that (S1) and the area contain, is within 2 % of them"
)
FREE = "One free Gamma_S for the figure's four ratios, n_S tied to it by C_S = 1.10."


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


def _wings(c: Moller) -> Computed:
    return c.fig3.meeting()


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


def _ratio_claims() -> tuple[Claim, ...]:
    """The four ratios of each figure and the same in decibels."""
    out = []
    words = {
        "fig3": (
            "main text, Fig. 3",
            {
                "negative": (5.9 / 7.3, 0.05, True),
                "total": (0.97, 0.02, True),
                "positive": (1.5, 0.08, True),
                "spin": (1.0 / 7.3, 0.019, False),
            },
        ),
        "fig4": (
            "main text, Fig. 4",
            {
                "negative": (0.68, 0.05, True),
                "total": (0.93, 0.02, True),
                "positive": (1.7, 0.10, True),
                "spin": (1.1 / 6.0, 0.025, False),
            },
        ),
    }
    text = {
        "negative": "QBA, negative mass over mechanics",
        "total": "total variance, negative mass over mechanics",
        "positive": "QBA, positive mass over mechanics",
        "spin": "spin thermal (negative) over mechanical QBA",
    }
    for key, (where, values) in words.items():
        for name, (printed, error, stated) in values.items():

            def compute(c: Moller, key: str = key, name: str = name) -> float:
                figure: Figure = getattr(c, key)
                return figure.fitted[name]

            note = (
                FREE
                if name != "spin"
                else FREE + " Printed: total - QBA - mechanical thermal; its error is that of C_S."
            )
            out.append(Claim(f"{key}-{name}", where, text[name], printed, error, compute, stated=stated, note=note))
    db = (
        ("fig3", "negative", -1.0, 0.27),
        ("fig3", "positive", 1.7, 0.23),
        ("fig4", "negative", -1.7, 0.32),
        ("fig4", "positive", 2.4, 0.26),
    )
    for key, name, printed, error in db:

        def decibels(c: Moller, key: str = key, name: str = name) -> float:
            figure: Figure = getattr(c, key)
            return _db(figure.fitted[name])

        out.append(
            Claim(
                f"{key}-{name}-db",
                words[key][0],
                text[name] + " in dB",
                printed,
                error,
                decibels,
                "dB",
                note=FREE + " Error: the stated one of the percentage, in dB.",
            )
        )
    return tuple(out)


def _absolute(key: str, printed: dict[str, float]) -> tuple[Claim, ...]:
    """Variances in hbar/(2 m Omega)."""
    where = f"Methods, {'Figs. 2d, 3' if key == 'fig3' else 'Fig. 4'}"

    def claim(name: str, text: str, compute: Callable[[Figure], float], reason: str = ABSOLUTE) -> Claim:
        def on(c: Moller) -> float:
            return float(compute(getattr(c, key)))

        return Claim(f"{key}-{name}", where, text, printed[name], 0.05, on, "x_zpf^2", reason=reason)

    def qba(sign: int) -> Callable[[Figure], float]:
        return lambda f: f.x2(float(f.band(f.with_rate(f.free_rate[0], sign)).back_action))

    return (
        claim(
            "x2-thermal",
            "thermal variance of the membrane",
            lambda f: f.x2(float(f.alone.thermal)),
            "2 n_th = 2 n_bath gamma_M0/gamma_M = 4.48 with the column's N; the difference of two printed numbers",
        ),
        claim("x2-qba", "QBA variance of the membrane", lambda f: f.x2(float(f.alone.back_action))),
        claim("x2-total", "total variance of the membrane", lambda f: f.x2(float(f.alone.total - f.alone.shot))),
        claim("x2-negative", "QBA variance, negative mass", qba(-1)),
        claim("x2-positive", "QBA variance, positive mass", qba(1)),
    )


def _number(value: float) -> Callable[[Any], float]:
    return lambda c: value


CLAIMS: tuple[Claim, ...] = (
    # -- what a hybrid with one free Gamma_S gives --------------------------------------------------------------------
    *_ratio_claims(),
    *_absolute("fig3", {"x2-thermal": 4.3, "x2-qba": 7.3, "x2-total": 11.6, "x2-negative": 5.9, "x2-positive": 11.2}),
    *_absolute("fig4", {"x2-thermal": 4.4, "x2-qba": 6.0, "x2-total": 10.4, "x2-negative": 4.1, "x2-positive": 10.3}),
    Claim(
        "meet",
        "main text, Fig. 3b",
        "the three spectra meet at the joint resonance (ratio 1)",
        1.0,
        0.05,
        _wings,
        note="Negative and positive over mechanics at omega_M,eff. " + FREE,
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
        reason="the entries of the table give 2.53 (the text says 2.5)",
    ),
    Claim("cm-fig4", "main text, Table I", "C_M of Fig. 4", 2.2, 0.05, lambda c: _cooperativity(c.fig4)),
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
