"""Moller et al., Quantum back-action-evading measurement of motion in a negative mass frame, Nature 547, 191 (2017)."""

from backaction.papers.frame import Paper
from backaction.papers.moller2017.claims import CLAIMS
from backaction.papers.moller2017.context import Moller
from backaction.papers.moller2017.figures import FIGURES
from backaction.papers.moller2017.sections import SECTIONS

PAPER = Paper(
    key="moller2017",
    reference="C. B. Møller et al., Quantum back-action-evading measurement of motion in a negative mass reference frame, "
    "Nature 547, 191-195 (2017); arXiv:1608.03613",
    context=Moller,
    claims=CLAIMS,
    figures=dict(FIGURES),
    sections=dict(SECTIONS),
    intro="Computed from Table I as printed, both columns. Variances are areas of the model's spectra over the effective "
    "mechanical frequency ± 100 kHz, which the paper does not state, calibrated by the membrane's thermal area = 2 n_th "
    "(the paper's numbers are in units of hbar/(2 m Omega), half the x_zpf^2 of its text). Gamma_S is not printed: where a "
    'claim says "one free Gamma_S", the single value that fits the figure\'s four ratios best is used, n_S tied to it by '
    "C_S = 1.10; the table of readings shows what each other reading of the text would give.",
)
