"""Commands on records: `analyze`, `track`, `simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    say,
)
from backaction.errors import CheckError, InputError, ModelError

if TYPE_CHECKING:
    import numpy as np

    from backaction.analysis.track_files import Job, Outcome
    from backaction.records.record import Record
    from backaction.records.simulation import Adc


RecordFile = Annotated[
    str, typer.Argument(metavar="RECORD", help="A record: .h5, .npz, .raw, .bin, .trc; FILE:DATASET names one.")
]
Shot = Annotated[str | None, typer.Option("--shot", metavar="R", help="Shot-noise record, taken alike.")]
Dark = Annotated[str | None, typer.Option("--dark", metavar="R", help="Dark record, light off.")]

# options of `track`
RecordFiles = Annotated[
    list[str],
    typer.Argument(metavar="RECORD...", help="Records: .h5, .zarr, .npz, .raw, .bin, .trc; A,B: two currents."),
]
TrackOutput = Annotated[Path, typer.Option("-o", "--output", help="*.h5 or *.zarr; for several records a folder.")]
Frame = Annotated[str, typer.Option("--frame", help="lab or rotating.")]
Every = Annotated[int | None, typer.Option("--every", help="Keep every N-th mean.")]
Estimate = Annotated[str, typer.Option("--estimate", help="filtered, smoothed or retrodicted.")]
Modes = Annotated[str | None, typer.Option("--modes", metavar="A,B", help="Modes, instead of the reported ones.")]
Start = Annotated[str, typer.Option("--start", help="State before the record: unconditional or steady.")]
Ahead = Annotated[str, typer.Option("--ahead", metavar="TIME", help="Predict by so much, such as '5 us'.")]
Demodulate = Annotated[
    str | None, typer.Option("--demodulate", metavar="HZ:N", help="Track the baseband at HZ, N samples at a time.")
]
Follow = Annotated[
    str | None,
    typer.Option("--follow", metavar="FIELD,...", help="Parameters that wander: estimate them in segments."),
]
Segments = Annotated[int, typer.Option("--segments", min=4, help="Segments for --follow.")]
Veto = Annotated[
    list[str] | None,
    typer.Option("--veto", metavar="FROM:TO", help="Leave out a stretch, such as '10 ms:12 ms'."),
]
Check = Annotated[bool, typer.Option("--check", help="Also test the prediction against the retrodiction.")]
Single = Annotated[bool, typer.Option("--single", help="Means in single precision.")]
SquareRoot = Annotated[bool, typer.Option("--square-root", help="Covariance as a root: the hardest cases.")]
Innovations = Annotated[bool, typer.Option("--innovations/--no-innovations", help="Keep the innovations.")]
Scheduler = Annotated[str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A Dask scheduler.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads, where there is no scheduler.")]

# options of `simulate`
RecordOutput = Annotated[Path, typer.Option("-o", "--output", help="Record file, *.h5.")]
Duration = Annotated[str, typer.Option("--duration", help="Length, such as 0.2 or '200 ms'.")]
SimulatedRate = Annotated[str, typer.Option("--rate", help="Samples per second, such as 1e7 or '10 MHz'.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random numbers.")]
Paths = Annotated[bool, typer.Option("--paths", help="Also store the true paths of the modes.")]
ShotOutput = Annotated[Path | None, typer.Option("--shot", help="Also write a shot-noise record here.")]
DarkOutput = Annotated[Path | None, typer.Option("--dark", help="Also write a dark record here.")]
SimulatedSampling = Annotated[str, typer.Option("--sampling", help="average or instantaneous.")]
FrontEnd = Annotated[
    list[str] | None, typer.Option("--front-end", metavar="HZ", help="A low-pass before the digitiser; repeatable.")
]
Reference = Annotated[str | None, typer.Option("--reference", metavar="HZ", help="Demodulate there: complex.")]
Converter = Annotated[
    str | None, typer.Option("--adc", metavar="BITS:VOLTS", help="Integer counts, clipped at +- VOLTS.")
]
Drift = Annotated[
    list[str] | None,
    typer.Option("--drift", metavar="FIELD=FROM:TO", help="A field that goes linearly from one value to another."),
]


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
    quick: Annotated[bool, typer.Option("--quick", help="Laplace and importance sampling instead of NUTS.")] = False,
    calibration: Annotated[
        list[Path] | None,
        typer.Option("--calibration", metavar="F.json", help="Priors of `calibrate`, with covariance; repeatable."),
    ] = None,
    rate: Rate = None,
    sampling: SamplingRule = None,
    unit: Unit = None,
    scale: Scale = None,
) -> None:
    """From a photocurrent to a conditional state, an entanglement verdict and a report."""
    from backaction.analysis.analysis import analyze as run
    from backaction.files import to_json
    from backaction.records.formats import read_record
    from backaction.report.analysis import write_report

    if resolution_hz is not None and not resolution_hz > 0:
        raise InputError(f"--resolution {resolution_hz:g}: must be > 0 Hz")
    distinct([record, shot, dark], [])
    chosen = load(experiment, set_)
    given = {"sample_rate_hz": rate, "sampling": sampling, "unit": unit, "scale": scale}
    data = read_record(record, **given)
    shot_record, dark_record = (None if p is None else read_record(p, **given) for p in (shot, dark))
    if output.is_file():
        raise InputError(f"-o {output}: is a file; name a folder")
    with Progress("analyze") as progress:
        found = run(chosen, data, shot_record, dark_record, resolution_hz, progress, quick, calibration or [])
        write_report(found, output, progress)
    if json:
        put(to_json(found.document()))
    else:
        for t in found.tests:
            put(f"{'passed' if t.passed else 'FAILED'}  {t.sentence}")
        put(f"\nchecks: their levels sum to {100 * sum(t.share for t in found.tests):.2g} % of right models")
        put(f"{found.verdict}")
    for warning in found.warnings:
        say(f"warning: {warning}")
    say(f"report: {output / 'index.html'}")
    if found.exit_code:
        claim = "; entanglement is not claimed" if found.quantum and len(found.track.modes) == 2 else ""
        raise CheckError(f"checks of the model against the record failed{claim}")


def track(
    experiment: ExperimentName,
    records: RecordFiles,
    output: TrackOutput,
    shot: Shot = None,
    dark: Dark = None,
    frame: Frame = "rotating",
    every: Every = None,
    estimate: Estimate = "filtered",
    modes: Modes = None,
    start: Start = "unconditional",
    ahead: Ahead = "0",
    demodulate: Demodulate = None,
    follow: Follow = None,
    segments: Segments = 20,
    veto: Veto = None,
    check: Check = False,
    single: Single = False,
    square_root: SquareRoot = False,
    innovations: Innovations = True,
    scheduler: Scheduler = None,
    workers: Workers = None,
    set_: Set = None,
    rate: Rate = None,
    sampling: SamplingRule = None,
    unit: Unit = None,
    scale: Scale = None,
) -> None:
    """Track the conditional state through records with the experiment's own values (no fit)."""
    from backaction.analysis import track_files
    from backaction.units import number

    if frame not in ("lab", "rotating"):
        raise InputError(f"--frame {frame}: must be lab or rotating")
    if shot is None:
        raise InputError("track needs a shot-noise record (--shot R): without it the record has no quantum scale")
    chosen = load(experiment, set_)
    given = {"sample_rate_hz": rate, "sampling": sampling, "unit": unit, "scale": scale}
    job = track_files.Job(
        chosen, shot, dark, {k: v for k, v in given.items() if v is not None}, frame, every, estimate,
        None if modes is None else tuple(m.strip() for m in modes.split(",")), start, number(ahead, "s", "--ahead"),
        None if demodulate is None else baseband(demodulate), single, square_root, innovations, check,
        () if follow is None else tuple(n.strip() for n in follow.split(",")), segments,
        tuple(_stretch(text) for text in veto or []),
    )  # fmt: skip
    track_name = output.suffix.lower() in (".h5", ".hdf5", ".zarr")
    if len(records) == 1 and scheduler is None and (track_name or not output.is_dir()):
        distinct([output], [experiment, *records, shot, dark])
        _track_one(job, records[0], output)
        return
    if track_name:
        what = "several records" if len(records) > 1 else "a scheduler"
        raise InputError(f"-o {output}: with {what} name a folder")
    outputs = _track_outputs(records, output)
    distinct(outputs, [experiment, *records, shot, dark])
    output.mkdir(exist_ok=True)
    _track_several(job, records, outputs, scheduler, workers)


