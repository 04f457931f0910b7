"""Errors for people: one line that says what, where, the value and what is allowed.

Every error that a user can cause derives from `BackactionError` and carries the exit code of the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BackactionError(Exception):
    """Base of every error that the package raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(BackactionError):
    """Something given by the user is wrong: a key, a value, a unit, a file (exit code 2)."""

    exit_code = 2


class ConventionError(InputError):
    """Two objects of different conventions or frames were mixed (exit code 2)."""


class ModelError(BackactionError):
    """The model has no such answer: unstable, undetectable, singular, not converged (exit code 3)."""

    exit_code = 3


class CheckError(BackactionError):
    """A result was computed, but the model's checks against the data failed (exit code 4)."""

    exit_code = 4


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint `; did you mean 'x'?` with the nearest known word, or the list of what is known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; known: {shown}"
