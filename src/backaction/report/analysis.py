"""The report of an analysis: a self-contained page, figures, `result.json` and `track.h5`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from backaction._version import __version__
from backaction.analysis.analysis import Analysis, epr_trajectory, shot_units
from backaction.analysis.technical_noise import sampling_sentence
from backaction.files import to_json
from backaction.inference.advice import advice
from backaction.report.figures import covariance, draw_spectrum, ratio, trajectory
from backaction.report.limits import limits_section
from backaction.report.page import Cell, Picture, Section, numbers, page, save, shown, staged
from backaction.report.posterior import corner
from backaction.systems.sampled import sampled_budget
from backaction.workers import Progress, quiet

FILES = (
    "index.html",
    "result.json",
    "fitted.toml",
    "track.h5",
    "spectrum.png",
    "trajectory.png",
    "covariance.png",
    "innovations.png",
    "posterior.png",
)
"""What a report folder holds (trajectory and covariance only for calibrated records)."""


def write_report(analysis: Analysis, folder: str | Path, progress: Progress | None = None) -> Path:
    """Write the report into `folder` (made if needed); files appear only when all of them are complete.

    Raises
    ------
    InputError
        If the folder cannot be made or is a file.
    """
    say = progress or quiet
    with staged(folder) as (work, target):
        images: dict[str, str] = {}
        for name, make in _figures(analysis).items():
            say(f"drawing {name}", None)
            images[name] = save(make(), work / f"{name}.png")
        say("writing the track", None)
        analysis.track.save(work / "track.h5")
        document = analysis.document()
        (work / "result.json").write_text(to_json(document), "utf-8")
        fitted = f"# {analysis.record.name}: maximum of the posterior\n{analysis.fit.experiment.to_toml()}"
        (work / "fitted.toml").write_text(fitted, "utf-8")
        (work / "index.html").write_text(_page(analysis, document, images), "utf-8")
        if (target / "result.json").is_file():  # an earlier report of ours: leave none of its files beside the new ones
            for old in FILES:
                (target / old).unlink(missing_ok=True)
    return target


# -- figures ----------------------------------------------------------------------------------------------------------


def _figures(analysis: Analysis) -> dict[str, Callable[[], Any]]:
    out: dict[str, Callable[[], Any]] = {"spectrum": lambda: spectrum_figure(analysis)}
    if analysis.quantum is not None:
        out["trajectory"] = lambda: trajectory_figure(analysis)
        out["covariance"] = lambda: covariance_figure(analysis)
    out["innovations"] = lambda: innovations_figure(analysis)
    posterior = analysis.posterior
    if posterior is not None and posterior.derived:
        out["posterior"] = lambda: corner(posterior)
    return out


def spectrum_figure(analysis: Analysis) -> Any:
    """Measured spectrum over the fitted model, stacked by source."""
    fig, ax = _figure(8.0, 4.6)
    f = np.linspace(*analysis.band_hz, 1500)
    f = np.union1d(f, analysis.measured.frequency_hz) if analysis.measured.density.size < 4000 else f
    record, fit = analysis.record, analysis.fit
    budget = sampled_budget(fit.experiment.system, record.digitiser, f)
    unit = shot_units(analysis.calibration, fit)
    name = "shot noise" if analysis.calibration.floor_known else "fitted floor"
    scale = fit.scale if analysis.calibration.floor_known else 1.0
    draw_spectrum(ax, budget, analysis.measured.scaled(1 / unit, name), scale, name)
    return fig


def trajectory_figure(analysis: Analysis) -> Any:
    """Conditional trajectory in the rotating frame: the EPR pair, or each mode alone."""
    track = analysis.track
    e = (analysis.quantum or {}).get("epr_variance")
    count = min(len(track.mean), max(100, int(10 * track.memory_s / track.time_step_s)))
    start = min(len(track.mean) - count, int(20 * track.memory_s / track.time_step_s))
    part = slice(start, start + count)
    times = track.times_s[part]
    if e is None:
        fig, ax = _figure(5.2, 4.6)
        name = track.modes[0]
        lines = trajectory(
            ax, times, track.mean[part, 0], track.mean[part, 1], track.covariance[:2, :2], (f"X {name}", f"P {name}")
        )
    else:
        fig, ax = _figure(5.6, 4.6)
        x, p = epr_trajectory(analysis)
        half = e["value"] / 2 * np.eye(2)
        lines = trajectory(ax, times, x[part], p[part], half, ("X EPR (rotating)", "P EPR (rotating)"))
        ax.set_title(
            f"conditional trajectory, {1e3 * (times[-1] - times[0]):.2g} ms; dashed: separable limit", fontsize=9
        )
    fig.colorbar(lines, ax=ax, label="time (ms)")
    return fig


def covariance_figure(analysis: Analysis) -> Any:
    """Unconditional and conditional covariance matrices, second mode turned by the EPR angle (Thomas 2021, Fig. 9)."""
    q = analysis.quantum or {}
    track = analysis.track
    from backaction.states.gaussian import GaussianState

    states = [("unconditional", np.array(q["unconditional"]["covariance"])), ("conditional", track.covariance)]
    angle = q.get("epr_variance", {}).get("angle_deg", 0.0)
    labels = [f"{a}{'′' if k and angle else ''}\n{m[:9]}" for k, m in enumerate(track.modes) for a in ("X", "P")]
    fig, axes = _figure(9.0, 4.4, 2)
    limit = float(np.max(np.abs(states[0][1])))
    image = None
    for ax, (title, V) in zip(axes, states, strict=True):
        turned = GaussianState(V, track.modes)
        if len(track.modes) == 2:
            turned = turned.rotated(**{track.modes[1]: -angle})
        image = covariance(ax, turned.covariance, labels, title, limit)
    fig.colorbar(image, ax=axes, shrink=0.85, label="covariance (vacuum 1/2)")
    return fig


def innovations_figure(analysis: Analysis) -> Any:
    """Measured over model spectrum, and the innovations' density over its prediction."""
    fig, axes = _figure(8.0, 5.6, 1, 2)
    measured = analysis.measured
    quotient = replace(measured, density=measured.density / analysis.fit.model, unit="1")
    lines = [x.frequency_hz for x in analysis.lines]
    ratio(axes[0], [("spectrum / model", quotient)], lines)
    axes[0].set_xlabel("")
    ratio(axes[1], [("innovations / prediction", analysis.innovations)], lines)
    return fig


