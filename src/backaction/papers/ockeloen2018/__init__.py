"""Ockeloen-Korppi et al., Stabilized entanglement of massive mechanical oscillators, Nature 556, 478 (2018)."""

from backaction.papers.frame import Paper
from backaction.papers.ockeloen2018 import calibrations
from backaction.papers.ockeloen2018.claims import CLAIMS
from backaction.papers.ockeloen2018.context import Ockeloen
from backaction.papers.ockeloen2018.figures import FIGURES
from backaction.papers.ockeloen2018.sections import SECTIONS

PAPER = Paper(
    key="ockeloen2018",
    reference="C. F. Ockeloen-Korppi et al., Stabilized entanglement of massive mechanical oscillators, Nature 556, 478-482 (2018); "
    "arXiv:1711.01640",
    context=Ockeloen,
    claims=(*CLAIMS, *calibrations.CLAIMS),
    figures={**FIGURES, **calibrations.FIGURES},
    sections={**SECTIONS, **calibrations.SECTIONS},
    intro="The supplement with the bath temperatures and detunings is not available: they are open here. Where a claim depends on them, "
    "the range is over all divisions of the heat between the cavity and the drums (n1:n2 = 41:30) that give the stated <X_+^2>, and over "
    "detunings Delta = 0, 4, 5.5 kHz and common detunings 0, -200, -370, -500 kHz; G refers to sqrt(g_1 g_2). Nominal: n_I = 4, n_1 = 82, "
    "n_2 = 60, no detunings (the shipped experiment).",
)
