"""TOML text to the parts of an experiment and back: tables, elements, priors, overrides; every error names its key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.elements.base import Element
from backaction.elements.kinds import ELEMENTS
from backaction.errors import InputError, nearest
from backaction.experiment.prior import Prior
from backaction.units import number

if TYPE_CHECKING:
    from backaction.experiment.experiment import Experiment


def _toml(value: Any) -> str:
    """A TOML value: strings, numbers and truth values as in JSON, mappings as inline tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def shipped_experiments() -> tuple[str, ...]:
    """Names of the experiments that come with the package."""
    folder = resources.files("backaction") / "data" / "experiments"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def read_overrides(items: Iterable[str], option: str = "--set") -> dict[str, str]:
    """Split `element.field=value` strings of the command line's `--set`."""
    out: dict[str, str] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise InputError(f"{option} {item}: expected element.field=value")
        out[key.strip()] = value.strip()
    return out


def _tables(table: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    items = table.get(key, [])
    if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
        raise InputError(f"{where}: '{key}' must be a list of tables: write [[{key}]]")
    return items


def _section(table: Mapping[str, Any], key: str, known: tuple[str, ...] | None, where: str) -> dict[str, Any]:
    section = table.get(key, {})
    if not isinstance(section, dict):
        raise InputError(f"{where}: [{key}] must be a table")
    for k in section:
        if known is not None and k not in known:
            raise InputError(f"{where}: [{key}]: unknown key '{k}'{nearest(k, known)}")
    return section


def _element(item: Mapping[str, Any], where: str) -> Element:
    kind, name = item.get("kind"), item.get("name")
    if not isinstance(name, str) or not name or "." in name:
        raise InputError(f"{where}: [[element]] needs a 'name' without dots, got {name!r}")
    if kind not in ELEMENTS:
        raise InputError(f"{where}: {name}: unknown kind {kind!r}{nearest(str(kind), ELEMENTS)}")
    rest = {k: v for k, v in item.items() if k not in ("kind", "name")}
    return ELEMENTS[kind].from_table(name, rest, where)


def read_prior(experiment: Experiment, path: str, item: Any, where: str) -> Prior:
    """A prior of the field at `path` from a TOML table."""
    here = f"{where}: [prior] '{path}'"
    if not isinstance(item, Mapping):
        raise InputError(
            f"{here}: expected {{ mean = ..., sd = ... }}, {{ lower = ..., upper = ... }} or "
            f"{{ median = ..., factor = ... }}, got {item!r}"
        )
    known = ("mean", "sd", "lower", "upper", "median", "factor")
    for k in item:
        if k not in known:
            raise InputError(f"{here}: unknown key '{k}'{nearest(k, known)}")
    try:
        value = experiment.value(path)
        unit = unit_bounds(experiment, path)[0]
    except InputError as error:
        raise InputError(f"{here}: {error}") from None
    if value is None:
        raise InputError(f"{here}: this field is not set in the experiment")
    values = {k: number(v, "1" if k == "factor" else unit, f"{here}.{k}") for k, v in item.items()}
    prior = Prior(**values)
    if (prior.mean is None) != (prior.sd is None):
        raise InputError(f"{here}: mean and sd go together")
    if prior.sd is not None and prior.sd <= 0:
        raise InputError(f"{here}: sd = {prior.sd:g}: must be > 0")
    if (prior.median is None) != (prior.factor is None):
        raise InputError(f"{here}: median and factor go together")
    if prior.median is not None and (prior.median <= 0 or (prior.factor or 0) <= 1):
        raise InputError(
            f"{here}: median = {prior.median:g}, factor = {prior.factor:g}: need median > 0 and factor > 1"
        )
    if prior.median is not None and not {prior.mean, prior.lower, prior.upper} == {None}:
        raise InputError(f"{here}: a log-normal prior has median and factor only")
    if prior.mean is None and prior.median is None and (prior.lower is None or prior.upper is None):
        raise InputError(f"{here}: give mean and sd, lower and upper, or median and factor")
    if prior.lower is not None and prior.upper is not None and not prior.lower < prior.upper:
        raise InputError(f"{here}: lower = {prior.lower:g} must be below upper = {prior.upper:g}")
    _, low, high = unit_bounds(experiment, path)
    if prior.outside(low, high):
        raise InputError(f"{here}: lies outside the allowed {low:g}..{high:g}")
    if not np.isscalar(value) and np.ndim(value) > 0:
        raise InputError(f"{here}: a fitted field must be a single number")
    return prior


def unit_bounds(experiment: Experiment, path: str) -> tuple[str, float, float]:
    """Unit and hard bounds (lower, upper) of the field at `path`."""
    part: Any = experiment.element(path.partition(".")[0])
    names = part.dotted(path.partition(".")[2]).split(".")
    for name in names[:-1]:
        groups = [getattr(part, f.name) for f in fields(part) if f.metadata.get("parts")]
        part = next(p for group in groups for p in group if p.name == name)
    meta = next((f.metadata for f in fields(part) if f.name == names[-1]), None)
    if meta is None or "unit" not in meta:
        raise InputError(f"'{path}' is not a number")
    low = meta["minimum"] if meta["minimum"] is not None else meta["above"]
    return (
        meta["unit"],
        -np.inf if low is None else low,
        np.inf if meta["maximum"] is None else meta["maximum"],
    )
