import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose

from backaction import budget, transfer
from backaction.errors import InputError, ModelError
from backaction.systems.response import cross_spectrum
from support.networks import experiments


def test_sources_at_the_mechanical_frequency(numbers, thomas):
    ref = numbers["TABLE"]["spectrum_SN_at_fM"]
    b = budget(thomas.system, [thomas.element("membrane").effective_mechanics()[0]])
    names = {
        "spin.bath": "spin_thermal", "membrane.bath": "mech_thermal", "spin.in": "light_in", "link.vacuum": "intersystem_vacuum",
        "membrane.loss": "cavity_ex_vacuum", "detector.vacuum": "detection_vacuum", "spin.broadband": "broadband_spin",
    }  # fmt: skip
    for ours, theirs in names.items():
        assert_allclose(b.sources[ours][0], ref[theirs], rtol=1e-7)
    assert_allclose(b.total[0], ref["total"], rtol=1e-8)
    light = sum(b.sources[k][0] for k in ("spin.in", "link.vacuum", "membrane.loss"))
    assert_allclose(light - 0.77, ref["QBA"], rtol=1e-8)


def test_far_spectrum_is_the_measurement_noise(numbers, thomas):
    assert_allclose(budget(thomas.system, [1e12]).total[0], numbers["TABLE"]["S_inf_SN"], rtol=1e-8)


@given(experiments())
def test_sources_sum_to_the_total(experiment):
    f = np.linspace(3e5, 2.2e6, 17)
    b = budget(experiment.system, f)
    assert_allclose(sum(b.sources.values()), b.total, rtol=1e-10)
    assert all(np.all(v >= 0) for v in b.sources.values())


@given(experiments())
def test_output_fields_keep_their_commutators_at_every_frequency(experiment):
    """H Omega_w H^dagger = Omega_y: para-unitarity of the field outputs, a test in the frequency domain."""
    s = experiment.system
    fields = [p.name for p in s.outputs if p.kind == "field"]
    if not fields:
        return
    H = transfer(s, [1.01e6], fields)[0]
    left = H @ s.input_commutator @ H.conj().T
    right = np.kron(np.eye(len(fields)), [[0, 1], [-1, 0]])
    assert_allclose(left, right, atol=1e-8 * max(1.0, float(np.max(np.abs(H))) ** 2))


def test_cross_spectra_are_hermitian_and_positive(thomas):
    S = cross_spectrum(thomas.system, np.linspace(1.36e6, 1.38e6, 5))
    assert_allclose(S, np.conj(np.swapaxes(S, -1, -2)))
    assert np.all(np.linalg.eigvalsh(S) > -1e-9)


def test_dataset_carries_labels(thomas):
    data = budget(thomas.system, [1.36e6, 1.37e6]).to_xarray()
    assert data["sources"].sel(source="spin.bath").shape == (2,)
    assert_allclose(data["sources"].sum("source"), data["total"])


def test_unstable_system_has_no_spectrum(thomas):
    with pytest.raises(ModelError, match="unstable"):
        budget(thomas.with_values({"membrane.detuning_hz": 0.7e6, "spin.larmor_hz": -1e6}).system, [1e6])


def test_unknown_current_is_refused(thomas):
    with pytest.raises(InputError, match="no current 'dtector'"):
        budget(thomas.system, [1e6], "dtector")
