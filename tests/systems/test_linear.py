import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from backaction import BeamSplitter, Experiment, Homodyne, Loss, Rotation, SpinOscillator, Squeezer, connect, transfer
from backaction.errors import InputError, ModelError
from backaction.systems import steady
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem
from support.networks import experiments

SPIN = SpinOscillator(
    name="s", larmor_hz=-1e6, intrinsic_linewidth_hz=1e3, readout_rate_hz=1e4, tensor_ratio=0.05, occupation=1.0
)


@given(experiments())
def test_random_cascades_are_realizable_and_non_demolition(experiment):
    """Commutators of states, outputs and currents to 1e-12 of |A| + |B|^2 (symmetric damping)."""
    check = experiment.system.check()
    assert check.commutator_defect < 1e-12
    assert check.output_defect < 1e-12
    assert check.nondemolition_defect < 1e-12
    assert check.realizable
    assert check.nondemolition


def test_velocity_damping_misses_by_gamma_and_says_so(thomas):
    """State commutators hold except (X_M, P_M), which is off by exactly gamma_M0 (notes, section 3)."""
    s = thomas.system
    defect = s.A @ s.state_commutator + s.state_commutator @ s.A.T + s.B @ s.input_commutator @ s.B.T
    m = s.mode("membrane")
    assert_allclose(abs(defect[m.start, m.start + 1]) / (2 * np.pi), 2.1e-3, rtol=1e-5)
    # a lossy oscillator whose width is comparable with its frequency is not quantum mechanics: a warning names it
    bad = Experiment([SPIN]).with_values({"s.damping": "velocity", "s.larmor_hz": -5e3})
    assert "'s'" in bad.system.check().warnings()[0]


def test_series_equals_the_product_of_transfer_functions():
    """Another route: the transfer matrix of a cascade is the product of its parts'."""
    a, b, c = SPIN.build(), Rotation(name="r", angle_deg=33.0).build(), Loss(name="l", transmission=0.6).build()
    f = np.array([0.99e6, 1e6, 1.001e6])
    whole = transfer(a >> b >> c, f, ["l.out"])[..., :2]
    parts = [transfer(x, f, [o])[..., :2] for x, o in ((c, "l.out"), (b, "r.out"), (a, "s.out"))]
    assert_allclose(whole, parts[0] @ parts[1] @ parts[2], rtol=1e-9, atol=1e-9)


def test_side_by_side_is_block_diagonal():
    other = SpinOscillator(name="t", larmor_hz=2e6, intrinsic_linewidth_hz=1e3, readout_rate_hz=1e3).build()
    both = SPIN.build() + other
    assert both.A.shape == (4, 4)
    assert not both.A[:2, 2:].any()
    assert [m.name for m in both.modes] == ["s", "t"]


def test_feedback_loop_through_a_beam_splitter_is_an_optical_cavity():
    """A beam splitter whose second output returns (with phase and loss) to its second input: the closed form of a ring
    resonator, out = (sqrt T + g)/(1 + sqrt T g) in with round-trip g, solved through D."""
    T, loop, phase = 0.7, 0.9, 25.0
    bs = BeamSplitter(name="b", transmission=T).build()
    arm = Rotation(name="r", angle_deg=phase).build() >> Loss(name="l", transmission=loop).build()
    ring = connect([bs, arm], {"b.out2": "r.in", "l.out": "b.in2"})
    t, r = np.sqrt(T), np.sqrt(1 - T)
    g = np.sqrt(loop) * np.exp(1j * np.radians(phase))
    # out = t in + r x,  y = -r in + t x,  x = g y   =>   x = -r g in/(1 - t g)
    expected = t - r * r * g / (1 - t * g)
    H = transfer(ring, [0.0], ["b.out"])[0][:, ring.input("b.in")].real
    assert_allclose(H, [[expected.real, -expected.imag], [expected.imag, expected.real]], rtol=1e-12)
    assert ring.check().realizable


def test_singular_loop_is_refused():
    bs = BeamSplitter(name="b", transmission=1.0).build()
    with pytest.raises(ModelError, match="singular algebraic loop"):
        bs.feedback("b.out2", "b.in2")


def test_rotating_and_selecting_a_quadrature_equals_a_homodyne():
    split = SPIN.build().rotated("s.out", 20.0).quadrature("s.out", 10.0, "y")
    detector = SPIN.build() >> Homodyne(name="y", angle_deg=30.0).build()
    f = [0.9999e6]
    assert_allclose(transfer(split, f)[..., :2], transfer(detector, f)[..., :2], rtol=1e-10)
    assert split.currents == ("y",)


def test_everything_broadcasts():
    larmor = np.array([[-1e6], [-1.1e6]])
    loss = np.array([0.1, 0.5, 0.9])
    experiment = Experiment([SPIN, Loss(name="l", transmission=0.5), Homodyne(name="d")])
    batch = experiment.with_values({"s.larmor_hz": larmor, "l.transmission": loss}).system
    assert batch.batch_shape == (2, 3)
    one = experiment.with_values({"s.larmor_hz": -1.1e6, "l.transmission": 0.9}).system
    picked = batch[1, 2]
    for k in "ABCDS":
        assert_allclose(getattr(picked, k), getattr(one, k), rtol=1e-14)
    assert_allclose(steady.conditional(batch).covariance[1, 2], steady.conditional(one).covariance, rtol=1e-9)


def test_is_immutable_and_prints_readably():
    system = SPIN.build()
    with pytest.raises(AttributeError):
        system.A = 0
    assert "s.bath (bath)" in repr(system)
    assert "s.out (field)" in repr(system)


def test_labels_must_fit_matrices():
    with pytest.raises(InputError, match=r"B has shape \(1, 2\), its labels say"):
        LinearSystem(
            [[-1.0]],
            [[1.0, 0.0]],
            [[1.0]],
            [[0.0]],
            [[1.0]],
            (Mode("x", "classical", 1),),
            (Port("w", "classical", 1),),
            (Port("y", "current", 1),),
        )


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        ({"s.out": "l.inn"}, "did you mean 'l.in'"),
        ({"s.uot": "l.in"}, "did you mean 's.out'"),
        ({"s.out": "l.in", "l.lost": "l.in"}, "connected twice"),
    ],
)
def test_wrong_connections_are_refused(connections, message):
    with pytest.raises(InputError, match=message):
        connect([SPIN.build(), Loss(name="l", transmission=0.5).build()], connections)


def test_check_reports_the_unstable_mode(thomas):
    blue = thomas.with_values({"membrane.detuning_hz": 0.7e6, "spin.larmor_hz": -1.37e6})
    check = blue.system.check()
    assert not check.stable
    assert check.slowest_mode == "membrane"
    assert "UNSTABLE" in str(check)


def test_squeezer_purity_is_the_purity_of_its_output():
    system = Squeezer(name="q", squeezing_db=5.0, angle_deg=20.0, purity=0.7).build()
    V = system.D @ system.S @ system.D.T
    assert_allclose(1 / (2 * np.sqrt(np.linalg.det(V))), 0.7)
    assert_allclose(np.linalg.eigvalsh(V)[0], 0.5 * 10**-0.5)
