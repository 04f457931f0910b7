"""Spectra of an experiment that has a `Response` alone: structural damping, stabilised externally."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.systems.poles import instability
from backaction.systems.response import Response, _axis

if TYPE_CHECKING:
    from backaction.experiment.experiment import Experiment


def frequency_response(experiment: Experiment, frequency_hz: Any) -> Response:
    """The detected currents of any experiment on a frequency axis, also of one that is known by its spectra only.

    A structurally damped element acts at each frequency as friction of its own strength there, so that the network is one
    batch of systems, each used at its own frequency; further array fields then need a last axis of length 1. `stabilised =
    "externally"` declares that a servo outside the measured band holds an unstable system: its transfer functions are then
    those of the linear equations, unstable poles included.

    Raises
    ------
    ModelError
        If it is unstable and not declared so.
    InputError
        For frequency 0 with structural damping.
    """
    f = _axis(frequency_hz)
    damped = any(e.spectral for e in experiment.elements)
    if damped and np.any(f == 0):
        raise InputError(f"{experiment.name}: structural damping has no value at frequency 0")
    resolved = experiment.resolved()
    here = resolved.frictional(f)
    system = here.build().detected()
    if not experiment.stabilised:
        # friction grows towards low frequencies; stability is decided where it is that of the linewidth given
        own = resolved.frictional().build() if damped else system
        if np.max(np.linalg.eigvals(own.A).real, initial=-1.0) >= 0:
            raise ModelError(f'{instability(own)} (if a servo holds it: stabilised = "externally", for spectra)')
    n = system.A.shape[-1]
    # one system per frequency where friction depends on it, else one for all: the frequencies are the last leading axis
    A, B, C, D, S = (
        m if damped and m.ndim > 2 else m[..., None, :, :] for m in (system.A, system.B, system.C, system.D, system.S)
    )
    s = (-2j * np.pi * f)[:, None, None] * np.eye(n)
    H = C @ np.linalg.solve(s - A, B.astype(complex)) + D
    S = np.broadcast_to(S, np.broadcast_shapes(S.shape, (f.size, 1, 1)))
    return Response(f, H, S, system.currents, 0.0, None, system.inputs)
