"""One mode from record to report: an overdamped oscillator, the shipped starting points, and what sampling costs."""

import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, Homodyne, Oscillator, Prior, analyze
from backaction.analysis.technical_noise import sampling_loss, sampling_sentence
from backaction.records.simulation import reference, simulate
from backaction.report import analysis as report
from backaction.systems.sampled import discretise, steady_filter
from support.commands import schema


@pytest.mark.parametrize(("rate_hz", "words"), [(4e5, "sampling costs 19 % of the efficiency"), (1e7, "")])
def test_sampling_costs_the_sinc(rate_hz, words):
    """Interval averages pass sinc^2(f/fs) of a narrow line's power and all of the white noise: 1 - sinc^2 of the efficiency."""
    e = Experiment([
        Oscillator(name="b", frequency_hz=1e5, intrinsic_linewidth_hz=0.01, occupation=5.0, readout_rate_hz=500.0),
        Homodyne(name="d", efficiency=0.7),
    ])  # fmt: skip
    loss = sampling_loss(e, steady_filter(discretise(e.system, rate_hz)).covariance)
    assert_allclose(loss, 1 - np.sinc(1e5 / rate_hz) ** 2, rtol=2e-3, atol=2e-5)
    assert sampling_sentence(loss) == words


@pytest.mark.slow
def test_an_overdamped_oscillator(tmp_path):
    """Linewidth three times the frequency, two real poles: fit, filter, checks, report; the truth is found."""
    import jsonschema

    e = Experiment(
        [
            Oscillator(name="bead", frequency_hz=1e3, intrinsic_linewidth_hz=3e3, temperature_k=292.0, readout_rate_hz=200.0),
            Homodyne(name="detector", efficiency=0.5),
        ],
        priors={"bead.frequency_hz": Prior(1e3, 50.0), "bead.intrinsic_linewidth_hz": Prior(3e3, 300.0),
                "bead.readout_rate_hz": Prior(200.0, 20.0)},
        name="overdamped",
    )  # fmt: skip
    made = simulate(e, 0.5, 1e5, seed=3)
    found = analyze(e, made.record, reference("shot", e, 0.5, 1e5, seed=4), quick=True)
    assert found.exit_code == 0
    assert (found.band_hz[0], found.band_hz[1] > 3e3) == (0.0, True)
    assert found.in_band["before"] > 3 * found.in_band["after"]
    for name, value, sd in zip(found.fit.names, found.fit.values, found.fit.sd, strict=True):
        if name.startswith("bead"):
            assert abs(value - e.value(name)) < 4 * sd
    page = (report.write_report(found, tmp_path / "r") / "index.html").read_text()
    document = json.loads((tmp_path / "r/result.json").read_text())
    jsonschema.validate(document, schema("analyze"))
    assert page.index("What limits it") < page.index("Does the model fit") < page.index("Numbers")
    numbers = page[page.index("<h2>Numbers") : page.index("<h2>Figures")]
    for words in ("conditional occupation", "unconditional occupation", "purity", "squeezing", "back-action", "decoherence",
                  "measurement", "total efficiency", "cooperativity"):  # fmt: skip
        assert re.search(f"bead: [^<]*{words}", numbers)
    truth = document["posterior"]["derived"]["unconditional.occupation.bead"]
    k_t = 1.380649e-23 * 292.0 / (6.62607015e-34 * 1e3)
    assert abs(truth["mean"] - k_t) < 4 * truth["sd"] + 1e-6 * k_t


@pytest.mark.slow
@pytest.mark.parametrize(("name", "duration_s", "rate_hz"), [("levitated", 0.2, 1e6), ("membrane", 0.1, 4e6)])
def test_shipped_starting_points(name, duration_s, rate_hz):
    """Simulated as they are and analysed with their priors: every check passes, the interval holds the truth."""
    from backaction import evaluate

    e = Experiment.load(name)
    made = simulate(e, duration_s, rate_hz, seed=1)
    found = analyze(e, made.record, reference("shot", e, duration_s, rate_hz, seed=2), quick=True)
    assert found.exit_code == 0
    mode = e.reported_modes()[0]
    drawn = found.posterior.derived_summary[f"conditional.occupation.{mode}"]
    assert abs(drawn["mean"] - evaluate(f"conditional.occupation.{mode}", e)) < 4 * drawn["sd"]
