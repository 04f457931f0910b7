import re

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, Loss, OptomechanicalCavity, Rotation, SpinOscillator
from backaction.errors import InputError
from backaction.experiment import results, toml
from backaction.experiment.toml import read_overrides, shipped_experiments
from support.networks import experiments

TOML = """
name = "small"
[state]
modes = ["spin"]
[[element]]
name = "spin"
kind = "spin_oscillator"
larmor_hz = "-1.37 MHz"
intrinsic_linewidth_hz = "1.7 kHz"
readout_rate_hz = 20e3
[[element]]
name = "link"
kind = "loss"
transmission = "53 %"
[[element]]
name = "detector"
kind = "homodyne"
"""


def test_the_same_experiment_in_ten_lines_of_python(thomas):
    e = Experiment(
        [
            SpinOscillator(name="spin", larmor_offset_linewidths=-0.5, intrinsic_linewidth_hz=1.7e3, readout_rate_hz=20e3,
                           tensor_ratio=0.028, occupation=0.8, broadband_noise_sn=1.68),
            Loss(name="link", transmission=0.53),
            Rotation(name="phase", angle_deg=180.0),
            OptomechanicalCavity(name="membrane", mechanical_hz=1.37e6, mechanical_linewidth_hz=2.1e-3, bath_occupation=173e3,
                                 cavity_linewidth_hz=4.2e6, overcoupling=0.93, detuning_hz=-0.7e6, coupling_hz=107331.26291999),
            Homodyne(name="detector", efficiency=0.77, angle_deg=2.0),
        ],
        modes=["membrane", "spin"],
    )  # fmt: skip
    a, b = (results.evaluate("conditional.epr.variance", x) for x in (e, thomas))
    assert_allclose(a, b, rtol=1e-12)


def test_reads_unit_strings():
    e = Experiment.from_toml(TOML)
    assert e.value("spin.larmor_hz") == -1.37e6
    assert e.value("spin.intrinsic_linewidth_hz") == pytest.approx(1700.0)
    assert e.value("link.transmission") == 0.53
    assert e.reported_modes() == ("spin",)


def test_shipped_experiments_all_load_and_build():
    known = {"thomas2021", "moller2017", "moller2017_detuned", "huang2018", "ockeloen2018", "aggarwal2020"} | {
        "levitated",
        "membrane",
    }
    assert set(shipped_experiments()) == known
    for name in shipped_experiments():
        e = Experiment.load(name)
        assert e.frictional().build().outputs
        assert e.description
        again = Experiment.from_toml(e.to_toml())
        assert again.to_dict() == e.to_dict()
        for k in "ABCDS":
            assert np.array_equal(getattr(again.frictional().build(), k), getattr(e.frictional().build(), k))


@given(experiments())
def test_toml_reads_back_exactly(experiment):
    """Provenance: what is written as TOML gives the same matrices, bit by bit, parts and connections included."""
    again = Experiment.from_toml(experiment.to_toml())
    for k in "ABCDS":
        assert np.array_equal(getattr(again.system, k), getattr(experiment.system, k))
    assert again.to_dict() == experiment.to_dict()


def test_shipped_experiment_and_its_priors_read_back(thomas):
    again = Experiment.from_toml(thomas.to_toml())
    assert again.priors == thomas.priors
    assert again.band_hz == thomas.band_hz
    assert again.to_dict() == thomas.to_dict()
    resolved = thomas.resolved()  # what tracks store: no prior is left of an offset that is no longer set
    assert Experiment.from_toml(resolved.to_toml()).to_dict() == resolved.to_dict()


def test_connections_say_anything_else():
    text = (
        TOML.replace('name = "detector"', 'name = "second"').replace('name = "link"\nkind', 'name = "link"\nkind')
        + """
[[element]]
name = "other"
kind = "homodyne"
[[connection]]
from = "link.lost"
to = "other.in"
"""
    )
    e = Experiment.from_toml(text)
    assert e.system.currents == ("second", "other")


def test_default_path_skips_ports_that_are_connected_otherwise():
    text = (
        TOML
        + """
[[connection]]
from = "spin.out"
to = "detector.in"
"""
    )
    system = Experiment.from_toml(text).system
    assert "link.in" in system.sources
    assert "link.vacuum" in system.sources


