"""Programs of the builders: the same matrices, exact gradients, for every shipped experiment and random networks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import special

from backaction import Experiment
from backaction.experiment.derivatives import stepped
from backaction.experiment.program import entries
from backaction.experiment.toml import shipped_experiments, unit_bounds
from backaction.numerics.complex_step import STEP
from backaction.numerics.tracing import Trace, traced
from support.networks import experiments as networks


def fields_of(e):
    return [f for f in e.fields() if isinstance(e.value(f), (int, float)) and float(e.value(f)) != 0.0]


def program_of(e, fields):
    trace = Trace([float(e.value(f)) for f in fields])
    values = {f: traced(v) for f, v in zip(fields, trace.inputs, strict=True)}
    return trace.program(entries(e.with_values(values, "trace").build()))


def inner(e, f):
    """Fields at the edge of their range cannot be moved both ways."""
    _, low, high = unit_bounds(e, f)
    return low < e.value(f) < high


@pytest.mark.parametrize("name", shipped_experiments())
def test_shipped_experiments(name):
    """Values at moved parameters as the builder's, the gradient of a random sum as the complex step's."""
    e = replace(Experiment.load(name).frictional(), stabilised="")
    fields = [f for f in fields_of(e) if inner(e, f)]
    program = program_of(e, fields)
    rng = np.random.default_rng(1)
    # far enough to tell a frozen number, not so far that the driven cavity's terms change their roles
    size = 1e-9 if name == "ockeloen2018" else 1e-3
    x = np.array([e.value(f) for f in fields]) * (1 + size * rng.uniform(-1, 1, len(fields)))
    moved = e.with_values({f: float(v) for f, v in zip(fields, x, strict=True)})
    want = np.array([float(v) for v in entries(moved.build())])
    assert np.max(np.abs(program(x) - want)) < 1e-12 * np.max(np.abs(want))
    weights = rng.standard_normal(want.size) / np.maximum(np.abs(want), 1e-3 * np.max(np.abs(want)))
    step = stepped(moved, fields)
    slopes = np.imag(np.array([entries(step[k]) for k in range(len(fields))])) / STEP
    got = program.gradient(x, weights)
    size_of = np.abs(slopes) @ np.abs(weights)
    assert np.max(np.abs(got - slopes @ weights) / np.maximum(size_of, 1e-300)) < 1e-9


@settings(deadline=None)
@given(networks(), st.integers(0, 2**31))
def test_random_networks(e, seed):
    if len(e.system.currents) != 1:
        return
    fields = [f for f in fields_of(e) if inner(e, f)]
    program = program_of(e, fields)
    rng = np.random.default_rng(seed)
    x = np.array([e.value(f) for f in fields]) * (1 + 1e-3 * rng.uniform(-1, 1, len(fields)))
    if not all(unit_bounds(e, f)[1] < v < unit_bounds(e, f)[2] for f, v in zip(fields, x, strict=True)):
        return
    moved = e.with_values({f: float(v) for f, v in zip(fields, x, strict=True)})
    want = np.array([float(v) for v in entries(moved.build())])
    assert np.max(np.abs(program(x) - want)) < 1e-9 * np.max(np.abs(want))


def test_every_operation_and_its_reverse():
    """All functions that builders and priors use, against NumPy and SciPy, the gradient against differences."""
    x = np.array([0.7, 0.3])
    trace = Trace(x)
    a, b = trace.inputs
    outputs = [
        a + b, a - b, a * b, a / b, 1.0 - a, 2.0 / a, -a, a**2, a**2.5, a**-1, 2.0**a, a**b, a.sqrt(), a.sin(), a.cos(),
        a.tan(), a.exp(), a.expm1(), a.log(), a.arctan(), a.normal(), a.quantile(), abs(a), abs(-a), +a,
    ]  # fmt: skip

    def plain(v):
        a, b = v
        return np.array([
            a + b, a - b, a * b, a / b, 1.0 - a, 2.0 / a, -a, a**2, a**2.5, a**-1, 2.0**a, a**b, np.sqrt(a), np.sin(a),
            np.cos(a), np.tan(a), np.exp(a), np.expm1(a), np.log(a), np.arctan(a), special.ndtr(a), special.ndtri(a),
            a, a, a,
        ])  # fmt: skip

    program = trace.program(outputs)
    for point in (x, np.array([0.2, 1.7])):
        assert_allclose(program(point), plain(point), rtol=1e-14)
        for k in range(len(outputs)):
            weight = np.eye(len(outputs))[k]
            h = 1e-6
            slope = [(plain(point + h * e) - plain(point - h * e))[k] / (2 * h) for e in np.eye(2)]
            assert_allclose(program.gradient(point, weight), slope, rtol=1e-7, atol=1e-9)


@given(st.floats(1e-300, 1.0, exclude_max=True))
@settings(deadline=None)
def test_quantile_to_rounding(p):
    from backaction.numerics.compile import library

    want = special.ndtri(p)
    assert abs(library("program").quantile(p) - want) < 1e-12 * max(1.0, abs(want))


def test_equal_operations_are_written_once_and_constants_folded():
    trace = Trace([2.0])
    (a,) = trace.inputs
    assert a * 0.0 == 0.0
    assert trace.constant[(a * 0.0).index]
    assert np.sqrt(np.array([a * 0.0 + 4.0], dtype=object))[0] == 2.0  # NumPy asks constants for their methods too
    assert (a * 3.0).index == (3.0 * a).index
    assert len(trace.program([a * 3.0, 3.0 * a + 0.0]).codes) == 1
    with pytest.raises(TypeError):
        trace.number(1j)
