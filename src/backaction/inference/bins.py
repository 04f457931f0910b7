"""Expected values of the bins of a digitised record's averaged spectrum, as a linear map of continuous densities.

A bin averages the model over its width (Gauss-Legendre points, as many as its narrowest line needs). Sampling adds aliases:

    S_d(f) = sum_k t(f + k f_s) [S(f + k f_s) - R] + R S_white(f)

with R the white part, t the power response of averaging and front end, S_white theirs to white noise. Aliases of
k /= 0 are smooth within the band: they are summed at a few Chebyshev nodes (|k| <= 3, or 12 where little filters them;
the rest as 1/f^2) and interpolated. The map does not depend on the model, so that its gradient costs nothing.
`systems.sampled.discretise` is the exact route.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backaction.constants import TWO_PI
from backaction.numerics.compile import library
from backaction.numerics.matrices import Array
from backaction.systems.linear import LinearSystem
from backaction.systems.sampled import Digitiser, front_end_response

ALIASES = 3
NODES = 4


@dataclass(frozen=True, eq=False)
class Bins:
    """Points where the model is asked, and how they make the bins.

    `frequency_hz` (P,), `phase` (P,) complex factor of the cross term of white noise; first the quadrature points of every
    bin, then the aliases of every node. `weights` (bins, q), `node_weights` (bins, J), `alias_weights` (J, K),
    `white` (bins,) the coefficient of R.
    """

    frequency_hz: Array
    phase: Array
    weights: Array
    node_weights: Array
    alias_weights: Array
    white: Array

    def expected(self, system: LinearSystem) -> Array:
        """Expected bins in shot-noise units of a single system's first current, shape (bins,)."""
        d = system.detected()
        Q, N, R = system.noise()
        S, mu, none = np.empty(self.frequency_hz.size), np.empty(self.white.size), np.empty(0)
        loops = library("program", "spectrum", "riccati", "likelihood", "density")
        A, Q, N, C = (np.ascontiguousarray(x) for x in (system.A, Q, N[:, 0], d.C[0]))
        phase = np.ascontiguousarray(self.phase.real), np.ascontiguousarray(self.phase.imag)
        loops.noise_density(
            A, Q, N, R[0, 0], C, np.empty((0, 0)), TWO_PI * self.frequency_hz, *phase, S, none, np.empty((0, 0))
        )
        parts = (self.weights.ravel(), self.node_weights.ravel(), self.alias_weights.ravel(), self.white)
        sizes = (0, self.white.size, self.weights.shape[1], *self.alias_weights.shape)
        loops.expected(S, *parts, R[0, 0], *sizes, mu)
        return mu


def bins(frequency_hz: Array, width_hz: Array | float, digitiser: Digitiser, points: int, smooth: bool = True) -> Bins:
    """The map for bins at `frequency_hz` (centres) of `width_hz`, with `points` quadrature points in each.

    `smooth` says that no line of the model lies among the aliases; else every bin has its own.
    """
    f = np.asarray(frequency_hz, dtype=float)
    x, v = np.polynomial.legendre.leggauss(points)
    inner = f[:, None] + 0.5 * np.broadcast_to(width_hz, f.shape)[:, None] * x
    weights = 0.5 * v * _passed(inner, digitiser)
    fs = digitiser.sample_rate_hz
    low, high = float(inner.min()), float(inner.max())
    if smooth and f.size > NODES:
        angle = np.pi * (np.arange(NODES) + 0.5) / NODES
        nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angle)
        barycentric = (-1.0) ** np.arange(NODES) * np.sin(angle)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = barycentric / (f[:, None] - nodes)
            node_weights = ratio / np.sum(ratio, axis=1, keepdims=True)
        hit = f[:, None] == nodes
        node_weights = np.where(np.any(hit, axis=1, keepdims=True), hit, node_weights)
    else:
        nodes, node_weights = f, np.eye(f.size)
    centre = digitiser.reference_hz or 0.0  # what aliases lie far from: zero, or a demodulated record's reference
    filtered = digitiser.front_end_hz or (digitiser.sampling == "average" and not centre)
    most = ALIASES if filtered else 4 * ALIASES
    k = np.concatenate([np.arange(-most, 0), np.arange(1, most + 1)])
    outer = nodes[:, None] + k * fs
    alias_weights = _passed(outer, digitiser)
    for column, sign in ((0, -1.0), (-1, 1.0)):  # what lies beyond, as 1/f^2
        beyond = nodes[:, None] + sign * fs * np.arange(most + 1, 4001)
        edge, far = (outer[:, column] - centre) ** 2, (beyond - centre) ** 2
        tail = _passed(beyond, digitiser) / far
        if centre:  # the current's own negative frequencies are not part of this tail
            tail = np.where(far < (0.9 * centre) ** 2, tail, 0.0)
        alias_weights[:, column] += np.sum(tail, axis=1) * edge
        if digitiser.sampling == "instantaneous" and not digitiser.front_end_hz and not centre:
            alias_weights[:, column] += edge / (fs**2 * 4000.5)
    every = np.concatenate([inner.ravel(), outer.ravel()])
    white = front_end_response(digitiser, f) if digitiser.front_end_hz else np.ones(f.shape)
    white = white - weights.sum(axis=1) - node_weights @ alias_weights.sum(axis=1)
    return Bins(every, _phase(every, digitiser), weights, node_weights, alias_weights, white)


def _passed(f: Array, digitiser: Digitiser) -> Array:
    """Power response of averaging and front end at frequencies of the current."""
    f = f - (digitiser.reference_hz or 0.0)
    out = np.sinc(f / digitiser.sample_rate_hz) ** 2 if digitiser.sampling == "average" else np.ones(f.shape)
    for corner in digitiser.front_end_hz:
        out = out / (1 + (f / corner) ** 2)
    return np.asarray(out)


def _phase(f: Array, digitiser: Digitiser) -> Array:
    """Factor of the cross term: white noise that is averaged while the signal is not (`instantaneous`, no front end)."""
    if digitiser.sampling == "average" or digitiser.front_end_hz:
        return np.ones(f.shape, dtype=complex)
    x = TWO_PI * f / digitiser.sample_rate_hz
    return np.where(x == 0, 1.0, np.expm1(-1j * x) / np.where(x == 0, 1.0, -1j * x))
