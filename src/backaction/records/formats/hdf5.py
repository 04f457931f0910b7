"""HDF5 records: one dataset of samples with its attributes; file-backed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.files import provenance, replacing
from backaction.numerics.matrices import Array
from backaction.records.formats.attributes import to_record
from backaction.records.record import Record


def read_hdf5(path: Path, inner: str | None, given: Mapping[str, Any]) -> Record:
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


def write_hdf5(path: Path, record: Record, attributes: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Write a record that `read_hdf5` reads back, with further attributes and datasets, whole or not at all.

    Integer samples stay as they are, others become float32 (complex64).
    """
    kind = record.source.dtype
    if kind.kind == "f":
        kind = np.dtype(np.float32)
    elif kind.kind == "c":
        kind = np.dtype(np.complex64)
    with RecordFile(path, record, record.size, kind, attributes) as file:
        for start in range(0, record.size, 1 << 22):
            file.write(start, record.source[start : start + (1 << 22)])
        for name, data in extra.items():
            file.add(name, data)


class RecordFile:
    """A record that is written while it is made: a `Sink`; the file appears when it is whole.

    `like` says rate, unit, sampling and so on of the samples that will come.
    """

    def __init__(
        self, path: Path, like: Record, size: int, dtype: np.dtype[Any], attributes: Mapping[str, Any]
    ) -> None:
        self._like, self._size, self._dtype, self._attributes = like, size, dtype, attributes
        self._place = replacing(path)

    def __enter__(self) -> RecordFile:
        import h5py

        self._file = h5py.File(self._place.__enter__(), "w")
        self._samples = self._file.create_dataset("photocurrent", (self._size,), self._dtype)
        return self

    def write(self, start: int, chunk: Array) -> None:
        """Samples from number `start` on."""
        self._samples[start : start + len(chunk)] = chunk

    def add(self, name: str, data: Any) -> None:
        """A dataset of the group `truth`, which no analysis reads."""
        self._file[f"truth/{name}"] = data

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            r, a = self._like, self._samples.attrs
            a["sample_rate_hz"], a["unit"], a["sampling"], a["t0_s"] = r.sample_rate_hz, r.unit, r.sampling, r.start_s
            if (r.scale, r.offset) != (1.0, 0.0) or self._dtype.kind in "iu":
                a["scale"], a["offset"] = r.scale, r.offset
            for key in ("front_end_hz", "gaps", "reference_hz", "limits"):
                value = getattr(r, key)
                if value:
                    a[key] = value
            for key, value in {**self._attributes, **provenance()}.items():
                self._file.attrs[key] = value
        self._file.close()
        return self._place.__exit__(*error)
