"""A tracked conditional state, in memory or in a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.states import entanglement
from backaction.states.gaussian import GaussianState
from backaction.tracking.track_file import TrackFile, read_track

FrameName = Literal["lab", "rotating"]


@dataclass(frozen=True, eq=False, repr=False)
class Track:
    """A tracked conditional state.

    `mean` (T, 2k) over the reported modes at times `time_start_s` + i `time_step_s`, (shots, T, 2k) for repeated runs;
    `covariance` (2k, 2k) its steady covariance in the lab frame, and where that does not hold (start, after gaps, changed
    parameters) rows `exact_rows` (those of all shots, one after another) with `exact_covariance`. `innovation` (samples,) in
    square-root shot-noise units, whitened to the variance `innovation_variance_sn`, NaN where a sample is missing;
    (samples, q) for q currents. In the rotating frame mode j is turned by +2 pi `rotation_hz[j]` t.
    """

    mean: Array
    covariance: Array
    innovation: Array
    innovation_variance_sn: float
    modes: tuple[str, ...]
    frame: FrameName
    rotation_hz: tuple[float, ...]
    time_start_s: float
    time_step_s: float
    sample_rate_hz: float
    record_start_s: float
    memory_s: float
    exact_rows: Array = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    exact_covariance: Array = field(default_factory=lambda: np.empty((0, 0, 0)))
    log_likelihood: float = float("nan")
    missing: int = 0
    clipped: int = 0
    estimate: str = "filtered"
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write to HDF5 or Zarr (to a temporary name, then renamed); `load_track` reads it back exactly."""
        file = TrackFile.create(path, {k: np.asarray(getattr(self, k)) for k in _ARRAYS})
        file.finish(attributes(self))

    def __repr__(self) -> str:
        return (
            f"Track ({self.estimate}, {self.frame} frame) of {', '.join(self.modes)}: {self.mean.shape[-2]} means every "
            f"{self.time_step_s:.4g} s from {self.time_start_s:.4g} s; {self.missing} missing, {self.clipped} clipped"
        )

    @property
    def times_s(self) -> Array:
        """Times of the means."""
        return self.time_start_s + self.time_step_s * np.arange(self.mean.shape[-2])

    @property
    def state(self) -> GaussianState:
        """The steady conditional state about the mean (lab frame)."""
        return GaussianState(self.covariance, self.modes)

    def covariances(self) -> Array:
        """The covariance of every mean, lab frame, (T, 2k, 2k), with a leading axis for shots."""
        rows = int(np.prod(self.mean.shape[:-1]))
        out = np.broadcast_to(self.covariance, (rows, *self.covariance.shape)).copy()
        if self.exact_rows.size:
            out[self.exact_rows] = self.exact_covariance
        return out.reshape(*self.mean.shape[:-1], *self.covariance.shape)

    def combination(self, vector: Array) -> tuple[Array, Array]:
        """Mean and variance, (T,) or (shots, T), of a linear combination u . (X1, P1, X2, ...) of the reported quadratures.

        In the rotating frame the mean is of the rotating quadratures; the variance is of the lab frame's.
        """
        u = np.asarray(vector, dtype=float)
        if u.shape != (self.mean.shape[-1],):
            raise InputError(f"combination of {u.size} quadratures: the track has {self.mean.shape[-1]}")
        variance = np.full(int(np.prod(self.mean.shape[:-1])), u @ self.covariance @ u)
        if self.exact_rows.size:
            variance[self.exact_rows] = np.einsum("i,tij,j->t", u, self.exact_covariance, u)
        return self.mean @ u, variance.reshape(self.mean.shape[:-1])

    def epr(self, weight: float | None = None, angle_deg: float | None = None) -> tuple[Array, Array, float, float]:
        """Means of X_EPR and P_EPR (..., T, 2), the variance of their sum (T,), and the weight and angle that were used.

        Default: those that minimise the steady covariance's EPR variance. In the rotating frame the pair rotates as one.

        Raises
        ------
        InputError
            If the track has not two modes.
        """
        if len(self.modes) != 2:
            raise InputError(f"an EPR pair needs two modes, the track has {', '.join(self.modes)}")
        best = entanglement.epr(self.covariance)
        a = float(best.weight) if weight is None else weight
        angle = float(best.angle_deg) if angle_deg is None else angle_deg
        pairs = [self.combination(u) for u in entanglement.basis(a, angle)[:2]]
        return np.stack([m for m, _ in pairs], axis=-1), pairs[0][1] + pairs[1][1], a, angle

    def to_xarray(self) -> Any:
        """An xarray Dataset: mean over (time, quadrature), covariance, innovation, attributes."""
        import xarray as xr

        names = [f"{m}.{q}" for m in self.modes for q in "XP"]
        shots = ("shot",) if self.mean.ndim == 3 else ()
        data: dict[str, Any] = {
            "mean": ((*shots, "time", "quadrature"), self.mean),
            "covariance": (("quadrature", "quadrature2"), self.covariance),
        }
        if self.innovation.size:
            extra = ("current",) if self.innovation.ndim > 1 + len(shots) else ()
            data["innovation"] = ((*shots, "sample", *extra), self.innovation)
        facts = {k: v for k, v in attributes(self).items() if not isinstance(v, (list, np.ndarray))}
        return xr.Dataset(data, {"time": self.times_s, "quadrature": names, "quadrature2": names}, facts)


_ARRAYS = ("mean", "covariance", "innovation", "exact_rows", "exact_covariance")
_NUMBERS = (
    "time_start_s", "time_step_s", "sample_rate_hz", "record_start_s", "memory_s", "innovation_variance_sn",
    "log_likelihood", "missing", "clipped",
)  # fmt: skip


def attributes(track: Track) -> dict[str, Any]:
    """What a file says of a track beside its arrays."""
    out: dict[str, Any] = {k: getattr(track, k) for k in _NUMBERS}
    out |= {"frame": track.frame, "estimate": track.estimate, "modes": list(track.modes)}
    out["rotation_hz"] = np.array(track.rotation_hz)
    return out | track.provenance


def load_track(path: str | Path) -> Track:
    """Read a track written by `Track.save` or by `track`; arrays stay in the file until they are used.

    Raises
    ------
    InputError
        If the file is no track.
    """
    arrays, a = read_track(path)
    numbers: dict[str, Any] = {k: float(a.pop(k)) for k in _NUMBERS}
    for k in ("missing", "clipped"):
        numbers[k] = int(numbers[k])
    words = {"frame": str(a.pop("frame")), "estimate": str(a.pop("estimate"))}
    modes, rotation = tuple(str(m) for m in a.pop("modes")), tuple(float(r) for r in a.pop("rotation_hz"))
    rest = {k: (v.item() if isinstance(v, np.generic) else v) for k, v in a.items()}
    return Track(**arrays, **numbers, **words, modes=modes, rotation_hz=rotation, provenance=rest)  # type: ignore[arg-type]
