"""From a file's attributes to a `Record`: the same words in every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.records.record import Record

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
        said = next((attributes[w] for w in words if w in attributes), None)
        if key in given and said is not None and not _same(key, given[key], said):
            raise InputError(f"{name}: says {key} = {_text(said)}, the option says {given[key]}; leave the option out")
        if key in given or said is not None:
            found[key] = given.get(key, said)
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
        try:
            values["front_end_hz"] = tuple(float(f) for f in np.atleast_1d(front_end))
        except (TypeError, ValueError):
            raise InputError(f"{name}: front_end_hz = {front_end!r}: expected corner frequencies") from None
    for key, count in (("reference_hz", 1), ("limits", 2)):
        said = given.get(key, attributes.get(key))
        if said is not None:
            try:
                numbers = [float(v) for v in np.atleast_1d(said)]
            except (TypeError, ValueError):
                numbers = []
            if len(numbers) != count:
                raise InputError(f"{name}: {key} = {said!r}: expected {'a number' if count == 1 else 'two numbers'}")
            values[key] = numbers[0] if count == 1 else tuple(numbers)
    gaps = attributes.get("gaps")
    if gaps is not None:
        try:
            values["gaps"] = tuple((int(a), int(b)) for a, b in np.asarray(gaps).reshape(-1, 2))
        except (TypeError, ValueError):
            raise InputError(f"{name}: gaps = {gaps!r}: expected pairs of sample numbers") from None
    known = {w for words in _WORDS.values() for w in words} | {"gaps", "front_end_hz", "reference_hz", "limits"}
    values["metadata"] = {k: v for k, v in attributes.items() if k not in known}
    return Record(source, name=name, **values)


def _same(key: str, given: Any, said: Any) -> bool:
    if key == "sampling":
        return _text(given).lower()[:5] in _text(said).lower()
    try:
        return bool(np.isclose(float(given), float(said), rtol=1e-9))
    except (TypeError, ValueError):
        return _text(given) == _text(said)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _sampling(text: str, name: str) -> Any:
    words = text.lower()
    if "average" in words:
        return "average"
    if "instantaneous" in words:
        return "instantaneous"
    raise InputError(f"{name}: sampling = {text!r}: must be 'average' or 'instantaneous' (--sampling)")
