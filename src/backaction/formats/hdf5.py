"""HDF5 records: one dataset of samples with its attributes; file-backed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backaction.errors import InputError, nearest
from backaction.files import provenance, replacing
from backaction.formats.fields import to_record
from backaction.records import Record


def read(path: Path, inner: str | None, given: Mapping[str, Any]) -> Record:
    """The dataset `inner`, or the only one with one or two axes (not counting the group `truth`), with its attributes."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "truncated" if "truncated" in str(error) else "not a readable HDF5 file"
        raise InputError(f"{path}: {reason}") from None
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim in (1, 2) and not name.startswith("truth/"):
            found[name] = item

    try:
        file.visititems(visit)
        if not found:
            raise InputError(f"{path}: no dataset of samples with one or two axes")
        if inner is not None:
            if inner.strip("/") not in found:
                raise InputError(f"{path}: no dataset '{inner}'{nearest(inner, found)}")
            dataset = found[inner.strip("/")]
        elif len(found) > 1:
            raise InputError(f"{path}: several datasets; name one as {path}:NAME, NAME of {', '.join(sorted(found))}")
        else:
            dataset = next(iter(found.values()))
        attributes = dict(file.attrs) | dict(dataset.attrs)
        if dataset.size:
            dataset[..., -1:]  # a truncated file fails here, not in the middle of the work
    except (OSError, RuntimeError):
        raise InputError(f"{path}: truncated or damaged HDF5 file") from None
    return to_record(dataset, attributes, given, str(path))


def write(path: Path, record: Record, attributes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Write a record (float32 samples) that `read` reads back, with further attributes and datasets, whole or not at all."""
    import h5py
    import numpy as np

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        dataset = file.create_dataset("photocurrent", data=record.values().astype(np.float32))
        dataset.attrs["sample_rate_hz"], dataset.attrs["unit"] = record.sample_rate_hz, record.unit
        dataset.attrs["sampling"], dataset.attrs["t0_s"] = record.sampling, record.start_s
        if record.front_end_hz:
            dataset.attrs["front_end_hz"] = record.front_end_hz
        if record.gaps:
            dataset.attrs["gaps"] = record.gaps
        for name, data in extra.items():
            file[f"truth/{name}"] = data
        for key, value in attributes.items():
            file.attrs[key] = value
        for key, value in provenance().items():
            file.attrs[key] = value