def share_of(share: float) -> str:
    """A share of false alarms in words."""
    return f"{100 * share:.2g} %" if share else "–"


def _second(e: dict[str, Any]) -> list[tuple[str, str]]:
    """The same at the pair of the posterior's mean, which this record chose."""
    where = f"a = {e['weight']:.4f}, b = {e['angle_deg']:.2f}°"
    return [("EPR variance at the pair that this record prefers", f"{e['value']:.4f} ± {e['sd']:.4f} ({where})")]


def _separable(found: dict[str, Any]) -> list[tuple[str, str]]:
    """How far the nearest separable model is, and by how many sd each calibration would have to be wrong there."""
    title = f"nearest separable model ({found['kind']})"
    if found["status"] != "nearest":
        return [(title, found["status"])]
    moved = sorted(found["calibrations_sd"].items(), key=lambda item: -abs(item[1]))[:5]
    parts = ", ".join(f"{n} {z:+.1f}" for n, z in moved)
    return [(title, f"{found['distance_sd']:.1f} sd away"), ("calibrations there, in prior sd", parts)]


def _technical(quantum: dict[str, Any]) -> list[tuple[str, str]]:
    """What technical noise costs, where there is any."""
    costs = quantum["technical_cost"]
    if not costs:
        return []
    parts = ", ".join(f"{c['source']} {c['epr_variance'] - c['without']:+.4f}" for c in costs[:6])
    return [("EPR variance that technical noise costs", parts)]


def _figure(width: float, height: float, columns: int = 1, rows: int = 1) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(rows, columns)
    return fig, axes


CAPTIONS = {
    "spectrum": "Measured spectrum (points) over the fitted model, stacked by source.",
    "trajectory": "Conditional trajectory with the one-sigma ellipse of the conditional state at its end.",
    "covariance": "Covariance matrices of the reported modes.",
    "innovations": "What the model leaves: 1 everywhere if it is right.",
    "posterior": "Posterior of the main result and the parameters that it is most correlated with.",
}


