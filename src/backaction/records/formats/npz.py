"""NumPy .npz records: one array of samples; the other entries are its attributes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.records.formats.attributes import to_record
from backaction.records.record import Record


def read_npz(path: Path, inner: str | None, given: Mapping[str, Any]) -> Record:
    """The array `inner`, or the only one with more than one entry; 0-d arrays are attributes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            mapped = _mapped(path)
            arrays = {k: mapped[k] if k in mapped else file[k] for k in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        raise InputError(f"{path}: not a readable .npz file") from None
    attributes = {k: v.item() for k, v in arrays.items() if v.ndim == 0}
    if "gaps" in arrays:
        attributes["gaps"] = arrays["gaps"]
    samples = {k: v for k, v in arrays.items() if v.ndim in (1, 2) and k != "gaps"}
    if inner is not None:
        if inner not in samples:
            raise InputError(f"{path}: no array '{inner}'{nearest(inner, samples)}")
        samples = {inner: samples[inner]}
    if len(samples) != 1:
        listed = ", ".join(samples) or "none"
        raise InputError(f"{path}: expected one array of samples, found {listed}; name one as {path}:NAME")
    return to_record(next(iter(samples.values())), attributes, given, str(path))


def _mapped(path: Path) -> dict[str, Any]:
    """Memory maps of the arrays that are stored without compression (as `np.savez` does): larger than memory, if need be."""
    out: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or not entry.filename.endswith(".npy"):
                continue
            raw.seek(entry.header_offset + 26)
            name_size, extra_size = (int.from_bytes(raw.read(2), "little") for _ in range(2))
            raw.seek(entry.header_offset + 30 + name_size + extra_size)
            version = np.lib.format.read_magic(raw)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(raw)
            if shape and not fortran and not dtype.hasobject:
                out[entry.filename[:-4]] = np.memmap(path, dtype, "r", raw.tell(), shape)
    return out
