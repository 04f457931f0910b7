"""Structural damping and systems held by a servo: spectra by other routes, and what they refuse. Real squeezing spectra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import Experiment
from backaction.calibration.sets import run_one
from backaction.calibration.spectra import Spectra
from backaction.cli import main
from backaction.elements import Homodyne, Oscillator
from backaction.errors import InputError, ModelError
from backaction.experiment.spectra import frequency_response
from backaction.systems.response import budget
from support.reference import shared

HBAR, KB = 1.054571817e-34, 1.380649e-23


@given(st.floats(0.2, 5.0), st.floats(5.0, 1e4))
def test_structural_oscillator(ratio, Q):
    """S_X = (2 k_B T/hbar omega_0) omega_0^3/(Q W) / |omega_0^2 (1 + i/Q) - W^2|^2: the fluctuation-dissipation theorem."""
    f0, T = 5e3, 295.0
    f = np.array([ratio * f0])
    o = Oscillator(
        name="x", frequency_hz=f0, intrinsic_linewidth_hz=f0 / Q, temperature_k=T, gain=1.0, damping="structural"
    )
    got = frequency_response(Experiment((o, Homodyne(name="d"))), f).budget("d").sources["x.bath"] / (4 * np.pi)
    w, w0 = 2 * np.pi * f, 2 * np.pi * f0
    expected = 2 * KB * T / (HBAR * w0) * w0**4 / (Q * w) / np.abs(w0**2 * (1 + 1j / Q) - w**2) ** 2
    assert_allclose(got, expected, rtol=1e-5)  # half a quantum beside 10^9


def test_structural_is_friction_at_resonance():
    o = Oscillator(
        name="x", frequency_hz=5e3, intrinsic_linewidth_hz=10.0, occupation=100.0, gain=1.0, damping="structural"
    )
    e = Experiment((o, Homodyne(name="d")))
    viscous = Experiment((replace(o, damping="velocity"), Homodyne(name="d")))
    at = np.array([5e3])
    assert_allclose(frequency_response(e, at).budget("d").total, budget(viscous.system, at).total, rtol=1e-12)
    far = np.array([500.0])
    assert frequency_response(e, far).budget("d").sources["x.bath"] / budget(viscous.system, far).sources[
        "x.bath"
    ] == pytest.approx(10, rel=1e-3)


def test_response_of_a_plain_experiment_is_its_budget(thomas):
    f = np.linspace(1.3e6, 1.45e6, 17)
    mine, theirs = frequency_response(thomas, f).budget("detector"), budget(thomas.system, f)
    assert_allclose(mine.total, theirs.total, rtol=1e-12)
    for k in theirs.sources:
        assert_allclose(mine.sources[k], theirs.sources[k], rtol=1e-10, atol=1e-14)
    batch = thomas.with_values({"detector.angle_deg": np.array([0.0, 30.0])})
    both = np.real(frequency_response(batch, f).spectrum()[..., 0, 0]) / 0.5
    for k, a in enumerate((0.0, 30.0)):
        assert_allclose(both[k], budget(thomas.with_values({"detector.angle_deg": a}).system, f).total, rtol=1e-12)


def test_squeezing_of_a_suspended_mirror_by_hand():
    """The shipped experiment without its further modes against one 2 x 2 problem written out (quadratures of the intracavity field)."""
    e = Experiment.load("aggarwal2020")
    mirror = replace(e.element("mirror"), modes=())
    e = replace(e, elements=(mirror, replace(e.element("detector"), efficiency=0.6, angle_deg=12.43)), priors={})
    f = np.linspace(25e3, 70e3, 11)
    got = frequency_response(e, f).budget("detector").total
    k, d = 2 * np.pi * 1.21672e6, 2 * np.pi * 2.0076e5
    g, w0, T, Q = 2 * np.pi * 3.519e6, 2 * np.pi * 876.0, 295.0, 876.0 / 0.05475
    shares = {"t": 0.490196078431373, "i": 0.098039215686274, "l": 0.411764705882353}
    out = []
    for w in 2 * np.pi * f:
        chi = w0 / (w0**2 * (1 - 1j / Q) - w**2)
        M = np.array([[k / 2 - 1j * w, d], [-d - 4 * g * g * chi, k / 2 - 1j * w]])
        R = np.linalg.inv(M)
        theta = np.radians(12.43)  # the carrier behind the transmission port is parallel to the intracavity field
        row = np.array([np.cos(theta), np.sin(theta)])
        kt = shares["t"] * k
        # everything in the frame of the intracavity carrier: fields enter turned, vacuum does not care
        S = 0.0
        for name, share in shares.items():
            H = np.sqrt(kt * share * k) * R - (np.eye(2) if name == "t" else 0)
            S += np.sum(np.abs(row @ H) ** 2)
        force = 2 * (w0**2 / (Q * w)) * (KB * T / (HBAR * w0) + 0.0)
        kick = np.sqrt(kt) * R @ np.array([0.0, 2 * g * chi])
        S += np.abs(row @ kick) ** 2 * force * 2
        out.append(0.4 + 0.6 * S)
    assert_allclose(got, out, rtol=1e-6)


def test_stabilised_is_spectra_only(capsys, tmp_path):
    e = Experiment.load("aggarwal2020")
    assert e.spectra_only
    with pytest.raises(ModelError, match="spectra only"):
        _ = e.system
    with pytest.raises(ModelError, match="stabilised"):
        frequency_response(replace(e, stabilised=""), [30e3])
    with pytest.raises(ModelError, match="structural"):
        e.build()
    for command in (
        ["state"],
        ["simulate", "-o", str(tmp_path / "never.h5"), "--duration", "1 ms"],
        ["sense", "--signal", "mirror.bath"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([command[0], "aggarwal2020", *command[1:]])
        assert stop.value.code in (2, 3)
        assert "spectra only" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["spectrum", "aggarwal2020", "--f", "25e3:70e3:5", "--json"])
    assert stop.value.code == 0
    capsys.readouterr()
    with pytest.raises(InputError, match="must be 'externally'"):
        replace(e, stabilised="by hand")
    again = Experiment.from_toml(e.to_toml())
    assert again.stabilised == "externally"
    with pytest.raises(InputError, match="frequency 0"):
        frequency_response(e, [0.0])


def _squeezing_data():
    return shared("data/aggarwal2020/squeezing_vs_angle.csv")


def test_aggarwal_squeezing():
    """12 angles at once: median residual, which angles squeeze, and what is known only together."""
    found = run_one(
        Spectra(name="a", experiment="aggarwal2020", noise_db=2.0, offset_sd=1.0, draws=800),
        [_squeezing_data()],
        {"unit": "dB"},
    )
    residual = np.concatenate([p.y - p.model for p in found.panels])
    assert np.median(np.abs(residual)) < 0.5
    squeezed = next(n for n in found.notes if n.startswith("below shot noise"))
    measured = squeezed.split(";")[0]
    assert all(a in measured for a in ("10.31", "12.43", "14.25", "17.32"))
    assert measured.count("dB") == 4
    assert any("degenerate" in n and "detector.efficiency" in n for n in found.notes)
    assert any("Pareto" in n for n in found.notes)
    assert any("detector.efficiency and thermal_sn (-0." in n for n in found.notes)
    assert found.correlation("detector.efficiency", "thermal_sn") < -0.3
    assert 0.4 < found["detector.efficiency"].value < 0.8
    assert abs(found["mirror.detuning_hz"].value - 2.0076e5) < 2 * 6e3
    assert abs(found["mirror.coupling_hz"].value - 3.519e6) < 2.5 * 0.15e6


@pytest.mark.slow
def test_aggarwal_predicts_what_is_left_out():
    found = run_one(
        Spectra(name="a", experiment="aggarwal2020", noise_db=2.0, offset_sd=1.0, draws=0, leave_out=True),
        [_squeezing_data()],
        {"unit": "dB"},
    )
    text = next(n for n in found.notes if n.startswith("each spectrum predicted"))
    assert float(text.split("at most ")[1].split(" dB")[0]) <= 0.6


def test_spectra_recover_a_simulation():
    """The method on spectra of another experiment, averaged: the fields come back; `along` need not be an angle."""
    from support.calibrations import table

    truth = Experiment.load("thomas2021").with_values({"detector.efficiency": 0.8, "membrane.bath_occupation": 178e3})
    f = np.arange(1.33e6, 1.41e6, 400.0)
    rng = np.random.default_rng(4)
    for along, values in (("detector.angle_deg", (0.0, 40.0, 90.0)), ("link.transmission", (0.2, 0.9))):
        S = [budget(truth.with_values({along: v}).system, f).total * rng.gamma(300, 1 / 300, f.size) for v in values]
        method = Spectra(name="t", experiment="thomas2021", along=along, values=values, draws=400)
        t = table(f, *S, unit="SN", averages=300)
        t = type(t)(t.name, ("f_Hz", *t.names[1:]), t.values, t.attributes)
        found = method.run([t])
        for name, value in (("detector.efficiency", 0.8), ("membrane.bath_occupation", 178e3)):
            assert abs(found[name].value - value) < 4 * found[name].sd, (along, name)
        assert found.p > 1e-3
