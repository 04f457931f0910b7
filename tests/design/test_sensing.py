"""Sensing: against closed forms, quadrature, the simulator's matched filter, and physical limits."""

import json

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, stats

from backaction import Experiment, Homodyne, OptomechanicalCavity, Oscillator, SidebandOscillator
from backaction.constants import HBAR, K_B
from backaction.design.sensing import (
    Lorentzian,
    Signal,
    WaveformVariance,
    force_scale,
    roc,
    sensitivity,
    waveform_variance,
)
from backaction.errors import InputError, ModelError
from backaction.papers.huang2018.context import Huang
from backaction.papers.huang2018.models import force_variance
from backaction.systems.response import Response, budget, transfer
from support.commands import call, schema
from support.networks import experiments


@pytest.fixture(scope="module")
def context():
    return Huang()


@given(st.floats(0.1, 100), st.floats(0.1, 1000))
def test_mechanics_alone_has_its_closed_form(C_M, width):
    """1/V = gamma_M0 u^2/(W (W + width/2)), any theta_M."""
    c = Huang()
    for theta in (0.9, 1.3):
        e = c.at(1.0, C_M, np.pi / 4, theta).with_values({"spin.readout_rate_hz": 0.0})
        V = waveform_variance(e.system, Signal("membrane.bath", 0.0), Lorentzian(width * c.tilde[1]))
        form = force_variance(C_M, theta, width * c.r, c.r, 0.1 / c.tilde[0])
        assert pytest.approx(form, rel=1e-9) == V


@settings(max_examples=20, deadline=None)
@given(
    experiments(),
    st.floats(1e2, 1e5),
    st.floats(0.3e6, 2e6),
    st.sampled_from(["membrane.bath", "spin.bath"]),
    st.floats(0, 180),
)
def test_exact_variance_is_the_integral_of_the_matched_filter(e, width, centre, source, angle):
    """1/V = int dW/2pi |f|^2/N by quadrature over the added noise of the same network."""
    if e.system.check().stable is False:
        return
    signal, wave = Signal(source, angle), Lorentzian(width, centre)
    poles = np.linalg.eigvals(e.system.A) / (2 * np.pi)
    found = waveform_variance(e.system, signal, wave)
    centres = np.unique(np.concatenate([poles.imag, [centre, -centre, 0.0]]))
    edges = {-1e9, 1e9}
    for c in centres:
        for d in np.geomspace(max(1.0, 0.05 * min(width, *np.abs(poles.real))), 1e9, 45):
            edges |= {c - d, c + d}
    edges = np.array(sorted(x for x in edges if abs(x) <= 1e9))
    u, weight = np.polynomial.legendre.leggauss(8)
    f = ((edges[1:] + edges[:-1]) / 2)[:, None] + np.diff(edges)[:, None] / 2 * u
    jacobian = (np.diff(edges)[:, None] / 2 * weight).ravel()
    N = sensitivity(e.system, signal, f.ravel()).density
    total = jacobian @ (np.abs(wave.spectrum(f.ravel())) ** 2 / N)
    assert found == pytest.approx(1 / total, rel=2e-4)


@settings(max_examples=20, deadline=None)
@given(experiments(), st.floats(0, 180))
def test_parts_of_the_added_noise(e, angle):
    """Sources sum to the total; for one current N = S/|h|^2; the bath's own part is its density."""
    f = np.linspace(0.5e6, 2e6, 9)
    signal = Signal("spin.bath", angle)
    s = sensitivity(e.system, signal, f)
    assert_allclose(sum(s.sources.values()), s.density, rtol=1e-10)
    name = e.system.currents[0]
    start, u = signal.direction(e.system.inputs)
    h = transfer(e.system, f, [name])[:, 0, start : start + u.shape[-2]] @ u[:, 0]
    assert_allclose(s.density, budget(e.system, f, name).total * 0.5 / np.abs(h) ** 2, rtol=1e-9)
    # the weights are unbiased: the weighted current answers the signal with one
    assert_allclose(np.conj(s.weights[:, 0]) * h, 1.0, rtol=1e-12)
    # noise that enters as the signal does adds its own density
    S = e.system.S[e.system.input("spin.bath"), e.system.input("spin.bath")]
    if u.shape[-2] == 1:
        assert_allclose(s.sources["spin.bath"], S[0, 0], rtol=1e-9)


