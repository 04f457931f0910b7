import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from backaction import Experiment, analyze, read_record
from backaction.records.simulation import reference, simulate
from backaction.report import analysis as report
from support.experiments import HYBRID, HYBRID_BARE, NANOSPHERE
from support.reference import shared

pytestmark = pytest.mark.slow


def records(name):
    return [read_record(shared(f"data/records/{n}.h5")) for n in (name, "shot_noise", "dark_noise")]


@pytest.fixture(scope="module")
def clean(thomas):
    return analyze(thomas, *records("hybrid_clean"))


def test_clean_record_spectrum_agrees_with_the_model(thomas):
    """Table I as it is, nothing fitted: goodness of fit over 1.2-1.5 MHz, band power within 0.5 % of the model."""
    from backaction.records.shot_level import shot_noise
    from backaction.records.spectrum import averaged_spectrum
    from backaction.records.statistics import chi_square_p, gamma_normal_scores
    from backaction.systems.sampled import discretise

    record, shot, dark = records("hybrid_clean")
    calibration = shot_noise(record, shot, dark, 0.0, (1.2e6, 1.5e6))
    s = averaged_spectrum(record, 300.0).band(1.2e6, 1.5e6)
    model = discretise(thomas.system, 1e7).spectrum(s.frequency_hz) * calibration.density
    ratio = s.density / model
    assert chi_square_p(gamma_normal_scores(ratio, s.averages)) > 0.01
    assert abs(np.sum(s.density) / np.sum(model) - 1) < 0.005
    # the unweighted mean of ratios has a statistical error of 0.42 %, and the shot level 0.15 %
    assert abs(np.mean(ratio) - 1) < 3 * np.hypot(1 / np.sqrt(s.averages * ratio.size), calibration.relative_sd)


def test_clean_record_innovations(thomas):
    """Table I as it is: variance within 1 % of the prediction and white, p > 0.01."""
    from backaction.records.shot_level import shot_noise
    from backaction.tracking.innovations import innovation_checks
    from backaction.tracking.run import track

    record, shot, dark = records("hybrid_clean")
    calibration = shot_noise(record, shot, dark, 0.0, (1.2e6, 1.5e6))
    tests = {t.name: t for t in innovation_checks(track(thomas, record, calibration), calibration, (1.2e6, 1.5e6))}
    assert abs(tests["innovation variance"].value - 1) < 0.01
    assert tests["innovation whiteness"].p > 0.01
    assert tests["innovation flatness in band"].p > 0.01


def test_clean_record_analysis(clean):
    """Truth: EPR 0.789 continuous, 0.802 for this filter. The fit's mean ratio is within 0.5 %, every check passes."""
    assert clean.passed
    assert clean.exit_code == 0
    level = clean.document()["calibration"]
    assert (level["shot_lines_hz"], level["dark_lines_hz"], level["slope_per_hz"]) == ([], [], 0.0)
    assert abs(clean.fit.mean_ratio - 1) < 0.005
    e = clean.quantum["epr_variance"]
    assert abs(e["value"] - 0.8018) < 3 * e["sd"]
    assert abs(e["continuous_limit"] - 0.7891) < 3 * e["sd"]
    assert 0.005 < e["sd"] < 0.05
    assert clean.entangled is True
    assert clean.verdict.startswith("entanglement witnessed: EPR variance 0.8")
    assert "given the calibrated scale" in clean.verdict
    assert any("0.0401 SN" in w for w in clean.warnings)  # the dark record contradicts the experiment
    truth = {
        "membrane.coupling_hz": 107331.26,
        "link.transmission": 0.53,
        "spin.broadband_noise_sn": 1.68,
        "phase.angle_deg": 180.0,
    }
    for name, value in truth.items():
        i = clean.fit.names.index(name)
        assert abs(clean.fit.values[i] - value) < 3.5 * clean.fit.sd[i]


def test_floor_that_the_record_allows(clean):
    """No excess in this record: the allowed variance is the filter's own within its interval."""
    floor = clean.quantum["measured_floor"]
    assert abs(floor["excess_sn"]) < 0.05
    assert_allclose(floor["epr_variance"], clean.quantum["epr_variance"]["value"], atol=0.05)


