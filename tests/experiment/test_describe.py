"""What `state` says of the rotating wave: against the full harmonic balance and the Floquet exponents."""

import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, ModelError, epr
from backaction.experiment.describe import state_document
from support.commands import call


def driven(red_hz, blue_hz):
    return Experiment.load("ockeloen2018").with_values(
        {"drums.red.coupling_hz": red_hz, "drums.blue.coupling_hz": blue_hz}
    )


def beyond(experiment):
    return float(epr(experiment.view.of(experiment.periodic().covariance()[0])).variance)


@pytest.mark.parametrize(("red_hz", "blue_hz", "changes"), [(278e3, 166e3, False), (3e6, 2e6, True)])
def test_lowest_order_against_all_harmonics(red_hz, blue_hz, changes):
    e = driven(red_hz, blue_hz)
    document = state_document(e)
    wave = document["rotating_wave"]
    exact = beyond(e)
    assert_allclose(wave["epr_variance"], exact, rtol=0.01)
    assert wave["verdict_changes"] is changes
    assert (document["unconditional"]["epr"]["variance"] < 1) != (exact < 1) or not changes
    assert any("rotating wave does not hold" in w for w in document["warnings"]) is changes


def test_unstable_beyond_the_rotating_wave(capsys):
    """Nearly balanced tones: the rotating wave has a state that is entangled, the periodic system none."""
    e = driven(300e3, 280e3)
    with pytest.raises(ModelError, match="Floquet"):
        e.periodic().check_stable()
    wave = state_document(e)["rotating_wave"]
    growth = float(wave["reason"].split("grows at ")[1].split(" Hz")[0])
    assert wave["unstable"]
    assert_allclose(growth, e.periodic().exponents()[0] / 6.283185307, rtol=1e-3)
    sets = ("--set", "drums.red_coupling_hz=300e3", "--set", "drums.blue_coupling_hz=280e3")
    code, out, err = call(capsys, "state", "ockeloen2018", *sets)
    assert code == 0
    assert "witnessed" not in out
    assert "does not hold" in err
    code, out, err = call(capsys, "state", "ockeloen2018")
    assert "entanglement witnessed" in out
    assert "rotating wave" not in err
