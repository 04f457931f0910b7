"""What the data leave to the priors, where the answer is known: spectra that are functions of given products of parameters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction.inference.diagnostics import told

F_HZ = np.linspace(-5e3, 5e3, 400)


def lorentzian(height, width, floor):
    return floor + height / (1 + (2 * F_HZ / width) ** 2)


def information(model, values, relative, averages=400):
    """N sum_f d ln S d ln S^T by central differences, in units of log-normal priors of these relative widths."""
    names = list(values)
    rows = []
    for name, sd in zip(names, relative, strict=True):
        up, down = (model(**values | {name: values[name] * np.exp(s * 1e-4 * sd)}) for s in (1, -1))
        rows.append((np.log(up) - np.log(down)) / 2e-4)
    J = np.array(rows)
    return averages * J @ J.T


def words(model, relative, **values):
    return told(information(model, values, relative), list(values), np.asarray(relative))


@pytest.mark.parametrize("relative", [(0.3, 0.3, 0.3, 0.3), (0.2, 0.5, 0.3, 0.1)])
def test_of_three_factors_no_pair_is_measured(relative):
    """Height = efficiency x occupation x rate/width: two of three factors are open, and no product or ratio of two is told."""
    said = words(
        lambda efficiency, occupation, rate, width: lorentzian(efficiency * occupation * rate / width, width, 1.0),
        relative, efficiency=0.5, occupation=30.0, rate=2e3, width=800.0,
    )  # fmt: skip
    assert len(said) == 1
    assert said[0].startswith("2 combinations of ")
    assert {"efficiency", "occupation", "rate"} == set(said[0][18:].split(":")[0].split(", "))


def test_pairs_with_their_powers():
    def spectrum(gain, occupation, linewidth, drag, mass):
        return lorentzian(gain**2 * occupation, 800.0 * linewidth, 1.0 + drag / mass)

    said = words(spectrum, (0.3, 0.3, 0.3, 0.4, 0.3), gain=3.0, occupation=10.0, linewidth=1.0, drag=2.0, mass=4.0)
    assert set(said) == {"gain^2 x occupation is measured, not each", "drag / mass is measured, not each"}


def test_a_chain_of_products_is_said_once():
    """Height a b and floor b c leave one direction (a up, b down, c up): two sentences say it all."""
    said = words(lambda a, b, c: lorentzian(a * b, 800.0, b * c), (0.3, 0.3, 0.3), a=2.0, b=3.0, c=0.5)
    assert len(said) == 2
    assert set(said) <= {f"{p} is measured, not each" for p in ("a x b", "b x c", "a / c")}


def test_what_the_data_do_not_see_is_named_alone():
    said = words(
        lambda height, width, unseen, a, b, c: lorentzian(height, width, a * b * c), (0.3, 0.3, 0.3, 0.2, 0.2, 0.2),
        height=5.0, width=700.0, unseen=1.0, a=1.0, b=1.0, c=1.0,
    )  # fmt: skip
    assert said[0] == "the data say less than the prior of: unseen"
    assert said[1].startswith("2 combinations of ")
    assert len(said) == 2


def test_all_is_measured():
    assert words(lorentzian, (0.3, 0.3, 0.3), height=5.0, width=700.0, floor=1.0) == []


def test_calibrations_that_are_correlated():
    """Coordinates u of correlated scores z = M u: the words are of the parameters, whatever M."""
    values, relative = {"gain": 3.0, "occupation": 10.0, "width": 700.0}, np.array([0.3, 0.3, 0.3])
    F = information(
        lambda gain, occupation, width: lorentzian(gain**2 * occupation, width, 1.0), values, relative, averages=4000
    )
    M = np.linalg.cholesky([[1.0, 0.6, 0.2], [0.6, 1.0, 0.3], [0.2, 0.3, 1.0]])
    assert told(M.T @ F @ M, list(values), relative, M) == ["gain^2 x occupation is measured, not each"]


def test_information_of_a_pair_is_that_with_all_others_free():
    """Within the plane of a and b alone F tells a x b; with c free it tells nothing: F^-1 decides, by the Schur complement."""
    J = np.array([[1.0, 1.0, 1.0]]) * 30
    F = J.T @ J
    assert F[:2, :2].sum() / 2 > 1000
    assert told(F, ["a", "b", "c"], np.ones(3)) == ["2 combinations of a, b, c: the priors decide, not the data"]
    G = F + np.diag([0.0, 0.0, 400.0])  # c known otherwise
    schur = G[:2, :2] - np.outer(G[:2, 2], G[2, :2]) / G[2, 2]
    assert_allclose(np.linalg.eigvalsh(schur)[1], 2 / (1 / 900 + 1 / 400), rtol=1e-9)
    assert told(G, ["a", "b", "c"], np.ones(3)) == ["a x b is measured, not each"]