def _page(analysis: Analysis, document: dict[str, Any], images: dict[str, str]) -> str:
    kind = {True: "yes", False: "no", None: "plain" if analysis.passed else "withheld"}[analysis.entangled]
    checks = [
        [
            Cell(t.name), Cell("passed", "good") if t.passed else Cell("FAILED", "bad"), *numbers(share_of(t.share)),
            Cell(t.sentence),
        ]
        for t in analysis.tests
    ]  # fmt: skip
    head = [Cell("check"), Cell(""), *numbers("right models it may refuse"), Cell("what was found")]
    budget = f"The levels of all checks sum to {share_of(sum(t.share for t in analysis.tests))} of right models."
    pictures = [Picture(data, CAPTIONS[name], CAPTIONS[name]) for name, data in images.items()]
    sections = [
        *_limits(analysis), Section("Does the model fit the record?", head, checks, [budget]), _numbers(analysis),
        Section("Figures", figures=pictures), _parameters(analysis),
    ]  # fmt: skip
    name = analysis.experiment.name
    heading = f"{name}: {Path(analysis.record.name).name}"
    return page(name, heading, analysis.verdict, kind, sections, analysis.warnings, _provenance(analysis, document))


ONE_MODE = {
    "conditional.occupation": "conditional occupation (quanta)",
    "conditional.thermal_occupation": "of it thermal, sqrt(det V) - 1/2",
    "unconditional.occupation": "unconditional occupation",
    "conditional.purity": "conditional purity",
    "conditional.squeezing_db": "conditional squeezing (dB below vacuum)",
    "rates.back_action": "back-action (quanta/s)",
    "rates.thermal": "thermal decoherence (quanta/s)",
    "rates.decoherence": "decoherence, all (quanta/s)",
    "rates.measurement": "measurement (quanta/s)",
    "rates.eta_total": "total efficiency, measurement/decoherence",
    "rates.cooperativity": "cooperativity, back-action/thermal (Huang's is twice that)",
}
"""What is quoted of each mode alone, in the order of the table."""


def mode_rows(
    derived: Mapping[str, Mapping[str, float]], modes: Sequence[str], tail: str = ""
) -> list[tuple[str, str]]:
    """Mean, sd and 5-95 % of everything that a posterior says of each mode alone; `tail` is `[record]` of several."""
    rows = []
    for mode in modes:
        for name, text in ONE_MODE.items():
            s = derived.get(f"{name}.{mode}{tail}")
            if s is not None and np.isfinite(s["mean"]):
                rows.append(
                    (f"{mode}: {text}", f"{shown(s['mean'], s['sd'])} (5–95 %: {s['q05']:.4g} – {s['q95']:.4g})")
                )
    return rows


def _one_mode(analysis: Analysis, quantum: dict[str, Any]) -> list[tuple[str, str]]:
    """Each mode alone: the filter of this record, then the posterior of a continuous one."""
    rows = []
    for mode, m in quantum["conditional_sampled"]["by_mode"].items():
        text = f"{m['occupation']:.4g} quanta (thermal {m['thermal_occupation']:.4g}), purity {m['purity']:.4g}"
        squeezed = f"squeezing {m['squeezing_db']:+.3g} dB at {m['squeezed_angle_deg']:.3g}°"
        rows.append((f"{mode}: this record's filter", f"{text}, {squeezed}"))
    derived = {} if analysis.posterior is None else analysis.posterior.derived_summary
    return rows + mode_rows(derived, tuple(quantum["conditional_sampled"]["by_mode"]))


def _limits(analysis: Analysis) -> list[Section]:
    """The first block: what limits the state and what to change; none without a quantum scale."""
    found = analysis.posterior
    if analysis.quantum is None or found is None:
        return []
    return [limits_section(analysis.fit.experiment, found.fields(0), [asdict(g) for g in advice(found)])]


