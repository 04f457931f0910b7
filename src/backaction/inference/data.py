"""One measured (or simulated) spectrum with all that is needed to compare a model with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.inference.bins import Bins, bins
from backaction.inference.series import Series
from backaction.numerics.matrices import Array
from backaction.records.shot_level import ShotNoise
from backaction.records.spectrum import Spectrum
from backaction.records.taken import resolution
from backaction.systems.poles import narrowest
from backaction.systems.sampled import Digitiser


@dataclass(frozen=True, eq=False)
class Measured:
    """One spectrum of a campaign: the experiment with this record's own values, its bins, calibration and digitiser.

    `fixed` names the fields that this record sets (they are not fitted in it, unless they vary between records); `line_hz`
    is the width of the narrowest line that the bins must resolve (default: the experiment's own). With `series` not the bins
    but the samples are compared with the model, and the modes `starts` need not begin stationary; `why` says why.
    """

    name: str
    experiment: Experiment
    spectrum: Spectrum
    calibration: ShotNoise
    digitiser: Digitiser
    fixed: tuple[str, ...] = ()
    priors: Mapping[str, Prior] = field(default_factory=dict)
    calibrated_by: str = ""
    duration_s: float = 0.0
    warnings: tuple[str, ...] = ()
    line_hz: float | None = None
    series: Series | None = None
    starts: tuple[str, ...] = ()
    why: str = ""

    @property
    def density_sn(self) -> Array:
        """The measured bins in shot-noise units of the calibration."""
        return np.asarray(self.spectrum.density / self.calibration.at(self.spectrum.frequency_hz))

    @property
    def averages(self) -> Array:
        """Effective averages of every bin."""
        return np.broadcast_to(np.asarray(self.spectrum.averages, dtype=float), self.spectrum.density.shape)

    @property
    def tempered(self) -> Array:
        """Averages as the likelihood counts them: correlated bins by their part of what is smooth over them."""
        return self.averages / self.spectrum.correlation

    def bins(self) -> Bins:
        """How the model becomes these bins."""
        return bins(
            self.spectrum.frequency_hz, self.spectrum.resolution_hz, self.digitiser, *quadrature(self.experiment, self)
        )

    def with_density(self, density_sn: Array) -> Measured:
        """The same with other data, in shot-noise units."""
        unit = self.calibration.at(self.spectrum.frequency_hz)
        return replace(self, spectrum=replace(self.spectrum, density=np.asarray(density_sn) * unit))


def simulated(
    name: str,
    experiment: Experiment,
    band_hz: tuple[float, float],
    duration_s: float,
    seed: int | None,
    resolution_hz: float | None = None,
    digitiser: Digitiser = Digitiser(1e7),
    scale_sd: float = 2e-3,
) -> Measured:
    """A spectrum drawn from the experiment's own values: Gamma bins with duration x resolution averages.

    Without a seed the bins are the expected ones exactly.
    """
    width = resolution_hz or resolution(experiment, duration_s, band_hz)
    count = int((band_hz[1] - band_hz[0]) / width)
    if not 10 <= count <= 20000:
        raise InputError(f"{name}: {count} bins of {width:g} Hz in {band_hz[0]:g}..{band_hz[1]:g} Hz: from 10 to 20000")
    if band_hz[1] > 0.48 * digitiser.sample_rate_hz and digitiser.reference_hz is None:
        raise InputError(f"{name}: the band ends at {band_hz[1]:g} Hz, sampled at {digitiser.sample_rate_hz:g} Hz")
    f = band_hz[0] + width * (np.arange(count) + 0.5)
    averages = width * duration_s
    blank = Spectrum(f, np.ones(count), averages, width, "SN/Hz")
    record = Measured(name, experiment, blank, ShotNoise(1.0, scale_sd, "SN"), digitiser, duration_s=duration_s)
    if np.max(np.linalg.eigvals(experiment.system.A).real, initial=-1.0) >= 0:
        raise ModelError(f"{name}: the experiment's own values are unstable: nothing to simulate")
    mean = record.bins().expected(experiment.system)
    if seed is not None:
        mean = mean * np.random.default_rng(seed).gamma(averages, 1 / averages, count)
    return record.with_density(mean)


POINTS_PER_LINE, MOST_POINTS = 1.5, 16
"""Gauss-Legendre points in a bin for every full width of the narrowest line that it spans, and the most."""
SMOOTH_BINS = 60
"""Bins wider than a 60th of a line take two points at least: their middle alone errs by the model's curvature."""
SHARP = 0.1
"""Poles with a smaller width over frequency are lines; the aliases of broader ones are smooth within the band."""


def quadrature(experiment: Experiment, record: Measured) -> tuple[int, bool]:
    """Points in a bin for the narrowest line of the model, and whether no line lies among the aliases."""
    f = record.spectrum.frequency_hz
    width = float(np.max(record.spectrum.resolution_hz))
    line = record.line_hz or narrowest(experiment.system, (float(f[0] - width), float(f[-1] + width)))
    # merged bins are wide only where the model is smooth: the narrowest ones decide
    least = float(np.min(record.spectrum.resolution_hz))
    points = 1 if line is None else int(np.clip(np.ceil(POINTS_PER_LINE * least / line), 1, MOST_POINTS))
    if width > least or (line is not None and least > line / SMOOTH_BINS):
        points = max(points, 2)
    poles = np.linalg.eigvals(experiment.system.A) / (2 * np.pi)
    sharp = np.abs(poles.imag[np.abs(poles.real) < SHARP * np.abs(poles.imag)])
    rate = record.digitiser.sample_rate_hz
    reference = record.digitiser.reference_hz or 0.0
    smooth = not np.any(np.abs(sharp - reference) > 0.5 * rate)
    return points, smooth
