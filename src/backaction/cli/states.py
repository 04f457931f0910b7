"""Commands on experiments alone: `list`, `show`, `state`, `spectrum`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backaction.cli.common import ExperimentName, Json, Set, frequencies, interval, load, put, say
from backaction.errors import InputError, ModelError

if TYPE_CHECKING:
    from backaction.experiment.experiment import Experiment
    from backaction.numerics.matrices import Array
    from backaction.systems.response import Budget


# options of `spectrum`
Frequencies = Annotated[str | None, typer.Option("--f", metavar="LO:HI:N", help="Frequencies in Hz; units allowed.")]
Save = Annotated[Path | None, typer.Option("--save", help="Write x.pdf, x.png, x.svg, x.csv or x.h5.")]
Diff = Annotated[str | None, typer.Option("--diff", metavar="OTHER", help="Compare with another experiment.")]
DiffSet = Annotated[
    list[str] | None,
    typer.Option("--diff-set", metavar="KEY=VALUE", help="Compare with the same experiment, changed (repeatable)."),
]
BandRange = Annotated[
    str | None, typer.Option("--band", metavar="LO:HI", help="Power in a band of frequencies, by source.")
]
Current = Annotated[str | None, typer.Option("--current", help="Which detected current, where there are several.")]
Port = Annotated[
    str | None, typer.Option("--port", metavar="ELEMENT.OUTPUT", help="Instead of a current: a field, in quanta.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("list")(list_)
    app.command()(show)
    app.command()(state)
    app.command()(spectrum)
    app.callback(invoke_without_command=True)(version)


def version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Continuously measured linear quantum systems: spectra by source, conditional states, entanglement, records."""
    if version:
        from backaction._version import __version__

        put(__version__)
        raise typer.Exit


def list_(json: Json = False) -> None:
    """List the shipped experiments and campaigns, the kinds of elements and the calibrations."""
    import tomllib
    from importlib import resources

    from backaction.calibration import METHODS
    from backaction.elements import ELEMENTS
    from backaction.experiment.experiment import Experiment
    from backaction.experiment.toml import shipped_experiments
    from backaction.files import to_json

    experiments = {n: Experiment.load(n).description.split("\n")[0] for n in shipped_experiments()}
    methods = {k: (c.__doc__ or "").split("\n")[0] for k, c in METHODS.items()}
    kinds = {k: (c.__doc__ or "").split("\n")[0] for k, c in ELEMENTS.items()}
    folder = resources.files("backaction") / "data" / "campaigns"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    texts = {f.name.removesuffix(".toml"): tomllib.loads(f.read_text("utf-8"))["description"] for f in files}
    plans = {n: text.strip().split("\n")[0] for n, text in texts.items()}
    if json:
        facts = {"experiments": experiments, "campaigns": plans, "elements": kinds, "calibrations": methods}
        put(to_json({"schema": "backaction/list/1"} | facts))
        return
    put("experiments")
    for name, text in experiments.items():
        put(f"  {name:<24} {text}")
    put("campaigns (for fit and sbc)")
    for name, text in plans.items():
        put(f"  {name:<24} {text}")
    put("elements")
    for kind, text in kinds.items():
        put(f"  {kind:<24} {text}")
    put("calibrations (for calibrate)")
    for name, text in methods.items():
        put(f"  {name:<24} {text}")


def show(experiment: ExperimentName, set_: Set = None, json: Json = False) -> None:
    """Show resolved values, poles, effective mechanics, rates, cooperativities by definition and carrier phases."""
    from backaction.cli.show import text
    from backaction.experiment.describe import document
    from backaction.files import to_json

    facts = document(load(experiment, set_))
    put(to_json(facts) if json else text(facts))


def state(
    experiment: ExperimentName,
    set_: Set = None,
    json: Json = False,
    beyond_rwa: Annotated[
        bool, typer.Option("--beyond-rwa", help="Also with all terms that the rotating wave drops (driven cavities).")
    ] = False,
    below_hz: Annotated[
        float | None, typer.Option("--below-hz", help="With --beyond-rwa: leave out terms that turn faster.")
    ] = None,
) -> None:
    """Steady states, unconditional and conditional, with every entanglement measure."""
    from backaction.cli.show import rate_lines
    from backaction.experiment.describe import beyond_rotating_wave, state_document, state_without
    from backaction.files import to_json

    if below_hz is not None and not beyond_rwa:
        raise InputError("--below-hz is for --beyond-rwa")
    chosen = load(experiment, set_)
    try:
        facts = state_document(chosen)
    except ModelError as error:
        if not beyond_rwa:
            raise
        facts = state_without(chosen, str(error))
    if beyond_rwa:
        facts["beyond_rwa"] = beyond_rotating_wave(chosen, below_hz)
    if json:
        put(to_json(facts))
        return
    put(f"{facts['experiment']}: modes {', '.join(facts['modes'])} ({facts['frame']} frame; {facts['convention']})")
    for which in ("unconditional", "conditional"):
        put(_state_text(which, facts[which], bool(facts.get("rotating_wave", {}).get("verdict_changes"))))
    for mode, rates in facts.get("rates", {}).items():
        put("\n".join([f"\nrates of {mode} (quanta/s)", *rate_lines(rates)]))
    if beyond_rwa:
        b = facts["beyond_rwa"]
        put(_state_text("unconditional, beyond the rotating wave", b["unconditional"]))
        put(f"  averaged over the period of {b['frequency_hz']:.9g} Hz, largest ripple {b['ripple']:.3g}")
        put("  relative error of the rotating wave: " + ", ".join(f"{k} {v:+.4g}" for k, v in b["error"].items()))
        put("  dropped terms")
        for t in b["dropped"]:
            where = f"{t['rate_hz']:.6g} Hz at {t['frequency_hz']:.9g} Hz"
            put(f"    {t['tone']:<10} {t['mode']:<10} {t['kind']:<8} rate {where}")
    for warning in facts["warnings"]:
        say(f"warning: {warning}")


