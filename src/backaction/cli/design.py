"""Commands that look for better experiments: `optimize`, `sweep`, `sense`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backaction.cli.common import ExperimentName, Json, Progress, Set, frequencies, load, put, say
from backaction.errors import InputError

if TYPE_CHECKING:
    from backaction.design.optimization import Optimum
    from backaction.design.sensing import Lorentzian, Sensitivity
    from backaction.experiment.experiment import Experiment
    from backaction.numerics.matrices import Array


Tie = Annotated[
    list[str] | None,
    typer.Option(
        "--tie", metavar="FIELD=EXPRESSION", help="A field that follows others, such as a.x=2*b.y; repeatable."
    ),
]
Over = Annotated[
    list[str], typer.Option("--over", metavar="FIELD[=LO:HI],...", help="What to vary, with its range; repeatable.")
]

# options of `sense`
SignalInput = Annotated[
    str, typer.Option("--signal", metavar="ELEMENT.INPUT", help="Where the signal enters: membrane.bath.")
]
Frequencies = Annotated[
    str | None, typer.Option("--f", metavar="LO:HI:N", help="Frequencies in Hz (frame of the currents).")
]
Angle = Annotated[
    float, typer.Option("--angle", metavar="DEG", help="Direction in the input, from X; a force acts on P.")
]
Waveform = Annotated[
    str | None, typer.Option("--lorentzian", metavar="WIDTH[@CENTER]", help="A decaying kick of known shape.")
]
Amplitude = Annotated[float | None, typer.Option("--amplitude", help="Its size, for the detection test.")]
Mass = Annotated[float | None, typer.Option("--mass-kg", help="Mass, for force noise in N/sqrt(Hz).")]
Frequency = Annotated[str | None, typer.Option("--frequency-hz", help="Its frequency (default: the mode's).")]
DiffSet = Annotated[
    list[str] | None,
    typer.Option("--diff-set", metavar="KEY=VALUE", help="Compare with the experiment changed like this."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(optimize)
    app.command()(sweep)
    app.command()(sense)


def _ties(items: list[str] | None) -> dict[str, str]:
    out = {}
    for item in items or []:
        path, sign, text = item.partition("=")
        if not sign or not path.strip() or not text.strip():
            raise InputError(f"--tie {item}: expected FIELD=EXPRESSION")
        out[path.strip()] = text.strip()
    return out


def _goal(minimize: str | None, maximize: str | None) -> tuple[str | None, bool]:
    if minimize is not None and maximize is not None:
        raise InputError("give --minimize or --maximize, not both")
    return minimize or maximize, maximize is not None


def optimize(
    experiment: ExperimentName,
    over: Over,
    minimize: Annotated[str | None, typer.Option("--minimize", metavar="RESULT", help="What should be least.")] = None,
    maximize: Annotated[
        str | None, typer.Option("--maximize", metavar="RESULT", help="What should be greatest.")
    ] = None,
    tie: Tie = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="RESULT>=NUMBER", help="A constraint; repeatable: dynamics.margin_hz>=100."),
    ] = None,
    starts: Annotated[int, typer.Option("--starts", min=1, help="Number of starts.")] = 24,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the starts.")] = 0,
    set_: Set = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the experiment at the optimum, as TOML.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the parameters at which a result is best, or say that there are none."""
    from backaction.design.optimization import optimize as search
    from backaction.design.optimization import parse_over
    from backaction.files import replacing, to_json

    goal, greatest = _goal(minimize, maximize)
    if goal is None:
        raise InputError("optimize: give --minimize RESULT or --maximize RESULT, such as conditional.epr.variance")
    if output is not None and output.suffix != ".toml":
        raise InputError(f"-o {output}: unknown ending '{output.suffix}'; name it *.toml")
    chosen = load(experiment, set_)
    with Progress("optimize") as progress:
        found = search(
            chosen, goal, parse_over(",".join(over), chosen), maximize=greatest, ties=_ties(tie), constraints=require or [],
            starts=starts, seed=seed, progress=progress,
        )  # fmt: skip
    if output is not None and found.status == "optimum":
        with replacing(output) as temporary:
            temporary.write_text(found.experiment.to_toml(), "utf-8")
        say(f"wrote {output}")
    put(to_json(found.document()) if json else _optimum_text(found, greatest))
    if found.status != "optimum":
        say(f"backaction: {found.reason}")
        raise typer.Exit(3)


def _optimum_text(found: Optimum, greatest: bool) -> str:
    if found.value is None:
        return f"{found.objective}: {found.status}"
    lines = [f"{'greatest' if greatest else 'least'} {found.objective} = {found.value:.12g} ({found.status})"]
    for name, value in found.at.items():
        lines.append(f"  {name:<36} {value:.12g}" + ("   on its bound" if name in found.on_bound else ""))
    lines += [f"  {name:<36} {value:.12g}   (tied)" for name, value in found.fields.items() if name not in found.at]
    for direction in found.flat:
        lines.append("  nothing changes along " + ", ".join(f"{c:+.3f} {n}" for n, c in direction.items()))
    lines += [
        f"  {c['constraint']}: {c['value']:.6g}" + (" (active)" if c["active"] else "") for c in found.constraints
    ]
    lines.append(f"  {found.agreeing} of {found.starts} starts agree")
    return "\n".join(lines)


