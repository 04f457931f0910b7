"""TOML text to the parts of an experiment and back: tables, elements, priors, overrides; every error names its key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backaction.elements.base import Element
from backaction.elements.kinds import ELEMENTS
from backaction.errors import InputError, nearest
from backaction.experiment.prior import Prior
from backaction.units import number

if TYPE_CHECKING:
    from backaction.experiment.experiment import Experiment


ANALYSIS = ("band_hz", "likelihood", "start")
"""Keys of `[analysis]`."""
LIKELIHOODS = ("auto", "gamma", "thomas2021", "innovations")
"""How records may be compared with a model (`inference.scatter`)."""
STARTS = ("free", "fitted", "stationary")
"""How modes that a record does not resolve may start in it."""


def allowed(where: str, key: str, value: str, words: tuple[str, ...]) -> None:
    """Refuse a value that is none of the words.

    Raises
    ------
    InputError
        One line with the words and the nearest.
    """
    if value not in words:
        raise InputError(f"{where} {key} = '{value}': must be one of {', '.join(words)}{nearest(value, words)}")


def read(text: str, where: str) -> dict[str, Any]:
    """TOML text as the arguments of an `Experiment`; `priors` as the tables that `read_prior` takes.

    Raises
    ------
    InputError
        One line naming file, element, key, value and what is allowed.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not valid TOML: {error}") from None
    known = ("name", "description", "state", "element", "connection", "prior", "analysis", "stabilised")
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{nearest(key, known)}")
    elements = tuple(_element(item, where) for item in _tables(table, "element", where))
    connections: dict[str, str] = {}
    for item in _tables(table, "connection", where):
        if set(item) != {"from", "to"}:
            raise InputError(f"{where}: [[connection]] needs exactly the keys 'from' and 'to', got {sorted(item)}")
        connections[str(item["from"])] = str(item["to"])
    modes = (state := _section(table, "state", ("modes",), where)).get("modes", [])
    named = isinstance(modes, list) and all(isinstance(m, str) for m in modes)
    if not named or ("modes" in state and not modes):
        raise InputError(f"{where}: [state] modes = {modes!r}: expected a list of mode names")
    held = str(table.get("stabilised", ""))
    if held not in ("", "externally"):
        raise InputError(f"{where}: stabilised = {held!r}: must be 'externally', or left out")
    return {
        "elements": elements,
        "modes": tuple(modes),
        "connections": connections,
        "priors": dict(_section(table, "prior", None, where)),
        "band_hz": _band(_section(table, "analysis", ANALYSIS, where).get("band_hz"), where),
        "likelihood": str(table.get("analysis", {}).get("likelihood", "auto")),
        "start": str(table.get("analysis", {}).get("start", "free")),
        "name": str(table.get("name", Path(where).stem)),
        "description": str(table.get("description", "")).strip(),
        "stabilised": held,
    }


def _band(item: Any, where: str) -> tuple[float, float] | None:
    if item is None:
        return None
    if not isinstance(item, list) or len(item) != 2:
        raise InputError(f"{where}: [analysis] band_hz = {item!r}: expected [lowest, highest]")
    low, high = (number(v, "Hz", f"{where}: [analysis] band_hz") for v in item)
    if not 0 <= low < high:
        raise InputError(f"{where}: [analysis] band_hz = [{low:g}, {high:g}]: needs 0 <= lowest < highest")
    return low, high


def write(table: Mapping[str, Any]) -> str:
    """TOML text of plain data; numbers keep every digit."""
    import tomli_w

    return tomli_w.dumps(_plain(table))


def _plain(value: Any) -> Any:
    """NumPy's numbers and tuples as Python's, which TOML knows."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


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
