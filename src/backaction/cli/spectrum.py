"""Output of `backaction spectrum`: JSON, a table, and files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.files import provenance, replacing, to_json
from backaction.numerics.matrices import Array
from backaction.systems.band import Band
from backaction.systems.response import Budget


def axis(experiment: Experiment) -> Array:
    """Default frequencies: the experiment's band, or 10 % about its modes."""
    if experiment.band_hz is not None:
        return np.linspace(*experiment.band_hz, 501)
    if experiment.spectra_only:
        raise InputError(f"{experiment.name}: name the frequencies with --f LO:HI:N")
    poles = np.linalg.eigvals(experiment.system.A) / (2 * np.pi)
    if any(m.frame.kind == "rotating" for m in experiment.system.modes):
        span = 1.5 * float(np.max(np.abs(poles)))
        return np.linspace(-span, span, 1001)
    index = experiment.view.index
    if not index or not poles.size:
        raise InputError(f"{experiment.name}: name the frequencies with --f LO:HI:N")
    slow = np.abs(poles.imag[np.argsort(-poles.real)][: len(index)])
    return np.linspace(0.9 * float(np.min(slow)), 1.1 * float(np.max(slow)), 501)


def spectrum_document(experiment: Experiment, mine: Budget, diff: str | None, other: Budget | None) -> dict[str, Any]:
    """Schema `backaction/spectrum/1`."""
    out: dict[str, Any] = {
        "schema": "backaction/spectrum/1",
        "experiment": experiment.name,
        "current": mine.current,
        "frequency_hz": mine.frequency_hz,
        "unit": mine.unit,
        "total": mine.total,
        "sources": mine.sources,
    }
    if other is not None:
        out["other"] = {"experiment": diff, "total": other.total, "sources": other.sources}
    return out


def spectrum_text(mine: Budget, other: Budget | None, diff: str | None) -> str:
    """Total and sources at the peak and averaged over the axis; a comparison where there is another."""
    peak = int(np.argmax(mine.total))
    f = mine.frequency_hz
    lines = [
        f"'{mine.current}' in {'shot-noise units' if mine.unit == 'shot noise' else mine.unit}, {f[0]:.8g}..{f[-1]:.8g} Hz"
    ]
    extra = "" if other is None else f"{'mean, ' + str(diff):>20}"
    lines.append(f"  {'source':<24}{'peak ' + format(f[peak], '.8g') + ' Hz':>24}{'mean':>14}{extra}")
    for name, values in [*mine.sources.items(), ("total", mine.total)]:
        theirs = ""
        if other is not None:
            x = other.total if name == "total" else other.sources.get(name)
            theirs = f"{'-' if x is None else format(float(np.mean(x)), '.6g'):>20}"
        lines.append(f"  {name:<24}{values[peak]:>24.6g}{float(np.mean(values)):>14.6g}{theirs}")
    return "\n".join(lines)


def areas(bands: list[Band], label: str | None) -> str:
    """Power in a band by kind and by source; ratios and decibels where there is a second one to compare with."""
    mine, other = bands[0], bands[1] if len(bands) > 1 else None
    low, high = mine.band_hz
    lines = [f"'{mine.current}', {low:.8g}..{high:.8g} Hz, shot-noise units x Hz"]
    lines.append(
        f"  {'part':<24}{'power':>14}" + ("" if other is None else f"{str(label)[:30]:>32}{'ratio':>10}{'dB':>9}")
    )
    kinds = {"shot noise": "shot", "back-action (light)": "back_action", "thermal": "thermal", "classical": "classical"}
    rows = [(word, getattr(mine, key), other and getattr(other, key)) for word, key in kinds.items()]
    rows += [("total", mine.total, other and other.total)]
    names = [*mine.sources, *(k for k in (other.sources if other else ()) if k not in mine.sources)]
    rows += [(k, mine.sources.get(k, 0.0), other and other.sources.get(k, 0.0)) for k in names]
    for word, value, theirs in rows:
        line = f"  {word:<24}{value:>14.6g}"
        if theirs is not None:
            ratio = value / theirs if theirs else float("nan")
            db = f"{10 * np.log10(ratio):>+9.2f}" if ratio > 0 else f"{'-':>9}"
            line += f"{theirs:>32.6g}" + (f"{ratio:>10.4f}{db}" if np.isfinite(ratio) else f"{'-':>10}{'-':>9}")
        lines.append(line)
    return "\n".join(lines)


def save_spectrum(path: Path, experiment: Experiment, mine: Budget, other: Budget | None, diff: str | None) -> None:
    """Write a figure, CSV or HDF5, whole or not at all."""
    with replacing(path) as temporary:
        kind = path.suffix.lower()
        if kind == ".csv":
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["frequency_hz", "total", *mine.sources])
                writer.writerows(np.column_stack([mine.frequency_hz, mine.total, *mine.sources.values()]).tolist())
        elif kind == ".h5":
            _hdf5(temporary, experiment, mine)
        else:
            _figure(temporary, kind[1:], mine, other, diff)


def _hdf5(path: Path, experiment: Experiment, mine: Budget) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["frequency_hz"], file["total"] = mine.frequency_hz, mine.total
        for name, values in mine.sources.items():
            file[f"sources/{name}"] = values
        file.attrs["schema"], file.attrs["unit"] = "backaction/spectrum/1", mine.unit
        file.attrs["experiment"] = to_json(experiment.to_dict())
        for key, value in provenance().items():
            file.attrs[key] = value


def _figure(path: Path, kind: str, mine: Budget, other: Budget | None, diff: str | None) -> None:
    from matplotlib.figure import Figure

    from backaction.report import figures

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    ax = figures.draw_spectrum(figure.subplots(), mine)
    if other is not None:
        ax.plot(other.frequency_hz / 1e6, other.total, "k--", lw=1, label=str(diff))
        ax.legend(fontsize=7, ncols=3, loc="upper left")
    figure.savefig(path, format=kind, dpi=150)
