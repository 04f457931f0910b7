"""Shared fixtures: the independent reference values and records, and the shipped experiment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

from backaction import Experiment

settings.register_profile("ci", deadline=None, max_examples=40, print_blob=True, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """A file of the reference folder beside the project; the test is skipped where it is absent."""
    file = SHARED / path
    if not file.exists():
        pytest.skip(f"reference file {path} is not beside the project (see CONTRIBUTING)")
    return file


@pytest.fixture(scope="session")
def numbers() -> dict:
    """Independent reference values of Thomas 2021."""
    return json.loads(shared("physics/thomas2021/numbers.json").read_text())


@pytest.fixture(scope="session")
def thomas() -> Experiment:
    return Experiment.load("thomas2021")


@pytest.fixture(scope="session")
def tuned(thomas: Experiment) -> Experiment:
    """Parameter set TUNED of the reference values."""
    return thomas.with_values(TUNED)


TUNED = {
    "spin.intrinsic_linewidth_hz": 1650.0,
    "spin.tensor_ratio": 0.0285,
    "spin.readout_rate_hz": 20360.0,
    "membrane.detuning_hz": -0.656e6,
    "membrane.cavity_linewidth_hz": 4.25e6,
    "membrane.coupling_hz": 74.3e3 * 2**0.5,
    "phase.angle_deg": 178.0,
}
