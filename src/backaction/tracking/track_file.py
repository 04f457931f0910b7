"""Track files, HDF5 or Zarr, written while the filter runs and resumed after a kill.

A run writes to `.NAME.partial` beside its target, with a small JSON that says how far it got, and is renamed when it is
whole; a lock keeps a second run away. The HDF5 file is laid out at its full size before anything is computed and closed;
samples then go to their places in it by plain writes, so that a killed run never leaves a file that cannot be opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backaction._version import __version__
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array

SCHEMA = "backaction/track/1"
_ARRAYS = ("mean", "covariance", "innovation", "exact_rows", "exact_covariance")
_ROW = 1 << 14
Shapes = Mapping[str, tuple[tuple[int, ...], Any]]
"""Name of each array: shape and type."""


class TrackFile:
    """Arrays of a track while it is made: in memory (no path), in an HDF5 file, or in a Zarr store."""

    def __init__(self, path: Path | None, shapes: Shapes, fingerprint: str) -> None:
        self.path = path
        self.arrays: dict[str, Any] = {}
        self.resumed: dict[str, Any] | None = None
        self._rows: list[Array] = []
        self._exact: list[Array] = []
        self._added: dict[str, Array] = {}
        self._store: _Hdf5 | _Zarr | None = None
        self._released = self.begun = False
        self._fingerprint = hashlib.sha256(f"{__version__} {fingerprint}".encode()).hexdigest()
        if path is None:
            self.arrays = {k: np.empty(shape, dtype) for k, (shape, dtype) in shapes.items()}
            return
        kinds: dict[str, Any] = {".h5": _Hdf5, ".hdf5": _Hdf5, ".zarr": _Zarr}
        if path.suffix.lower() not in kinds:
            raise InputError(f"{path}: tracks are written as HDF5 or Zarr; name it *.h5 or *.zarr")
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path}: the folder {path.parent} cannot be written")
        if path.is_dir() and not _is_track(path):
            raise InputError(f"{path}: is a folder that is no track; name another file")
        self._partial, self._notes, self._exact_file, self._lock_file = (
            path.parent / f".{path.name}.partial{end}" for end in ("", ".json", ".exact", ".lock")
        )
        self._lock = self._locked()
        kind = kinds[path.suffix.lower()]
        saved = self._saved()
        if saved is not None:
            try:
                self._store = kind(self._partial, shapes, saved["layout"])
                self.resumed = saved["state"]
                with open(self._exact_file, "ab") as file:
                    file.truncate(saved["exact_bytes"])
            except (OSError, KeyError, ValueError):
                self.resumed = None
        if self.resumed is None:
            self._remove()
            self._store = kind(self._partial, shapes, None)
            self._exact_file.write_bytes(b"")
        self.arrays = {k: _Shape(shape, dtype) for k, (shape, dtype) in shapes.items()}

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: str | Path | None, shapes: Shapes, fingerprint: str) -> Iterator[TrackFile]:
        """A file to be written, resumed where one with this fingerprint was left; an error before any sample removes it."""
        file = cls(None if path is None else Path(path), shapes, fingerprint)
        try:
            yield file
        except (InputError, ModelError, ValueError):
            if file.begun:  # hours of filtering are not lost with what came after them
                file.release()
            else:
                file.discard()
            raise
        finally:  # interrupted, or left unfinished: what is there stays for the next run
            file.release()

    @classmethod
    def create(cls, path: str | Path, arrays: Mapping[str, Array]) -> TrackFile:
        """A file of arrays that are there already."""
        file = cls(Path(path), {}, os.urandom(8).hex())
        for key, value in arrays.items():
            file.add(key, value)
        return file

    def write(self, name: str, index: tuple[Any, ...], values: Array) -> None:
        """Store values at an index whose last entry is a slice of rows."""
        if self._store is None:
            self.arrays[name][index] = values
        else:
            self._store.write(name, index, values)

    def append(self, rows: Array, covariance: Array) -> None:
        """Further rows whose covariance is not the steady one."""
        if not len(rows):
            return
        if self._store is None:
            self._rows.append(rows)
            self._exact.append(covariance)
            return
        flat = np.concatenate([rows[:, None].astype(float), covariance.reshape(len(rows), -1)], axis=1)
        with open(self._exact_file, "ab") as file:
            file.write(flat.tobytes())

    def exact(self, p: int) -> tuple[Array, Array]:
        """All rows so far, in rising order, with their covariances."""
        if self._store is None:
            rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
            values = np.concatenate([np.empty((0, p, p)), *self._exact])
        else:
            flat = np.fromfile(self._exact_file).reshape(-1, 1 + p * p)
            rows, values = flat[:, 0].astype(np.int64), flat[:, 1:].reshape(-1, p, p)
        if np.all(rows[1:] > rows[:-1]):
            return rows, values
        order = np.argsort(rows, kind="stable")
        return rows[order], values[order]

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Everything until here is safe: a later run with the same fingerprint goes on from `state`."""
        if self._store is None:
            return
        self.begun = True
        notes = {
            "fingerprint": self._fingerprint, "layout": self._store.layout, "state": state,
            "exact_bytes": self._exact_file.stat().st_size,
        }  # fmt: skip
        temporary = self._notes.with_suffix(".tmp")
        temporary.write_text(json.dumps(notes))
        os.replace(temporary, self._notes)

    def add(self, name: str, values: Array) -> None:
        """A small array that is there as a whole."""
        self._added[name] = values

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the small arrays and the attributes and give the file its name."""
        assert self.path is not None
        assert self._store is not None
        stamped = {"schema": SCHEMA, "version": __version__, **attributes}
        self._store.finish(self._added, {k: v for k, v in stamped.items() if v is not None})
        if self.path.is_dir():
            shutil.rmtree(self.path)
        os.replace(self._partial, self.path)
        self.discard()

    def release(self) -> None:
        """Let go of the files and leave them."""
        if self.path is None or self._released:
            return
        self._released = True
        if self._store is not None:
            self._store.close()
        self._lock.release()

    def discard(self) -> None:
        """Remove what a partial run left, and let others write."""
        if self.path is None or self._released:
            return
        self._released = True
        self._remove()
        with contextlib.suppress(OSError):  # before the release: what another run has locked by then is another file
            self._lock_file.unlink(missing_ok=True)
        self._lock.release()

    def _remove(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._partial.is_dir():
            shutil.rmtree(self._partial)
        for file in (self._partial, self._notes, self._exact_file):
            file.unlink(missing_ok=True)

    def _locked(self) -> Any:
        """A lock on the track that no other run holds.

        Raises
        ------
        InputError
            If another run writes the same track.
        """
        import filelock

        lock = filelock.FileLock(self._lock_file, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise InputError(f"{self.path}: another run is writing it") from None
        return lock

    def _saved(self) -> dict[str, Any] | None:
        try:
            notes = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return None
        return notes if notes.get("fingerprint") == self._fingerprint and self._partial.exists() else None


class _Shape:
    """Stands for an array that is in a file."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.size, self.ndim = shape, np.dtype(dtype), int(np.prod(shape)), len(shape)


