import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, Prior, SpinOscillator
from backaction.inference.fit import fit_spectrum
from backaction.inference.target import SCALE
from backaction.records.shot_level import ShotNoise
from backaction.records.simulation import VOLT_DENSITY, simulate
from backaction.records.spectrum import averaged_spectrum
from backaction.systems.sampled import Digitiser

RATE = 2e6


def spin(**more):
    values = dict(larmor_hz=-3e5, intrinsic_linewidth_hz=2e3, readout_rate_hz=8e3, tensor_ratio=0.05, occupation=1.0)
    return SpinOscillator(name="s", **values | more)


def experiment(priors, efficiency=0.8, **more):
    return Experiment([spin(**more), Homodyne(name="d", efficiency=efficiency)], priors=priors)


PRIORS = {
    "s.larmor_hz": Prior(-3e5, 2e3),
    "s.readout_rate_hz": Prior(8e3, 1e3),
    "s.intrinsic_linewidth_hz": Prior(2e3, 3e2),
    "d.efficiency": Prior(0.8, 0.05),
}


def measured(seed, **more):
    record = simulate(experiment({}, **more), 0.3, RATE, seed).record
    return averaged_spectrum(record, 200.0).band(2.4e5, 3.6e5)


def test_recovers_the_truth_with_honest_errors():
    """20 seeds, truth drawn from the prior: pulls against the Laplace sd have zero mean and unit spread."""
    pulls = []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        truth = {k.split(".")[1]: rng.normal(p.mean, p.sd) for k, p in PRIORS.items()}
        fit = fit_spectrum(
            experiment(PRIORS), measured(seed, **truth), ShotNoise(VOLT_DENSITY, 1e-3, "V"), Digitiser(RATE)
        )
        for k, v in truth.items():
            i = next(i for i, n in enumerate(fit.names) if n.endswith(f".{k}"))
            pulls.append((fit.values[i] - v) / fit.sd[i])
    pulls = np.array(pulls)
    assert abs(np.mean(pulls)) < 3.5 / np.sqrt(pulls.size)
    assert 0.7 < np.std(pulls) < 1.35


def test_parameters_without_data_keep_their_prior():
    """Efficiency far from the line is hardly seen: its posterior is its prior; scale keeps its calibration."""
    fit = fit_spectrum(experiment(PRIORS), measured(1), ShotNoise(VOLT_DENSITY, 1e-3, "V"), Digitiser(RATE))
    assert fit.sd[fit.names.index("d.efficiency")] <= 0.05 * 1.0001
    assert fit.names[-1] == SCALE
    assert fit.sd[-1] <= 1.0001e-3
    assert fit.p > 1e-3


def test_finds_a_line_that_starts_many_widths_away():
    """The coordinate scan: a prior 10 times wider than the line, truth 2 sd away."""
    priors = PRIORS | {"s.larmor_hz": Prior(-3e5, 1e4)}
    fit = fit_spectrum(
        experiment(priors), measured(2, larmor_hz=-2.8e5), ShotNoise(VOLT_DENSITY, 1e-3, "V"), Digitiser(RATE)
    )
    assert_allclose(fit.values[fit.names.index("s.larmor_hz")], -2.8e5, atol=5 * fit.sd[fit.names.index("s.larmor_hz")])


def test_uncalibrated_record_gets_a_fitted_floor():
    fit = fit_spectrum(experiment(PRIORS), measured(3), ShotNoise(1.0, np.inf, "V", floor_known=False), Digitiser(RATE))
    assert_allclose(fit.scale, VOLT_DENSITY, rtol=0.1)


def test_uniform_prior_at_its_bound_is_reported():
    priors = PRIORS | {"s.larmor_hz": Prior(lower=-3.5e5, upper=-3.1e5)}
    fit = fit_spectrum(
        experiment(priors, larmor_hz=-3.2e5), measured(4), ShotNoise(VOLT_DENSITY, 1e-3, "V"), Digitiser(RATE)
    )
    assert "s.larmor_hz" in fit.at_bound


def test_experiment_without_priors_fits_only_the_scale():
    fit = fit_spectrum(experiment({}), measured(6), ShotNoise(VOLT_DENSITY, 1e-3, "V"), Digitiser(RATE))
    assert fit.names == (SCALE,)
    assert fit.p > 1e-3
    assert pytest.approx(1.0, abs=5e-3) == fit.scale
