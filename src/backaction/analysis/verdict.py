"""What is said of a record: entangled or not, how sure, and the tests that allow or withhold the word."""

from __future__ import annotations

from typing import Any

import numpy as np

from backaction.analysis import technical_noise
from backaction.experiment.derivatives import gradient
from backaction.experiment.describe import state_document
from backaction.experiment.experiment import Experiment
from backaction.experiment.results import gaussian_state
from backaction.inference.fit import SpectrumFit
from backaction.inference.posterior import Posterior
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import Check, chi_square_p, words
from backaction.records.taken import Taken
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.states.measures import describe_state
from backaction.systems.sampled import discretise, steady_filter
from backaction.tracking.tracks import Track


def fit_check(fit: SpectrumFit) -> Check:
    """Whether the bins are as the fitted spectrum says (chi-square of their normal scores)."""
    good = fit.p >= 1e-3
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
            p >= 1e-3,
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


def quantum_states(
    given: Experiment, fit: SpectrumFit, posterior: Posterior, calibration: ShotNoise, record: Record, followed: Track
) -> dict[str, Any]:
    """States at the fit, the interval of the EPR variance at one fixed (a, b), and the variance that the floor allows."""
    best, measured = fit.experiment, fit.spectrum
    document = state_document(best)
    sampled = GaussianState(followed.covariance, followed.modes)
    out: dict[str, Any] = {
        "quoted": f"the filter of this record ({record.sampling} samples at {record.sample_rate_hz:g} Hz)",
        "unconditional": document["unconditional"],
        "conditional_continuous": document["conditional"],
        "conditional_sampled": describe_state(sampled),
    }
    if len(followed.modes) != 2:
        return out
    e = entanglement.epr(sampled)
    V = posterior.target.systems(0).conditional(posterior.draws.flat)
    good = np.all(np.isfinite(V), axis=(-2, -1))
    continuous = entanglement.epr(gaussian_state(best))
    spread = entanglement.epr_variance(V[good], continuous.weight, continuous.angle_deg)
    nu = entanglement.ppt_min(V[good])
    # the sampled filter's variance moves with the parameters as the continuous one does
    shift = float(e.variance / continuous.variance)
    nu_shift = float(entanglement.ppt_min(sampled) / entanglement.ppt_min(gaussian_state(best)))
    low, middle, high = (np.quantile(spread, [0.05, 0.5, 0.95]) * shift).tolist()
    out["epr_variance"] = {
        "value": float(e.variance),
        "mean": float(np.mean(spread) * shift),
        "sd": float(np.std(spread) * shift),
        "q05": low,
        "q50": middle,
        "q95": high,
        "weight": float(e.weight),
        "angle_deg": float(e.angle_deg),
        "continuous_limit": float(continuous.variance),
        "probability_below_1": float(np.mean(spread * shift < 1)),
        "draws": int(spread.size),
        "method": posterior.draws.method,
    }
    out["ppt"] = {
        "value": float(entanglement.ppt_min(sampled)),
        "sd": float(np.std(nu) * nu_shift),
        "probability_below_half": float(np.mean(nu * nu_shift < 0.5)),
    }
    out["technical_cost"] = [
        {"source": c.source, "epr_variance": c.variance, "without": c.without}
        for c in technical_noise.costs(best, record.digitiser)
    ]
    out["measured_floor"] = _floor_allows(given, fit, measured, calibration, record)
    return out


def _floor_allows(
    given: Experiment, fit: SpectrumFit, measured: Spectrum, calibration: ShotNoise, record: Record
) -> dict[str, float]:
    """Excess of the measured floor over the calibrated one, and V_c with it as white noise at the detector.

    The calibrated model is the experiment as given, its lines moved to where the fit finds them: a fit can absorb an
    excess into its parameters, the calibrations cannot. The excess is the mean over the outer 15 % of the band on either
    side; its error holds statistics, the shot-noise scale and the priors of all parameters. Only a positive one is added.
    """
    at = ("larmor", "mechanical_hz", "frequency_hz", "center_hz")
    moved = {
        n: float(v) for n, v in zip(fit.names, fit.values, strict=True) if any(w in n.rpartition(".")[2] for w in at)
    }
    calibrated = given.with_values(moved)
    f = measured.frequency_hz
    edge = 0.15 * (f[-1] - f[0])
    sides = (f < f[0] + edge) | (f > f[-1] - edge)
    f = f[sides]
    level = discretise(calibrated.system, *record.digitiser).spectrum(f)
    extra = float(np.mean(measured.density[sides] / calibration.density - level))
    widths = {n: p.sd for n, p in given.priors.items() if p.sd is not None and n not in moved}
    prior = np.zeros(1)
    if widths:
        slopes = gradient("spectrum", calibrated, list(widths), frequency_hz=f[:: max(1, f.size // 50)])
        prior = np.mean(slopes, axis=-1) * np.array(list(widths.values()))
    statistics = np.sqrt(np.mean(level**2) / (measured.averages * f.size))
    sd = float(np.sqrt(statistics**2 + (calibration.relative_sd * np.mean(level)) ** 2 + np.sum(prior**2)))
    detector = calibrated.detectors()[0]

    def variance(excess: float) -> float:
        noise = max(0.0, calibrated.electronic_noise_sn + max(0.0, excess))
        noisy = calibrated.with_values({f"{detector.name}.electronic_noise_sn": noise})
        P = steady_filter(discretise(noisy.system, *record.digitiser)).covariance
        return float(entanglement.epr(noisy.view.of(P)).variance)

    return {
        "excess_sn": extra, "excess_sd_sn": sd, "epr_variance": variance(extra),
        "epr_variance_upper": variance(extra + 2 * sd), "epr_variance_without_excess": variance(0.0),
    }  # fmt: skip


def verdict_of(quantum: dict[str, Any], passed: bool, tests: list[Check]) -> tuple[str, bool | None]:
    """The verdict in words, and whether it says entangled (None where it is withheld)."""
    if not passed:
        failed = [t.name for t in tests if not t.passed]
        lines = next((f"; {t.sentence}" for t in tests if t.name == "residual lines" and not t.passed), "")
        names = ", ".join(failed)
        return f"verdict withheld: {len(failed)} of {len(tests)} checks of the model failed ({names}){lines}", None
    if "epr_variance" not in quantum:
        state = quantum["conditional_sampled"]
        facts = ", ".join(f"{m} {n:.4g} quanta" for m, n in state["occupations"].items())
        return f"conditional state: {facts}, purity {state['purity']:.4f}; entanglement needs two modes", None
    e, nu = quantum["epr_variance"], quantum["ppt"]
    digits = max(2, min(4, 1 - int(np.floor(np.log10(max(e["sd"], 1e-4))))))
    number = f"EPR variance {e['value']:.{digits}f} +- {e['sd']:.{digits}f}"
    fixed = f"at a = {e['weight']:.3f}, angle {e['angle_deg']:.1f} deg"
    if e["q95"] < 1:
        return f"entanglement witnessed: {number} < 1 {fixed}, given the calibrated scale", True
    if nu["probability_below_half"] > 0.95:
        return (
            f"entangled by PPT (smallest eigenvalue {nu['value']:.3f} < 1/2), though {number} {fixed} does not show it",
            True,
        )
    return (
        f"entanglement not witnessed: {number} {fixed}; P(V < 1) = {e['probability_below_1']:.2f}, "
        f"PPT eigenvalue {nu['value']:.3f} +- {nu['sd']:.3f} (entangled below 1/2)",
        False,
    )
