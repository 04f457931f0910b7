"""Exact SI constants (CODATA 2018 / SI 2019: fixed by definition)."""

HBAR = 1.054571817646156391262428003302280744e-34
"""Reduced Planck constant h/(2 pi), J s (h = 6.62607015e-34 J s exactly)."""

K_B = 1.380649e-23
"""Boltzmann constant, J/K (exact)."""

C_LIGHT = 299792458.0
"""Speed of light in vacuum, m/s (exact)."""

MU_B_HZ = 1.39962449361e10
"""Bohr magneton over h, Hz/T (CODATA 2018)."""

TWO_PI = 6.283185307179586476925286766559
"""2 pi."""