def _track_one(job: Job, record: str, output: Path) -> None:
    """Track one record here and say what was found."""
    from backaction.analysis import track_files

    with Progress("track") as progress:
        found = track_files.track_file(job, record, str(output), progress)
    for note in found.notes:
        say(f"note: {note}")
    for t in found.tests:
        say(("" if t.passed else "FAILED: ") + t.sentence)
    say(found.sentence)
    if not found.passed:
        raise CheckError("the model does not fit this record: do not take the track for its conditional state")


def _track_outputs(records: list[str], folder: Path) -> list[str]:
    """A track's path in the folder for every record, by its name without FILE:DATASET."""
    stems = [Path(r.rpartition(":")[0] if ":" in r and not Path(r).exists() else r).stem for r in records]
    return [str(folder / f"{s}.track.h5") for s in stems]


def _track_several(
    job: Job, records: list[str], outputs: list[str], scheduler: str | None, workers: int | None
) -> None:
    """Track records in threads or on a scheduler and print a line for each."""
    from backaction.analysis import track_files

    with Progress("track") as progress:
        every_one = track_files.run_jobs(
            job, records, outputs, scheduler, workers,
            lambda outcome, count: progress(f"{count} of {len(records)} records", count / len(records)),
        )  # fmt: skip
    _print_outcomes(every_one)


