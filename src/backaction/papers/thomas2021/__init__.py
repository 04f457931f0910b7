"""Thomas et al., Entanglement between distant macroscopic mechanical and spin systems, Nature Physics 17, 228 (2021)."""

from backaction.papers.frame import Paper
from backaction.papers.thomas2021 import calibrations
from backaction.papers.thomas2021.claims import CLAIMS
from backaction.papers.thomas2021.context import Thomas
from backaction.papers.thomas2021.figures import FIGURES
from backaction.papers.thomas2021.sections import SECTIONS

PAPER = Paper(
    key="thomas2021",
    reference="R. A. Thomas et al., Entanglement between distant macroscopic mechanical and spin systems, "
    "Nature Physics 17, 228-233 (2021); arXiv:2003.11310",
    context=Thomas,
    claims=(*CLAIMS, *calibrations.CLAIMS),
    figures={**FIGURES, **calibrations.FIGURES},
    sections=dict(SECTIONS),
    intro="Computed from Table I as printed: phi = 180 degrees, |omega_S| - omega_M,eff = -gamma_M/2, g = g_0 sqrt(N) as "
    "the paper's g. Where the text leaves something open, the range over it is shown. Figs. 5 and 6 are simulated from it "
    "and fitted by `calibrate`; Fig. 12 needs the posterior (`fit thomas2021`) and is not here.",
)
