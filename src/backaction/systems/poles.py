"""Poles of a system: what grows, which mode a pole belongs to, widths and frequencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.numerics.matrices import Array

if TYPE_CHECKING:
    from backaction.systems.linear import LinearSystem


def narrowest(system: LinearSystem, band_hz: tuple[float, float]) -> float | None:
    """Full width of the narrowest line of the model within a band."""
    poles = np.linalg.eigvals(system.A) / (2 * np.pi)
    near = (np.abs(poles.imag) > band_hz[0]) & (np.abs(poles.imag) < band_hz[1])
    widths = 2 * np.abs(poles.real[near])
    return float(np.min(widths)) if widths.size else None


def _slowest(system: LinearSystem) -> tuple[bool, float, str]:
    if not system.A.size:
        return True, float("inf"), ""
    every, all_vectors = np.linalg.eig(system.A)
    point = np.unravel_index(int(np.argmax(np.max(every.real, axis=-1))), every.shape[:-1])
    values, vectors = every[point], all_vectors[point]
    k = int(np.argmax(values.real))
    weight = np.abs(vectors[:, k]) ** 2
    sizes: dict[str, Any] = {m.name: float(np.sum(weight[system.mode(m.name)])) for m in system.modes}
    return bool(values[k].real < 0), float(-values[k].real / (2 * np.pi)), max(sizes, key=lambda n: sizes[n])


POLES = ("margin_hz", "linewidth_hz", "frequency_hz")


def pole(system: LinearSystem, measure: str) -> tuple[Any, Array]:
    """A pole of the drift as a number in Hz, and the slope of that number with respect to A.

    `margin_hz` = -2 max Re(pole)/2 pi; `linewidth_hz.MODE` = -2 Re and `frequency_hz.MODE` = |Im| of the pole in which the
    mode takes part most (participation |R_ik L_ki| of right and left eigenvectors). Shapes (...), (..., n, n).
    """
    kind, _, mode = measure.partition(".")
    values, right = np.linalg.eig(system.A)
    left = np.linalg.pinv(right) if np.any(np.linalg.cond(right) > 1e14) else np.linalg.inv(right)
    if kind == POLES[0]:
        chosen = np.argmax(values.real, axis=-1)
    else:
        rows = system.mode(mode)
        share = np.sum(np.abs(right[..., rows, :] * np.swapaxes(left, -1, -2)[..., rows, :]), axis=-2)
        chosen = np.argmax(share, axis=-1)
    k = chosen[..., None]
    value = np.take_along_axis(values, k, axis=-1)[..., 0]
    r = np.take_along_axis(right, k[..., None], axis=-1)[..., 0]
    row = np.take_along_axis(left, k[..., None], axis=-2)[..., 0, :]
    slope = row[..., :, None] * r[..., None, :]
    if kind == POLES[2]:
        sign = np.where(value.imag < 0, -1.0, 1.0)
        return np.abs(value.imag) / TWO_PI, sign[..., None, None] * slope.imag / TWO_PI
    return -2 * value.real / TWO_PI, -2 * slope.real / TWO_PI


def mode_frequencies(system: LinearSystem, modes: tuple[str, ...]) -> Array:
    """Signed frequency in Hz of the pole that lives mostly in each mode; negative for a negative mass."""
    values, vectors = np.linalg.eig(system.A)
    out = []
    for name in modes:
        where = system.mode(name)
        share = np.sum(np.abs(vectors[where]) ** 2, axis=0) / np.sum(np.abs(vectors) ** 2, axis=0)
        pole = values[int(np.argmax(share))]
        first, second = where.start, min(where.start + 1, where.stop - 1)
        sign = np.sign(system.A[first, second] - system.A[second, first]) or 1.0
        out.append(float(sign * abs(pole.imag) / (2 * np.pi)))
    return np.array(out)


LINE_WIDTHS, LINE_SHARE = 2.0, 0.1
"""A line is looked at over so many full widths or this share of its frequency on either side, whichever is more."""


def mode_band(system: LinearSystem, modes: tuple[str, ...]) -> tuple[float, float]:
    """Frequencies in Hz that hold the lines of these modes; an overdamped one, with two real poles, reaches down to 0."""
    values, vectors = np.linalg.eig(system.A)
    left = np.linalg.pinv(vectors)
    low, high = np.inf, 0.0
    for name in modes:
        share = np.abs(vectors * left.T)[system.mode(name)].sum(axis=0)
        own = np.argsort(-share)[:2]
        centre, width = np.abs(values[own].imag) / TWO_PI, -2 * values[own].real / TWO_PI
        reach = np.maximum(LINE_SHARE * centre, LINE_WIDTHS * width)
        low, high = min(low, float(np.min(centre - reach))), max(high, float(np.max(centre + reach)))
    return max(low, 0.0), high


def instability(system: LinearSystem) -> str:
    """One line that names the unstable eigenvalue and the mode it comes from.

    The mode with the largest participation |R_i L_i| of right and left eigenvectors: one that is merely driven by an
    unstable one before it has none.
    """
    values, vectors = np.linalg.eig(system.A)
    worst = int(np.argmax(values.real))
    weight = np.abs(vectors[:, worst] * np.linalg.pinv(vectors)[worst])
    sizes = {m.name: float(np.sum(weight[system.mode(m.name)])) for m in system.modes}
    name = max(sizes, key=lambda k: sizes[k])
    rate, freq = values[worst].real / (2 * np.pi), abs(values[worst].imag) / (2 * np.pi)
    return (
        f"unstable: mode '{name}' grows at {rate:.4g} Hz (eigenvalue / 2 pi = {rate:.4g} + {freq:.6g}i Hz), "
        "there is no unconditional steady state"
    )
