"""Units at the door: strings such as `"20 kHz"` become SI numbers, by the unit that a field's name ends in.

A plain number is taken to be in the field's own unit already. Pint is imported only when a string has to be read.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from backaction.errors import InputError

_PINT_UNIT = {
    "Hz": "hertz",
    "deg": "degree",
    "W": "watt",
    "K": "kelvin",
    "s": "second",
    "m": "metre",
    "kg": "kilogram",
    "N": "newton",
    "SN": "dimensionless",
    "dB": "dimensionless",
    "1": "dimensionless",
    "sqrt(Hz)": "hertz ** 0.5",
}
_OWN_WORD = {"SN": ("sn", "SN"), "dB": ("dB", "db"), "1": ("%",)}


@functools.cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(cache_folder=":auto:")
    # a rate in hertz here is always cyclic; radians per second would silently differ by 2 pi
    return registry


def number(value: Any, unit: str, where: str) -> float:
    """Read `value` (number, or string with a unit) as a float in `unit`.

    Parameters
    ----------
    value
        A finite number, or a string such as `"1.7 kHz"`, `"93 %"`, `"1.68 SN"`, `"3 dB"`.
    unit
        One of `Hz, deg, W, K, s, m, kg, N, SN, dB, 1, sqrt(Hz)`.
    where
        Words for the error message: file, element and key.

    Raises
    ------
    InputError
        If it is not a finite number, the unit is unknown, or its dimension is not that of `unit`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{where} = {value!r}: expected a number or a string with a unit in {unit}")
    if isinstance(value, str):
        if any(c in value for c in ",[]"):
            raise InputError(f"{where} = {value!r}: expected one number with a decimal point")
        value = _from_text(value, unit, where)
    result = float(value)
    if not math.isfinite(result):
        raise InputError(f"{where} = {value}: must be a finite number")
    return result


def _from_text(text: str, unit: str, where: str) -> float:
    stripped = text.strip()
    try:
        return float(stripped)
    except ValueError:
        pass
    for word in _OWN_WORD.get(unit, ()):
        if stripped.endswith(word):
            try:
                return float(stripped[: -len(word)]) * (0.01 if word == "%" else 1.0)
            except ValueError:
                break
    import pint

    try:
        quantity = _registry().Quantity(stripped)
    except Exception:  # pint raises many kinds for text that is no quantity
        raise InputError(f"{where} = {text!r}: not a number with a unit (expected {unit})") from None
    angle = "radian" in str(quantity.to_root_units().units)
    if unit == "Hz" and angle:
        raise InputError(f"{where} = {text!r}: rates are cyclic here (value / 2 pi); give it in Hz")
    if unit != "deg" and angle:
        raise InputError(f"{where} = {text!r}: is an angle, expected {unit}")
    try:
        return float(quantity.to(_PINT_UNIT[unit]).magnitude)
    except (pint.DimensionalityError, pint.OffsetUnitCalculusError):
        raise InputError(f"{where} = {text!r}: has unit '{quantity.units}', expected {unit}") from None