def _numbers(analysis: Analysis) -> Section:
    rows: list[tuple[str, str]] = []
    q = analysis.quantum
    if q is not None and "epr_variance" not in q:
        rows += _one_mode(analysis, q)
    if q is not None and "epr_variance" in q:
        e, u = q["epr_variance"], q["unconditional"]
        rows += [
            ("EPR variance, this record's filter",
             f"{e['value']:.4f} ± {e['sd']:.4f} (5–95 %: {e['q05']:.4f} – {e['q95']:.4f})"),
            ("same, continuous record", f"{e['continuous_limit']:.4f}"),
            ("total efficiency of the measurement of " + ", ".join(q["rates"]),
             ", ".join(f"{r['eta_total']:.3f}" for r in q["rates"].values())),
            ("at weight a, angle b", f"{e['weight']:.4f}, {e['angle_deg']:.2f}° ({e['chosen_by']})"),
            ("P(V ≥ 1) given the model", f"{e['probability_above_1']:.2g}"),
            *_second(q["epr_posterior"]),
            *_separable(q["separable"]),
            *_technical(q),
            ("EPR variance that the measured floor allows",
             f"{q['measured_floor']['epr_variance']:.4f} (floor excess {q['measured_floor']['excess_sn']:+.4f} ± "
             f"{q['measured_floor']['excess_sd_sn']:.4f} SN)"),
            ("unconditional EPR variance at the same a, b", f"{u['epr_at_conditional']['variance']:.4f}"),
            ("smallest PPT eigenvalue (entangled below 1/2)", f"{q['ppt']['value']:.4f} ± {q['ppt']['sd']:.4f}"),
            ("log-negativity (ebit)", f"{q['conditional_sampled']['log_negativity']:.4f}"),
        ]  # fmt: skip
    if q is not None and (sampling := sampling_sentence(q["sampling_loss"])):
        rows.append(("continuous and sampled filter", sampling))
    if "after" in analysis.in_band:
        b = analysis.in_band
        rows.append(
            (
                f"density at {b['low_hz'] / 1e3:.4g}–{b['high_hz'] / 1e3:.4g} kHz over the neighbouring floor",
                f"{b['before']:.3g} in the record, {b['after']:.3g} in the innovations",
            )
        )
    fit = analysis.fit
    rows.append(("power in the band, measured over model", f"{fit.band_ratio:.4f} (p = {fit.p:.2g})"))
    return Section("Numbers", rows=[[Cell(a), *numbers(b)] for a, b in rows])


def _parameters(analysis: Analysis) -> Section:
    fit = analysis.fit
    drawn = {} if analysis.posterior is None else analysis.posterior.summary
    rows = []
    for n, v, s in zip(fit.names, fit.values, fit.sd, strict=True):
        prior = fit.priors.get(n)
        if prior is None:
            before = ""
        elif prior.median is not None:
            before = f"{prior.median:g} ×/ {prior.factor:g}"
        elif prior.mean is None:
            before = f"{prior.lower:g} … {prior.upper:g}"
        else:
            before = shown(prior.mean, prior.sd or 0.0)
        pull = f"{fit.pull(n):+.2f}" if prior is not None and prior.sd is not None else "–"
        after = drawn.get(n)
        more = "" if after is None else shown(after["mean"], after["sd"])
        rows.append([Cell(n), *numbers(before, shown(v, s), pull, more)])
    head = [Cell("parameter"), *numbers("prior", "maximum ± sd", "pull", "posterior mean ± sd")]
    R = fit.correlation - np.eye(len(fit.names))
    pairs = sorted(((abs(R[i, j]), i, j) for i in range(len(R)) for j in range(i)), reverse=True)[:6]
    strong = ", ".join(f"{fit.names[i]} – {fit.names[j]}: {R[i, j]:+.2f}" for size, i, j in pairs if size > 0.3)
    told = [] if analysis.posterior is None else analysis.posterior.facts["identifiability"]
    notes = [f"Strongest correlations: {strong}."] if strong else []
    return Section("Parameters", head, rows, [*notes, *(f"{t[0].upper() + t[1:]}." for t in told)])


def _provenance(analysis: Analysis, document: dict[str, Any]) -> list[str]:
    r, c = analysis.record, analysis.calibration
    shown = {k: v for k, v in document["record"]["metadata"].items() if len(v) < 80}
    meta = "; ".join(f"{k}: {v}" for k, v in shown.items()) + ("." if shown else "")
    calibration = (
        f"1 SN = {c.density:.4g} {c.unit}²/Hz ± {100 * c.relative_sd:.2f} %" if c.floor_known else "no shot reference"
    )
    return [
        f"{r.name}: {r.size} samples at {r.sample_rate_hz:g} Hz, {r.sampling} sampling. {calibration}. {meta}",
        f"backaction {__version__}; parameters, seed and every number are in result.json, the fitted experiment in "
        "fitted.toml, the trajectory in track.h5.",
    ]
