"""Reference files beside the project, and a parameter set of theirs."""

import json
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared(path: str) -> Path:
    """A file of the reference folder beside the project; the test is skipped where it is absent."""
    file = SHARED / path
    if not file.exists():
        pytest.skip(f"reference file {path} is not beside the project (see CONTRIBUTING)")
    return file


TUNED = {
    "spin.intrinsic_linewidth_hz": 1650.0,
    "spin.tensor_ratio": 0.0285,
    "spin.readout_rate_hz": 20360.0,
    "membrane.detuning_hz": -0.656e6,
    "membrane.cavity_linewidth_hz": 4.25e6,
    "membrane.coupling_hz": 74.3e3 * 2**0.5,
    "phase.angle_deg": 178.0,
}


def numbers(paper: str) -> dict:
    """The independent reference values of a paper: worked out without this package, shipped with its tests."""
    return json.loads((Path(__file__).parent / "numbers" / f"{paper}.json").read_text())
