"""Writing results: to a temporary name, then renamed, so that no partial file is ever left."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction._version import __version__
from backaction.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed onto it on success, removed on any error."""
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{target}: the folder {target.parent} cannot be written")
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Plain JSON data: arrays become lists, non-finite numbers null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (np.integer, int)):
        return int(value)
    if isinstance(value, (np.floating, float)):
        return float(value) if np.isfinite(value) else None
    return value


def to_json(document: Any, indent: int | None = 2) -> str:
    """Strict JSON text (no NaN or Infinity)."""
    return json.dumps(plain(document), indent=indent, allow_nan=False, ensure_ascii=False)


def provenance(**more: Any) -> dict[str, Any]:
    """Version and whatever else identifies a result."""
    return {"backaction": __version__, **more}


def packed(array: Any) -> dict[str, Any]:
    """An array as plain JSON data, exactly."""
    a = np.ascontiguousarray(array)
    return {"dtype": a.dtype.str, "shape": list(a.shape), "data": base64.b64encode(a.tobytes()).decode()}


def unpacked(saved: Mapping[str, Any]) -> Any:
    """The array that was `packed`."""
    data = np.frombuffer(base64.b64decode(saved["data"]), dtype=np.dtype(saved["dtype"]))
    return data.reshape(saved["shape"]).copy()
