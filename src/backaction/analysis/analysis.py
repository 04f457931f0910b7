"""The main job: from an experiment and a photocurrent to a conditional state, a verdict and what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backaction import inference, tracking
from backaction.analysis.verdict import _dark_conflict, _fit_test, _floor_warning, _prior_test, _quantum, _verdict
from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.files import provenance, to_json
from backaction.inference.calibration_file import read_calibrations
from backaction.inference.fit import SpectrumFit
from backaction.inference.posterior import Posterior
from backaction.numerics.matrices import Array
from backaction.records import statistics
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise, shot_noise
from backaction.records.spectrum import Spectrum, averaged_spectrum
from backaction.records.statistics import Check, ResidualLine
from backaction.states import entanglement
from backaction.systems import steady
from backaction.systems.poles import mode_frequencies
from backaction.tracking import agreement
from backaction.tracking.innovations import innovation_checks, innovation_spectrum, settled
from backaction.tracking.inputs import mean_level
from backaction.tracking.tracks import Track

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that `analyze` found; `document()` is the JSON, `report.write` makes the pages."""

    experiment: Experiment
    record: Record
    band_hz: tuple[float, float]
    calibration: ShotNoise
    measured: Spectrum
    fit: SpectrumFit
    posterior: Posterior | None
    track: Track
    tests: tuple[Check, ...]
    lines: tuple[ResidualLine, ...]
    innovations: Spectrum
    quantum: dict[str, Any] | None
    in_band: dict[str, float]
    warnings: tuple[str, ...]
    verdict: str
    entangled: bool | None
    calibrations: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check of the model against the data passed."""
        return all(t.passed for t in self.tests)

    @property
    def exit_code(self) -> int:
        """0, or 4 where a check failed."""
        return 0 if self.passed else 4

    def document(self) -> dict[str, Any]:
        """The analysis as plain data: schema `backaction/analyze/1`."""
        fit = self.fit
        return {
            "schema": "backaction/analyze/1",
            "provenance": provenance(seed=0, calibrations=list(self.calibrations)),
            "experiment": self.experiment.to_dict(),
            "record": {
                "name": self.record.name,
                "samples": self.record.size,
                "sample_rate_hz": self.record.sample_rate_hz,
                "sampling": self.record.sampling,
                "unit": self.record.unit,
                "metadata": {k: str(v) for k, v in self.record.metadata.items()},
            },
            "calibration": {
                "shot_noise_density": self.calibration.density if self.calibration.floor_known else None,
                "unit": f"{self.calibration.unit}^2/Hz",
                "relative_sd": self.calibration.relative_sd,
                "dark_sn": self.calibration.dark_sn,
                "flat_p": self.calibration.flat_p,
            },
            "band_hz": list(self.band_hz),
            "fit": {
                "status": fit.status,
                "parameters": {
                    n: {
                        "mean": v,
                        "sd": s,
                        "prior_mean": getattr(fit.priors.get(n), "mean", None),
                        "prior_sd": getattr(fit.priors.get(n), "sd", None),
                        "pull": fit.pull(n),
                    }
                    for n, v, s in zip(fit.names, fit.values, fit.sd, strict=True)
                },
                "correlation": fit.correlation,
                "at_bound": list(fit.at_bound),
                "condition": fit.condition,
                "goodness_of_fit_p": fit.p,
                "band_power_ratio": fit.band_ratio,
                "mean_ratio": fit.mean_ratio,
                "mean_ratio_sd": fit.mean_ratio_sd,
            },
            "posterior": None if self.posterior is None else self.posterior.document(),
            "state": self.quantum,
            "track": {
                "modes": list(self.track.modes),
                "frame": self.track.frame,
                "rotation_hz": list(self.track.rotation_hz),
                "time_start_s": self.track.time_start_s,
                "time_step_s": self.track.time_step_s,
                "innovation_variance_sn": self.track.innovation_variance_sn,
                "filter_memory_s": self.track.memory_s,
                "in_band": self.in_band,
            },
            "checks": [
                {"name": t.name, "passed": t.passed, "value": t.value, "p": t.p, "sentence": t.sentence}
                for t in self.tests
            ],
            "passed": self.passed,
            "residual_lines": [
                {"frequency_hz": x.frequency_hz, "width_hz": x.width_hz, "excess": x.excess} for x in self.lines
            ],
            "entangled": self.entangled,
            "verdict": self.verdict,
            "warnings": list(self.warnings),
        }


def analyze(
    experiment: Experiment,
    record: Record,
    shot: Record | None = None,
    dark: Record | None = None,
    resolution_hz: float | None = None,
    progress: Progress | None = None,
    quick: bool = False,
    calibrations: Sequence[Path] = (),
) -> Analysis:
    """Calibrate, fit, filter, test, and say in words whether entanglement is witnessed.

    The interval of the EPR variance is that of the posterior: the no-U-turn sampler, or with `quick` Laplace and importance
    sampling (where its Pareto k allows). Without a shot record the record stays in its own unit with a fitted floor;
    quantum results are then None. `calibrations` are files of `calibrate`: their priors replace the experiment's, with
    their covariance.

    Raises
    ------
    InputError
        For records that do not fit together or a band outside the spectrum.
    ModelError
        If the model is unstable or the fit does not converge.
    """
    say: Progress = progress or (lambda text, part: None)
    known, correlated = read_calibrations(calibrations, experiment)
    if known:
        experiment = replace(experiment, priors={**experiment.priors, **known})
    if record.shots > 1:
        raise InputError(f"{record.name}: {record.shots} shots; analyze takes one continuous record")
    if record.is_complex:
        raise InputError(f"{record.name}: complex (demodulated) records cannot be analysed yet; give the raw current")
    system = experiment.system
    if len(system.currents) != 1:
        raise InputError(f"{experiment.name}: analyze needs exactly one detected current, has {list(system.currents)}")
    steady.unconditional(system)
    band = _band(experiment, record)
    mean_level(record)
    _alive(record)
    width = resolution_hz or _resolution(experiment, record, band)
    if width > (band[1] - band[0]) / 16:
        raise InputError(
            f"{record.name}: too short for a resolution within the band {band[0]:g}..{band[1]:g} Hz: "
            f"{record.duration_s:g} s, needs {160 / (band[1] - band[0]):.3g} s"
        )
    warnings: list[str] = []
    say("calibrating", None)
    electronic = experiment.electronic_noise_sn
    calibration = shot_noise(record, shot, dark, electronic, band)
    warnings += calibration.warnings
    warnings += _dark_conflict(calibration, electronic, experiment)
    say("averaging the spectrum", None)
    measured = averaged_spectrum(record, width).band(*band)
    try:
        fit = inference.fit_spectrum(
            experiment, measured, calibration, record.digitiser, lambda text: say(text, None), correlated
        )
    except ModelError as error:  # what is known of the record may be why
        raise ModelError("; ".join([str(error), *warnings])) from None
    warnings += [f"{n} is at a bound of its prior" for n in fit.at_bound]
    far = sorted((n for n in fit.names if abs(fit.pull(n)) > 2.5), key=lambda n: -abs(fit.pull(n)))
    if far:
        named = ", ".join(f"{n} {fit.pull(n):+.1f}" for n in far[:3])
        warnings.append(f"{len(far)} fitted values are more than 2.5 prior sd from their prior mean: {named}")
    in_unit = calibration if calibration.floor_known else replace(calibration, density=fit.scale * calibration.density)
    followed = tracking.track(fit.experiment, record, in_unit, "rotating", progress=lambda part: say("filtering", part))
    facts = {"experiment": to_json(fit.experiment.resolved().to_dict(), None), "record": record.name}
    followed = replace(followed, provenance=followed.provenance | facts)
    say("testing the innovations", None)
    tests = [_fit_test(fit), *_prior_test(fit), *innovation_checks(followed, in_unit, band)]
    shortest = 20 * record.sample_rate_hz / settled(followed).size
    if not calibration.floor_known:
        # the floor is fitted within the band: beyond it the model claims nothing, and a misfit is a warning
        beyond = [t for t in tests if t.name in ("innovation variance", "innovation whiteness")]
        warnings += [f"beyond the band: {t.sentence}" for t in beyond if not t.passed]
        tests = [t for t in tests if t not in beyond]
    if calibration.floor_known and record.duration_s > 100 * followed.memory_s:
        agreed = agreement.agreement(fit.experiment, record, in_unit)
        tests += [] if agreed is None else [agreed]
    innovations = innovation_spectrum(followed, max(measured.resolution_hz, shortest)).band(*band)
    lines = _lines(measured, fit, innovations)
    if lines:
        named = ", ".join(f"{x.frequency_hz / 1e3:.6g} kHz ({x.excess:.3g} x)" for x in lines)
        tests.append(
            Check("residual lines", False, float(len(lines)), None, f"noise that the model does not have at {named}")
        )
    else:
        tests.append(Check("residual lines", True, 0.0, None, "no residual line stands out within the band"))
    in_band = _in_band(fit.experiment, record, followed)
    if not calibration.floor_known:
        warnings += _floor_warning(record, fit, band)
    posterior = None
    if calibration.floor_known:
        posterior = inference.infer(
            fit.prepared.fine.campaign, "importance" if quick else "nuts", progress=progress, ready=fit.prepared
        )
        tests += [t for t in posterior.tests if t.name in ("sampler", "data against priors")]
        warnings += posterior.warnings
    quantum, verdict, entangled = None, "", None
    passed = all(t.passed for t in tests)
    if not calibration.floor_known:
        verdict = "no quantum statement: the record has no shot-noise reference, so its scale is a fitted floor"
    else:
        assert posterior is not None
        quantum = _quantum(experiment, fit, posterior, calibration, record, followed)
        verdict, entangled = _verdict(quantum, passed, tests, record)
    return Analysis(
        experiment, record, band, calibration, measured, fit, posterior, followed, tuple(tests), tuple(lines),
        innovations, quantum, in_band, tuple(dict.fromkeys(warnings)), verdict, entangled,
        tuple(str(c) for c in calibrations),
    )  # fmt: skip


# -- the pieces -------------------------------------------------------------------------------------------------------


def _band(experiment: Experiment, record: Record) -> tuple[float, float]:
    if experiment.band_hz is not None:
        band = experiment.band_hz
    else:
        f = np.abs(mode_frequencies(experiment.system, experiment.reported_modes()))
        band = (float(0.9 * np.min(f)), float(1.1 * np.max(f)))
    if band[1] > 0.48 * record.sample_rate_hz:
        raise InputError(
            f"{record.name}: sample rate {record.sample_rate_hz:g} Hz is too low for the band "
            f"{band[0]:g}..{band[1]:g} Hz of '{experiment.name}' (needs more than {band[1] / 0.48:.6g} Hz)"
        )
    return band


def _alive(record: Record) -> None:
    first = record.values(0, 1)[0]
    if np.isfinite(first) and all(np.all(values == first) for _, values in record.chunks()):
        raise InputError(f"{record.name}: every sample is {first:g} {record.unit}: nothing was recorded")


def _resolution(experiment: Experiment, record: Record, band: tuple[float, float]) -> float:
    """An eighth of the narrowest line in the band, at least 10 raw bins wide, at most 4000 bins."""
    poles = np.linalg.eigvals(experiment.system.A) / (2 * np.pi)
    near = (np.abs(poles.imag) > band[0]) & (np.abs(poles.imag) < band[1])
    widths = 2 * np.abs(poles.real[near])
    line = float(np.min(widths)) if widths.size else (band[1] - band[0]) / 50
    return float(max(min(line / 8, (band[1] - band[0]) / 200), 10 / record.duration_s, (band[1] - band[0]) / 4000))


def _lines(measured: Spectrum, fit: SpectrumFit, innovations: Spectrum) -> list[ResidualLine]:
    """Residual lines of the spectrum and of the innovations, each frequency once."""
    found = statistics.residual_lines(innovations, np.ones(innovations.density.size))
    for line in statistics.residual_lines(measured, fit.model):
        if all(abs(line.frequency_hz - x.frequency_hz) > 4 * (line.width_hz + x.width_hz) for x in found):
            found.append(line)
    return sorted(found, key=lambda x: -x.excess)


def _in_band(experiment: Experiment, record: Record, followed: Track) -> dict[str, float]:
    """Density within +-7.5 % of the modes over that of the neighbouring floor, in the record and in the innovations."""
    f = np.abs(mode_frequencies(experiment.system, experiment.reported_modes()))
    low, high = 0.925 * float(np.min(f)), 1.075 * float(np.max(f))
    width = 0.5 * (high - low)
    resolution = max((high - low) / 60, 10 / record.duration_s)
    out = {"low_hz": low, "high_hz": high}
    if high + width >= 0.48 * record.sample_rate_hz:
        return out
    e = innovation_spectrum(followed, resolution)
    for key, s in (("before", averaged_spectrum(record, resolution)), ("after", e)):
        inside = float(np.mean(s.band(low, high).density))
        sides = [s.band(max(low - width, 2 * resolution), low).density, s.band(high, high + width).density]
        out[key] = inside / float(np.mean(np.concatenate(sides)))
    return out


def shot_units(calibration: ShotNoise, fit: SpectrumFit) -> float:
    """Density of the unit in which spectra are plotted."""
    return calibration.density if calibration.floor_known else fit.scale * calibration.density


def epr_trajectory(analysis: Analysis) -> tuple[Array, Array]:
    """Conditional means of X_EPR and P_EPR in the rotating frame at the sampled filter's (a, b)."""
    e = entanglement.epr(analysis.track.covariance)
    u = entanglement.basis(float(e.weight), float(e.angle_deg))[:2]
    values = analysis.track.mean @ u.T
    return values[:, 0], values[:, 1]
