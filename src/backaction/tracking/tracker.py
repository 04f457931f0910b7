"""A filter that is fed as samples come: the conditional state in real time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.experiment.experiment import Experiment
from backaction.files import packed, unpacked
from backaction.numerics.matrices import Array
from backaction.tracking.inputs import Currents
from backaction.tracking.kalman import KalmanFilter, Piece, State
from backaction.tracking.setups import Setup, setup

_OPTIONS = frozenset(("frame", "every", "modes", "start", "schedule", "ahead_s", "single", "square_root", "likelihood"))


class Tracker:
    """A filter that is fed samples as they come; its result does not depend on how the record was cut.

    Options are those of `track` that say what is filtered and read out: frame, every, modes, start, schedule, ahead_s,
    single, square_root, likelihood. `inputs` says how stored samples become currents: `currents([record], [density])`, or a
    `Currents` made by hand where no record exists yet. Samples are pushed as they are stored (counts, not volts).

    Notes
    -----
    Samples are processed in blocks anchored at multiples of a fixed number of samples from the record's start; what is
    left over waits for the next `push`, or `flush`.
    """

    def __init__(self, experiment: Experiment, inputs: Currents, **options: Any) -> None:
        if not isinstance(inputs, Currents):
            raise InputError(
                f"Tracker: inputs are a Currents, as currents([record], [density]) makes it, not {_kind(inputs)}"
            )
        unknown = sorted(set(options) - _OPTIONS)
        if unknown:
            raise InputError(f"Tracker: no option '{unknown[0]}'{nearest(unknown[0], _OPTIONS)}")
        self._begin(setup(experiment, inputs, **options))

    @classmethod
    def of(cls, made: Setup) -> Tracker:
        """A tracker with a setup that is there already."""
        out = cls.__new__(cls)
        out._begin(made)
        return out

    def _begin(self, made: Setup) -> None:
        self.setup = made
        self._filter = KalmanFilter(self.setup.schedule, self.setup.plan, self.setup.state.copy())
        self._waiting: list[Array] = []
        self._held, self._over = 0, False
        self.missing = self.clipped = 0

    @property
    def position(self) -> int:
        """Stored samples that are behind the last mean (what waits is not among them)."""
        return self._filter.state.position * self.setup.currents.factor

    @property
    def log_likelihood(self) -> float:
        """Ln p(y_0 .. y_k) of the samples so far, in units of the filter's currents."""
        return self._filter.state.log_likelihood

    @property
    def block(self) -> int:
        """Stored samples in a block: chunks that are multiples of it are processed at once."""
        return self.setup.plan.block * self.setup.currents.factor

    def push(self, samples: Array) -> Piece:
        """Take the next stored samples; returns what could be finished (rotated means, innovations, covariances)."""
        samples = np.asarray(samples)
        inputs = self.setup.currents
        q = 1 if inputs.complex else inputs.gain.size
        wanted = "c" if inputs.digitiser.reference_hz is not None else "iuf"
        if samples.dtype.kind not in wanted or samples.shape[1:] != ((q,) if q > 1 else ()):
            form = f"(T, {q})" if q > 1 else "(T,)"
            raise InputError(
                f"Tracker.push: samples of type {samples.dtype} and shape {samples.shape}; expected "
                f"{'complex' if wanted == 'c' else 'real'} numbers of shape {form}, as they are stored"
            )
        if self._over:
            raise InputError("Tracker.push: the record ended with flush(); begin a new Tracker")
        self._waiting.append(samples)
        self._held += len(samples)
        whole = self._held - self._held % self.block
        if whole == 0:
            return self.advance(samples[:0])
        joined = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        rest = joined[whole:]
        self._waiting, self._held = ([rest.copy()] if len(rest) else []), len(rest)
        return self.advance(joined[:whole])

    def flush(self) -> Piece:
        """Process what is left over (with `demodulate`: whole blocks of samples); the record ends here."""
        q = self.setup.currents.gain.size
        joined = np.concatenate(self._waiting) if self._waiting else np.empty((0, q) if q > 1 else 0)
        self._waiting, self._held, self._over = [], 0, True
        return self.advance(joined[: len(joined) - len(joined) % self.setup.currents.factor])

    @property
    def types(self) -> tuple[type, type]:
        """Of means and innovations."""
        return self._filter.mean_type, self._filter.innovation_type

    def advance(self, raw: Array, mean: Array | None = None, innovation: Array | None = None) -> Piece:
        """Process samples at once: whole blocks, or the record's last; into given arrays, where that saves time."""
        first = self.position
        u, ok, missing, clipped = self.setup.currents.take(raw, first)
        self.missing, self.clipped = self.missing + missing, self.clipped + clipped
        row = self._filter.state.position // self.setup.plan.every
        piece = self._filter.advance(u, ok, mean, innovation)
        piece.mean = self.setup.turned(piece.mean, row)
        piece.exact = piece.exact + row
        return piece

    def state(self) -> dict[str, Any]:
        """Everything to go on later, as plain JSON data; exact."""
        s = self._filter.state
        waiting = np.concatenate(self._waiting) if self._waiting else np.empty(0)
        return {
            "x": packed(s.x), "P": packed(s.P), "position": s.position, "settled": s.settled, "since": s.since,
            "log_likelihood": s.log_likelihood, "seen": s.seen, "missing": self.missing, "clipped": self.clipped,
            "waiting": packed(waiting), "setup": self.setup.fingerprint,
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a `state()` of a tracker that was made alike.

        Raises
        ------
        InputError
            If it is no such state, or of another model, scale or readout.
        """
        if saved.get("setup") != self.setup.fingerprint:
            raise InputError("Tracker.restore: the state is of a tracker with another model, scale or readout, or none")
        numbers = {k: saved[k] for k in ("position", "settled", "since", "log_likelihood", "seen")}
        self._filter.state = State(unpacked(saved["x"]), unpacked(saved["P"]), **numbers)
        self.missing, self.clipped = int(saved["missing"]), int(saved["clipped"])
        waiting = unpacked(saved["waiting"])
        self._waiting, self._held = ([waiting] if len(waiting) else []), len(waiting)


def _kind(value: Any) -> str:
    inner = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    return f"'{inner}'" if isinstance(inner, str) else type(inner).__name__
