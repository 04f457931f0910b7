import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, SpinOscillator, budget
from backaction.numerics.matrix_equations import discrete_lyapunov
from backaction.states import entanglement
from backaction.systems import steady
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem
from backaction.systems.sampled import Digitiser, discretise, sampled_budget, steady_filter
from support.networks import experiments

OU = LinearSystem(
    [[-3.0]], [[2.0, 0.0]], [[1.0]], [[0.0, 0.5]], np.eye(2),
    (Mode("x", "classical", 1),), (Port("w", "classical", 1), Port("v", "classical", 1)), (Port("y", "current", 1),),
)  # fmt: skip


def test_averaged_ornstein_uhlenbeck_has_the_textbook_closed_form():
    """dx = -a x dt + b dW: F = e^{-ah}, Q = b^2 (1 - e^{-2ah})/2a, H = (1 - e^{-ah})/(ah), R = r/h + integrated part."""
    a, b, r, h = 3.0, 2.0, 0.25, 0.2
    m = discretise(OU, 1 / h)
    e = np.exp(-a * h)
    assert_allclose(m.F, e)
    assert_allclose(m.Q, b**2 * (1 - e * e) / (2 * a))
    assert_allclose(m.H, (1 - e) / (a * h))
    assert_allclose(m.N, b**2 * (1 - e) ** 2 / (2 * a**2) / h)
    assert_allclose(m.R, r / h + b**2 / a**2 * (h - 2 * (1 - e) / a + (1 - e * e) / (2 * a)) / h**2)


def test_instantaneous_sampling_reads_the_state_at_the_end():
    h = 0.2
    m = discretise(OU, 1 / h, "instantaneous")
    e = np.exp(-3.0 * h)
    assert_allclose(m.H, e)
    assert_allclose(m.N, m.Q)
    assert_allclose(m.R, m.Q + 0.25 / h)


@given(experiments())
def test_sampled_model_keeps_the_steady_state(experiment):
    """V = F V F^T + Q with the continuous V, and a joint noise covariance that is one."""
    rate = 1e7
    m = discretise(experiment.system, rate)
    V = steady.unconditional(experiment.system)
    scale = np.max(np.abs(V))
    assert_allclose(m.F @ V @ m.F.T + m.Q, V, rtol=0, atol=1e-9 * scale)
    joint = np.block([[m.Q, m.N], [m.N.T, m.R]])
    assert np.linalg.eigvalsh(joint)[0] > -1e-9 * np.max(np.abs(joint))


def test_sampled_spectrum_is_the_folded_continuous_spectrum(thomas):
    """Second route: sum over aliases of sinc^2 times the continuous spectrum."""
    rate = 1e7
    f = np.array([0.4e6, 1.3688e6, 1.5e6, 3.0e6])
    k = np.arange(-2000, 2001)
    far = budget(thomas.system, [1e13]).total[0]
    g = f[:, None] + k * rate
    folded = far + np.sum(
        np.sinc(g / rate) ** 2 * (budget(thomas.system, g.ravel()).total.reshape(g.shape) - far), axis=1
    )
    assert_allclose(discretise(thomas.system, rate).spectrum(f), folded, rtol=1e-7)


def test_sampled_sources_sum_to_the_total(thomas):
    b = sampled_budget(thomas.system, Digitiser(1e7), np.linspace(1.3e6, 1.4e6, 7))
    assert_allclose(sum(b.sources.values()), b.total, rtol=1e-9)


def test_fast_sampling_tends_to_the_continuous_filter_and_10_MHz_gives_0802(thomas):
    """EPR 0.802 for interval averages at 10 MS/s against 0.789 in the continuous limit (issue text)."""
    i = thomas.system.indices(thomas.modes)

    def epr(rate):
        return entanglement.epr(steady_filter(discretise(thomas.system, rate)).covariance[np.ix_(i, i)]).variance

    assert_allclose(epr(1e7), 0.802, atol=5e-4)
    # first order in the interval: Richardson extrapolation reaches the continuous value
    a, b = epr(2e9), epr(4e9)
    assert_allclose(2 * b - a, 0.7891256183, rtol=1e-6)


