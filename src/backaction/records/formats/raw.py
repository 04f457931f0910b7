"""Plain binary samples with a sidecar file `NAME.json` or `NAME.toml` that says what they are; LeCroy .raw too."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.records.formats import lecroy
from backaction.records.formats.attributes import to_record
from backaction.records.record import Record


def read_raw(path: Path, inner: str | None, given: Mapping[str, Any]) -> Record:
    """A memory map of the samples; the sidecar gives `dtype` and the usual attributes. A LeCroy header is recognised."""
    if lecroy.find_header(path) is not None:
        return lecroy.read_lecroy(path, inner, given)
    sidecar = next((p for p in _sidecars(path) if p.is_file()), None)
    if sidecar is None:
        names = " or ".join(p.name for p in _sidecars(path)[:2])
        raise InputError(
            f"{path}: no LeCroy header and no sidecar {names} with dtype, sample_rate_hz, sampling, unit, scale"
        )
    try:
        text = sidecar.read_text("utf-8")
        attributes = json.loads(text) if sidecar.suffix == ".json" else tomllib.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{sidecar}: not valid {sidecar.suffix[1:].upper()}: {error}") from None
    if "dtype" not in attributes:
        raise InputError(f"{sidecar}: does not say 'dtype': the NumPy type of the samples, such as '<i2'")
    try:
        dtype = np.dtype(attributes.pop("dtype"))
    except TypeError as error:
        raise InputError(f"{sidecar}: dtype: {error}") from None
    if dtype.itemsize == 0 or dtype.kind not in "iufc":
        raise InputError(f"{sidecar}: dtype = {dtype}: expected a numeric type")
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise InputError(f"{path}: {size} bytes are not whole samples of {dtype}: truncated, or another dtype")
    return to_record(np.memmap(path, dtype, "r"), attributes, given, str(path))


def _sidecars(path: Path) -> list[Path]:
    return [Path(f"{path}.json"), Path(f"{path}.toml"), path.with_suffix(".json"), path.with_suffix(".toml")]
