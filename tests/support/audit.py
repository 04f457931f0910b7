"""Simulated analyses for the audit of verdicts: truths, calibrations with errors, records that the package did not make.

Records are Gaussian noise synthesised in the frequency domain from the matrices of a system (modal sums, sinc^2 of interval
averages, aliases), so that neither the package's simulator nor its sampled models take part.
"""

from __future__ import annotations

import numpy as np

RATE = 1e7
ALIASES = 6


def spectrum(system, f):
    """S(f) of the first current, two-sided, in shot-noise units: |C (-iw - A)^-1 B + D|^2 S, by modes of A."""
    current = system.detected()
    B, S, C, D = system.B, system.S, current.C[0], current.D[0]
    values, right = np.linalg.eig(system.A)
    left = np.linalg.solve(right, B.astype(complex))
    out = np.zeros(f.shape)
    c = C @ right
    for k in range(B.shape[1]):
        H = np.full(f.shape, D[k], dtype=complex)
        for j, value in enumerate(values):
            H += c[j] * left[j, k] / (-2j * np.pi * f - value)
        if S[k, k]:
            out += np.abs(H) ** 2 * S[k, k]
    assert np.allclose(S, np.diag(np.diag(S)))
    return 2 * out


def synthesised(system, duration_s, rng, scale=1.0, shift=None):
    """A record of interval averages with the spectrum of `system`; `shift(t)` blends in a second system (drifts)."""
    size = int(duration_s * RATE)
    f = np.fft.rfftfreq(size, 1 / RATE)
    white = spectrum(system, np.array([1e12]))[0]
    S = (spectrum(system, f) - white) * np.sinc(f / RATE) ** 2 + white
    coarse = np.linspace(0, RATE / 2, 2001)
    far = np.zeros(coarse.shape)
    for k in range(1, ALIASES + 1):
        for sign in (1, -1):
            at = coarse + sign * k * RATE
            far += (spectrum(system, np.abs(at)) - white) * np.sinc(at / RATE) ** 2
    S += np.interp(f, coarse, far)
    z = rng.standard_normal(f.size) + 1j * rng.standard_normal(f.size)
    z[0] = 0.0
    return scale**0.5 * np.fft.irfft(z * np.sqrt(S * size / 2), size)
