"""Log-likelihood of samples in the innovations form with its exact gradient by the matrices of their model.

The recursion and its adjoint are compiled (`numerics.loops.innovations`); here is how a record is cut into pieces: steps
with a covariance of their own at the start and after missing samples, settled ones elsewhere. States are kept where pieces
begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backaction.numerics.compile import library
from backaction.numerics.matrices import Array

UNROLLED = 8
"""Up to so many states the loops over settled samples are made for their number."""
PIECE, STEADY_PIECE = 256, 16384
"""Samples between two kept states: of steps with a covariance of their own, and of settled ones."""
KEPT = 1 << 23
"""Numbers of settled states that are kept for the way back, rather than made again."""


class SampleModel(NamedTuple):
    """F (n, n), H (q, n), Q, N (n, q), R of a sampled model and the covariance P of its first state, whose mean is 0."""

    F: Array
    H: Array
    Q: Array
    N: Array
    R: Array
    P: Array


class _Settled(NamedTuple):
    P: Array
    K: Array
    inverse: Array
    L: Array
    log_det: float


@dataclass(frozen=True, eq=False)
class _Piece:
    start: int
    stop: int
    settled: bool
    x: Array
    P: Array
    xs: Array


class Innovations:
    """Ln p of samples y (T, q), `there` (T,) false where both are missing, under sampled models of n states.

    ln p = -1/2 sum_k [e_k^T S_k^-1 e_k + ln det(2 pi S_k)], e_k = y_k - E[y_k | y_0 .. y_{k-1}].
    """

    def __init__(self, y: Array, there: Array, n: int) -> None:
        self.y, self.there = np.ascontiguousarray(y), np.ascontiguousarray(there)
        self.loops = library("riccati", "innovations")
        # the two loops that see most samples alone: the others would only cost compilation
        self.settled_loops = library("riccati", "innovations", n=n, q=y.shape[1]) if n <= UNROLLED else self.loops
        self._gaps = np.append(np.flatnonzero(~self.there), len(y))

    def value(self, model: SampleModel) -> float:
        """Ln p; -inf where an innovation's covariance is not positive."""
        return self._forward(model, None)[0]

    def gradient(self, model: SampleModel) -> tuple[float, SampleModel | None]:
        """Ln p and its derivatives by F, H, Q, N, R, P (symmetric where these are); None where it is -inf."""
        pieces: list[_Piece] = []
        value, settled, square, count = self._forward(model, pieces)
        if not np.isfinite(value):
            return value, None
        return value, self._backward(model, pieces, settled, square, count)

    def _forward(self, model: SampleModel, pieces: list[_Piece] | None) -> tuple[float, _Settled | None, Array, int]:
        F, H, Q, N, R, P0 = model
        n, q, T = len(F), len(H), len(self.y)
        x, P, square, count = np.zeros(n), P0.copy(), np.zeros((q, q)), 0
        none, nones = np.empty((0, n)), np.empty((0, n, n))
        total, settled, now, k = 0.0, None, False, 0
        room = pieces is not None and T * n <= KEPT
        while k < T:
            xs = none
            if pieces is not None:
                first, before = (k, x.copy(), P.copy()), now
            if now:
                assert settled is not None
                stop = min(k + STEADY_PIECE, int(self._gaps[np.searchsorted(self._gaps, k)]))
                xs = np.empty((stop - k, n)) if room else none
                self.settled_loops.steady(self.y, k, stop, H, settled.K, settled.L, x, xs, square)
                count, k = count + stop - k, stop
            else:
                stop = min(k + PIECE, T)
                value, k, now = self.loops.varying(self.y, self.there, k, stop, F, H, Q, N, R, x, P, none, nones, True)
                total += value
                if not np.isfinite(total):
                    return -np.inf, None, square, count
                if now:
                    settled = self._settled(model, P) if settled is None else settled
                    P[:] = settled.P
            if pieces is not None:
                pieces.append(_Piece(first[0], k, before, first[1], first[2], xs))
            now = now and k < T and bool(self.there[k])
        if settled is not None:
            total -= 0.5 * (count * (settled.log_det + q * np.log(2 * np.pi)) + float(np.sum(settled.inverse * square)))
        return float(total), settled, square, count

    def _settled(self, model: SampleModel, P: Array) -> _Settled:
        n, q = len(P), len(model.H)
        K, inverse, L, fresh = np.empty((n, q)), np.empty((q, q)), np.empty((n, n)), np.empty((n, n))
        log_det = self.loops.gained(*model[:5], P, K, inverse, L, fresh)
        return _Settled(P.copy(), K, inverse, L, float(log_det))

    def _backward(
        self, model: SampleModel, pieces: list[_Piece], settled: _Settled | None, square: Array, count: int
    ) -> SampleModel:
        F, H, Q, N, R, _ = model
        n, q, loops = len(F), len(H), self.loops
        out = SampleModel(*(np.zeros(M.shape) for M in model))
        *bars, Pb = out
        bar, unused, by_settled = np.zeros(n), np.zeros((q, q)), np.zeros((n, n))
        by_e, states = np.zeros((n, q)), np.zeros((q, n))
        outer = np.zeros((n, n))
        longest = max((p.stop - p.start for p in pieces if not len(p.xs)), default=0)
        xs, Ps = np.empty((longest, n)), np.empty((PIECE, n, n))
        for p in reversed(pieces):
            x, kept = p.x.copy(), p.xs if len(p.xs) else xs
            if p.settled:
                assert settled is not None
                by_settled += Pb
                Pb[:] = 0.0
                if not len(p.xs):
                    self.settled_loops.steady(self.y, p.start, p.stop, H, settled.K, settled.L, x, xs, unused)
                self.settled_loops.steady_back(
                    self.y, p.start, p.stop, H, settled.K, settled.L, settled.inverse, kept, bar, outer, by_e, states
                )
            else:
                args = (self.y, self.there, p.start, p.stop, F, H, Q, N, R)
                loops.varying(*args, x, p.P.copy(), xs, Ps, False)
                loops.varying_back(*args, xs, Ps, bar, Pb, *bars)
        if settled is not None and count:
            out.F[:] += outer
            out.H[:] -= settled.K.T @ outer
            loops.settled_back(
                by_e, states, square, count, by_settled, settled.P, F, H, settled.K, settled.inverse, settled.L, *bars
            )
        return out
