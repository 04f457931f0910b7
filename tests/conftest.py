"""Shared fixtures: the independent reference values and records, and the shipped experiment."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from backaction import Experiment
from support import reference
from support.reference import TUNED

settings.register_profile("ci", deadline=None, max_examples=40, print_blob=True, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def numbers() -> dict:
    """Independent reference values of Thomas 2021."""
    return reference.numbers("thomas2021")


@pytest.fixture(scope="session")
def thomas() -> Experiment:
    return Experiment.load("thomas2021")


@pytest.fixture(scope="session")
def tuned(thomas: Experiment) -> Experiment:
    """Parameter set TUNED of the reference values."""
    return thomas.with_values(TUNED)
