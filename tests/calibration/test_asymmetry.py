"""Sideband asymmetry: the exact law of the ratio, its interval, and the prior that follows."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from support.calibrations import (
    make,
)

# -- the models against other routes ----------------------------------------------------------------------------------


def _asymmetry(b, r, sd, **more):
    return make("sideband_asymmetry", blue_area=b, red_area=r, relative_noise=sd, **more)


@given(st.floats(0.3, 6.0), st.floats(0.005, 0.05), st.floats(-0.05, 0.2), st.sampled_from([0.0, 0.03]))
def test_interval_of_the_sideband_asymmetry(n, sd, x, x_sd):
    """Its ends by Fieller's quadratic (b - R r)^2 = z^2 (sb^2 + R^2 sr^2), or by drawing x where that has an error."""
    b, r = n + 1 + x, n - x
    method = _asymmetry(b, r, sd, noise_occupation=x, noise_occupation_sd=x_sd)
    found = method.run([])["occupation"]
    assert found.value == pytest.approx(n, rel=1e-9)
    if not x_sd:
        v = (1.96 * sd) ** 2
        R = np.roots([r * r * (1 - v), -2 * b * r, b * b * (1 - v)])
        ends = sorted(np.inf if R <= 1 else (1 + x * (1 + R)) / (R - 1) for R in R)
        assert_allclose(found.interval, ends, rtol=1e-9)
        return
    rng = np.random.default_rng(0)
    for end, score in zip(found.interval, (-1.96, 1.96), strict=True):
        if not np.isfinite(end):
            continue
        true = rng.normal(x, x_sd, 40_000)  # T = 0 on average; its scatter over areas and x is what the score counts in
        T = rng.normal(b, sd * b, true.size) * (end - true) - rng.normal(r, sd * r, true.size) * (end + 1 + true)
        assert np.mean(T) / np.std(T) == pytest.approx(score, abs=0.03)


def test_pulls_of_the_sideband_asymmetry():
    """400 simulations at n = 5 with areas of 5 %: normal scores in the stated law are normal; those of mean and sd are not."""
    rng = np.random.default_rng(0)
    areas = np.array([6.0, 5.0]) * (1 + 0.05 * rng.standard_normal((400, 2)))
    scores, former, prior = [], [], []
    for b, r in areas[areas[:, 0] > areas[:, 1]]:
        method = _asymmetry(b, r, 0.05)
        q = method.run([])["occupation"]
        scores.append(float(method.score(5.0)))
        former.append((q.value - 5) / q.sd)
        prior.append(np.log(q.value / 5) / np.log(q.factor))
    assert len(scores) > 390
    assert max(np.abs(scores)) < 3.9
    assert abs(np.mean(scores)) < 0.15
    assert 0.9 < np.std(scores) < 1.1
    assert min(former) < -4  # the trap
    assert min(prior) > min(former) / 1.5  # log-normal: right at the interval's upper end, wide below, short far out


def test_asymmetry_as_a_prior(tmp_path, thomas):
    """Log-normal in the calibration file and for whoever reads it; without an upper bound no prior."""
    import json

    import jsonschema

    from backaction.calibration.sets import combine
    from backaction.experiment.prior import Prior
    from backaction.files import to_json
    from backaction.inference.calibration_file import read_calibration

    def written(b, r):
        found = replace(_asymmetry(b, r, 0.05).run([]), priors={"membrane.bath_occupation": "occupation"})
        document = combine("c", [found], thomas).document()
        (tmp_path / "c.json").write_text(to_json(document))
        schema = resources.files("backaction") / "data" / "schemas" / "calibration.json"
        jsonschema.validate(json.loads((tmp_path / "c.json").read_text()), json.loads(schema.read_text()))
        return found["occupation"], read_calibration(tmp_path / "c.json", thomas)[0], document["warnings"]

    q, priors, _ = written(2.0, 1.0)
    assert priors == {"membrane.bath_occupation": Prior(median=q.value, factor=q.factor)}
    q, priors, warnings = written(6.0, 5.5)
    assert (q.interval[1], priors) == (np.inf, {})
    assert any("no upper bound at 95 %" in w for w in warnings)
    assert any("membrane.bath_occupation has no upper bound: no prior" in w for w in warnings)
