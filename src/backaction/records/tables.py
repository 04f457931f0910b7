"""Tables of numbers with what is said about them: CSV and two-column text, SR785 pairs, MATLAB v5, HDF5, NumPy.

A `Table` is columns with names and attributes. A `Spectrum` is made of one only when unit, sidedness, averages, window
and reference are known, from the file or from the user; what is missing is asked for by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.welch import COSINES, Welch, enbw
from backaction.units import number

SAYS = ("unit", "sided", "averages", "window", "reference")
"""What a spectrum must say."""
ESTIMATE = ("overlap", "padding", "smoothing")
"""What a spectrum may say of its estimate: the part by which periodograms overlap, the padded over the own length, the bins
in a running mean."""
GIVEN = (*SAYS, *ESTIMATE, "segments", "sample_rate_hz", "sampling", "scale", "instrument")
"""What may be said for a file."""

_UNIT = re.compile(r"[\(\[]\s*([A-Za-zµ/^0-9]+)\s*[\)\]]|_([A-Za-zµ]+)$")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?|nan|inf", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, `values` (rows, columns), their names, and what the file says."""

    name: str
    names: tuple[str, ...]
    values: Array
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def column(self, which: int | str) -> Array:
        """A column by position (from 0) or name."""
        if isinstance(which, str) and which.isdigit():
            which = int(which)
        if isinstance(which, str):
            if which not in self.names:
                raise InputError(f"{self.name}: no column '{which}'{nearest(which, self.names)}")
            which = self.names.index(which)
        if not 0 <= which < self.values.shape[1]:
            raise InputError(
                f"{self.name}: no column {which}: it has {self.values.shape[1]} (0 to {self.values.shape[1] - 1})"
            )
        return self.values[:, which]

    def axis(self, which: int, unit: str, said: str, key: str = "axis_unit") -> Array:
        """A column in `unit`; its own unit is `said`, or what its header says, and is never guessed."""
        own = said
        if not own and which < len(self.names):
            found = _UNIT.search(self.names[which])
            own = (found.group(1) or found.group(2)) if found else ""
        if own:
            try:
                number(f"1 {own}", unit, "")
            except InputError:
                known = {"Hz": ("Hz", "kHz", "MHz"), "K": ("K", "mK"), "s": ("s", "ms", "us"), "W": ("W", "mW")}
                hint = nearest(own, known.get(unit, (unit,)))
                raise InputError(f"{self.name}: {key} = {own!r}: not a unit of {unit}{hint}") from None
        if not own:
            raise InputError(
                f"{self.name}: does not say the unit of its column {which}: --set {key}=... (such as {unit})"
            )
        return self.column(which) * number(f"1 {own}", unit, f"{self.name}: unit of column {which}")

    def header_number(self, which: int) -> float:
        """The number that a column's name holds: the parameter of that curve."""
        text = self.names[which] if which < len(self.names) else ""
        found = re.findall(r"(?<![\w.+-])[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", text)
        if len(found) != 1:
            what = "no number" if not found else f"several numbers ({', '.join(found)})"
            raise InputError(f"{self.name}: column {which} ('{text}') holds {what} in its header: --set values=...")
        return float(found[0])

    def rising(self) -> Table:
        """The same with its rows in the order of the first column, if all its numbers are finite."""
        bad = ~np.isfinite(self.values)
        if np.any(bad):
            raise InputError(
                f"{self.name}: {np.count_nonzero(bad)} values are not finite (the first in row "
                f"{int(np.argwhere(bad)[0][0]) + 1})"
            )
        order = np.argsort(self.values[:, 0], kind="stable")
        return replace(self, values=self.values[order])


