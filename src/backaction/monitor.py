"""Innovations of a long record, watched while they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.files import packed, unpacked
from backaction.matrices import Array
from backaction.records import efficiency
from backaction.tracks import Track

_KEPT = ("in_band", "whole", "square", "count", "evenness")


class Monitor:
    """Innovations of a record in time segments: sums of squares and periodograms, in memory that does not grow.

    Call it with (first sample, innovations in square-root shot-noise units, NaN where missing), in time order. Of each
    segment a periodogram of at most 2^20 samples is kept: the whole spectrum in 400 bins, `band_hz` in at most 2048.

    Parameters
    ----------
    variance_sn
        The predicted variance of an innovation.
    skip
        First samples that are left out (a filter that was not started exactly).
    """

    def __init__(
        self,
        sample_rate_hz: float,
        size: int,
        variance_sn: float,
        band_hz: tuple[float, float],
        segments: int = 20,
        skip: int = 0,
    ) -> None:
        from scipy.fft import prev_fast_len

        if segments < 1 or size - skip < 16 * segments:
            raise InputError(f"{size} samples: too few for {segments} segments of the innovations' test")
        self.rate, self.variance, self.band, self.skip = sample_rate_hz, variance_sn, band_hz, skip
        self.segments, self.length = segments, (size - skip) // segments
        piece = prev_fast_len(min(self.length, 1 << 20), real=True)
        f = np.fft.rfftfreq(piece, 1 / sample_rate_hz)
        inside = np.flatnonzero((f >= band_hz[0]) & (f <= min(band_hz[1], sample_rate_hz / 2)))[:-1]
        self.raw_band = -(-max(inside.size, 1) // 2048)
        self._inside = inside[: inside.size - inside.size % self.raw_band]
        if not self._inside.size:
            raise InputError(
                f"no frequency of the innovations lies within {band_hz[0]:g}..{band_hz[1]:g} Hz: the band is too narrow for "
                f"segments of {piece} samples at {sample_rate_hz:g} Hz"
            )
        self.raw_whole = max(1, (f.size - 2) // 400)
        self._whole = np.arange(1, 1 + (f.size - 2) // self.raw_whole * self.raw_whole)
        self.frequency_hz = f[self._inside].reshape(-1, self.raw_band).mean(axis=1)
        self.whole_hz = f[self._whole].reshape(-1, self.raw_whole).mean(axis=1)
        self.in_band = np.zeros((segments, self.frequency_hz.size))
        self.whole = np.zeros((segments, self.whole_hz.size))
        self.square, self.count = np.zeros(segments), np.zeros(segments)
        self.evenness = np.ones((segments, 3))
        self._buffer, self._mask = np.zeros(piece), np.ones(piece, dtype=bool)
        self._end = 0

    @classmethod
    def of(cls, track: Track, band_hz: tuple[float, float], segments: int = 20) -> Monitor:
        """Of a track that kept its innovations, after the filter's start-up (20 memory times, at most half of it)."""
        e = track.innovation.reshape(track.innovation.shape[0], -1)[:, 0] if track.innovation.ndim < 3 else None
        if e is None or not e.size:
            raise InputError("the track kept no innovations of one continuous record: give `track` a monitor")
        skip = min(int(20 * min(track.memory_s, 1e6) * track.sample_rate_hz), e.size // 2)
        out = cls(track.sample_rate_hz, e.size, track.innovation_variance_sn, band_hz, segments, skip)
        for start in range(0, e.size, 1 << 20):
            out(start, e[start : start + (1 << 20)])
        return out

    def __call__(self, start: int, innovation: Array) -> None:
        """Take the next innovations (of several currents: the first)."""
        e = innovation if innovation.ndim == 1 else innovation[:, 0]
        at = start - self.skip
        if at < 0:
            e, at = e[-at:], 0
        while e.size:
            k = at // self.length
            if k >= self.segments:
                return
            part = e[: (k + 1) * self.length - at].astype(float)
            good = np.isfinite(part)
            whole = bool(np.all(good))
            part = part if whole else np.where(good, part, 0.0)
            self.square[k] += np.dot(part, part)
            self.count[k] += part.size if whole else np.sum(good)
            offset = at - k * self.length
            room = part[: max(0, self._buffer.size - offset)]
            self._buffer[offset : offset + room.size] = room
            self._mask[offset : offset + room.size] = good[: room.size]
            if room.size and offset + room.size == self._buffer.size:
                self._periodogram(k)
            e, at = e[part.size :], at + part.size
            self._end = at

    def _periodogram(self, k: int) -> None:
        there = int(np.sum(self._mask))
        if not there:
            return
        if there < self._mask.size:  # missing samples are zeros, which correlate neighbouring frequencies
            w = self._mask.astype(float)
            groups = self.raw_whole, self.raw_band * self._group(200), self.raw_band * self._group(20)
            self.evenness[k] = [efficiency(w, m) for m in groups]
        power = np.abs(np.fft.rfft(self._buffer)) ** 2 / (there * self.variance)
        self.in_band[k] = power[self._inside].reshape(-1, self.raw_band).mean(axis=1)
        self.whole[k] = power[self._whole].reshape(-1, self.raw_whole).mean(axis=1)

    def state(self) -> dict[str, Any]:
        """What is known so far, as plain data."""
        kept: dict[str, Any] = {k: packed(getattr(self, k)) for k in _KEPT}
        there = min(self._end % self.length, self._buffer.size)  # of the segment in progress
        if there == self._buffer.size:
            there = 0
        kept |= {"buffer": packed(self._buffer[:there].astype(np.float32)), "mask": packed(self._mask[:there])}
        return kept | {"end": self._end}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a `state()`."""
        for key in _KEPT:
            setattr(self, key, unpacked(saved[key]))
        self._end = int(saved["end"])
        for own, key in ((self._buffer, "buffer"), (self._mask, "mask")):
            values = unpacked(saved[key])
            own[: len(values)] = values

    @property
    def complete(self) -> Array:
        """The segments whose periodogram is there."""
        return np.flatnonzero(np.any(self.whole, axis=1))

    def _group(self, bins: int) -> int:
        """Kept bins of the band in each of so many."""
        return max(1, self.frequency_hz.size // bins)

    def averages(self, kind: int, raw: int) -> float:
        """Effective averages of a mean over the complete segments, `raw` bins of a periodogram in each."""
        c = self.evenness[self.complete, kind]
        return float(raw * c.size**2 / np.sum(1 / c)) if c.size else 0.0

    @property
    def relative_variance(self) -> Array:
        """Measured over predicted variance in each segment."""
        return self.square / np.maximum(self.count, 1) / self.variance

    def spectrum(self, bins: int) -> tuple[Array, Array, float]:
        """(frequencies, normalised density, averages per bin) within the band, over all segments."""
        group = self._group(bins)
        use = self.frequency_hz.size - self.frequency_hz.size % group
        f = self.frequency_hz[:use].reshape(-1, group).mean(axis=1)
        there = self.complete
        density = self.in_band[there, :use].mean(axis=0).reshape(-1, group).mean(axis=1)
        return f, density, self.averages(1, self.raw_band * group)