def test_hybrid_record_without_its_lines_is_found_out():
    found = analyze(Experiment.from_toml(HYBRID_BARE), *records("hybrid"), quick=True)
    assert found.exit_code == 4
    assert found.entangled is None
    assert found.verdict.startswith("verdict withheld")
    frequencies = np.array([x.frequency_hz for x in found.lines])
    for line in (1.359e6, 1.5165e6, 1.5235e6):
        assert np.min(np.abs(frequencies - line)) < 2e3
    assert "1359" in found.verdict or "1358" in found.verdict


def test_hybrid_record_with_its_lines_passes():
    found = analyze(Experiment.from_toml(HYBRID), *records("hybrid"), quick=True)
    assert found.passed, [t.sentence for t in found.tests if not t.passed]
    assert found.exit_code == 0
    assert all("separate maxima" in w for w in found.warnings)  # two lines of the membrane may change places
    e = found.quantum["epr_variance"]
    assert 0.6 < e["value"] < 0.95
    assert e["sd"] < 0.1


def test_real_levitated_particle(tmp_path):
    """One mode near 61.9 kHz, about 1 kHz wide; in-band innovations flat; the coloured floor is said; no quantum claim."""
    record = read_record(shared("data/levitated_nanosphere/CH1_RUN00000001_REPEAT0000.raw"))
    found = analyze(Experiment.from_toml(NANOSPHERE), record)
    values = dict(zip(found.fit.names, found.fit.values, strict=True))
    assert abs(values["particle.frequency_hz"] - 61.9e3) < 200
    assert 500 < values["particle.intrinsic_linewidth_hz"] < 2000
    assert found.in_band["before"] > 5
    assert found.in_band["after"] < 1.2
    assert any("floor is not white" in w for w in found.warnings)
    assert any("beyond the band" in w for w in found.warnings)
    assert found.exit_code == 0
    assert found.quantum is None
    assert "no shot-noise reference" in found.verdict
    assert "entangled" not in found.verdict
    report.write_report(found, tmp_path / "r")
    assert json.loads((tmp_path / "r/result.json").read_text())["state"] is None


def test_not_witnessed_is_not_called_separable(thomas):
    """A lossy link: V > 1, and the words say 'not witnessed' with the PPT value."""
    lossy = thomas.with_values({"link.transmission": 0.05, "spin.larmor_offset_hz": 110e3})
    lossy = Experiment(lossy.elements, lossy.modes, band_hz=lossy.band_hz, name="lossy")
    made = simulate(lossy, 0.05, 1e7, 1)
    found = analyze(
        lossy,
        made.record,
        reference("shot", lossy, 0.05, 1e7, 1),
        reference("dark", lossy.with_values({"detector.electronic_noise_sn": 1e-3}), 0.05, 1e7, 1),
    )
    assert found.entangled is False
    assert "not witnessed" in found.verdict
    assert "PPT" in found.verdict
    assert "separable" not in found.verdict


def test_wrong_model_is_withheld(thomas):
    """Data of a membrane that couples twice as strongly than its (fixed) model: exit 4, no claim."""
    strong = thomas.with_values({"membrane.coupling_hz": 1.4e5})
    made = simulate(strong, 0.05, 1e7, 1)
    fixed = Experiment(thomas.elements, thomas.modes, band_hz=thomas.band_hz, name="fixed")
    found = analyze(fixed, made.record, reference("shot", fixed, 0.05, 1e7, 1), quick=True)
    assert found.exit_code == 4
    assert found.entangled is None


def test_report_folder_is_complete_and_self_contained(clean, tmp_path):
    folder = report.write_report(clean, tmp_path / "report")
    assert sorted(p.name for p in folder.iterdir()) == sorted(report.FILES)
    page = (folder / "index.html").read_text()
    assert "entanglement witnessed" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64") == 5
    document = json.loads((folder / "result.json").read_text())
    assert document["passed"] is True
    fitted = Experiment.load(folder / "fitted.toml")
    assert fitted.value("link.transmission") == document["fit"]["parameters"]["link.transmission"]["mean"]
    again = document["experiment"]["name"]
    assert again == "thomas2021"
