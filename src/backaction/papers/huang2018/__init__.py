"""Huang et al., Unconditional steady-state entanglement by coherent noise cancellation, PRL 121, 103602 (2018)."""

from backaction.papers.frame import Paper
from backaction.papers.huang2018.claims import CLAIMS
from backaction.papers.huang2018.context import Huang
from backaction.papers.huang2018.figures import FIGURES
from backaction.papers.huang2018.sections import SECTIONS

PAPER = Paper(
    key="huang2018",
    reference="X. Huang, E. Zeuthen, D. V. Vasilyev, Q. He, K. Hammerer, E. S. Polzik, Unconditional steady-state entanglement in "
    "macroscopic hybrid systems by coherent noise cancellation, Phys. Rev. Lett. 121, 103602 (2018); arXiv:1801.02569",
    context=Huang,
    claims=CLAIMS,
    figures=dict(FIGURES),
    sections=dict(SECTIONS),
    intro="Computed at gamma_S0 = 5 kHz, n_S = 1, gamma_M0 = 0.1 Hz, n_M = 1e5 (r = 1.33334; the n_M -> infinity of some figures changes "
    "nothing that is shown). Every optimum is found by `optimize` over both angles in [0, 90 degrees] and C_M, at the pair (g) that the "
    "light reads out; nothing is taken from the paper's asymptotics. The paper prints few numbers: most claims are its statements and "
    "formulas, with a width of ours.",
)
