"""Reproductions of papers: claims side by side with what their stated parameters give, and figures."""

from __future__ import annotations

import importlib

from backaction.errors import InputError, nearest
from backaction.papers.frame import Claim, Outcome, Paper, run

KEYS = ("huang2018", "moller2017", "ockeloen2018", "thomas2021")
"""Papers that can be reproduced."""


def paper(key: str) -> Paper:
    """The paper `key`.

    Raises
    ------
    InputError
        Naming the nearest known key.
    """
    if key not in KEYS:
        raise InputError(f"no paper '{key}'{nearest(key, KEYS)}")
    found: Paper = importlib.import_module(f"backaction.papers.{key}").PAPER
    return found


__all__ = ["KEYS", "Claim", "Outcome", "Paper", "paper", "run"]
