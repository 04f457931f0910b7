"""Technical noise of an experiment: where it enters, and the same experiment without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backaction.experiment.experiment import Experiment
from backaction.numerics.matrices import Array
from backaction.systems.linear import LinearSystem


def technical_sources(system: LinearSystem, reported: Sequence[str]) -> list[str]:
    """Classical inputs that carry noise, and further modes (their own inputs included) beside the reported ones."""
    found = [
        p.name
        for p in system.inputs
        if p.kind == "classical" and np.any(system.S[..., system.input(p.name), system.input(p.name)])
    ]
    return found + [m.name for m in system.modes if m.kind == "auxiliary" and m.name not in reported]


def without(system: LinearSystem, sources: Sequence[str]) -> LinearSystem:
    """The system with the noise of classical inputs set to zero and further modes uncoupled from everything."""
    modes = {m.name for m in system.modes}
    size = {p.name: p.size for p in system.inputs}
    out = system.with_noise({s: np.zeros((size[s], size[s])) for s in sources if s not in modes})
    A, B, C = out.A.copy(), out.B.copy(), out.C.copy()
    for name in (s for s in sources if s in modes):
        own = system.mode(name)
        block = A[..., own, own].copy()
        A[..., own, :], A[..., :, own], C[..., :, own] = 0.0, 0.0, 0.0
        A[..., own, own], B[..., own, :] = block, 0.0
    return replace(out, A=A, B=B, C=C)


def bare(experiment: Experiment) -> tuple[list[str], Array]:
    """Sources that are not part of the physics itself, and the states that remain without them.

    Technical noise of the light, electronics, and further mechanical modes; the spins' broadband noise stays.
    """
    system, reported = experiment.system, experiment.reported_modes()
    kept = [f"{e.name}.broadband" for e in experiment.elements]
    sources = [s for s in technical_sources(system, reported) if s not in kept]
    gone = [m.name for m in system.modes if m.kind == "classical" or m.name in sources]
    rows = system.indices(gone)
    return sources, np.setdiff1d(np.arange(system.A.shape[-1]), rows)