def test_overrides_take_units_and_reject_garbage(thomas):
    e = thomas.with_values(read_overrides(["spin.readout_rate_hz = 18 kHz", "phase.angle_deg=3.1 rad"]))
    assert e.value("spin.readout_rate_hz") == pytest.approx(18e3)
    assert e.value("phase.angle_deg") == pytest.approx(np.degrees(3.1))
    with pytest.raises(InputError, match=r"expected element.field=value"):
        read_overrides(["spin.readout_rate_hz"])


def test_overrides_that_belong_together_are_checked_together(thomas):
    """A broadband mode is two fields: set in either order they give the system of a file that holds both; errors name the key."""
    both = ["spin.broadband_linewidth_hz=1 MHz", "spin.broadband_readout_rate_hz=160 Hz"]
    written = thomas.to_dict()
    spin = next(e for e in written["element"] if e["name"] == "spin")
    spin |= {"broadband_linewidth_hz": 1e6, "broadband_readout_rate_hz": 160.0}
    of_file = Experiment.from_toml(toml.write(written))
    for items in (both, both[::-1]):
        assert thomas.overridden(read_overrides(items)).elements == of_file.elements
    for items, said in (
        (both[:1], "--set: spin: give broadband_linewidth_hz and broadband_readout_rate_hz together"),
        ([*both, "spin.readout_rate_hz=-1"], "--set: spin.readout_rate_hz = -1 Hz: must be >= 0"),
        ([*both, "spin.readout_rate=1"], "unknown key 'readout_rate'; did you mean"),
        ([*both, "link.transmission=1 kHz"], "link.transmission"),
        (["spin.larmor_hz=1e6", "spin.larmor_offset_hz=1e3"], "give only one of larmor_hz, larmor_offset_hz"),
        (["spin.in.excess_sn=1", "spin.in.angle=1"], "unknown key 'angle'"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            thomas.overridden(read_overrides(items))


def test_parts_of_elements_are_reached_by_name(thomas):
    text = TOML.replace(
        'kind = "loss"\ntransmission = "53 %"',
        'kind = "technical_noise"\n[[element.lines]]\nname = "hum"\ncenter_hz = 1e6\nwidth_hz = 1e3\npeak_sn = 2.0',
    )
    e = Experiment.from_toml(text).with_values({"link.hum.peak_sn": "5 SN"})
    assert e.value("link.hum.peak_sn") == 5.0
    assert "link.hum.peak_sn" in e.fields()
    with pytest.raises(InputError, match="no part 'hmu'; did you mean 'hum'"):
        e.with_values({"link.hmu.peak_sn": 1.0})


def test_priors_have_units():
    e = Experiment.from_toml(TOML + '[prior]\n"spin.readout_rate_hz" = { mean = "20 kHz", sd = "1 kHz" }\n')
    assert (e.priors["spin.readout_rate_hz"].mean, e.priors["spin.readout_rate_hz"].sd) == pytest.approx((20e3, 1e3))


def test_reported_modes_default_to_oscillators_in_path_order(thomas):
    assert Experiment(thomas.elements).reported_modes() == ("spin", "membrane")


def test_what_an_analysis_assumes():
    """Defaults are not written; what is stated is read back, and refused with its key where it is none."""
    assert "excess_sd_sn" not in Experiment.from_toml(TOML).to_toml()
    stated = 'excess_sd_sn = "0.05 SN"\nshot_reproducibility = "2 %"\nrobust = true\nepr = { weight = 0.8, angle_deg = 30 }\n'

    def of(text):
        table = "[analysis]\n"
        return Experiment.from_toml(TOML.replace(table, table + text) if table in TOML else f"{TOML}{table}{text}")

    e = of(stated)
    assert (e.assumed.excess_sd_sn, e.assumed.shot_reproducibility, e.assumed.epr) == (0.05, 0.02, (0.8, 30.0))
    assert Experiment.from_toml(e.to_toml()).assumed == e.assumed
    for text, said in (
        ("robust = 1", "[analysis] robust = 1: must be true or false"),
        ("excess_sd_sn = -1", "[analysis] excess_sd_sn = -1: must be from 0 to 1"),
        ("epr = { weight = 1 }", "expected { weight = ..., angle_deg = ... }"),
        ("epr = { weight = -1, angle_deg = 0 }", "epr.weight = -1: must be >= 0"),
        ("shot_reproducability = 0.1", "did you mean 'shot_reproducibility'"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            of(text)
