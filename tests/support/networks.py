"""Random valid experiments for property-based tests."""

from __future__ import annotations

from hypothesis import strategies as st

from backaction import (
    BeamSplitter,
    Experiment,
    GaussianState,
    Homodyne,
    Loss,
    OptomechanicalCavity,
    Oscillator,
    Rotation,
    SpinOscillator,
    Squeezer,
    TechnicalNoise,
)
from backaction.elements import Line, MechanicalMode
from backaction.systems import steady

rates = st.floats(1e2, 5e4)
angles = st.floats(-180.0, 180.0)
powers = st.floats(0.05, 1.0)


@st.composite
def spins(draw, name):
    return SpinOscillator(
        name=name,
        larmor_hz=draw(st.sampled_from([-1, 1])) * draw(st.floats(5e5, 2e6)),
        intrinsic_linewidth_hz=draw(rates),
        readout_rate_hz=draw(rates),
        tensor_ratio=draw(st.floats(0.0, 0.3)),
        occupation=draw(st.floats(0.0, 5.0)),
        broadband_noise_sn=draw(st.floats(0.0, 3.0)),
        broadband_linewidth_hz=1e6 if (mode := draw(st.booleans())) else None,
        broadband_readout_rate_hz=1e5 if mode else None,
    )


@st.composite
def cavities(draw, name):
    return OptomechanicalCavity(
        name=name,
        mechanical_hz=draw(st.floats(5e5, 2e6)),
        mechanical_linewidth_hz=draw(st.floats(1e-2, 1e2)),
        bath_occupation=draw(st.floats(0.0, 1e4)),
        cavity_linewidth_hz=draw(st.floats(5e5, 1e7)),
        overcoupling=draw(st.floats(0.1, 1.0)),
        detuning_hz=-draw(st.floats(1e5, 2e6)),
        coupling_hz=draw(st.floats(1e3, 6e4)),
        mode_matching=draw(powers),
        damping="symmetric",
        modes=tuple(
            MechanicalMode(name=f"extra{k}", mechanical_hz=draw(st.floats(5e5, 2e6)), mechanical_linewidth_hz=1.0,
                           bath_occupation=draw(st.floats(0.0, 1e3)), coupling_hz=draw(st.floats(1e3, 3e4)))
            for k in range(draw(st.integers(0, 1)))
        ),
    )  # fmt: skip


@st.composite
def optics(draw, name):
    kind = draw(st.sampled_from(["loss", "rotation", "squeezer", "splitter", "noise", "oscillator"]))
    if kind == "loss":
        return Loss(name=name, transmission=draw(st.floats(0.0, 1.0)))
    if kind == "rotation":
        return Rotation(name=name, angle_deg=draw(angles))
    if kind == "squeezer":
        return Squeezer(name=name, squeezing_db=draw(st.floats(-10, 10)), angle_deg=draw(angles), purity=draw(powers))
    if kind == "splitter":
        return BeamSplitter(name=name, transmission=draw(powers))
    if kind == "oscillator":
        return Oscillator(
            name=name, frequency_hz=draw(st.floats(-2e6, -5e5)), intrinsic_linewidth_hz=draw(rates), readout_rate_hz=draw(rates),
            occupation=draw(st.floats(0.0, 5.0)), damping="symmetric",
        )  # fmt: skip
    line = Line(
        name="line",
        center_hz=draw(st.floats(5e5, 2e6)),
        width_hz=draw(st.floats(1e2, 1e4)),
        peak_sn=draw(st.floats(0, 9)),
    )
    return TechnicalNoise(name=name, floor_sn=draw(st.floats(0, 2)), angle_deg=draw(angles), lines=(line,))


@st.composite
def experiments(draw):
    """A cascade of two to five elements with a spin and a cavity among them, ending in a homodyne."""
    elements = [draw(spins("spin")), draw(cavities("membrane"))]
    if draw(st.booleans()):
        elements.reverse()
    for k in range(draw(st.integers(0, 3))):
        elements.insert(draw(st.integers(0, len(elements))), draw(optics(f"optic{k}")))
    detector = Homodyne(
        name="detector", efficiency=draw(powers), angle_deg=draw(angles), electronic_noise_sn=draw(st.floats(0.0, 1.0))
    )
    return Experiment([*elements, detector], modes=("spin", "membrane"))


def all_ports_detected(angles=(2.0, 40.0, -25.0), zeta=0.1, transmission=0.6, overcoupling=0.8, squeezing=0.0):
    spin = SpinOscillator(
        name="s", larmor_hz=-1.0e6, intrinsic_linewidth_hz=0.0, readout_rate_hz=20e3, tensor_ratio=zeta
    )
    cavity = OptomechanicalCavity(
        name="m", mechanical_hz=1.1e6, mechanical_linewidth_hz=1e-12, bath_occupation=0.0, cavity_linewidth_hz=3e6,
        overcoupling=overcoupling, detuning_hz=-0.8e6, coupling_hz=90e3,
    )  # fmt: skip
    elements = [
        Squeezer(name="q", squeezing_db=squeezing, angle_deg=33.0), spin, Loss(name="l", transmission=transmission),
        Rotation(name="r", angle_deg=170.0), cavity, Homodyne(name="d", angle_deg=angles[0]),
        Homodyne(name="lost", angle_deg=angles[1]), Homodyne(name="back", angle_deg=angles[2]),
    ]  # fmt: skip
    experiment = Experiment(elements, connections={"l.lost": "lost.in", "m.loss_out": "back.in"})
    V = steady.conditional(experiment.system).covariance
    return GaussianState(V, ("s", "m", "cavity"))
