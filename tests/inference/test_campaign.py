"""Campaigns from TOML: what is shared, what varies, calibrations, masks, bins; and one line for every mistake."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Prior
from backaction.errors import InputError
from backaction.inference.campaign import Campaign, shipped_campaigns
from backaction.inference.data import simulated
from backaction.inference.target import Target
from backaction.records.taken import resolution
from support.campaigns import EXPERIMENT, PLAN, write


def test_shared_and_fixed(tmp_path):
    """`set` fixes a field for its record; all else is shared."""
    c = Campaign.load(write(tmp_path))
    t = Target(c)
    assert [r.name for r in c.records] == ["a", "b"]
    assert set(t.names) == {"s.larmor_hz", "s.readout_rate_hz", "d.efficiency", "calibration.scale"}
    assert t.fields(1, np.zeros(t.size)).keys() == {"s.readout_rate_hz", "d.efficiency"}
    assert t.experiment(1, np.zeros(t.size)).value("s.larmor_hz") == -3.1e5


def test_varying_fields_move_their_prior_with_set(tmp_path):
    t = Target(Campaign.load(write(tmp_path, PLAN + '[vary]\n"s.larmor_hz" = "independent"\n')))
    at = dict(zip(t.names, t.values(np.zeros(t.size)), strict=True))
    assert at["s.larmor_hz[a]"] == -3e5
    assert at["s.larmor_hz[b]"] == -3.1e5
    assert "s.larmor_hz" not in at


def test_hierarchy_has_a_spread(tmp_path):
    t = Target(Campaign.load(write(tmp_path, PLAN + '[vary]\n"d.efficiency" = { spread = 0.02 }\n')))
    assert {"d.efficiency", "d.efficiency:spread", "d.efficiency[a]", "d.efficiency[b]"} <= set(t.labels())
    rng = np.random.default_rng(0)
    u = rng.standard_normal((20000, t.size))
    theta = dict(zip(t.labels(), t.values(u).T, strict=True))
    assert np.all(theta["d.efficiency:spread"] > 0)
    assert_allclose(np.mean(theta["d.efficiency:spread"] ** 2), 0.02**2, rtol=0.05)  # half-normal
    assert_allclose(np.std(theta["d.efficiency[a]"] - theta["d.efficiency"]), 0.02, rtol=0.05)


def test_masks_and_priors_of_the_file(tmp_path):
    extra = '[prior]\n"s.occupation" = { lower = 0.1, upper = 3.0 }\n"d.efficiency" = { mean = 0.7, sd = 0.02 }\n'
    c = Campaign.load(write(tmp_path, PLAN + extra))
    f = c.records[1].spectrum.frequency_hz
    assert not np.any((f > 3e5) & (f < 3.05e5))
    assert c.records[0].spectrum.frequency_hz.size > f.size
    assert c.priors["d.efficiency"] == Prior(0.7, 0.02)
    assert c.priors["s.occupation"] == Prior(lower=0.1, upper=3.0)
    assert c.priors["s.readout_rate_hz"] == Prior(median=8e3, factor=1.1)


def test_ties_and_derived(tmp_path):
    from backaction.inference import quantities

    plan = (
        PLAN
        + '[tie]\n"s.occupation" = "s.readout_rate_hz / 8000"\n[derived]\ncooperativity = "s.readout_rate_hz / s.intrinsic_linewidth_hz"\n'
    )
    plan += 'quanta = "conditional.occupation.s"\n'
    c = Campaign.load(write(tmp_path, plan))
    t = Target(c)
    found = quantities.quantities(t, np.zeros((1, 2, t.size)), c.derived)
    assert_allclose(found["cooperativity[a]"].values, 4.0)
    assert_allclose(found["quanta[a]"].values, found["conditional.occupation.s[a]"].values, rtol=1e-8)


def test_calibration_file(tmp_path):
    document = {
        "schema": "backaction/calibration/1",
        "parameters": {"s.readout_rate_hz": {"mean": 8100.0, "sd": 100.0}, "d.efficiency": {"mean": 0.79, "sd": 0.01}},
        "covariance": {"names": ["s.readout_rate_hz", "d.efficiency"], "matrix": [[1e4, -0.5], [-0.5, 1e-4]]},
    }
    plan = PLAN + '[likelihood]\ncalibrations = ["cal.json"]\n'
    c = Campaign.load(write(tmp_path, plan, cal_json=json.dumps(document)))
    assert c.priors["d.efficiency"] == Prior(0.79, 0.01)
    names, R = c.correlated[0]
    assert names == ("s.readout_rate_hz", "d.efficiency")
    assert_allclose(R, [[1, -0.5], [-0.5, 1]])
    document["covariance"]["matrix"] = [[1e4, -5.0], [-5.0, 1e-4]]
    with pytest.raises(InputError, match="positive"):
        Campaign.load(write(tmp_path, plan, cal_json=json.dumps(document)))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("", "missing 'experiment'"),
        ('experiment = "bench.toml"\n', "at least one"),
        (PLAN.replace("[[record]]", "[[recrod]]"), "unknown key 'recrod'.*record"),
        (PLAN + '[vary]\n"s.larmor" = "independent"\n', "larmor"),
        (PLAN + '[vary]\n"s.occupation" = "independent"\n', "has no prior"),
        (PLAN + '[vary]\n"s.larmor_hz" = "each"\n', "expected"),
        (PLAN + '[vary]\n"s.larmor_hz" = { spread = -1.0 }\n', "> 0"),
        (PLAN + '[prior]\n"d.efficiency" = { mean = 0.8 }\n', "mean and sd go together"),
        (PLAN + '[prior]\n"d.efficiency" = { median = 0.8, factor = 0.5 }\n', "factor > 1"),
        (PLAN + '[likelihood]\nkind = "gama"\n', "gamma"),
        (PLAN + "[likelihood]\nmodel_error = -0.1\n", "model_error"),
        (PLAN + '[likelihood]\ncalibrations = ["no.json"]\n', "no calibration file"),
        (PLAN.replace('name = "b"', 'name = "a"'), "two records have the name 'a'"),
        (PLAN.replace("simulate = { seed = 1, duration", "simulate = { sede = 1, duration"), "unknown key 'sede'"),
        (PLAN.replace("simulate = { seed = 1", 'file = "x.h5"\nrate = { seed = 1'), "x.h5|no such file"),
        (PLAN.replace('["300 kHz", "305 kHz"]', '["305 kHz", "300 kHz"]'), "lowest < highest"),
        (PLAN.replace('["300 kHz", "305 kHz"]', '["200 kHz", "400 kHz"]'), "leaves 0 of"),
        (PLAN.replace('"-310 kHz"', '"-310 kg"'), "kg"),
    ],
)
def test_mistakes_are_named(tmp_path, plan, words):
    with pytest.raises(InputError, match=words) as caught:
        Campaign.load(write(tmp_path, plan))
    assert "\n" not in str(caught.value)


def test_no_such_campaign():
    with pytest.raises(InputError, match="thomas2021"):
        Campaign.load("thomas201")


@pytest.mark.parametrize("name", shipped_campaigns())
def test_shipped_campaigns_load(name):
    c = Campaign.load(name)
    assert len(c.records) >= 3
    assert Target(c).size > 20


def test_simulated_spectra_scatter_as_gamma():
    """Mean and variance of many seeds against the expected spectrum and its averages."""
    e = Experiment.from_toml(EXPERIMENT)
    plain = simulated("r", e, e.band_hz, 0.05, None, 1e3)
    many = np.array([simulated("r", e, e.band_hz, 0.05, k, 1e3).density_sn for k in range(300)]) / plain.density_sn
    assert abs(np.mean(many) - 1) < 5 / np.sqrt(many.size * 50)
    assert_allclose(np.var(many) * 50, 1.0, rtol=0.05)


def test_merged_bins_keep_power_and_averages():
    e = Experiment.from_toml(EXPERIMENT)
    r = simulated("r", e, e.band_hz, 0.2, 1, 100.0)
    c = Campaign("c", (r,), e.priors)
    t = Target(c)
    m = c.merged(t.models(np.zeros(t.size)), [t.poles(0, np.zeros(t.size))]).records[0]
    assert m.spectrum.density.size < r.spectrum.density.size / 3
    assert_allclose(np.sum(m.averages), np.sum(r.averages))
    assert_allclose(np.sum(m.density_sn * m.spectrum.resolution_hz), np.sum(r.density_sn) * 100.0)
    near = np.abs(m.spectrum.frequency_hz - 3e5) < 500
    assert np.max(m.spectrum.resolution_hz[near]) <= 400
    fine, rough = (
        t.fisher(np.zeros(t.size), prior=False),
        Target(c.with_records([m])).fisher(np.zeros(t.size), prior=False),
    )
    assert_allclose(np.diag(rough), np.diag(fine), rtol=0.02)  # what the data say is kept


def test_resolution_follows_the_narrowest_line():
    e = Experiment.from_toml(EXPERIMENT)
    assert_allclose(resolution(e, 1.0, (2.4e5, 3.6e5)), 250.0)
    assert resolution(e, 0.01, (2.4e5, 3.6e5)) == 1000.0