def test_two_currents_are_combined_optimally(context):
    """Split light on two detectors: the best combination is the one detector's; either alone is worse; any weights too."""
    from backaction import BeamSplitter

    e = context.base
    spin, link, membrane = e.elements[:3]
    split = BeamSplitter(name="split", transmission=0.5)
    two = Experiment(
        [spin, link, membrane, split, Homodyne(name="a"), Homodyne(name="b")],
        connections={"split.out2": "b.in"},
        modes=e.modes,
    )
    f = np.linspace(-5e4, 5e4, 7)
    signal = Signal("membrane.bath", 0.0)
    whole = sensitivity(e.system, signal, f)
    both = sensitivity(two.system, signal, f)
    assert len(both.currents) == 4
    assert_allclose(both.density, whole.density, rtol=1e-9)
    wave = Lorentzian(1e4)
    assert waveform_variance(two.system, signal, wave) == pytest.approx(
        waveform_variance(e.system, signal, wave), rel=1e-9
    )
    H = transfer(two.system, f, list(two.system.currents))
    S = H @ two.system.S @ np.conj(np.swapaxes(H, -1, -2))
    start, u = signal.direction(two.system.inputs)
    h = (H[..., start : start + 2] @ u)[..., 0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        w = rng.normal(size=(7, 4)) + 1j * rng.normal(size=(7, 4))
        noise = np.real(np.einsum("fi,fij,fj->f", w.conj(), S, w)) / np.abs(np.einsum("fi,fi->f", w.conj(), h)) ** 2
        assert np.all(noise >= both.density * (1 - 1e-9))
    gain = np.einsum("fi,fi->f", both.weights.conj(), h)
    assert_allclose(gain, 1.0, atol=1e-9)


def test_gradient_of_the_objective(context):
    goal = WaveformVariance(Signal("membrane.bath", 30.0), Lorentzian(1e6))
    e = context.at(30.0, 25.0, 0.79, 1.2, 0.1)
    fields = [
        "spin.coupling_angle_deg",
        "membrane.readout_rate_hz",
        "link.transmission",
        "detector.efficiency",
        "membrane.occupation",
    ]
    e = e.with_values({"detector.efficiency": 0.8})
    value, slopes = goal.value_and_gradient(e, fields)
    assert value == pytest.approx(waveform_variance(e.system, goal.signal, goal.waveform))
    for slope, field in zip(slopes, fields, strict=True):
        x = e.value(field)
        h = 1e-5 * x
        up, down = (
            waveform_variance(e.with_values({field: x + s * h}).system, goal.signal, goal.waveform) for s in (1, -1)
        )
        assert slope == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-9 * value / x)


def test_thermal_force_noise_in_newton():
    """A hot oscillator read without back-action: sqrt(4 k T m gamma) N/sqrt(Hz) on resonance, one-sided."""
    T, f0, gamma, m = 300.0, 1e6, 10.0, 1e-12
    o = Oscillator(
        name="m",
        frequency_hz=f0,
        intrinsic_linewidth_hz=gamma,
        temperature_k=T,
        readout_rate_hz=1.0,
        damping="velocity",
    )
    e = Experiment([o, Homodyne(name="d")])
    s = sensitivity(e.system, Signal("m.bath"), [f0])
    force2 = force_scale(e.system, "m.bath", m, f0) * s.sources["m.bath"][0]
    assert force2 == pytest.approx(4 * K_B * T * m * 2 * np.pi * gamma, rel=1e-6)
    symmetric = Experiment([Oscillator(**{**o.__dict__, "damping": "symmetric"}), Homodyne(name="d")])
    assert force_scale(symmetric.system, "m.bath", m, f0) == pytest.approx(
        force_scale(e.system, "m.bath", m, f0), rel=0.5 + 1e-9
    )


def test_standard_quantum_limit_of_a_free_cavity():
    """Resonant lossless cavity, cold bath, off resonance: min over the coupling of S_FF = 2 hbar/|chi| (two-sided hbar/|chi|).

    Braginsky's SQL: imprecision x back-action = (hbar/2)^2 per sided density, S_F = hbar/|chi_m| two-sided at the best power.
    """
    f0, m, f = 1e5, 1e-12, 2e5
    W, W0 = 2 * np.pi * f, 2 * np.pi * f0
    values = []
    for g in np.geomspace(1e3, 1e6, 400):
        cavity = OptomechanicalCavity(
            name="m", mechanical_hz=f0, mechanical_linewidth_hz=1e-3, bath_occupation=0.0, cavity_linewidth_hz=1e9,
            overcoupling=1.0, detuning_hz=0.0, coupling_hz=g,
        )  # fmt: skip
        e = Experiment([cavity, Homodyne(name="d")])
        s = sensitivity(e.system, Signal("m.bath"), [f])
        values.append(force_scale(e.system, "m.bath", m, f0) * s.density[0])
    chi = 1 / (m * abs(W0**2 - W**2))
    assert min(values) == pytest.approx(2 * HBAR / chi, rel=1e-3)


def test_response_is_sensed_like_its_system(context):
    """A Response (frequency axis only) gives the same, and noise added to it counts."""
    e = Experiment.load("thomas2021")
    f = np.linspace(1.36e6, 1.38e6, 5)
    r = Response.from_system(e.system, f)
    signal = Signal("membrane.bath")
    own = sensitivity(e.system, signal, f)
    assert_allclose(sensitivity(r, signal).density, own.density, rtol=1e-12)
    noisier = sensitivity(r.with_noise("detector", 1.0), signal)
    assert np.all(noisier.density > own.density)
    assert_allclose(sum(noisier.sources.values()), noisier.density, rtol=1e-10)


