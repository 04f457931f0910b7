"""Compiled programs of many points: against LAPACK point by point, over random networks, and where they must step aside."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import BackactionError, Experiment, evaluate, gradient
from backaction.elements.base import Element, Light
from backaction.elements.fields import quantity
from backaction.elements.optics import static
from backaction.experiment.program import BatchView, batch
from backaction.numerics.matrix_equations import MANY
from backaction.systems.labels import Port
from support.networks import experiments as networks


def around(experiment, fields, rng, count=MANY, width=1e-2):
    """Values of some fields about the experiment's own."""
    return {f: float(experiment.value(f)) * (1 - width * rng.random(count)) for f in fields}


def point(experiment, values, k):
    return experiment.with_values({f: float(v[k]) for f, v in values.items()})


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # of other sizes
@given(networks(), st.integers(0, 1 << 30), st.sampled_from(["conditional", "unconditional"]))
def test_random_networks_equal_point_by_point(experiment, seed, state):
    """Occupation and purity of whatever modes there are, any number of currents; the same points have no answer."""
    rng = np.random.default_rng(seed)
    free = [f for f in experiment.fields() if float(experiment.value(f)) != 0]
    assume(
        free and experiment.layout.currents and experiment.layout.A.shape[-1] in (4, 6)
    )  # loops compile for each size
    values = around(experiment, rng.choice(free, min(4, len(free)), replace=False).tolist(), rng)
    many = experiment.with_values(values)
    with np.errstate(all="ignore"):
        got = np.broadcast_to(evaluate(f"{state}.purity", many), (MANY,))
        for k in rng.integers(0, MANY, 4):
            try:
                want = float(evaluate(f"{state}.purity", point(experiment, values, k)))
            except (BackactionError, np.linalg.LinAlgError):
                assert not np.isfinite(got[k])
                continue
            assert_allclose(got[k], want, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("thomas2021", "conditional.epr.variance"),
        ("thomas2021", "unconditional.epr_at_conditional.variance"),
        ("thomas2021", "unconditional.duan"),
        ("moller2017", "conditional.log_negativity"),
        ("huang2018", "conditional.epr.variance"),  # two currents
        ("huang2018", "unconditional.epr_readout.variance"),
    ],
)
def test_values_and_gradients_of_the_shipped_experiments(name, result):
    """Compiled adjoints against the complex step through LAPACK, point by point; fields that are no arrays too."""
    e, rng = Experiment.load(name), np.random.default_rng(3)
    free = [f for f in e.fields() if float(e.value(f)) != 0 and float(e.value(f)) != 1]
    fields = free[:6]
    values = around(e, fields[:4], rng, width=1e-2 if name != "huang2018" else 1e-4)
    many = e.with_values(values)
    assert isinstance(many.view, BatchView)
    got, slopes = evaluate(result, many), gradient(result, many, fields)
    assert slopes.shape == (MANY, len(fields))
    for k in (0, 17, MANY - 1):
        one = point(e, values, k)
        try:
            assert_allclose(got[k], evaluate(result, one), rtol=1e-9)
        except BackactionError:
            assert np.isnan(got[k])
            continue
        want = gradient(result, one, fields)
        sizes = np.array([abs(float(e.value(f))) for f in fields])
        assert np.max(np.abs(slopes[k] - want) * sizes) < 1e-7 * max(np.max(np.abs(want) * sizes), 1e-9)


def test_unstable_points_are_nan_and_their_neighbours_are_not():
    """A blue detuning beyond the threshold: no unconditional state there, none elsewhere is lost."""
    e = Experiment.load("thomas2021")
    detuning = np.linspace(-0.7e6, 0.7e6, MANY)
    many = e.with_values({"membrane.detuning_hz": detuning})
    V = evaluate("unconditional.epr.variance", many)
    assert isinstance(many.view, BatchView)
    for k in range(0, MANY, 40):
        try:
            want = evaluate("unconditional.epr.variance", e.with_values({"membrane.detuning_hz": float(detuning[k])}))
        except BackactionError:
            want = np.nan
        assert_allclose(V[k], want, rtol=1e-8)
    assert 0 < np.sum(np.isnan(V)) < MANY


