"""From a file's attributes to a `Record`: the same words in every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.records import Record

_WORDS = {
    "sample_rate_hz": ("sample_rate_hz",),
    "sampling": ("sampling",),
    "unit": ("unit",),
    "scale": ("scale", "volts_per_count"),
    "offset": ("offset",),
    "start_s": ("t0_s", "start_s", "time_start_s"),
}


def to_record(source: Any, attributes: Mapping[str, Any], given: Mapping[str, Any], name: str) -> Record:
    """Build a record from attributes, `given` values first; asks by name for what is missing."""
    found: dict[str, Any] = {}
    for key, words in _WORDS.items():
        if key in given:
            found[key] = given[key]
            continue
        for word in words:
            if word in attributes:
                found[key] = attributes[word]
                break
    for key, hint in (
        ("sample_rate_hz", "samples per second (--rate)"),
        ("sampling", "'average' or 'instantaneous' (--sampling)"),
        ("unit", "the unit of the samples (--unit)"),
    ):
        if key not in found:
            raise InputError(f"{name}: does not say '{key}': {hint}")
    dtype = np.dtype(source.dtype)
    if not (np.issubdtype(dtype, np.number)):
        raise InputError(f"{name}: samples of type {dtype}: expected numbers")
    if np.issubdtype(dtype, np.integer) and "scale" not in found:
        raise InputError(
            f"{name}: integer samples without 'scale' or 'volts_per_count': the unit of one count (--scale)"
        )
    values: dict[str, Any] = {"unit": str(_text(found["unit"])), "sampling": _sampling(_text(found["sampling"]), name)}
    for key in ("sample_rate_hz", "scale", "offset", "start_s"):
        if key in found:
            try:
                values[key] = float(found[key])
            except (TypeError, ValueError):
                raise InputError(f"{name}: {key} = {found[key]!r}: expected a number") from None
    front_end = given.get("front_end_hz", attributes.get("front_end_hz"))
    if front_end is not None:
        values["front_end_hz"] = tuple(float(f) for f in np.atleast_1d(front_end))
    gaps = attributes.get("gaps")
    if gaps is not None:
        values["gaps"] = tuple((int(a), int(b)) for a, b in np.asarray(gaps).reshape(-1, 2))
    known = {w for words in _WORDS.values() for w in words} | {"gaps", "front_end_hz"}
    values["metadata"] = {k: v for k, v in attributes.items() if k not in known}
    return Record(source, name=name, **values)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _sampling(text: str, name: str) -> Any:
    words = text.lower()
    if "average" in words or "integrat" in words:
        return "average"
    if "instant" in words or "point" in words:
        return "instantaneous"
    raise InputError(f"{name}: sampling = {text!r}: must be 'average' or 'instantaneous' (--sampling)")