def test_matched_filter_variance_on_simulated_noise():
    """The scatter of the best linear estimate over many simulated records is V: an oscillator in the cosine channel.

    dX = -gamma/2 X + sqrt(Gamma) noise + bath, y = P + sqrt(Gamma) X, sampled finely; the signal begins in mid-record. The
    estimate uses the covariance of the samples written out here, not the filter.
    """
    rng = np.random.default_rng(4)
    gamma, rate, n_bath, width = 2 * np.pi * 50.0, 2 * np.pi * 40.0, 3.0, 120.0
    oscillator = SidebandOscillator(name="m", intrinsic_linewidth_hz=50.0, occupation=n_bath, readout_rate_hz=40.0)
    V = waveform_variance(Experiment([oscillator, Homodyne(name="d")]).system, Signal("m.bath", 0.0), Lorentzian(width))
    h, N, trials = 4e-5, 3000, 1000
    t = h * (np.arange(N) - N // 2)
    variance = (rate / 2 + gamma * (n_bath + 0.5)) / gamma
    decay = np.exp(-gamma / 2 * h)
    X = rng.normal(size=trials) * np.sqrt(variance)
    kicks = rng.normal(size=(N, trials)) * np.sqrt(variance * (1 - decay**2))
    y = np.empty((N, trials))
    for k in range(N):
        y[k] = np.sqrt(rate) * X + rng.normal(size=trials) * np.sqrt(0.5 / h)
        X = decay * X + kicks[k]
    a, b, late = gamma / 2, np.pi * width, np.maximum(t, 0)
    signal = np.sqrt(rate * gamma * 2 * b) * (np.exp(-a * late) - np.exp(-b * late)) / (b - a)
    C = rate * variance * np.exp(-gamma / 2 * np.abs(t[:, None] - t)) + 0.5 / h * np.eye(N)
    weights = np.linalg.solve(C, signal)
    assert 1 / (signal @ weights) == pytest.approx(V, rel=0.005)
    scatter = np.var(weights @ y / (signal @ weights)) / V
    assert stats.chi2.sf(trials * scatter * 0.98, trials) > 1e-3
    assert stats.chi2.cdf(trials * scatter * 1.02, trials) > 1e-3


def test_waveform_spectrum_and_energy():
    w = Lorentzian(50.0)
    t = np.linspace(0, 0.2, 200001)
    f = np.sqrt(2 * np.pi * 50) * np.exp(-np.pi * 50 * t)
    assert integrate.simpson(f**2, x=t) == pytest.approx(1.0, rel=1e-6)
    for hz in (0.0, 30.0, -100.0):
        direct = integrate.simpson(f * np.exp(2j * np.pi * hz * t), x=t)
        assert w.spectrum([hz])[0] == pytest.approx(direct, rel=1e-6)


def test_roc():
    p = np.linspace(0, 1, 11)
    assert_allclose(roc(p, 0.0, 1.0), p, atol=1e-12)
    for d in (0.5, 2.0):
        expected = stats.norm.sf(stats.norm.isf(p) - d)
        assert_allclose(roc(p, d * 3, 9.0), expected, atol=1e-12)
    with pytest.raises(InputError):
        roc([1.5], 1.0, 1.0)


def test_refusals(context):
    with pytest.raises(InputError, match="did you mean 'membrane.bath'"):
        sensitivity(context.base.system, Signal("membrane.bat"), [0.0])
    with pytest.raises(InputError, match="name the bath"):
        force_scale(context.base.system, "spin.in", 1.0, 1.0)
    blind = Experiment(context.base.elements[:3])
    with pytest.raises(ModelError, match="no current"):
        sensitivity(blind.system, Signal("membrane.bath"), [0.0])
    dark = context.base.with_values({"membrane.readout_rate_hz": 0.0})
    with pytest.raises(ModelError, match="does not reach"):
        sensitivity(dark.system, Signal("membrane.bath"), [0.0])


def test_command(capsys):
    code, out, err = call(
        capsys, "sense", "moller2017", "--signal", "membrane.bath", "--mass-kg", "14e-12", "--lorentzian", "5kHz@1.268 MHz", "--amplitude",
        "2000", "--diff-set", "spin.readout_rate_hz=0", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    jsonschema.validate(found, schema("sense"))
    assert min(found["force_asd_n_per_rthz"]) > np.sqrt(4 * HBAR * 14e-12 * (2 * np.pi) ** 2 * 0.1 * 1.28e6 * 114000)
    assert found["roc"]["detection"][-1] == pytest.approx(1.0)
    assert found["other"]["variance"] > found["waveform"]["variance"]
    code, out, err = call(capsys, "sense", "huang2018", "--signal", "membrane.bath")
    assert code == 0, err
    assert "by source" in out


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--signal", "membrane.bth"], 2, "did you mean"),
        (["--signal", "membrane.bath", "--amplitude", "3"], 2, "needs a waveform"),
        (["--signal", "membrane.bath", "--lorentzian", "-1"], 2, "must be > 0"),
        (["--signal", "membrane.bath", "--mass-kg", "1"], 2, "no frequency"),
        (["--signal", "membrane.bath", "--set", "spin.coupling_angle_deg=20"], 3, "unstable"),
    ],
)
def test_command_refuses(capsys, arguments, code, word):
    got, out, err = call(capsys, "sense", "huang2018", *arguments)
    assert got == code
    assert word in err
    assert out == ""
