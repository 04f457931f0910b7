"""Readers of record files; a new format is one module with a `read` function and a line in `READERS`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backaction.errors import InputError
from backaction.records.formats import hdf5, lecroy, npz, raw, zarr
from backaction.records.record import Record

READERS: dict[str, Callable[..., Record]] = {
    ".h5": hdf5.read_hdf5,
    ".hdf5": hdf5.read_hdf5,
    ".zarr": zarr.read_zarr,
    ".npz": npz.read_npz,
    ".trc": lecroy.read_lecroy,
    ".raw": raw.read_raw,
    ".bin": raw.read_raw,
}


def read_record(path: str | Path, **given: Any) -> Record:
    """Read a record; `given` (sample_rate_hz, sampling, unit, scale) supplies or overrides what the file says.

    `path` may name a dataset or array within the file: `run.h5:photocurrent`. Nothing is guessed: what neither the
    file nor `given` says is asked for by name.

    Raises
    ------
    InputError
        One line naming the file and what is wrong or missing.
    """
    text = str(path)
    inner = None
    file = Path(text)
    if not file.exists() and ":" in text:
        head, _, tail = text.rpartition(":")
        if Path(head).exists():
            file, inner = Path(head), tail
    if file.is_dir() and file.suffix.lower() != ".zarr":
        raise InputError(f"{text}: is a folder, not a record")
    if not file.exists():
        raise InputError(f"{text}: no such file")
    if not os.access(file, os.R_OK):
        raise InputError(f"{text}: permission denied")
    if file.is_file() and file.stat().st_size == 0:
        raise InputError(f"{text}: the file is empty")
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{text}: unknown kind of record file '{file.suffix}'; known: {', '.join(READERS)}")
    return reader(file, inner, {k: v for k, v in given.items() if v is not None})