def _print_outcomes(every_one: list[Outcome]) -> None:
    """A line for each record, and an error where any of them failed."""
    for found in every_one:
        failed = [t.sentence for t in found.tests if not t.passed]
        word = "checks failed" if failed and found.status == "done" else found.status
        put(f"{word}  {found.record}: {'; '.join([found.sentence, *failed])}")
    bad = [f for f in every_one if f.status == "failed"]
    if bad:
        text = f"{len(bad)} of {len(every_one)} records failed: {', '.join(f.record for f in bad)}"
        raise (ModelError if all(f.exit_code == 3 for f in bad) else InputError)(text)
    unfit = [f.record for f in every_one if not f.passed]
    if unfit:
        raise CheckError(f"the model does not fit {len(unfit)} of {len(every_one)} records: {', '.join(unfit)}")


def simulate(
    experiment: ExperimentName,
    output: RecordOutput,
    duration: Duration = "0.2",
    rate: SimulatedRate = "1e7",
    seed: Seed = 0,
    paths: Paths = False,
    shot: ShotOutput = None,
    dark: DarkOutput = None,
    sampling: SimulatedSampling = "average",
    front_end: FrontEnd = None,
    reference: Reference = None,
    adc: Converter = None,
    drift: Drift = None,
    set_: Set = None,
) -> None:
    """Simulate a record exactly, with seed and, on request, true paths, drifts, an ADC, and reference records."""
    from backaction.files import to_json
    from backaction.records.formats.hdf5 import RecordFile, write_hdf5
    from backaction.records.simulation import ramp
    from backaction.records.simulation import reference as blank
    from backaction.records.simulation import simulate as run
    from backaction.units import number

    _check_simulation(seed, sampling, (output, shot, dark))
    distinct([output, shot, dark], [experiment])
    chosen = load(experiment, set_)
    seconds, per_second = number(duration, "s", "--duration"), number(rate, "Hz", "--rate")
    corners = tuple(number(f, "Hz", "--front-end") for f in front_end or [])
    turned = None if reference is None else number(reference, "Hz", "--reference")
    converter = None if adc is None else _adc(adc)
    schedule = ramp(chosen, [_drift(text) for text in drift or []], seconds)
    facts: dict[str, Any] = {
        "seed": seed,
        "experiment": to_json(chosen.to_dict(), None),
        "schema": "backaction/record/1",
    }
    facts |= {"drift": "; ".join(drift)} if drift else {}
    like, kind = _layout(output, per_second, sampling, corners, turned, converter)
    size = max(2, round(seconds * per_second)) if seconds > 0 and per_second > 0 else 2
    with Progress("simulate") as progress:
        with RecordFile(output, like, size, kind, facts | {"modes": list(chosen.reported_modes())}) as file:
            made = run(
                chosen, seconds, per_second, seed, sampling, paths, corners,  # type: ignore[arg-type]
                reference_hz=turned, schedule=schedule,
                adc=converter, sink=file, progress=progress,
            )  # fmt: skip
            if made.paths is not None:
                file.add("paths", made.paths)
        for name, path in (("shot", shot), ("dark", dark)):
            if path is not None:
                progress(f"drawing the {name} record")
                plain = blank(name, chosen, seconds / 2, per_second, seed, sampling, corners, turned, converter)  # type: ignore[arg-type]
                write_hdf5(path, plain, facts, {})
    if converter is not None:
        _warn_of_clipping(output, converter)
    say(f"wrote {output}: {size} samples at {per_second:g} Hz, seed {seed}")


