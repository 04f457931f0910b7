"""A campaign: spectra of one or many records, what they share, what varies between them, and what is known before.

name = "..."
experiment = "hybrid.toml"               # a file beside this one, or a shipped name
band_hz = ["1.2 MHz", "1.6 MHz"]         # default: the experiment's
shot = "shot_noise.h5"                   # default of the records; so is dark
[[record]]
name = "hybrid"
file = "hybrid.h5"                       # or simulate = { seed = 1, duration = "0.2 s" }
set = { "spin.larmor_offset_hz" = "110 kHz" }     # values of this record; moves the prior where the field varies
mask_hz = [["1.358 MHz", "1.360 MHz"]]            # left out
[vary]
"spin.larmor_offset_hz" = "independent"           # a value of its own in every record, each with the prior
"phase.angle_deg" = { spread = "1 deg" }          # theta + spread z: the spread is fitted, half-normal of that size
[prior]                                           # added to the experiment's, or instead of them
[tie]
"membrane.third.bath_occupation" = "membrane.second.bath_occupation"
[derived]
cooperativity = "4 * membrane.coupling_hz**2 / ..."
[likelihood]
kind = "auto"                                     # or "gamma", "thomas2021", "innovations"
start = "free"                                    # of modes that a record does not resolve; or "fitted", "stationary"
model_error = { lower = 0.0, upper = 0.1 }        # relative, a number or a prior
calibrations = ["calibration.json"]               # priors with their covariance
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from backaction.errors import InputError, nearest
from backaction.experiment.assumptions import excess_priors
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.experiment.ties import Expression, expression, follow_ties
from backaction.experiment.toml import read_prior, unit_bounds
from backaction.inference.calibration_file import Correlated, read_calibrations
from backaction.inference.choice import compared
from backaction.inference.data import Measured, simulated
from backaction.inference.scatter import Likelihood
from backaction.numerics.matrices import Array
from backaction.records.formats import read_record
from backaction.records.record import Record
from backaction.records.shot_level import ShotNoise
from backaction.records.spectrum import Spectrum
from backaction.records.taken import taken
from backaction.systems.sampled import Digitiser
from backaction.units import number
from backaction.workers import Progress, quiet

MODEL_ERROR = "likelihood.model_error"
_KEYS = (
    "name", "experiment", "band_hz", "resolution_hz", "shot", "dark", "record", "vary", "prior", "tie", "derived",
    "likelihood", "description", "set",
)  # fmt: skip
_RECORD_KEYS = (
    "name",
    "file",
    "shot",
    "dark",
    "set",
    "mask_hz",
    "simulate",
    "rate",
    "sampling",
    "unit",
    "scale",
    "prior",
)


BINS_TO_A_POLE = 6
"""Merged bins are narrower than a sixth of the distance to the nearest pole, where the model's expansion converges fast."""


