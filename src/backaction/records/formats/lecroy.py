"""LeCroy oscilloscope waveforms (template LECROY_2_3): .trc, and .raw saved by remote control."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.records.formats.attributes import to_record
from backaction.records.record import Record

_HEAD = 64


def find_header(path: Path) -> int | None:
    """Byte offset of the WAVEDESC block near the start of the file, or None."""
    with open(path, "rb") as file:
        at = file.read(_HEAD + 8).find(b"WAVEDESC")
    return None if at < 0 else at


def read_lecroy(path: Path, inner: str | None, given: Mapping[str, Any]) -> Record:
    """A memory map of the samples with rate, gain, offset and date from the WAVEDESC block.

    A digitising oscilloscope samples and holds: a single unprocessed sweep is `instantaneous` sampling; if the header
    says that the trace was averaged or filtered in the instrument, `sampling` is asked for.
    """
    at = find_header(path)
    if at is None:
        raise InputError(f"{path}: no LeCroy WAVEDESC block at its start")
    with open(path, "rb") as file:
        file.seek(at)
        block = file.read(346)
    if len(block) < 346:
        raise InputError(f"{path}: truncated within the LeCroy header")
    little = struct.unpack_from("<h", block, 34)[0] in (1, 256)
    order = "<" if struct.unpack_from("<h", block, 34)[0] == 1 else ">"
    if not little:
        order = ">"

    def get(kind: str, offset: int) -> Any:
        return struct.unpack_from(order + kind, block, offset)[0]

    word = get("h", 32)
    lengths = [get("i", k) for k in (36, 40, 44, 48, 52)]
    data_bytes, count = get("i", 60), get("i", 116)
    gain, offset, interval = get("f", 156), get("f", 160), get("f", 176)
    start = get("d", 180)
    seconds = get("d", 296)
    minute, hour, day, month = (get("b", 304 + k) for k in range(4))
    year = get("h", 308)
    record_type, processing = get("h", 316), get("h", 318)
    if interval <= 0 or not np.isfinite(interval) or count < 1:
        raise InputError(f"{path}: LeCroy header with {count} samples at an interval of {interval:g} s: damaged")
    dtype = np.dtype(f"{order}i2" if word == 1 else "i1")
    first = at + sum(lengths)
    here = path.stat().st_size - first
    if here < count * dtype.itemsize or data_bytes < count * dtype.itemsize:
        raise InputError(
            f"{path}: truncated: header says {count} samples, the file holds {max(0, here) // dtype.itemsize}"
        )
    attributes: dict[str, Any] = {
        "sample_rate_hz": round(1 / interval, 6) if interval > 1e-6 else float(f"{1 / interval:.7g}"),
        "unit": block[196:244].split(b"\0")[0].decode("ascii", "replace") or "V",
        "scale": gain,
        "offset": -offset,
        "t0_s": start,
        "instrument": block[76:92].split(b"\0")[0].decode("ascii", "replace"),
    }
    try:
        whole = int(seconds)
        stamp = datetime.datetime(year, month, day, hour, minute, whole, int(1e6 * (seconds - whole)))
        attributes["date"] = stamp.isoformat()
    except ValueError:
        attributes["date"] = "unknown"
    if record_type == 0 and processing == 0:
        attributes["sampling"] = "instantaneous"
    return to_record(np.memmap(path, dtype, "r", first, (count,)), attributes, given, str(path))
