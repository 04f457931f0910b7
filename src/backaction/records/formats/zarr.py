"""Zarr records: one array of samples with its attributes; read chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.records.formats.attributes import to_record
from backaction.records.record import Record


class _Source:
    """A Zarr array whose slices are NumPy arrays."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self._array[index])


def read_zarr(path: Path, inner: str | None, given: Mapping[str, Any]) -> Record:
    """The array `inner`, or the only one with one or two axes; attributes of the array before those of its group."""
    try:
        import zarr
    except ImportError:
        raise InputError(f"{path}: Zarr is not installed: pip install 'backaction[zarr]'") from None
    try:
        store: Any = zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path}: not a readable Zarr store") from None
    if hasattr(store, "shape"):
        return to_record(_Source(store), dict(store.attrs), given, str(path))
    arrays = {name: item for name, item in store.arrays() if len(item.shape) in (1, 2)}
    if inner is not None:
        if inner.strip("/") not in arrays:
            raise InputError(f"{path}: no array '{inner}'{nearest(inner, arrays)}")
        arrays = {inner: arrays[inner.strip("/")]}
    if len(arrays) != 1:
        listed = ", ".join(sorted(arrays)) or "none"
        raise InputError(f"{path}: expected one array of samples, found {listed}; name one as {path}:NAME")
    item = next(iter(arrays.values()))
    return to_record(_Source(item), dict(store.attrs) | dict(item.attrs), given, str(path))
