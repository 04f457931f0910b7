"""The main job: from an experiment and a photocurrent to a conditional state, a verdict and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backaction import inference, tracking
from backaction.analysis.floor import floor_check
from backaction.analysis.quantum import quantum_states
from backaction.analysis.steadiness import regular_innovations, steady_parameters
from backaction.analysis.verdict import fit_check, floor_warnings, prior_checks, verdict_of
from backaction.errors import InputError, ModelError
from backaction.experiment.assumptions import excess_priors
from backaction.experiment.experiment import Experiment
from backaction.files import provenance, to_json
from backaction.inference.calibration_file import Correlated, methods_of, read_calibrations
from backaction.inference.fit import SpectrumFit
from backaction.inference.posterior import Posterior
from backaction.inference.target import SCALE
from backaction.numerics.matrices import Array
from backaction.records import statistics
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.spectrum import Spectrum
from backaction.records.statistics import LOOKED, Check, ResidualLine
from backaction.records.taken import USABLE, Taken, band_of, taken
from backaction.states import entanglement
from backaction.systems import steady
from backaction.systems.poles import mode_frequencies
from backaction.systems.sampled import discretise
from backaction.tracking import agreement
from backaction.tracking.innovations import Fitted, innovation_checks, innovation_spectrum, settled
from backaction.tracking.inputs import mean_level
from backaction.tracking.tracks import Track
from backaction.workers import Progress, quiet

FAR_SD = 2.5
"""Pulls beyond so many prior sd are named."""
LINEARITY = "linearity"
"""The calibration that says whether the detector is linear."""
EFFECTIVE = 1500
"""Effective draws of importance sampling below which a probability of 1e-3 cannot be told."""
MEMORIES = 100
"""Prediction and retrodiction are compared where the record holds so many memory times of the filter."""


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
        record, noise, track = self.record, self.calibration, self.track
        return {
            "schema": "backaction/analyze/1",
            "provenance": provenance(seed=0, calibrations=list(self.calibrations)),
            "experiment": self.experiment.to_dict(),
            "record": {
                "name": record.name,
                "samples": record.size,
                "sample_rate_hz": record.sample_rate_hz,
                "sampling": record.sampling,
                "unit": record.unit,
                "metadata": {k: str(v) for k, v in record.metadata.items()},
            },
            "calibration": {
                "shot_noise_density": noise.density if noise.floor_known else None,
                "unit": f"{noise.unit}^2/Hz",
                "relative_sd": noise.relative_sd,
                "reproducibility": noise.reproducibility,
                "dark_sn": noise.dark_sn,
                "flat_p": noise.flat_p,
                "slope_per_hz": noise.slope_per_hz,
                "shot_lines_hz": sorted(x.frequency_hz for x in noise.shot_lines),
                "dark_lines_hz": sorted(x.frequency_hz for x in noise.dark_lines),
            },
            "band_hz": list(self.band_hz),
            "fit": self.fit.document(),
            "posterior": None if self.posterior is None else self.posterior.document(),
            "state": self.quantum,
            "track": {
                "modes": list(track.modes),
                "frame": track.frame,
                "rotation_hz": list(track.rotation_hz),
                "time_start_s": track.time_start_s,
                "time_step_s": track.time_step_s,
                "innovation_variance_sn": track.innovation_variance_sn,
                "filter_memory_s": track.memory_s,
                "in_band": self.in_band,
            },
            "checks": [t.document() for t in self.tests],
            "passed": self.passed,
            "residual_lines": [x.document() for x in self.lines],
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
    say: Progress = progress or quiet
    experiment, correlated = _calibrated(experiment, calibrations)
    _analysable(experiment, record)
    say("calibrating and averaging the spectrum", None)
    found = taken(experiment, record, shot, dark, resolution_hz)
    if found.noise.floor_known:
        experiment = replace(experiment, priors={**excess_priors(experiment), **experiment.priors})
    warnings = list(found.warnings)
    try:
        fit = inference.fit_spectrum(experiment, found.spectrum, found.noise, record.digitiser, say, correlated, record)
    except ModelError as error:  # what is known of the record may be why
        raise ModelError("; ".join([str(error), *warnings])) from None
    warnings += _fit_warnings(fit)
    noise = found.noise
    in_unit = replace(noise, density=fit.scale * noise.density)
    facts = {"experiment": to_json(fit.experiment.resolved().to_dict(), None), "record": record.name}
    followed = tracking.track(fit.experiment, record, in_unit, "rotating", progress=say, facts=facts)
    say("testing the innovations", None)
    tests, lines, innovations = _tests(found, fit, followed, in_unit, warnings)
    posterior, quantum, entangled = None, None, None
    verdict = "no quantum statement: the record has no shot-noise reference, so its scale is a fitted floor"
    if noise.floor_known:
        posterior = _sampled(fit, quick, progress)
        tests += [t for t in posterior.tests if t.name in ("sampler", "data against priors", "calibrations")]
        warnings += posterior.warnings
        quantum = quantum_states(fit, posterior, record, followed)
        tests += [floor_check(quantum)] if "measured_floor" in quantum else []
        verdict, entangled = verdict_of(quantum, tests, LINEARITY in methods_of(calibrations))
    return Analysis(
        experiment, record, found.band_hz, noise, found.spectrum, fit, posterior, followed, tuple(tests), tuple(lines),
        innovations, quantum, _in_band(found, fit.experiment, followed), tuple(dict.fromkeys(warnings)), verdict, entangled,
        tuple(str(c) for c in calibrations),
    )  # fmt: skip


# -- the pieces -------------------------------------------------------------------------------------------------------


def _calibrated(experiment: Experiment, files: Sequence[Path]) -> tuple[Experiment, Correlated]:
    """The experiment with the priors of calibration files in the place of its own, and their correlations."""
    known, correlated = read_calibrations(files, experiment)
    return (replace(experiment, priors={**experiment.priors, **known}) if known else experiment), correlated


def _sampled(fit: SpectrumFit, quick: bool, progress: Progress | None) -> Posterior:
    """The posterior by NUTS, or with `quick` by importance sampling where that may be used."""
    say, campaign = progress or quiet, fit.prepared.fine.campaign
    found = inference.infer(campaign, "importance" if quick else "nuts", progress=progress, ready=fit.prepared)
    few = found.draws.facts.get("effective_draws", EFFECTIVE) < EFFECTIVE
    if quick and (found.draws.status != "converged" or few):
        say("importance sampling: too few effective draws, sampling", None)
        found = inference.infer(campaign, "nuts", progress=progress, ready=fit.prepared)
    return found


def _analysable(experiment: Experiment, record: Record) -> None:
    """Refuse records that are not one continuous real current, and models without one or without a steady state."""
    if record.shots > 1:
        raise InputError(f"{record.name}: {record.shots} shots; analyze takes one continuous record")
    if record.is_complex:
        raise InputError(f"{record.name}: complex (demodulated) records cannot be analysed yet; give the raw current")
    system = experiment.system
    if len(system.currents) != 1:
        raise InputError(f"{experiment.name}: analyze needs exactly one detected current, has {list(system.currents)}")
    steady.unconditional(system)
    band_of(experiment, record)
    mean_level(record)


def _fit_warnings(fit: SpectrumFit) -> list[str]:
    out = [f"{n} is at a bound of its prior" for n in fit.at_bound]
    far = sorted((n for n in fit.names if abs(fit.pull(n)) > FAR_SD), key=lambda n: -abs(fit.pull(n)))
    if far:
        named = ", ".join(f"{n} {fit.pull(n):+.1f}" for n in far[:3])
        out.append(f"{len(far)} fitted values are more than {FAR_SD} prior sd from their prior mean: {named}")
    return out


def _tests(
    found: Taken, fit: SpectrumFit, followed: Track, noise: ShotNoise, warnings: list[str]
) -> tuple[list[Check], list[ResidualLine], Spectrum]:
    """Checks of the model against the record, residual lines, and the innovations' spectrum within the band.

    Without a shot record the floor is fitted within the band: beyond it the model claims nothing, and a misfit is a warning.
    """
    record, band = found.record, found.band_hz
    tests = [
        fit_check(fit),
        *innovation_checks(followed, noise, band, fitted(fit, record)),
        regular_innovations(followed),
    ]
    steadiness = steady_parameters(followed, record, fit, band)
    tests += [] if steadiness is None else [steadiness]
    if not noise.floor_known:
        beyond = [
            t for t in tests if t.name in ("innovation variance", "innovation whiteness", "innovation distribution")
        ]
        warnings += [f"beyond the band: {t.sentence}" for t in beyond if not t.passed]
        tests = [*(t for t in tests if t not in beyond), *prior_checks(fit)]
        warnings += floor_warnings(found, fit)
    elif record.duration_s > MEMORIES * followed.memory_s:
        agreed = agreement.agreement(fit.experiment, record, noise)
        tests += [] if agreed is None else [agreed]
    shortest = 20 * record.sample_rate_hz / settled(followed).size
    innovations = innovation_spectrum(followed, max(found.whole.resolution_hz, shortest)).band(*band)
    lines = _lines(found.spectrum, fit, innovations)
    named = ", ".join(f"{x.frequency_hz / 1e3:.6g} kHz ({x.excess:.3g} x)" for x in lines)
    sentence = (
        f"noise that the model does not have at {named}" if lines else "no residual line stands out within the band"
    )
    tests.append(Check("residual lines", not lines, float(len(lines)), None, sentence, LOOKED))
    return tests, lines, innovations


def fitted(fit: SpectrumFit, record: Record) -> Fitted:
    """How sure the fit is, for tests of what it predicts: slopes of ln S by the coordinates u, by central differences."""
    target, mode = fit.prepared.target, fit.prepared.mode
    h = 1e-3
    steps = h * np.eye(target.size)
    u = np.concatenate([mode.u + steps, mode.u - steps])
    models = discretise(target.experiment(0, u).system, *record.digitiser)
    ln_scale = np.log(target.values(u)[:, target.names.index(SCALE)])

    def slopes(frequency_hz: Array) -> Array:
        ln = np.log(models.spectrum(frequency_hz)) + ln_scale[:, None]
        return np.asarray((ln[: target.size] - ln[target.size :]).T / (2 * h))

    f = fit.spectrum.frequency_hz
    return Fitted(slopes, mode.root @ mode.root.T, (float(f[0]), float(f[-1])))


def _lines(measured: Spectrum, fit: SpectrumFit, innovations: Spectrum) -> list[ResidualLine]:
    """Residual lines of the spectrum and of the innovations, each frequency once."""
    found = statistics.residual_lines(innovations, np.ones(innovations.density.size))
    # one realisation of a line that is not resolved is not the stationary density
    for line in () if fit.in_time else statistics.residual_lines(measured, fit.model):
        if all(abs(line.frequency_hz - x.frequency_hz) > 4 * (line.width_hz + x.width_hz) for x in found):
            found.append(line)
    return sorted(found, key=lambda x: -x.excess)


def _in_band(found: Taken, experiment: Experiment, followed: Track) -> dict[str, float]:
    """Density within +-7.5 % of the modes over that of the neighbouring floor, in the record and in the innovations.

    An overdamped mode has no frequency: the lower half of the band, over the rest of it.
    """
    f = np.abs(mode_frequencies(experiment.system, experiment.reported_modes()))
    low, high = 0.925 * float(np.min(f)), 1.075 * float(np.max(f)) or 0.5 * found.band_hz[1]
    width = 0.5 * (high - low)
    resolution = max((high - low) / 60, 10 / found.record.duration_s)
    out = {"low_hz": low, "high_hz": high}
    if high + width >= USABLE * found.record.sample_rate_hz:
        return out
    for key, s in (("before", found.coarser(resolution)), ("after", innovation_spectrum(followed, resolution))):
        inside = float(np.mean(s.band(low, high).density))
        below = [s.band(max(low - width, 2 * resolution), low).density] if low > 0 else []
        sides = [*below, s.band(high, high + width).density]
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
