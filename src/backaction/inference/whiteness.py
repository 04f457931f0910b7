"""Whether the innovations of a record's samples are white with unit variance: what the innovations likelihood predicts."""

from __future__ import annotations

import numpy as np

from backaction.errors import ModelError
from backaction.inference.samples import SamplesDensity
from backaction.inference.series import Series
from backaction.inference.target import Target
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum, efficiency
from backaction.systems.sampled import SampledModel
from backaction.tracking.kalman import FilterPlan, KalmanFilter, State

BINS = 200
"""Bins of the band."""


def unit_innovations(target: Target, k: int, u: Array) -> Array:
    """Innovations S^-1/2 e of record k's samples at u, (T, q), NaN where one is missing.

    Raises
    ------
    ModelError
        If there is no such model at u.
    """
    found, record = target.likelihood, target.campaign.records[k]
    model = SamplesDensity(found.program, found.records, [k]).model(np.asarray(u, dtype=float), 0)
    if model is None or record.series is None:
        raise ModelError(f"{record.name}: the model has no samples at this point")
    series = record.series
    F, H, Q, N, R, P = model
    plan = FilterPlan(np.zeros((1, len(F))), every=1 << 16)
    run = KalmanFilter([(0, SampledModel(F, H, Q, N, R, series.interval_s))], plan, State(np.zeros(len(F)), P.copy()))
    ok = None if np.all(series.there) else np.repeat(series.there[:, None], len(H), axis=1)
    return np.asarray(run.advance(series.y, ok).innovation) / run.stages[0].white[0, 0]


def whitened_spectrum(series: Series, z: Array, band_hz: tuple[float, float]) -> Spectrum:
    """Density of unit innovations within a band: Gamma bins about 1 where the model is right."""
    T, rate = len(z), 1 / series.interval_s
    good = np.all(np.isfinite(z), axis=1)
    clean = np.where(good[:, None], z, 0.0)
    inputs = series.inputs
    reference = inputs.demodulate.reference_hz if inputs.demodulate else inputs.digitiser.reference_hz
    if z.shape[1] == 1:
        f, power = np.fft.rfftfreq(T, 1 / rate)[1:], np.abs(np.fft.rfft(clean[:, 0])[1:]) ** 2
    else:
        assert reference is not None
        # e^{i w_0 t} is in the samples: frequencies are those of the current, but for whole sample rates
        f = reference + np.mod(np.fft.fftfreq(T, 1 / rate) - reference + 0.5 * rate, rate) - 0.5 * rate
        power = np.abs(np.fft.fft(clean[:, 0] + 1j * clean[:, 1])) ** 2 / 2
        order = np.argsort(f)
        f, power = f[order], power[order]
    inside = (f >= band_hz[0]) & (f <= band_hz[1])
    f, power = f[inside], power[inside] / np.sum(good)
    raw = max(1, f.size // BINS)
    use = f.size - f.size % raw
    averages = raw * float(efficiency(good.astype(float), raw))
    mean = power[:use].reshape(-1, raw).mean(axis=1)
    return Spectrum(f[:use].reshape(-1, raw).mean(axis=1), mean, averages, raw * rate / T, "1")