def read_table(path: str | Path) -> Table:
    """Read a table by the kind of file: .csv .txt .dat .asc .tsv, .mat (v5), .h5 .hdf5, .npz; `file:NAME` picks an array.

    Raises
    ------
    InputError
        Naming the file and what is wrong.
    """
    text, inner = str(path), None
    file = Path(text)
    if not file.exists() and ":" in text and Path(text.rpartition(":")[0]).exists():
        file, inner = Path(text.rpartition(":")[0]), text.rpartition(":")[2]
    if not file.is_file():
        raise InputError(f"{text}: {'is a folder, not a table' if file.is_dir() else 'no such file'}")
    if file.stat().st_size == 0:
        raise InputError(f"{text}: the file is empty")
    readers = {".mat": _matlab, ".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz}
    words = (".csv", ".txt", ".dat", ".asc", ".tsv")
    kind = file.suffix.lower()
    if kind not in readers and kind not in words:
        raise InputError(f"{text}: unknown kind of table '{file.suffix}'; known: {', '.join((*words, *readers))}")
    table = readers[kind](file, inner) if kind in readers else _text(file)
    if table.values.ndim != 2 or not table.values.size:
        raise InputError(f"{text}: holds no table of numbers")
    return table


# -- kinds of files ---------------------------------------------------------------------------------------------------


def _text(file: Path) -> Table:
    """Numbers in columns (comma, semicolon, tab or blanks); comments and header lines, in UTF-8 or latin-1."""
    raw = file.read_bytes()
    if b"\0" in raw[:4096]:
        raise InputError(f"{file}: is not text")
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = raw.decode("latin-1").splitlines()
    notes: list[str] = []
    rows: list[list[float | None]] = []
    head = ""
    for count, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped:
            continue
        if stripped[0] in "#%;!" or stripped.startswith("//"):
            notes.append(stripped.lstrip("#%;!/ "))
            continue
        cells = _cells(stripped)
        numbers = [_number(c) for c in cells]
        if any(n is None for n in numbers):
            if rows:
                raise InputError(f"{file}, line {count}: '{stripped[:40]}': expected {len(rows[0])} numbers")
            head = stripped
            notes.append(stripped)
            continue
        if rows and len(cells) != len(rows[0]):
            raise InputError(f"{file}, line {count}: {len(cells)} columns, the lines above have {len(rows[0])}")
        rows.append(numbers)
    if not rows:
        raise InputError(f"{file}: holds no lines of numbers")
    beside, header = _beside(file)
    attributes = _said(notes) | beside
    last = head or header or (notes[-1] if notes else "")
    names = [
        c.strip().strip('"') for c in (last.split(",") if "," in last else re.split(r"\t|;|\s{2,}|\s(?=[A-Z])", last))
    ]
    values = np.array(rows, dtype=float)
    names = (names + [f"column{k}" for k in range(len(names), values.shape[1])])[: values.shape[1]]
    return Table(str(file), tuple(names), values, attributes)


def _cells(line: str) -> list[str]:
    for mark in ("\t", ";", ","):
        if mark in line:
            return [c.strip() for c in line.strip(mark + " ").split(mark)]
    return line.split()


def _number(cell: str) -> float | None:
    cell = cell.strip().strip('"')
    return float(cell.lower().replace("d", "e")) if _NUMBER.fullmatch(cell) else None


_WORDS = {
    "unit": "unit",
    "number of averages": "averages",
    "averages": "averages",
    "window function": "window",
    "window": "window",
    "overlap": "overlap",
    "zero padding": "padding",
    "padding": "padding",
    "smoothing": "smoothing",
    "segments": "segments",
    "sided": "sided",
    "reference": "reference",
    "frequency span": "span_hz",
    "frequency resolution": "lines",
    "input coupling": "coupling",
    "input range": "range",
    "measurements": "channel",
    "title": "title",
    "resolution": "resolution_hz",
}


def _said(notes: list[str]) -> dict[str, Any]:
    """`key: value` and `key = value` of comment lines, the common ones under one name."""
    out: dict[str, Any] = {}
    for line in notes:
        for piece in re.split(r";\s*", line):
            found = re.match(r"\s*([A-Za-z][\w \-]*?)\s*[:=]\s*(.+?)\s*$", piece)
            if found:
                key = found.group(1).strip().lower()
                out.setdefault(_WORDS.get(key, key), found.group(2))
    return out


def _beside(file: Path) -> tuple[dict[str, Any], str]:
    """What the meta file of a pair (SR785: NAME.dat and NAMEmeta.dat, or that in `meta_data/`) says, and its header line."""
    for folder in (file.parent, file.parent / "meta_data"):
        for other in (f"{file.stem}meta", f"{file.stem}_meta"):
            meta = folder / f"{other}{file.suffix}"
            if meta.is_file():
                notes = [line.strip().lstrip("#%; ") for line in meta.read_bytes().decode("latin-1").splitlines()]
                words = [n for n in notes if n]
                return _said(notes) | {"meta": meta.name, "instrument": _instrument(notes)}, words[-1] if words else ""
    return {}, ""


def _instrument(notes: list[str]) -> str:
    return "SR785" if any("SR785" in n for n in notes) else ""


def _matlab(file: Path, inner: str | None) -> Table:
    """MATLAB v5 arrays: the named one, or all vectors of one length as columns; scalars and words are attributes."""
    from scipy import io

    if file.read_bytes()[:8] == b"\x89HDF\r\n\x1a\n" or b"MATLAB 7.3" in file.read_bytes()[:128]:
        raise InputError(f"{file}: a MATLAB 7.3 file: save it with -v6 or -v7, or rename it .h5")
    try:
        content = {k: v for k, v in io.loadmat(file).items() if not k.startswith("__")}
    except Exception:  # scipy raises many kinds for a damaged file
        raise InputError(f"{file}: not a readable MATLAB v5 file") from None
    return _arrays(file, {k: np.squeeze(v) for k, v in content.items()}, inner)


def _hdf5(file: Path, inner: str | None) -> Table:
    """HDF5 datasets as columns; attributes of the file and of the datasets, as words or numbers."""
    import h5py

    found: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    try:
        with h5py.File(file) as f:
            attributes |= dict(f.attrs)
            f.visititems(lambda k, v: found.update({k: v[()]}) if isinstance(v, h5py.Dataset) else None)
            for k in found:
                attributes |= dict(f[k].attrs)
    except OSError:
        raise InputError(f"{file}: not a readable HDF5 file") from None
    return _arrays(file, found, inner, attributes)


def _npz(file: Path, inner: str | None) -> Table:
    try:
        with np.load(file, allow_pickle=False) as f:
            return _arrays(file, dict(f), inner)
    except (OSError, ValueError):
        raise InputError(f"{file}: not a readable .npz file") from None


def _arrays(file: Path, found: Mapping[str, Any], inner: str | None, said: Mapping[str, Any] | None = None) -> Table:
    attributes = {k: (v.decode() if isinstance(v, bytes) else v) for k, v in (said or {}).items()}
    arrays: dict[str, Array] = {}
    for k, v in found.items():
        v = np.asarray(v)
        if v.ndim == 0 or v.dtype.kind in "SUO":
            attributes[k] = v.item() if v.ndim == 0 else v
        elif v.ndim in (1, 2):
            arrays[k] = v
    if inner is not None:
        if inner not in arrays:
            raise InputError(f"{file}: no array '{inner}'{nearest(inner, arrays)}")
        arrays = {inner: arrays[inner]}
    if not arrays:
        raise InputError(f"{file}: holds no array with one or two axes")
    if len({len(v) for v in arrays.values()}) > 1:
        shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
        raise InputError(f"{file}: arrays of unequal length ({shapes}); name one as {file}:NAME")
    columns, names = [], []
    for k, v in arrays.items():
        for j, c in enumerate(np.atleast_2d(v.T) if v.ndim == 2 else [v]):
            parts = [("", c)] if not np.iscomplexobj(c) else [(".re", c.real), (".im", c.imag)]
            for end, part in parts:
                columns.append(np.asarray(part, dtype=float))
                names.append((k if v.ndim == 1 else f"{k}[{j}]") + end)
    lower = {_WORDS.get(str(k).lower(), str(k)): v for k, v in attributes.items()}
    return Table(str(file), tuple(names), np.array(columns).T, lower)


# -- spectra ----------------------------------------------------------------------------------------------------------


def to_spectrum(
    table: Table, column: int | str = 1, given: Mapping[str, Any] | None = None, axis_unit: str = ""
) -> Spectrum:
    """One column as a two-sided density, with the window's noise bandwidth taken out.

    `given` says or overrides unit, sided (one, two), averages, window, reference (what 1 unit refers to: volts, shot noise).
    `averages` counts periodograms, overlapping ones too: with `overlap` (a part), `padding` (zeros: padded over own length)
    and `smoothing` (bins in a running mean) the effective averages and the bins' correlations follow (`Welch`). Where
    `segments` is given as well, or `averages` is no whole number, it is the effective one.
    Units: `V^2/Hz`, `V/sqrt(Hz)`, `Vrms` (per bin: divided by bin width x ENBW of the window), `Vrms^2`, `SN` (linear), `dB`
    (relative to the reference). Shot-noise units and dB are ratios: they have no sides.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    said = dict(table.attributes) | {k: v for k, v in (given or {}).items() if v not in (None, "")}
    unit = str(said.get("unit", ""))
    word = re.sub(r"\s|√", lambda m: "sqrt" if m.group() == "√" else "", unit).lower()
    ratio = word in ("sn", "db", "shotnoise")
    said = _complete(table, said, word, ratio)
    f, y = table.axis(0, "Hz", axis_unit), table.column(column)
    step = np.diff(f)
    if np.any(step <= 0):
        raise InputError(f"{table.name}: frequencies must rise from line to line")
    width = float(np.median(step))
    averages = number(said["averages"], "1", f"{table.name}: averages")
    if not averages >= 1:
        raise InputError(f"{table.name}: averages = {averages:g}: must be >= 1")
    window = str(said.get("window", "")).strip().lower()
    segments = number(said.get("segments", averages), "1", f"{table.name}: segments")
    estimate = _estimate(table, said, window, segments, ratio)
    bandwidth = width * (enbw(estimate.window) * estimate.padding if estimate else 1.0)
    density, out = _density(table, y, unit, word, bandwidth)
    if not ratio:
        sided = str(said["sided"]).lower()
        if sided not in ("one", "two"):
            raise InputError(f"{table.name}: sided = {said['sided']!r}: must be one or two")
        density = density / 2 if sided == "one" else density
    if not np.all(np.isfinite(density)):
        raise InputError(f"{table.name}: {np.count_nonzero(~np.isfinite(density))} densities are not finite")
    if np.any(density <= 0):
        raise InputError(f"{table.name}: density {np.min(density):.3g}: must be > 0 (is it in dB? --given unit=dB)")
    if estimate is not None and averages == round(averages) and averages == segments:
        averages = estimate.averages
    return Spectrum(f, density, averages, width, out, estimate)


def _estimate(table: Table, said: Mapping[str, Any], window: str, segments: float, ratio: bool) -> Welch | None:
    """How the periodograms were averaged, where something of it is said; a ratio need not say its window."""
    told = [k for k in ESTIMATE if k in said]
    if window not in COSINES:
        if not ratio or told:
            why = f" ({', '.join(told)} needs one)" if ratio else ""
            raise InputError(f"{table.name}: window = {window!r}: unknown{nearest(window, COSINES)}{why}")
        return None
    numbers = {k: number(said[k], "1", f"{table.name}: {k}") for k in told}
    for key, low, high in (("overlap", 0.0, 0.95), ("padding", 1.0, 64.0), ("smoothing", 1.0, 999.0)):
        if not low <= numbers.get(key, low) <= high:
            raise InputError(f"{table.name}: {key} = {numbers[key]:g}: must be from {low:g} to {high:g}")
    smoothing = numbers.get("smoothing", 1.0)
    if smoothing != round(smoothing):
        raise InputError(f"{table.name}: smoothing = {smoothing:g}: must be a whole number of bins")
    return Welch(window, segments, numbers.get("overlap", 0.0), numbers.get("padding", 1.0), int(smoothing))


def _complete(table: Table, said: Mapping[str, Any], word: str, ratio: bool) -> dict[str, Any]:
    """What is said with what the instrument implies; asks for the first thing that is missing."""
    said = dict(said)
    if "segments" in said:
        said.setdefault("averages", said["segments"])
    missing = [k for k in SAYS if k not in said]
    if ratio:
        missing = [k for k in missing if k not in ("sided", "window", *(("reference",) if word != "db" else ()))]
    if word.startswith("vrms") and said.get("instrument") == "SR785":
        said.setdefault("sided", "one")  # an SR785 shows the power of positive and negative frequencies together
        said.setdefault("reference", "V")
        missing = [k for k in SAYS if k not in said]
    if missing:
        raise InputError(
            f"{table.name}: does not say {', '.join(missing)}: --given {missing[0]}=... ({_HINTS[missing[0]]})"
        )
    return said


def _density(table: Table, y: Array, unit: str, word: str, bandwidth: float) -> tuple[Array, str]:
    """(density with the sides as given, its unit); `bandwidth`: bin width x ENBW, what a level per bin is divided by."""
    if word in ("sn", "shotnoise"):
        return y, "SN"
    if word == "db":
        return 10 ** (y / 10), "SN"
    if word in ("v^2/hz", "v²/hz", "v**2/hz"):
        return y, "V^2/Hz"
    if word in ("v/sqrt(hz)", "v/sqrthz", "vrms/sqrt(hz)", "vrms/rthz", "v/rthz"):
        return y**2, "V^2/Hz"
    if word in ("vrms", "vrms^2"):
        return (y**2 if word == "vrms" else y) / bandwidth, "V^2/Hz"
    raise InputError(f"{table.name}: unit = {unit!r}: unknown{nearest(unit, _UNITS)}")


_UNITS = ("V^2/Hz", "V/sqrt(Hz)", "Vrms", "Vrms^2", "SN", "dB")
_HINTS = {
    "unit": f"of the spectrum: {', '.join(_UNITS)}",
    "sided": "one or two",
    "averages": "number of averaged periodograms",
    "window": "such as hann: its noise bandwidth",
    "reference": "what the unit refers to: V, or shot noise",
}
