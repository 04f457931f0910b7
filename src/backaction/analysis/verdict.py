"""What is said of a record: entangled or not, how sure, and the tests that allow or withhold the word."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.analysis.quantum import OWN
from backaction.inference.fit import SpectrumFit
from backaction.records.statistics import LEVEL, Check, chi_square_p, normal_p, words
from backaction.records.taken import Taken
from backaction.systems.sampled import discretise

SURE = 1e-3
"""Largest P(V >= 1) of a witness."""
DISTANCE_SD = 3.0
"""Least distance of the nearest separable model."""


def fit_check(fit: SpectrumFit) -> Check:
    """Whether the bins are as the fitted spectrum says (chi-square of their normal scores)."""
    good = fit.p >= LEVEL
    if fit.in_time:
        phrase = words(fit.p, "consistent with white", "NOT white: the model does not fit this record")
        return Check(
            "innovations goodness of fit", good, fit.band_ratio, fit.p,
            f"the innovations of the fitted samples are {phrase} in the band (p = {fit.p:.2g}; {fit.band_ratio:.4f} of "
            f"their predicted power, mean ratio of bins {fit.mean_ratio:.4f} +- {fit.mean_ratio_sd:.4f})",
        )  # fmt: skip
    phrase = words(fit.p, "consistent with the model", "NOT consistent with the model")
    return Check(
        "spectrum goodness of fit",
        good,
        fit.band_ratio,
        fit.p,
        f"the measured spectrum is {phrase} (p = {fit.p:.2g}; band power {fit.band_ratio:.4f} of the model, "
        f"mean ratio of bins {fit.mean_ratio:.4f} +- {fit.mean_ratio_sd:.4f})",
    )


def prior_checks(fit: SpectrumFit) -> list[Check]:
    """Whether the fitted values are where the priors expect them; none without normal priors."""
    pulls = np.array([fit.pull(n) for n in fit.names if fit.pull(n) != 0.0])
    if not pulls.size:
        return []
    p = chi_square_p(pulls)
    worst = max(fit.names, key=lambda n: abs(fit.pull(n)))
    good = words(p, "compatible", "NOT compatible")
    return [
        Check(
            "fitted values against priors",
            p >= LEVEL,
            float(np.sum(pulls**2)),
            p,
            f"fitted values are {good} with the priors (p = {p:.2g}; largest pull {fit.pull(worst):+.1f} sd: {worst})",
        )
    ]


FLOOR_BINS, FLOOR_SD = 5, 6.0
"""Bins in a band's width, and the scatter in sd beyond which the floor is not white: wide bins, since what bends is slow."""


def floor_warnings(found: Taken, fit: SpectrumFit) -> list[str]:
    """Whether the floor beside the band, which the model takes as white, really is."""
    record, band = found.record, found.band_hz
    span = band[1] - band[0]
    wide = found.coarser(max(span / FLOOR_BINS, 10 / record.duration_s))
    top = min(band[1] + 4 * span, 0.48 * record.sample_rate_hz)
    f = wide.frequency_hz
    outside = ((f > max(band[0] - 4 * span, 2 * wide.resolution_hz)) & (f < band[0])) | ((f > band[1]) & (f < top))
    model = discretise(fit.experiment.system, *record.digitiser).spectrum(f[outside]) * fit.scale
    ratio = wide.density[outside] / model
    if not ratio.size or np.max(np.abs(ratio / np.median(ratio) - 1)) < FLOOR_SD / np.sqrt(wide.averages):
        return []
    return [
        f"the floor is not white: beside the band it varies from {np.min(ratio):.2g} to {np.max(ratio):.2g} of the fitted "
        "white level, so the filter is optimal only within the band"
    ]


def verdict_of(quantum: dict[str, Any], tests: list[Check], linear: bool = False) -> tuple[str, bool | None]:
    """The verdict in words, and whether it says entangled (None where it is withheld).

    "Entangled" needs all checks made and passed, P(V >= 1) <= 1e-3 at a pair (a, angle) that this record did not choose,
    also about the larger of the model's V and the measured floor's, and the nearest separable model at least 3 sd away.
    `linear` says whether a calibration of the detector's linearity was given.
    """
    failed = [t.name for t in tests if not t.passed]
    if failed:
        lines = next((f"; {t.sentence}" for t in tests if t.name == "residual lines" and not t.passed), "")
        return f"verdict withheld: {len(failed)} of {len(tests)} checks failed ({', '.join(failed)}){lines}", None
    if "epr_variance" not in quantum:
        state = quantum["conditional_sampled"]
        sure = quantum.get("occupations", {})
        facts = ", ".join(
            f"{m} {sure[m]['mean']:.3g} +- {sure[m]['sd']:.2g} quanta" if m in sure else f"{m} {n:.4g} quanta"
            for m, n in state["occupations"].items()
        )
        return f"conditional state: {facts}, purity {state['purity']:.4g}; entanglement needs two modes", None
    e, nu, floor, separable = (quantum[k] for k in ("epr_variance", "ppt", "measured_floor", "separable"))
    digits = max(2, min(4, 1 - int(np.floor(np.log10(max(e["sd"], 1e-4))))))
    number = f"EPR variance {e['value']:.{digits}f} +- {e['sd']:.{digits}f}"
    larger = max(e["value"], floor["epr_variance"])
    if larger > e["value"]:
        model = number.removeprefix("EPR variance ")
        number = f"EPR variance {larger:.{digits}f} by the measured floor ({model} by the model)"
    fixed = f"at a = {e['weight']:.3f}, angle {e['angle_deg']:.1f} deg ({e['chosen_by']})"
    beside = "" if separable["distance_sd"] == 0 else f"; {_distance(separable)}"
    unchecked = "" if linear else "; detector linearity not checked"
    if not any(t.name == "prediction and retrodiction" for t in tests):
        why = "prediction and retrodiction could not be compared (too short a record, or no later sample tells of the state)"
        return f"verdict withheld: {why}; {number} {fixed}{beside}", None
    above = max(e["probability_above_1"], normal_p((1 - larger) / e["sd"]) / 2 if larger < 1 and e["sd"] > 0 else 1.0)
    if above <= SURE and e["chosen_by"] != OWN and separable["distance_sd"] >= DISTANCE_SD:
        return f"entanglement witnessed: {number} < 1 {fixed}{beside}; given the calibrated scale{unchecked}", True
    return (
        f"entanglement not witnessed: {number} {fixed}; P(V < 1) = {e['probability_below_1']:.{_nines(e)}f}, "
        f"PPT eigenvalue {nu['value']:.3f} +- {nu['sd']:.3f} (entangled below 1/2){beside}{unchecked}",
        False,
    )


def _distance(separable: dict[str, Any]) -> str:
    """The nearest separable model in words."""
    if separable["status"] != "nearest":
        return f"nearest separable model ({separable['kind']}): {separable['status']}"
    return f"the nearest separable model ({separable['kind']}) is {separable['distance_sd']:.1f} sd away"


def _nines(e: dict[str, Any]) -> int:
    """Digits that show how far a probability is from 1."""
    return int(np.clip(np.ceil(-np.log10(max(e["probability_above_1"], 1e-5))), 2, 5))