def _check_simulation(seed: int, sampling: str, paths: tuple[Path | None, ...]) -> None:
    if not 0 <= seed < 1 << 63:
        raise InputError(f"--seed {seed}: must be between 0 and 2^63 - 1")
    if sampling not in ("average", "instantaneous"):
        raise InputError(f"--sampling {sampling}: must be average or instantaneous")
    for path in paths:
        if path is not None and path.suffix not in (".h5", ".hdf5"):
            raise InputError(f"{path}: records are written as HDF5; name it *.h5")


def _layout(
    output: Path, rate_hz: float, sampling: str, corners: tuple[float, ...], reference_hz: float | None, adc: Adc | None
) -> tuple[Record, np.dtype[Any]]:
    """A record with the properties of the simulated one, and the type of its samples."""
    from dataclasses import replace

    import numpy as np

    from backaction.records.record import Record

    more: dict[str, Any] = {"front_end_hz": corners, "reference_hz": reference_hz}
    like = Record(np.zeros(2), max(rate_hz, 1e-300), sampling, "V", name=str(output), **more)  # type: ignore[arg-type]
    if adc is not None:
        return replace(like, scale=adc.step_v, limits=adc.limits), adc.dtype
    return like, np.dtype(np.float32 if reference_hz is None else np.complex64)


def _warn_of_clipping(output: Path, adc: Adc) -> None:
    from backaction.records.formats import read_record

    part = read_record(output).clipped_fraction()
    if part > 0:
        say(f"warning: {100 * part:.2g} % of the samples are clipped at +- {adc.full_scale_v:g} V")


def baseband(text: str) -> tuple[float, int]:
    """HZ:N."""
    from backaction.units import number

    head, _, tail = text.rpartition(":")
    if not head:
        raise InputError(f"--demodulate {text}: expected HZ:N, such as 1.37e6:32")
    try:
        return number(head, "Hz", f"--demodulate {text}"), int(tail)
    except ValueError:
        raise InputError(f"--demodulate {text}: expected HZ:N, such as 1.37e6:32") from None


def _stretch(text: str) -> tuple[float, float]:
    from backaction.units import number

    low, colon, high = text.partition(":")
    if not colon:
        raise InputError(f"--veto {text}: expected FROM:TO, such as '10 ms:12 ms'")
    a, b = number(low, "s", f"--veto {text}"), number(high, "s", f"--veto {text}")
    if not a < b:
        raise InputError(f"--veto {text}: needs FROM < TO")
    return a, b


def _adc(text: str) -> Adc:
    from backaction.records.simulation import Adc
    from backaction.units import number

    head, _, tail = text.partition(":")
    try:
        bits = int(head)
    except ValueError:
        raise InputError(f"--adc {text}: expected BITS:VOLTS, such as 16:0.5") from None
    return Adc(bits, number(tail or "1", "V", f"--adc {text}"))


def _drift(text: str) -> tuple[str, float, float]:
    field, _, values = text.partition("=")
    low, _, high = values.partition(":")
    try:
        return field.strip(), float(low), float(high)
    except ValueError:
        raise InputError(f"--drift {text}: expected FIELD=FROM:TO, such as phase.angle_deg=177:183") from None