@dataclass(frozen=True, kw_only=True)
class Branching(Element):
    """A loss that decides by its value: half of the light is lost above the threshold."""

    kind: ClassVar[str] = "branching"
    level: Any = quantity("1", 0.0)
    seen: ClassVar[list] = []

    def build(self, light=Light()):
        T = np.where(np.asarray(self.level) > 0.5, 0.5, 1.0)
        T = np.asarray(T, dtype=float) + 0.0 * np.asarray(self.level)
        rows = [[np.sqrt(T), 0 * T, np.sqrt(1 - T), 0 * T], [0 * T, np.sqrt(T), 0 * T, np.sqrt(1 - T)]]
        D = np.moveaxis(
            np.array(np.broadcast_arrays(*[x for r in rows for x in r])).reshape(2, 4, *np.shape(T)), (0, 1), (-2, -1)
        )
        ports = (Port(f"{self.name}.in", "field"), Port(f"{self.name}.vacuum", "field"))
        return static(D, 0.5 * np.eye(4), ports, (Port(f"{self.name}.out", "field", carrier=light.carrier),))


def test_a_builder_that_decides_by_its_values_is_left_to_numpy():
    """Points on both sides of the decision: no program agrees with the builder, and the answer is right."""
    e = Experiment.load("thomas2021")
    with_branch = Experiment([*e.elements[:-1], Branching(name="b"), e.elements[-1]], modes=e.modes)
    values = {"b.level": np.linspace(0, 1, MANY)}
    many = with_branch.with_values(values)
    assert batch(many, many.reported_modes()) is None
    V = evaluate("conditional.epr.variance", many)
    for k in (0, MANY // 2 - 5, MANY // 2 + 5, MANY - 1):
        assert_allclose(V[k], evaluate("conditional.epr.variance", point(with_branch, values, k)), rtol=1e-9)
    assert V[0] < V[-1]


def test_few_points_and_complex_ones_are_left_to_numpy(thomas):
    few = thomas.with_values({"phase.angle_deg": np.linspace(170, 190, MANY - 1)})
    assert batch(few, few.reported_modes()) is None
    complex_ = thomas.with_values({"phase.angle_deg": np.linspace(170, 190, MANY) + 0j})
    assert batch(complex_, complex_.reported_modes()) is None


def test_a_grid_keeps_its_shape(thomas):
    """Two fields of different axes broadcast."""
    values = {"phase.angle_deg": np.linspace(170, 190, 40)[:, None], "link.transmission": np.linspace(0.4, 0.6, 25)}
    grid = thomas.with_values(values)
    V = evaluate("conditional.epr.variance", grid)
    assert V.shape == (40, 25)
    G = gradient("conditional.epr.variance", grid, ["detector.efficiency", "phase.angle_deg"])
    assert G.shape == (40, 25, 2)
    one = thomas.with_values({"phase.angle_deg": 170.0 + 20 * 7 / 39, "link.transmission": 0.4 + 0.2 * 11 / 24})
    assert_allclose(V[7, 11], evaluate("conditional.epr.variance", one), rtol=1e-10)
    assert_allclose(
        G[7, 11], gradient("conditional.epr.variance", one, ["detector.efficiency", "phase.angle_deg"]), rtol=1e-7
    )


def test_gradients_of_retrodicted_states_go_through_lapack(thomas):
    """Compiled adjoints know two states; a third one had the adjoint of the unconditional state: zero by the efficiency."""
    eta = np.linspace(0.6, 0.9, MANY)
    G = gradient("retrodicted.epr.variance", thomas.with_values({"detector.efficiency": eta}), ["detector.efficiency"])
    one = thomas.with_values({"detector.efficiency": float(eta[100])})
    assert_allclose(G[100], gradient("retrodicted.epr.variance", one, ["detector.efficiency"]), rtol=1e-9)


def test_a_solution_that_does_not_stabilise_is_none_in_a_batch_either():
    """A growing mode that is not seen: the equation has a solution, the filter has not."""
    from backaction.numerics.matrix_equations import care

    A, Q, F = np.diag([1.0, -1.0]), np.diag([0.0, 1.0]), np.array([[0.0], [1.0]])
    assert not care(A, Q, F)[2]
    V, _, good = care(*(np.broadcast_to(m, (MANY, *m.shape)) for m in (A, Q, F)))
    assert not np.any(good)
    assert np.all(np.isnan(V))


def test_a_point_without_numbers_does_not_spoil_its_batch():
    from backaction.numerics.matrix_equations import care

    A, Q, F = (np.broadcast_to(np.array(m), (MANY, 1, 1)).copy() for m in (-1.0, 1.0, 1.0))
    A[3] = np.nan
    V, _, good = care(A, Q, F)
    assert np.flatnonzero(~good).tolist() == [3]
    assert_allclose(V[0, 0, 0], np.sqrt(2) - 1, rtol=1e-12)
