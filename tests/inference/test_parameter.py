"""Priors as maps of a standard normal, against SciPy's distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from backaction import Prior
from backaction.inference.parameter import Parameter
from backaction.numerics.tracing import Trace


class TruncatedStudent:
    """Student-t with 4 degrees of freedom within low .. high."""

    def __init__(self, centre, scale, low, high):
        self.law = stats.t(4, centre, scale)
        self.first, self.last = self.law.cdf(low), self.law.cdf(high)

    def ppf(self, p):
        return self.law.ppf(self.first + (self.last - self.first) * p)


CASES = [
    (
        Parameter("a", Prior(0.9, 0.05), upper=1.0, lower=0.0),
        stats.truncnorm((0 - 0.9) / 0.05, (1 - 0.9) / 0.05, 0.9, 0.05),
    ),
    (Parameter("a", Prior(2.0, 0.5)), stats.norm(2.0, 0.5)),
    (Parameter("a", Prior(lower=-1.0, upper=3.0)), stats.uniform(-1.0, 4.0)),
    (Parameter("a", Prior(median=2.0, factor=1.5)), stats.lognorm(np.log(1.5), scale=2.0)),
    (Parameter("a", Prior(-1.0, 0.5), lower=0.0), stats.truncnorm(2.0, np.inf, -1.0, 0.5)),
    (Parameter("a", Prior(1.0, 0.5, lower=0.8, upper=1.1)), stats.truncnorm(-0.4, 0.2, 1.0, 0.5)),
    (Parameter("a", Prior(0.0, 0.02, lower=0.0)), stats.halfnorm(0.0, 0.02)),
    (Parameter("a", Prior(2.0, 0.5), robust=True), stats.t(4, 2.0, 0.5)),
    (Parameter("a", Prior(0.9, 0.05), lower=0.0, upper=1.0, robust=True), TruncatedStudent(0.9, 0.05, 0.0, 1.0)),
    (Parameter("a", Prior(0.0, 0.02, lower=0.0), robust=True), TruncatedStudent(0.0, 0.02, 0.0, np.inf)),
]


@pytest.mark.parametrize(("parameter", "distribution"), CASES)
def test_quantiles_are_those_of_the_distribution(parameter, distribution):
    p = np.array([1e-6, 0.01, 0.3, 0.5, 0.8, 0.99, 1 - 1e-6])
    # SciPy's own t quantile is right to 1e-4 of itself near its centre
    assert_allclose(parameter.quantiles(p), distribution.ppf(p), rtol=1e-7, atol=1e-11)
    u = stats.norm.ppf(p)
    assert_allclose(parameter.score(parameter.value(u)), u, atol=1e-6)


@pytest.mark.parametrize(("parameter", "distribution"), CASES)
def test_traced_as_written(parameter, distribution):
    trace = Trace([0.0])
    program = trace.program([parameter.value(trace.inputs[0])])
    for u in (-3.0, -0.4, 0.0, 2.5):
        assert_allclose(program([u]), parameter.value(u), rtol=1e-12)


@given(st.floats(-5, 5), st.floats(-5, 5))
@settings(deadline=None)
def test_maps_rise(a, b):
    for parameter, _ in CASES:
        if a < b - 1e-9:
            assert parameter.value(a) <= parameter.value(b)


def test_described_in_words():
    words = [p.described() for p, _ in CASES[:6]]
    assert CASES[8][0].described() == "0.9 +- 0.05 (Student-t, 4 degrees of freedom)"
    assert words == ["0.9 +- 0.05", "2 +- 0.5", "-1 .. 3", "2 */ 1.5", "-1 +- 0.5", "1 +- 0.5 (> 0.8, < 1.1)"]