@given(experiments(), st.sampled_from([2e6, 1e7, 1e8]))
def test_steady_filter_against_scipy(experiment, rate):
    m = discretise(experiment.system, rate)
    f = steady_filter(m)
    assert np.max(np.abs(np.linalg.eigvals(f.closed_loop))) < 1
    scale = np.sqrt(np.maximum(np.diag(f.covariance), 1e-12))
    T = np.diag(1 / scale)
    try:
        other = scipy.linalg.solve_discrete_are(
            (T @ m.F @ np.diag(scale)).T,
            (m.H @ np.diag(scale)).T / np.sqrt(m.R),
            T @ m.Q @ T,
            np.eye(1),
            s=T @ m.N / np.sqrt(m.R),
        )
    except np.linalg.LinAlgError:
        return  # scipy's QZ gives up; the residual below still holds
    finally:
        P, K = f.covariance, f.gain
        residual = m.F @ P @ m.F.T + m.Q - K @ f.innovation @ K.T - P
        assert np.max(np.abs(residual)) < 1e-9 * np.max(np.abs(P))
    assert_allclose(T @ f.covariance @ T, other, rtol=1e-4, atol=1e-5)


def test_discrete_lyapunov_against_scipy():
    rng = np.random.default_rng(1)
    F = 0.9 * np.linalg.qr(rng.standard_normal((5, 5)))[0]
    Q = np.diag([1.0, 2.0, 3.0, 4.0, 5.0])
    assert_allclose(discrete_lyapunov(F, Q), scipy.linalg.solve_discrete_lyapunov(F, Q), rtol=1e-9, atol=1e-12)


def test_stiff_system_at_a_low_rate_does_not_overflow(thomas):
    m = discretise(thomas.system, 2e4)
    V = steady.unconditional(thomas.system)
    assert np.isfinite(m.Q).all()
    assert_allclose(m.F @ V @ m.F.T + m.Q, V, rtol=0, atol=1e-8)


def test_gradient_passes_through_the_sampled_model():
    from backaction.experiment.derivatives import stepped
    from backaction.systems.sampled import spectrum_and_slope

    spin = SpinOscillator(name="s", larmor_hz=-1e6, intrinsic_linewidth_hz=3e3, readout_rate_hz=1e4, tensor_ratio=0.03)
    e = Experiment([spin, Homodyne(name="d", efficiency=0.8)])
    f, rate = np.array([0.99e6, 1.0e6]), 5e6
    _, slope = spectrum_and_slope(discretise(e.system, rate), discretise(stepped(e, ["s.readout_rate_hz"]), rate), f)
    h = 1.0
    up, down = (discretise(e.with_values({"s.readout_rate_hz": 1e4 + k * h}).system, rate).spectrum(f) for k in (1, -1))
    assert_allclose(slope[0], (up - down) / (2 * h), rtol=1e-5)
    with pytest.raises(AssertionError):
        assert_allclose(slope[0], 0.0)


def test_low_pass_front_end_is_its_closed_form():
    """White noise of density S through dz = w(y - z), averaged over intervals: the folded |H|^2 sinc^2 sum."""
    from backaction.systems.sampled import front_end_response

    rate, corner = 1e6, 2e5
    f = np.array([1e3, 1e5, 3e5])
    k = np.arange(-4000, 4001)
    g = f[:, None] + k * rate
    expected = np.sum(np.sinc(g / rate) ** 2 / (1 + (g / corner) ** 2), axis=1)
    assert_allclose(front_end_response(Digitiser(rate, "average", (corner,)), f), expected, rtol=1e-6)


def test_filter_knows_its_front_end(thomas):
    """A low-pass far above the rate changes nothing. One below Nyquist keeps aliased noise out, so that the filter that
    knows it comes nearer to the continuous 0.789 than plain interval averages do."""
    i = thomas.system.indices(thomas.modes)

    def epr(*front_end):
        return entanglement.epr(
            steady_filter(discretise(thomas.system, 1e7, "average", front_end)).covariance[np.ix_(i, i)]
        ).variance

    assert_allclose(epr(1e9), epr(), atol=1e-3)
    assert 0.7891 < epr(2e6, 2e6) < epr(5e6) < epr()