def _state_text(which: str, s: dict[str, Any] | None, withheld: bool = False) -> str:
    """One state in words; `withheld`: a verdict that does not hold beyond the rotating wave is not said."""
    import numpy as np

    from backaction.cli.show import mode_line

    if s is None:
        return f"\n{which}: none"
    lines = [f"\n{which}", np.array2string(np.array(s["covariance"]), precision=5, suppress_small=True)]
    for name, m in s["by_mode"].items():
        lines.append(f"  {name:<21} {mode_line(m)}")
    lines.append(f"  purity                {s['purity']:.6g}")
    if "epr" in s:
        e = s["epr"]
        word = "entanglement witnessed" if e["variance"] < 1 else "not witnessed by this"
        word = "in the rotating wave, which does not hold here" if withheld else word
        lines.append(
            f"  EPR variance          {e['variance']:.7g} at a = {e['weight']:.5g}, b = {e['angle_deg']:.5g} deg ({word})"
        )
        at = s.get("epr_at_conditional")
        if at:
            lines.append(f"  at conditional's a, b {at['variance']:.7g}")
        lines.append(f"  Duan (a = 1)          {s['duan']:.7g}")
        decided = "entangled" if s["ppt_min"] < 0.5 else "separable"
        decided = "in the rotating wave" if withheld else decided
        lines.append(f"  PPT eigenvalue        {s['ppt_min']:.7g} ({decided}: entangled below 1/2)")
        lines.append(f"  log-negativity        {s['log_negativity']:.6g} ebit")
        lines.append("  steering (bits)       " + ", ".join(f"{k} {v:.4g}" for k, v in s["steering"].items()))
    return "\n".join(lines)


def spectrum(
    experiment: ExperimentName,
    f: Frequencies = None,
    set_: Set = None,
    json: Json = False,
    save: Save = None,
    diff: Diff = None,
    diff_set: DiffSet = None,
    band: BandRange = None,
    current: Current = None,
    port: Port = None,
) -> None:
    """Spectrum of the detected current by source, in shot-noise units; with --band its areas, exactly."""
    import numpy as np

    from backaction.cli.spectrum import areas, axis, spectrum_document, spectrum_text
    from backaction.files import to_json
    from backaction.systems.band import power

    chosen = load(experiment, set_)
    grid = frequencies(f) if f else np.linspace(*interval(band, "--band"), 501) if band else axis(chosen)
    if port is not None and band is not None:
        raise InputError("--band is of a current, not of a field: leave out --port")
    if port is not None and current is not None:
        raise InputError("give --port or --current, not both")
    mine = _budget(chosen, grid, current, port, band)
    against = _compared(chosen, diff, diff_set)
    diff = ", ".join([*([diff] if diff else []), *(diff_set or [])]) or None
    other = _budget(against, grid, current, port, band) if against else None
    facts = spectrum_document(chosen, mine, diff, other)
    bands = None
    if band is not None:
        edges = interval(band, "--band")
        bands = [power(e.system, edges, current) for e in (chosen, against) if e is not None]
        facts["band"] = bands[0].document()
        if other is not None:
            facts["other"]["band"] = bands[1].document()
    if save is not None:
        _save(save, chosen, mine, other, diff)
    if json:
        put(to_json(facts))
    elif bands is not None:
        put(areas(bands, diff))
    elif save is None:
        put(spectrum_text(mine, other, diff))


def _budget(e: Experiment, grid: Array, current: str | None, port: str | None, band: str | None) -> Budget:
    """Spectrum of a current or a port, also of an experiment that is known by its spectra only."""
    from backaction.experiment.spectra import frequency_response
    from backaction.systems.response import budget, flux_budget

    if not e.spectra_only:
        return budget(e.system, grid, current) if port is None else flux_budget(e.system, grid, port)
    if port is not None or band is not None:
        raise ModelError(f"{e.name}: known by its spectra only: {'--port' if port else '--band'} needs a state space")
    response = frequency_response(e, grid)
    if current is None and len(response.outputs) != 1:
        raise InputError(f"name one of the currents with --current: {', '.join(response.outputs)}")
    return response.budget(current or response.outputs[0])


def _compared(chosen: Experiment, diff: str | None, diff_set: list[str] | None) -> Experiment | None:
    """The experiment of --diff and --diff-set, if any."""
    from backaction.experiment.toml import read_overrides

    if diff:
        return load(diff, diff_set)
    return chosen.overridden(read_overrides(diff_set, "--diff-set"), "--diff-set") if diff_set else None


def _save(path: Path, chosen: Experiment, mine: Budget, other: Budget | None, diff: str | None) -> None:
    from backaction.cli.spectrum import save_spectrum

    if path.suffix.lower() not in (".pdf", ".png", ".svg", ".csv", ".h5"):
        raise InputError(f"--save {path}: unknown ending '{path.suffix}'; known: .pdf, .png, .svg, .csv, .h5")
    save_spectrum(path, chosen, mine, other, diff)
    say(f"wrote {path}")
