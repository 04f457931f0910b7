"""Commands on records: `analyze`, `track`, `simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backaction.cli.common import (
    ExperimentName,
    Json,
    Progress,
    Rate,
    SamplingRule,
    Scale,
    Set,
    Unit,
    distinct,
    load,
    put,
    read,
    say,
)  # fmt: skip
from backaction.errors import CheckError, InputError

RecordFile = Annotated[
    str, typer.Argument(metavar="RECORD", help="A record: .h5, .npz, .raw, .bin, .trc; FILE:DATASET names one.")
]
Shot = Annotated[str | None, typer.Option("--shot", metavar="R", help="Shot-noise record, taken alike.")]
Dark = Annotated[str | None, typer.Option("--dark", metavar="R", help="Dark record, light off.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(analyze)
    app.command()(track)
    app.command()(simulate)


def analyze(
    experiment: ExperimentName,
    record: RecordFile,
    shot: Shot = None,
    dark: Dark = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the report.")] = Path("report"),
    set_: Set = None,
    json: Json = False,
    resolution_hz: Annotated[float | None, typer.Option("--resolution", help="Width of the fitted bins in Hz.")] = None,
    rate: Rate = None,
    sampling: SamplingRule = None,
    unit: Unit = None,
    scale: Scale = None,
) -> None:
    """From a photocurrent to a conditional state, an entanglement verdict and a report."""
    from backaction import report
    from backaction.analysis import analyze as run
    from backaction.files import to_json

    if resolution_hz is not None and not resolution_hz > 0:
        raise InputError(f"--resolution {resolution_hz:g}: must be > 0 Hz")
    distinct([record, shot, dark], [])
    chosen = load(experiment, set_)
    given = {"sample_rate_hz": rate, "sampling": sampling, "unit": unit, "scale": scale}
    data = read(record, **given)
    shot_record, dark_record = (None if p is None else read(p, **given) for p in (shot, dark))
    if output.is_file():
        raise InputError(f"-o {output}: is a file; name a folder")
    with Progress("analyze") as progress:
        found = run(chosen, data, shot_record, dark_record, resolution_hz, progress)
        report.write(found, output, lambda text: progress(text))
    if json:
        put(to_json(found.document()))
    else:
        for t in found.tests:
            put(f"{'passed' if t.passed else 'FAILED'}  {t.sentence}")
        put(f"\n{found.verdict}")
    for warning in found.warnings:
        say(f"warning: {warning}")
    say(f"report: {output / 'index.html'}")
    if found.exit_code:
        claim = "; entanglement is not claimed" if found.quantum and len(found.track.modes) == 2 else ""
        raise CheckError(f"checks of the model against the record failed{claim}")


def track(
    experiment: ExperimentName,
    record: RecordFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Track file, *.h5.")],
    shot: Shot = None,
    dark: Dark = None,
    frame: Annotated[str, typer.Option("--frame", help="lab or rotating.")] = "rotating",
    every: Annotated[int | None, typer.Option("--every", help="Keep every N-th mean.")] = None,
    set_: Set = None,
    rate: Rate = None,
    sampling: SamplingRule = None,
    unit: Unit = None,
    scale: Scale = None,
) -> None:
    """Track the conditional state through a record with the experiment's own values (no fit)."""
    from dataclasses import replace

    from backaction import consistency
    from backaction.files import to_json
    from backaction.shot_noise import calibrate
    from backaction.tracking import track as run

    if frame not in ("lab", "rotating"):
        raise InputError(f"--frame {frame}: must be lab or rotating")
    distinct([output], [experiment, record, shot, dark])
    if shot is None:
        raise InputError("track needs a shot-noise record (--shot R): without it the record has no quantum scale")
    chosen = load(experiment, set_)
    given = {"sample_rate_hz": rate, "sampling": sampling, "unit": unit, "scale": scale}
    data = read(record, **given)
    band = chosen.band_hz or (0.0, data.sample_rate_hz / 2)
    electronic = float(chosen.detectors()[0].electronic_noise_sn) if chosen.detectors() else 0.0
    dark_record = None if dark is None else read(dark, **given)
    calibration = calibrate(data, read(shot, **given), dark_record, electronic, band)
    with Progress("track") as progress:
        found = run(chosen, data, calibration, frame, every, lambda part: progress("filtering", part))  # type: ignore[arg-type]
        found = replace(
            found,
            provenance=found.provenance
            | {"experiment": to_json(chosen.resolved().to_dict(), None), "record": data.name},
        )
        found.save(output)
    for warning in calibration.warnings:
        say(f"warning: {warning}")
    tests = consistency.innovation_tests(found, calibration, band)
    for t in tests:
        say(("" if t.passed else "FAILED: ") + t.sentence)
    say(f"wrote {output}: {found.mean.shape[0]} means of {', '.join(found.modes)} every {found.time_step_s:.4g} s")
    if not all(t.passed for t in tests):
        raise CheckError("the model does not fit this record: do not take the track for its conditional state")


def simulate(
    experiment: ExperimentName,
    output: Annotated[Path, typer.Option("-o", "--output", help="Record file, *.h5.")],
    duration: Annotated[str, typer.Option("--duration", help="Length, such as 0.2 or '200 ms'.")] = "0.2",
    rate: Annotated[str, typer.Option("--rate", help="Samples per second, such as 1e7 or '10 MHz'.")] = "1e7",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random numbers.")] = 0,
    paths: Annotated[bool, typer.Option("--paths", help="Also store the true paths of the modes.")] = False,
    shot: Annotated[Path | None, typer.Option("--shot", help="Also write a shot-noise record here.")] = None,
    dark: Annotated[Path | None, typer.Option("--dark", help="Also write a dark record here.")] = None,
    set_: Set = None,
) -> None:
    """Simulate a record exactly, with seed and, on request, true paths and reference records."""
    from backaction.files import to_json
    from backaction.formats.hdf5 import write
    from backaction.simulation import reference
    from backaction.simulation import simulate as run
    from backaction.units import number

    if not 0 <= seed < 1 << 63:
        raise InputError(f"--seed {seed}: must be between 0 and 2^63 - 1")
    for path in (output, shot, dark):
        if path is not None and path.suffix not in (".h5", ".hdf5"):
            raise InputError(f"{path}: records are written as HDF5; name it *.h5")
    distinct([output, shot, dark], [experiment])
    chosen = load(experiment, set_)
    seconds, per_second = number(duration, "s", "--duration"), number(rate, "Hz", "--rate")
    with Progress("simulate") as progress:
        progress("drawing the record")
        made = run(chosen, seconds, per_second, seed, paths=paths)
        facts = {"seed": seed, "experiment": to_json(chosen.to_dict(), None), "schema": "backaction/record/1"}
        extra = {} if made.paths is None else {"paths": made.paths}
        write(output, made.record, facts | {"modes": list(made.modes)}, extra)
        for kind, path in (("shot", shot), ("dark", dark)):
            if path is not None:
                progress(f"drawing the {kind} record")
                write(path, reference(kind, chosen, seconds / 2, per_second, seed), facts, {})
    say(f"wrote {output}: {made.record.size} samples at {per_second:g} Hz, seed {seed}")