class _Hdf5:
    """Contiguous datasets of an HDF5 file, filled by plain writes at their places."""

    def __init__(self, path: Path, shapes: Shapes, layout: dict[str, int] | None) -> None:
        import h5py

        self.path, self.shapes = path, shapes
        if layout is None:
            layout = {}
            with h5py.File(path, "w") as file:
                for name, (shape, dtype) in shapes.items():
                    if not np.prod(shape):
                        file.create_dataset(name, shape, dtype)
                        continue
                    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    space = h5py.h5s.create_simple(shape)
                    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
                    item = h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=properties)
                    layout[name] = int(item.get_offset())
        else:
            _checked(path, shapes)
        self.layout = layout
        self._file = os.open(path, os.O_RDWR)

    def write(self, name: str, index: tuple[Any, ...], values: Array) -> None:
        shape, dtype = self.shapes[name]
        rows = index[-1]
        skip = index[0] * shape[1] if len(index) == 2 else 0
        width = int(np.prod(shape[len(index) :])) * np.dtype(dtype).itemsize
        data = np.ascontiguousarray(values, dtype=dtype)
        view, at = memoryview(data.reshape(-1).view(np.uint8).data), self.layout[name] + (skip + rows.start) * width
        while len(view):
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def finish(self, added: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
        import h5py

        self.close()  # written data are in the system's hands: a killed process loses none of them
        with h5py.File(self.path, "r+") as file:
            for name, values in added.items():
                if name in file:  # from a run that was killed here
                    del file[name]
                file[name] = values
            for key, value in attributes.items():
                file.attrs[key] = value


class _Zarr:
    """Arrays of a Zarr store, each write whole chunks where the piece allows."""

    def __init__(self, path: Path, shapes: Shapes, layout: Any) -> None:
        try:
            import zarr
        except ImportError:
            raise InputError(f"{path}: Zarr is not installed: pip install backaction[zarr]") from None

        self.layout: dict[str, int] = {}
        self._group = zarr.open_group(str(path), mode="w" if layout is None else "r+")
        self._arrays: dict[str, Any] = {}
        for name, (shape, dtype) in shapes.items():
            if layout is None:
                axis = 1 if len(shape) == 3 or (name == "innovation" and len(shape) == 2 and shape[1] > shape[0]) else 0
                chunks = tuple(
                    1 if i < axis else min(max(n, 1), _ROW if name == "mean" else _ROW * 16) if i == axis else max(n, 1)
                    for i, n in enumerate(shape)
                )
                self._group.create_array(name, shape=shape, dtype=np.dtype(dtype), chunks=chunks)
            self._arrays[name] = self._group[name]

    def write(self, name: str, index: tuple[Any, ...], values: Array) -> None:
        self._arrays[name][index] = values

    def close(self) -> None:
        pass

    def finish(self, added: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
        for name, values in added.items():
            values = np.asarray(values)
            chunks = tuple(max(n, 1) for n in values.shape)
            array = self._group.create_array(
                name, shape=values.shape, dtype=values.dtype, chunks=chunks, overwrite=True
            )
            if values.size:
                array[...] = values
        for key, value in attributes.items():
            self._group.attrs[key] = _plain(value)


def _checked(path: Path, shapes: Shapes) -> None:
    """A partial file that can be opened and has these datasets; OSError or KeyError otherwise."""
    import h5py

    with h5py.File(path, "r") as file:
        for name, (shape, _) in shapes.items():
            if file[name].shape != tuple(shape):
                raise KeyError(name)


def _is_track(path: Path) -> bool:
    try:
        read_track(path)
    except InputError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def read_track(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays (read when they are used, where they are large) and attributes of a track file.

    Raises
    ------
    InputError
        If it cannot be read or is no track.
    """
    if Path(path).suffix.lower() == ".zarr":
        return _read_zarr(path)
    import h5py

    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            if attributes.pop("schema", None) != SCHEMA:
                raise InputError(f"{path}: not a track file (schema is not {SCHEMA})")
            arrays = {}
            for key in _ARRAYS:
                item = file[key]
                offset = item.id.get_offset()
                big = item.size > 1 << 20 and offset is not None and item.chunks is None
                arrays[key] = np.memmap(path, item.dtype, "r", offset, item.shape) if big else item[...]
            return arrays, attributes
    except (OSError, KeyError):
        raise InputError(f"{path}: not a readable track file") from None


def _read_zarr(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        import zarr

        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        if attributes.pop("schema", None) != SCHEMA:
            raise InputError(f"{path}: not a track file (schema is not {SCHEMA})")
        arrays: dict[str, Any] = {key: group[key] for key in _ARRAYS}
        return {key: np.asarray(item[...]) for key, item in arrays.items()}, attributes
    except ImportError:
        raise InputError(f"{path}: Zarr is not installed: pip install backaction[zarr]") from None
    except (FileNotFoundError, KeyError, ValueError):
        raise InputError(f"{path}: not a readable track file") from None
