"""Priors with covariance from the JSON files that `backaction calibrate` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backaction.errors import InputError, nearest
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.experiment.toml import read_prior
from backaction.numerics.matrices import Array

Correlated = tuple[tuple[tuple[str, ...], Array], ...]
"""Blocks (fields, correlation matrix) of what calibrations know together."""


def read_calibrations(paths: Sequence[Path], experiment: Experiment) -> tuple[dict[str, Prior], Correlated]:
    """Priors and correlations of several calibration files, which must not know of the same fields."""
    priors: dict[str, Prior] = {}
    blocks = []
    for path in paths:
        found, block = read_calibration(path, experiment)
        for key in found:
            if key in priors:
                raise InputError(f"{path}: '{key}' is known from another calibration file too: combine them in one set")
        priors |= found
        blocks += [block] if block[0] else []
    return priors, tuple(blocks)


def methods_of(paths: Sequence[Path]) -> set[str]:
    """The methods whose results the files hold."""
    documents = [json.loads(path.read_text("utf-8")) for path in paths]
    return {str(result["method"]) for d in documents for result in d.get("results", [])}


def read_calibration(path: Path, experiment: Experiment) -> tuple[dict[str, Prior], tuple[tuple[str, ...], Array]]:
    """Priors and their correlations from a calibration file (JSON, schema backaction/calibration/1).

    `{"schema", "parameters": {path: {"mean", "sd"}}, "covariance": {"names": [...], "matrix": [[...]]}}`; the covariance is
    optional and in the parameters' own units. With `median` and `factor` too a parameter's prior is log-normal.

    Raises
    ------
    InputError
        Naming what is missing or not a covariance.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        if document.get("schema") != "backaction/calibration/1":
            raise InputError(f"{path}: schema = {document.get('schema')!r}: expected 'backaction/calibration/1'")
        items = document["parameters"]
        own = {k: ("median", "factor") if v.get("factor") is not None else ("mean", "sd") for k, v in items.items()}
        priors = {k: read_prior(experiment, k, {w: v[w] for w in own[k]}, str(path)) for k, v in items.items()}
        spreads = {k: float(v["sd"]) for k, v in items.items()}
        names = tuple(document.get("covariance", {}).get("names", items))
        matrix = document.get("covariance", {}).get("matrix")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no calibration file ({type(error).__name__}: {error})") from None
    if not items:
        return {}, ((), np.zeros((0, 0)))
    for name in names:
        if name not in priors:
            raise InputError(f"{path}: covariance names '{name}', which is no parameter{nearest(name, priors)}")
    sd = np.array([spreads[n] for n in names])
    try:
        V = np.diag(sd**2) if matrix is None else np.asarray(matrix, dtype=float)
    except (ValueError, TypeError):
        V = np.zeros((0, 0))
    scale = np.sqrt(np.abs(np.diag(V))) if V.ndim == 2 else np.ones(0)
    square = V.shape == (len(names), len(names)) and bool(np.all(scale > 0))
    unit = (
        V / np.outer(scale, scale) if square else V
    )  # rates in hertz and loss factors meet here: judged without their units
    if not square or not np.allclose(unit, unit.T) or np.any(np.linalg.eigvalsh(unit) <= 0):
        raise InputError(f"{path}: covariance.matrix must be symmetric, positive and {len(names)} x {len(names)}")
    if not np.allclose(np.sqrt(np.diag(V)), sd, rtol=0.02):
        raise InputError(f"{path}: the diagonal of covariance.matrix does not agree with the sd of the parameters")
    spread = np.sqrt(np.diag(V))
    return priors, (names, V / np.outer(spread, spread))
