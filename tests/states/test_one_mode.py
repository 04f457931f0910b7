"""Words for one mode against squeezed thermal states, whose numbers are known, and numpy's eigenvalues."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from backaction import GaussianState
from backaction.states import by_mode


def squeezed_thermal(n, r, angle_deg):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    R = np.array([[c, -s], [s, c]])
    return (n + 0.5) * R @ np.diag([np.exp(-2 * r), np.exp(2 * r)]) @ R.T


@given(st.floats(0, 50), st.floats(0.05, 3), st.floats(-89.9, 90))
def test_squeezed_thermal_state(n, r, angle_deg):
    """V = (n + 1/2) diag(e^-2r, e^2r) turned: occupation (n + 1/2) cosh 2r - 1/2, n, purity, 10 log10 of twice the least."""
    V = squeezed_thermal(n, r, angle_deg)
    m = by_mode(GaussianState(V, ("a",)))["a"]
    least = (n + 0.5) * np.exp(-2 * r)
    assert_allclose(m["occupation"], (n + 0.5) * np.cosh(2 * r) - 0.5, rtol=1e-12)
    assert_allclose(m["thermal_occupation"], n, rtol=1e-9, atol=1e-9)
    assert_allclose(m["purity"], 1 / (2 * n + 1), rtol=1e-9)
    assert_allclose([m["least_variance"], np.linalg.eigvalsh(V)[0]], least, rtol=1e-9)
    assert_allclose(m["squeezing_db"], -10 * np.log10(2 * least), atol=1e-8)
    assert_allclose(m["squeezed_angle_deg"], angle_deg, atol=1e-6)


def test_a_state_without_direction_and_one_that_is_squeezed_along_p():
    """Thermal: angle 0, no squeezing; squeezed along P: 90 degrees, not -90. Other conventions give the same words."""
    thermal = by_mode(GaussianState(np.eye(2) * 2.5, ("a",)))["a"]
    assert (thermal["squeezed_angle_deg"], thermal["occupation"]) == (0.0, 2.0)
    state = GaussianState(np.diag([2.0, 0.125, 0.5, 0.5]), ("a", "b"))
    m = by_mode(state)
    assert m["a"]["squeezed_angle_deg"] == 90.0
    assert_allclose(m["b"]["squeezing_db"], 0.0, atol=1e-12)
    assert by_mode(state.to(1.0, "xxpp")) == m
