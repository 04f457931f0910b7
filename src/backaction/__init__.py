"""Continuously measured linear quantum systems: from a network and a photocurrent to states and entanglement.

The names that a user types in the first hour live here; each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from backaction._version import __version__

_HOME = {
    "Experiment": "experiment",
    "Prior": "experiment",
    "LinearSystem": "system",
    "connect": "system",
    "GaussianState": "state",
    "Record": "records",
    "read_record": "formats",
    "SpinOscillator": "elements",
    "SidebandOscillator": "elements",
    "Oscillator": "elements",
    "OptomechanicalCavity": "elements",
    "DrivenCavity": "elements",
    "Loss": "elements",
    "Rotation": "elements",
    "BeamSplitter": "elements",
    "Squeezer": "elements",
    "Homodyne": "elements",
    "TechnicalNoise": "elements",
    "gaussian_state": "results",
    "evaluate": "results",
    "gradient": "derivatives",
    "budget": "response",
    "transfer": "response",
    "epr": "entanglement",
    "epr_variance": "entanglement",
    "ppt_min": "entanglement",
    "log_negativity": "entanglement",
    "optimize": "optimization",
    "sweep": "sweeps",
    "simulate": "simulation",
    "track": "tracking",
    "Tracker": "tracking",
    "load_track": "tracks",
    "calibrate": "shot_noise",
    "analyze": "analysis",
    "Campaign": "campaign",
    "infer": "inference",
    "unconditional": "steady",
    "conditional": "steady",
    "BackactionError": "errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"backaction.{_HOME[name]}"), name)
    raise AttributeError(f"module 'backaction' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
