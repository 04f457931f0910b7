"""Bins of digitised records: against the exact sampled model, for every sampling rule, and integrals over narrow lines."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, SpinOscillator
from backaction.inference.bins import bins
from backaction.systems.sampled import Digitiser, discretise

F = np.linspace(1.25e6, 1.49e6, 121)


@pytest.mark.parametrize(
    ("digitiser", "tolerance"),
    [
        (Digitiser(1e7), 3e-8),
        (Digitiser(4e6), 5e-6),
        (Digitiser(1e7, "instantaneous"), 3e-5),
        (Digitiser(1e7, "average", (4e6,)), 3e-9),
        (Digitiser(1e7, "instantaneous", (4e6, 6e6)), 1e-8),
    ],
)
def test_sampling_rules(thomas, digitiser, tolerance):
    """Points: the aliases of three replicas either side (twelve unfiltered ones) and what lies beyond are those of the exact sampled model."""
    got = bins(F, 1e-3, digitiser, 1).expected(thomas.system)
    assert_allclose(got, discretise(thomas.system, *digitiser).spectrum(F), rtol=tolerance)


@pytest.mark.parametrize(("sampling", "tolerance"), [("average", 1e-6), ("instantaneous", 2e-4)])
def test_demodulated_records(thomas, sampling, tolerance):
    """A lock-in's two currents: the density of z = x + i y at the current's frequency."""
    d = Digitiser(2e6, sampling, (3e5,), 1.37e6)
    m = discretise(thomas.system, *d)
    z = np.exp(-2j * np.pi * F * m.interval_s)
    left = m.H @ np.linalg.inv(z[:, None, None] * np.eye(m.F.shape[-1]) - m.F)
    cross = left @ m.N
    S = left @ m.Q @ np.conj(np.swapaxes(left, -1, -2)) + cross + np.conj(np.swapaxes(cross, -1, -2)) + m.R
    v = np.array([1, -1j])
    want = np.real(np.einsum("i,kij,j->k", v, S, v.conj())) * m.interval_s / 0.5
    assert_allclose(bins(F, 1e-3, d, 1).expected(thomas.system), want, rtol=tolerance)


def test_a_line_narrower_than_the_bin_is_integrated():
    """200 Hz wide bins over a line of 100 Hz: the mean over a fine grid, where the centre alone is 50 % off."""
    spin = SpinOscillator(name="s", larmor_hz=-3e5, intrinsic_linewidth_hz=100.0, readout_rate_hz=50.0, occupation=2.0)
    e = Experiment([spin, Homodyne(name="d")])
    f = 3e5 + 200.0 * np.arange(-20, 21)
    d = Digitiser(2e6)
    fine = discretise(e.system, *d).spectrum((f[:, None] + np.linspace(-100, 100, 2001)).ravel()).reshape(f.size, -1)
    want = np.trapezoid(fine, dx=1 / 2000, axis=1)
    assert_allclose(bins(f, 200.0, d, 12).expected(e.system), want, rtol=3e-5)
    assert np.max(np.abs(bins(f, 200.0, d, 1).expected(e.system) / want - 1)) > 0.2


def test_lines_among_the_aliases_have_their_own_points():
    """A mode above the Nyquist frequency: every bin sums its own aliases."""
    spin = SpinOscillator(name="s", larmor_hz=-1.37e6, intrinsic_linewidth_hz=2e3, readout_rate_hz=8e3, occupation=1.0)
    e = Experiment([spin, Homodyne(name="d")])
    f = np.linspace(3.0e5, 4.4e5, 300)  # 1.37 MHz sampled at 1 MHz appears at 370 kHz
    d = Digitiser(1e6)
    want = discretise(e.system, *d).spectrum(f)
    assert np.max(want) > 1.5
    assert_allclose(bins(f, 1e-3, d, 1, smooth=False).expected(e.system), want, rtol=1e-3)