def sweep(
    experiment: ExperimentName,
    over: Annotated[
        list[str], typer.Option("--over", metavar="FIELD=LO:HI:N[:log],...", help="Axes of the grid; repeatable.")
    ],
    of: Annotated[list[str], typer.Option("--of", metavar="RESULT,...", help="Results at every point; repeatable.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE.nc", help="NetCDF file.")] = None,
    optimized: Annotated[
        str | None, typer.Option("--optimize", metavar="FIELD[=LO:HI],...", help="Optimise these at every point.")
    ] = None,
    minimize: Annotated[str | None, typer.Option("--minimize", help="For this result (default: the first).")] = None,
    maximize: Annotated[str | None, typer.Option("--maximize", help="Or for the greatest of this one.")] = None,
    tie: Tie = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A Dask scheduler.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Threads, where there is no scheduler.")] = 2,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Results on a grid of parameters; an interrupted sweep with an output file goes on where it stopped."""
    import numpy as np

    from backaction.design.optimization import parse_over
    from backaction.design.sweeps import sweep as compute
    from backaction.files import to_json

    goal, greatest = _goal(minimize, maximize)
    chosen = load(experiment, set_)
    if output is not None and output.suffix != ".nc":
        raise InputError(f"-o {output}: unknown ending '{output.suffix}'; name it *.nc")
    if goal is not None and not optimized:
        raise InputError("--minimize and --maximize need --optimize: what is to be optimised at every point")
    pairs = [_axis(item, chosen) for item in ",".join(over).split(",")]
    axes = dict(pairs)
    if len(axes) < len(pairs):
        raise InputError(f"--over {','.join(over)}: a field is named twice")
    with Progress("sweep") as progress:
        data = compute(
            chosen, axes, [r.strip() for r in ",".join(of).split(",")],
            optimize=parse_over(optimized, chosen) if optimized else (), objective=goal,
            maximize=greatest, ties=_ties(tie), output=output, scheduler=scheduler, workers=workers, progress=progress,
        )  # fmt: skip
    if output is not None:
        say(f"wrote {output}")
    if json:
        facts = {"schema": "backaction/sweep/1", "over": {k: data[k].values for k in axes}}
        put(to_json(facts | {"of": {str(k): v.values for k, v in data.data_vars.items()}}))
        return
    for name, values in data.data_vars.items():
        x = values.values.astype(float)
        if not np.any(np.isfinite(x)):
            put(f"{name}: no value anywhere")
            continue
        at = np.unravel_index(int(np.nanargmin(x)), x.shape)
        where = ", ".join(f"{k} = {v[i]:.6g}" for (k, v), i in zip(axes.items(), at, strict=True))
        put(
            f"{name}: {np.nanmin(x):.9g} (at {where}) .. {np.nanmax(x):.9g}, {int(np.sum(~np.isfinite(x)))} of {x.size} none"
        )


def _axis(item: str, experiment: Experiment) -> tuple[str, Any]:
    import numpy as np

    from backaction.design.optimization import read_range

    name, _, span = item.strip().partition("=")
    logarithmic = span.endswith(":log")
    low, high, count = read_range(name, span.removesuffix(":log"), experiment, "--over", 3)
    if count != int(count) or not 1 <= count <= 100_000 or not low <= high:
        raise InputError(f"--over {item}: needs LO <= HI and a whole number N from 1 to 100000")
    if logarithmic and low <= 0:
        raise InputError(f"--over {item}: a logarithmic axis needs LO > 0")
    return name, (np.geomspace if logarithmic else np.linspace)(low, high, int(count))


def sense(
    experiment: ExperimentName,
    signal: SignalInput,
    f: Frequencies = None,
    angle: Angle = 90.0,
    lorentzian: Waveform = None,
    amplitude: Amplitude = None,
    mass: Mass = None,
    frequency: Frequency = None,
    diff_set: DiffSet = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """How well the currents resolve a signal: added noise by source, force noise, matched filter, detection."""
    from backaction.design.sensing import Signal, sensitivity, waveform_variance
    from backaction.experiment.toml import read_overrides
    from backaction.files import provenance, to_json

    chosen = load(experiment, set_)
    where = Signal(signal, angle)
    wave = _waveform(lorentzian) if lorentzian else None
    if amplitude is not None and wave is None:
        raise InputError("--amplitude needs a waveform: --lorentzian WIDTH[@CENTER]")
    grid = frequencies(f) if f else _sense_axis(chosen)
    mine = sensitivity(chosen.system, where, grid)
    facts: dict[str, Any] = {
        "schema": "backaction/sense/1", "experiment": chosen.name, "signal": {"source": signal, "angle_deg": angle},
        "frequency_hz": grid, "unit": "input density, two-sided (ground state 1/2)", "added_noise": mine.density,
        "sources": mine.sources, "provenance": provenance(),
    }  # fmt: skip
    if mass is not None:
        facts["force_asd_n_per_rthz"] = _force_noise(chosen, mine, signal, mass, frequency)
    if wave is not None:
        variance = float(waveform_variance(chosen.system, where, wave))
        facts["waveform"] = {
            "kind": "lorentzian",
            "width_hz": wave.width_hz,
            "center_hz": wave.center_hz,
            "variance": variance,
        }
        if amplitude is not None:
            facts["roc"] = _detection(amplitude, variance)
    if diff_set:
        other = chosen.overridden(read_overrides(diff_set, "--diff-set"), "--diff-set")
        facts["other"] = {"changed": diff_set, "added_noise": sensitivity(other.system, where, grid).density}
        if wave is not None:
            facts["other"]["variance"] = float(waveform_variance(other.system, where, wave))
    put(to_json(facts) if json else _sense_text(mine, facts))


def _force_noise(chosen: Experiment, mine: Sensitivity, signal: str, mass: float, frequency: str | None) -> Array:
    """Added noise as a force, N/sqrt(Hz)."""
    from backaction.design.sensing import force_scale
    from backaction.units import number

    at = _mode_frequency(chosen, signal) if frequency is None else number(frequency, "Hz", "--frequency-hz")
    if not mass > 0 or not at > 0:
        raise InputError(f"--mass-kg {mass:g}, --frequency-hz {at:g}: both must be > 0")
    scale = force_scale(chosen.system, signal, mass, at)
    return (scale * mine.density) ** 0.5


def _detection(amplitude: float, variance: float) -> dict[str, Any]:
    """Probability to detect the waveform against that of a false alarm."""
    import numpy as np

    from backaction.design.sensing import roc

    alarms = np.concatenate([[0.0], np.geomspace(1e-6, 1, 121)])
    return {"amplitude": amplitude, "false_alarm": alarms, "detection": roc(alarms, amplitude, variance)}


def _waveform(text: str) -> Lorentzian:
    from backaction.design.sensing import Lorentzian
    from backaction.units import number

    width, _, center = text.partition("@")
    at = number(center, "Hz", f"--lorentzian {text}") if center else 0.0
    wide = number(width, "Hz", f"--lorentzian {text}")
    if wide <= 0:
        raise InputError(f"--lorentzian {text}: the width must be > 0")
    return Lorentzian(wide, at)


def _sense_axis(experiment: Experiment) -> Any:
    """Default frequencies: as `spectrum`; in a rotating frame ten linewidths about its centre."""
    import numpy as np

    from backaction.cli.spectrum import axis

    system = experiment.system
    if any(p.frame.kind == "sidebands" for p in system.outputs if p.kind == "current"):
        width = float(np.max(np.abs(np.linalg.eigvals(system.A).real))) / np.pi
        return np.linspace(-5 * width, 5 * width, 501)
    return axis(experiment)


def _mode_frequency(experiment: Experiment, signal: str) -> float:
    head, _, tail = signal.partition(".")
    element: Any = experiment.resolved().element(head)
    part = next((p for p in element.all_parts() if tail == f"{p.name}_bath"), None)
    element = element if part is None else part
    for key in ("mechanical_hz", "frequency_hz", "larmor_hz"):
        value = getattr(element, key, None)
        if value is not None:
            return abs(float(value))
    raise InputError(f"--mass-kg: '{signal}' has no frequency; give --frequency-hz")


def _sense_text(mine: Sensitivity, facts: dict[str, Any]) -> str:
    import numpy as np

    best = int(np.argmin(mine.density))
    lines = [f"{mine}", f"  at {mine.frequency_hz[best]:.8g} Hz, by source:"]
    lines += [f"    {k:<26}{v[best]:>14.6g}" for k, v in mine.sources.items() if v[best] > 0]
    if "force_asd_n_per_rthz" in facts:
        lines.append(f"  force noise {facts['force_asd_n_per_rthz'][best]:.6g} N/sqrt(Hz), one-sided")
    if "waveform" in facts:
        lines.append(
            f"  variance of the size of a Lorentzian of width {facts['waveform']['width_hz']:g} Hz: "
            f"{facts['waveform']['variance']:.9g}"
        )
    if "roc" in facts:
        p = float(np.interp(1e-3, facts["roc"]["false_alarm"], facts["roc"]["detection"]))
        lines.append(
            f"  size {facts['roc']['amplitude']:g}: detected with probability {p:.4f} at false-alarm probability 0.001"
        )
    if "other" in facts:
        ratio = mine.density[best] / facts["other"]["added_noise"][best]
        lines.append(f"  against {', '.join(facts['other']['changed'])}: added noise x {ratio:.6g} there")
        if "variance" in facts["other"]:
            lines[-1] += f", variance x {facts['waveform']['variance'] / facts['other']['variance']:.6g}"
    return "\n".join(lines)