@dataclass(frozen=True, eq=False)
class Campaign:
    """Spectra and the model of their parameters; see the module's text. `inference.target.Target` builds the posterior."""

    name: str
    records: tuple[Measured, ...]
    priors: Mapping[str, Prior]
    vary: Mapping[str, float | None] = field(default_factory=dict)
    ties: Mapping[str, Expression] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    correlated: Correlated = ()
    likelihood: Likelihood = Likelihood()
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: str | Path, say: Progress | None = None) -> Campaign:
        """Read a campaign's TOML and its records (paths are relative to it), or a shipped one by name.

        Raises
        ------
        InputError
            One line naming file, key, value and what is allowed.
        """
        folder = resources.files("backaction") / "data" / "campaigns"
        if str(path) in shipped_campaigns():
            with resources.as_file(folder / f"{path}.toml") as own:
                return cls.load(own, say)
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file or shipped campaign{nearest(str(path), shipped_campaigns())}")
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not valid TOML: {error}") from None
        return _read(table, path, say or quiet)

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        measured: Spectrum,
        calibration: ShotNoise,
        digitiser: Digitiser,
        correlated: Correlated = (),
        record: Record | None = None,
    ) -> Campaign:
        """One spectrum with the experiment's own priors; `correlated` as `read_calibrations` gives them.

        With the `record` its samples are compared with the model where the experiment says so or that is chosen.
        """
        own = Measured(experiment.name, experiment, measured, calibration, digitiser, calibrated_by="own")
        likelihood = Likelihood(experiment.assumed.likelihood, start=experiment.assumed.start)
        if record is not None:
            own = compared(replace(own, duration_s=record.duration_s), record, experiment.priors, likelihood)
        return cls(
            experiment.name, (own,), experiment.priors, correlated=correlated, likelihood=likelihood, warnings=own.warnings
        )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.records:
            raise InputError(f"{self.name}: a campaign needs at least one [[record]]")
        names = [r.name for r in self.records]
        if len(set(names)) < len(names):
            raise InputError(f"{self.name}: two records have the name '{max(names, key=names.count)}'")
        self.likelihood.check(self.name)
        for f in self.vary:
            if f not in self.priors:
                raise InputError(f"{self.name}: [vary] '{f}' has no prior{nearest(f, self.priors)}")
        for f in self.ties:
            if f in self.priors:
                raise InputError(f"{self.name}: '{f}' is tied and has a prior: remove one")

    @property
    def likelihoods(self) -> dict[str, dict[str, str]]:
        """Of each record: the likelihood that it is compared with, and why."""
        spectral = "gamma" if self.likelihood.gamma else self.likelihood.kind
        return {r.name: {"kind": spectral if r.series is None else "innovations", "why": r.why} for r in self.records}

    def merged(self, models: Sequence[Array], poles_hz: Sequence[Array], tolerance: float = 0.1) -> Campaign:
        """The same with neighbouring bins merged where neither the model nor what it depends on changes within them.

        Bins stay narrower than a sixth of the distance |f - p| from every pole p (complex, f + i width/2) of the record's
        system and the model varies by less than `tolerance` in them; they never cross a masked gap.
        """
        records = []
        for r, m, poles in zip(self.records, models, poles_hz, strict=True):
            s = r.spectrum
            f, width = s.frequency_hz, float(np.min(s.resolution_hz))
            room = np.min(np.abs(f[:, None] - poles), axis=1, initial=np.inf) / BINS_TO_A_POLE
            starts, low, high, least = [0], m[0], m[0], room[0]
            gap = np.diff(f) > 1.5 * width
            for i in range(1, m.size):
                low, high, least = min(low, m[i]), max(high, m[i]), min(least, room[i])
                if high > (1 + tolerance) * low or (i + 1 - starts[-1]) * width > least or gap[i - 1]:
                    starts.append(i)
                    low = high = m[i]
                    least = room[i]
            inside = (poles.real > f[0]) & (poles.real < f[-1])
            line = 2 * float(np.min(poles.imag[inside])) if np.any(inside) else None
            records.append(replace(r, spectrum=s.merged(np.array(starts)), line_hz=line))
        return self.with_records(records)

    def coarse(self, most: int = 800) -> Campaign:
        """The same with at most about `most` bins per record, of equal width."""
        records = []
        for r in self.records:
            size = max(1, r.spectrum.density.size // most)
            gaps = np.flatnonzero(np.diff(r.spectrum.frequency_hz) > 1.5 * np.min(r.spectrum.resolution_hz)) + 1
            starts = np.union1d(np.arange(0, r.spectrum.density.size, size), gaps)
            records.append(replace(r, spectrum=r.spectrum.merged(starts)) if size > 1 else r)
        return self.with_records(records)

    def with_records(self, records: Sequence[Measured]) -> Campaign:
        """The same with other spectra."""
        return replace(self, records=tuple(records))


def shipped_campaigns() -> tuple[str, ...]:
    """Names of the campaigns that come with the package."""
    folder = resources.files("backaction") / "data" / "campaigns"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(table: Mapping[str, Any], path: Path, say: Progress) -> Campaign:
    """The whole file: experiment, priors, [vary], [tie], [likelihood], records and [derived], checked in this order."""
    where = str(path)
    _known(table, _KEYS, where)
    experiment = _experiment(table, path)
    options = _table(table, "likelihood", where)
    _known(options, ("kind", "start", "model_error", "calibrations"), f"{where}: [likelihood]")
    priors, correlated = _priors(table, options, experiment, path)
    vary = {k: _spread(experiment, k, v, where) for k, v in _table(table, "vary", where).items()}
    ties = _ties(table, experiment, correlated, where)
    for key in ties:
        priors.pop(key, None)
    likelihood = Likelihood(
        str(options.get("kind", experiment.assumed.likelihood)),
        _model_error(options, where),
        str(options.get("start", experiment.assumed.start)),
    )
    likelihood.check(where)
    items = table.get("record", [])
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise InputError(f"{where}: 'record' must be tables: write [[record]]")
    warnings: list[str] = []
    records = [
        _record(item, i, table, experiment, ties, priors, likelihood, path, say) for i, item in enumerate(items, 1)
    ]
    for record in records:
        warnings += [f"{record.name}: {w}" for w in record.warnings]
    return Campaign(
        str(table.get("name", path.stem)), tuple(records), priors, vary, ties, _derived(table, where), correlated,
        likelihood, tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def _experiment(table: Mapping[str, Any], path: Path) -> Experiment:
    """`experiment`, with the values of `[set]` and `band_hz`."""
    where = str(path)
    source = str(table.get("experiment", ""))
    if not source:
        raise InputError(f"{where}: missing 'experiment': a TOML file beside this one, or a shipped name")
    beside = path.parent / source
    try:
        experiment = Experiment.load(beside if beside.is_file() else source)
    except InputError as error:
        near = nearest(source, sorted(p.name for p in path.parent.glob("*.toml")))
        raise type(error)(f"{where}: experiment: {error}{near if 'no such file' in str(error) else ''}") from None
    experiment = experiment.overridden(_table(table, "set", where), f"{where}: [set]")
    if "band_hz" in table:
        low, high = _pair(table["band_hz"], f"{where}: band_hz")
        experiment = replace(experiment, band_hz=(low, high))
    if experiment.band_hz is None:
        raise InputError(f"{where}: missing band_hz (here or in the experiment's [analysis])")
    return experiment


def _priors(
    table: Mapping[str, Any], options: Mapping[str, Any], experiment: Experiment, path: Path
) -> tuple[dict[str, Prior], Correlated]:
    """The experiment's priors with those of `calibrations` in `[likelihood]` and of `[prior]`."""
    where = str(path)
    priors = dict(experiment.priors)
    files = options.get("calibrations", [])
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise InputError(f"{where}: [likelihood] calibrations = {files!r}: expected a list of file names")
    found, correlated = read_calibrations([path.parent / name for name in files], experiment)
    priors |= found
    if any("file" in item for item in table.get("record", []) if isinstance(item, Mapping)):
        priors = {**excess_priors(experiment), **priors}
    for key, item in _table(table, "prior", where).items():
        if key == MODEL_ERROR:
            raise InputError(f"{where}: [prior] '{key}': write model_error in [likelihood]")
        if any(key in known for known, _ in correlated):
            raise InputError(f"{where}: [prior] '{key}' is in a calibration file too: remove one")
        priors[key] = read_prior(experiment, key, item, where)
    return priors, correlated


def _ties(
    table: Mapping[str, Any], experiment: Experiment, correlated: Correlated, where: str
) -> dict[str, Expression]:
    """`[tie]`: fields that follow others, and have no prior in the file."""
    ties = {}
    for key, text in _table(table, "tie", where).items():
        here = f"{where}: [tie] '{key}'"
        try:
            experiment.value(key)
            ties[key] = expression(str(text))
            for name in ties[key].names:
                experiment.value(name)
        except InputError as error:
            raise type(error)(f"{here}: {error}") from None
        if key in table.get("prior", {}) or any(key in known for known, _ in correlated):
            raise InputError(f"{here}: is tied and has a prior: remove one")
    try:
        follow_ties(ties, experiment.value, {})
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None
    return ties


def _model_error(options: Mapping[str, Any], where: str) -> float | Prior:
    """`model_error` of `[likelihood]`: a number or a prior."""
    given = options.get("model_error", 0.0)
    if isinstance(given, Mapping):
        return _bare_prior(given, f"{where}: [likelihood] model_error")
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < 10:
        raise InputError(f"{where}: [likelihood] model_error = {given!r}: a number >= 0 or a prior")
    return float(given)


def _derived(table: Mapping[str, Any], where: str) -> dict[str, str]:
    """`[derived]`: names and expressions of further quantities."""
    derived = {k: str(v) for k, v in _table(table, "derived", where).items()}
    for key in derived:
        if key.split(".")[0] in ("conditional", "unconditional", "retrodicted", "bare") or any(c in key for c in "/[]"):
            raise InputError(f"{where}: [derived] '{key}': this name is taken or not a name (no / [ ])")
    return derived


def _record(
    item: Mapping[str, Any],
    index: int,
    table: Mapping[str, Any],
    experiment: Experiment,
    ties: Mapping[str, Expression],
    shared: Mapping[str, Prior],
    likelihood: Likelihood,
    path: Path,
    say: Progress,
) -> Measured:
    """One `[[record]]`, simulated or from its file, with `set`, `prior`, `mask_hz` and the file's `resolution_hz`."""
    where = f"{path}: [[record]] {index}"
    _known(item, _RECORD_KEYS, where)
    if not isinstance(item.get("name", ""), str) or any(c in item.get("name", "") for c in "/[]"):
        raise InputError(f"{where}: name = {item['name']!r}: words without / [ ]")
    own = _table(item, "set", where)
    chosen = experiment.overridden(own, f"{where}: set")
    if "simulate" in item and "file" in item:
        raise InputError(f"{where}: give file or simulate, not both")
    priors = {k: read_prior(chosen, k, v, where) for k, v in _table(item, "prior", where).items()}
    for k in priors:
        if k in ties:
            raise InputError(f"{where}: '{k}' is tied and has a prior: remove one")
    band = chosen.band_hz
    assert band is not None
    wanted = table.get("resolution_hz")
    width = None if wanted is None else number(wanted, "Hz", f"{path}: resolution_hz")
    if width is not None and not 0 < width <= (band[1] - band[0]) / 16:
        raise InputError(f"{path}: resolution_hz = {width:g} Hz: must be > 0 and at most a sixteenth of the band")
    raw = None
    if "simulate" in item:
        if likelihood.kind == "innovations":
            raise InputError(
                f"{where}: simulate draws bins; [likelihood] kind = 'innovations' needs samples: give file"
            )
        name = str(item.get("name", f"record{index}"))
        others = {k: v for k, v in ties.items() if k not in own}
        made = _simulated_record(item, name, chosen, others, band, width, where, say)
    elif "file" in item:
        made, raw = _measured_record(item, table, chosen, width, path, where, say)
    else:
        raise InputError(f"{where}: missing 'file' (or simulate = {{ seed = ..., duration = ... }})")
    made = replace(_masked(made, item, where), fixed=tuple(own), priors=priors)
    return made if raw is None else compared(made, raw, shared, likelihood)


def _simulated_record(
    item: Mapping[str, Any],
    name: str,
    chosen: Experiment,
    ties: Mapping[str, Expression],
    band: tuple[float, float],
    width: float | None,
    where: str,
    say: Progress,
) -> Measured:
    """`simulate` of a `[[record]]`: a spectrum drawn from the experiment's values, with the ties followed."""
    plan = _table(item, "simulate", where)
    _known(plan, ("seed", "duration"), f"{where}: simulate")
    length = number(plan.get("duration", 0.2), "s", f"{where}: simulate.duration")
    seed = plan.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"{where}: simulate.seed = {seed!r}: a whole number >= 0")
    least = 2 / (width or (band[1] - band[0]) / 16)
    if not length >= least:
        raise InputError(f"{where}: simulate.duration = {length:g} s: at least {least:.3g} s, two averages a bin")
    say(f"simulating {name}", None)
    tied = follow_ties(ties, chosen.value, {})
    chosen = chosen.with_values({k: float(v) for k, v in tied.items()}, where)
    return replace(simulated(name, chosen, band, length, seed, width), calibrated_by="simulated")


def _measured_record(
    item: Mapping[str, Any],
    table: Mapping[str, Any],
    chosen: Experiment,
    width: float | None,
    path: Path,
    where: str,
    say: Progress,
) -> tuple[Measured, Record]:
    """`file` of a `[[record]]`, with `shot` and `dark` of the record or of the whole file: its spectrum and calibration."""
    given = {{"rate": "sample_rate_hz"}.get(k, k): item[k] for k in ("rate", "sampling", "unit", "scale") if k in item}

    def read(key: str) -> Record | None:
        name = item.get(key, table.get(key) if key != "file" else None)
        if name is None:
            return None
        beside = path.parent / str(name)
        try:
            return read_record(beside, **given)
        except InputError as error:
            raise type(error)(f"{where}: {error}") from None

    record = read("file")
    assert record is not None
    name = str(item.get("name", record.name))
    say(f"spectrum of {name}", None)
    shot, dark = read("shot"), read("dark")
    found = taken(chosen, record, shot, dark, width)
    if not found.noise.floor_known:
        raise InputError(f"{where}: fit needs a shot-noise record (shot = ...): without it there is no quantum scale")
    return Measured(
        name, chosen, found.spectrum, found.noise, record.digitiser, duration_s=record.duration_s,
        calibrated_by=str(item.get("shot", table.get("shot", ""))), warnings=found.warnings,
    ), record  # fmt: skip


def _masked(record: Measured, item: Mapping[str, Any], where: str) -> Measured:
    f = record.spectrum.frequency_hz
    keep = np.ones(f.size, dtype=bool)
    pairs = item.get("mask_hz", [])
    if not isinstance(pairs, list):
        raise InputError(f"{where}: mask_hz = {pairs!r}: expected a list of [lowest, highest]")
    for pair in pairs:
        low, high = _pair(pair, f"{where}: mask_hz")
        keep &= (f < low) | (f > high)
    if np.sum(keep) < 10:
        what = "mask_hz leaves" if pairs else "resolution and band leave"
        raise InputError(f"{where}: {what} {np.sum(keep)} of {f.size} bins: at least 10")
    s = record.spectrum
    return replace(record, spectrum=replace(s, frequency_hz=f[keep], density=s.density[keep]))


def _spread(experiment: Experiment, path: str, item: Any, where: str) -> float | None:
    here = f"{where}: [vary] '{path}'"
    try:
        experiment.value(path)
    except InputError as error:
        raise type(error)(f"{here}: {error}") from None
    if item == "independent" or item == {}:
        return None
    if not isinstance(item, Mapping) or set(item) != {"spread"}:
        raise InputError(f'{here} = {item!r}: expected "independent" or {{ spread = ... }}')
    value = number(item["spread"], unit_bounds(experiment, path)[0], f"{here}.spread")
    if not value > 0:
        raise InputError(f"{here}.spread = {value:g}: must be > 0")
    return value


def _bare_prior(item: Mapping[str, Any], here: str) -> Prior:
    _known(item, ("lower", "upper", "median", "factor"), here)
    prior = Prior(**{k: number(v, "1", f"{here}.{k}") for k, v in item.items()})
    uniform = prior.lower is not None and prior.upper is not None and 0 <= prior.lower < prior.upper
    lognormal = prior.median is not None and prior.factor is not None and prior.median > 0 and prior.factor > 1
    if not (uniform or lognormal):
        raise InputError(f"{here}: give lower and upper, or median and factor")
    return prior


def _known(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{nearest(key, known)}")


def _table(table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    item = table.get(key, {})
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: '{key}' must be a table")
    return dict(item)


def _pair(item: Any, where: str) -> tuple[float, float]:
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        raise InputError(f"{where} = {item!r}: expected [lowest, highest]")
    low, high = (number(v, "Hz", where) for v in item)
    if not 0 <= low < high:
        raise InputError(f"{where} = [{low:g}, {high:g}]: needs 0 <= lowest < highest")
    return low, high
