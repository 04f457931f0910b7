"""A calibration set: files and methods in one TOML, run in the order in which they depend on one another.

name = "day 3"
experiment = "hybrid.toml"            # beside this file or shipped: the priors must be its fields (default: not checked)
[[calibration]]
name = "squeezing"                    # any word; default the method's
method = "squeezing"
files = ["squeezing.csv"]             # relative to this file
given = { unit = "SN", averages = 600, reference = "shot noise" }     # what the files do not say
uses = { cavity_linewidth_hz = "cavity.cavity_linewidth_hz" }         # a setting from an earlier calibration's quantity
priors = { "membrane.coupling_hz" = "coupling_1_hz" }                 # instead of the method's own choice
... settings of the method
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from backaction.calibration.method import Method, Quantity, Result
from backaction.errors import InputError, nearest
from backaction.experiment.experiment import Experiment
from backaction.experiment.toml import unit_bounds
from backaction.files import provenance
from backaction.numerics.matrices import Array
from backaction.records.formats import READERS, read_record
from backaction.records.spectrum import averaged_spectrum
from backaction.records.tables import GIVEN, Table, read_table
from backaction.workers import Progress

SCHEMA = "backaction/calibration/1"
STAGES = ("optics", "detector", "cavity", "mechanics", "coupling, power and thermometry", "spin")
_RECORD = ("sample_rate_hz", "sampling", "unit", "scale")


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """The results of a set and the priors that follow: fields of an experiment with means, errors and covariance."""

    name: str
    results: tuple[Result, ...]
    priors: Mapping[str, Quantity]
    covariance: Array
    warnings: tuple[str, ...] = ()
    experiment: str | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """JSON of schema `backaction/calibration/1`: what `fit` and `analyze` read, with the results that it comes from."""
        names = list(self.priors)
        return {
            "schema": SCHEMA,
            "name": self.name,
            "experiment": self.experiment,
            "parameters": {k: q.prior() for k, q in self.priors.items()},
            "covariance": {"names": names, "matrix": self.covariance},
            "results": [r.document() for r in self.results],
            "warnings": list(self.warnings),
            "provenance": provenance(sources=dict(self.sources)),
        }

    @property
    def passed(self) -> bool:
        """Whether every model describes its data (p > 0.001)."""
        return all(r.p is None or r.p > 1e-3 for r in self.results)


def read_data(method: Method, path: str | Path, given: Mapping[str, Any]) -> Table:
    """One data file of a method: a table, or the spectrum of a record where the method has a `resolution_hz`."""
    suffix = Path(str(path)).suffix.lower()
    width = getattr(method, "resolution_hz", None)
    records = {k for k in READERS if k not in (".h5", ".hdf5", ".npz")}
    if suffix not in records and width is None:
        return read_table(path)
    if not hasattr(method, "resolution_hz"):
        raise InputError(f"{path}: {method.kind} reads tables, not records")
    if width is None:
        raise InputError(f"{path}: is a record: --set resolution_hz=... says the spectrum to make of it")
    record = read_record(path, **{k: v for k, v in given.items() if k in _RECORD})
    s = averaged_spectrum(record, float(width))
    said = {
        "unit": "V^2/Hz",
        "sided": "two",
        "averages": float(s.averages),
        "window": "rectangular",
        "reference": record.unit,
        "of_record": True,
    }
    return Table(str(path), ("frequency_Hz", "density"), np.column_stack([s.frequency_hz, s.density]), said)


def run_one(method: Method, files: Sequence[str | Path], given: Mapping[str, Any] | None = None) -> Result:
    """Read a method's files and run it.

    Raises
    ------
    InputError
        Naming file, setting, value and what is allowed.
    ModelError
        Where the data have no such answer.
    """
    given = dict(given or {})
    for key in given:
        if key not in GIVEN:
            raise InputError(f"{method.kind}: given {key}: unknown{nearest(key, GIVEN)}")
    low, high = method.files
    if not low <= len(files) <= high:
        wanted = f"{low}" if low == high else f"{low} to {high}"
        raise InputError(f"{method.kind}: {len(files)} data files, needs {wanted} ({method.reads})")
    tables = [read_data(method, f, given).rising() for f in files]
    if any(t.attributes.get("of_record") for t in tables):  # unit, rate and so on were the record's
        given = {k: v for k, v in given.items() if k not in _RECORD}
    return method.run(tables, given)


_Block = tuple[list[str], Array, Array]
"""Fields of one result with their means and covariance."""


def combine(name: str, results: Sequence[Result], experiment: Experiment | None = None) -> CalibrationSet:
    """C = (sum_i V_i^-1)^-1, x = C sum_i V_i^-1 x_i: priors of all results, a field that two know as the weighted mean.

    Results are independent of one another; two that disagree on a field by more than 3 sd are refused. Fields that the
    experiment does not have, or does not set, are left out with a note.
    """
    warnings: list[str] = []
    blocks: list[_Block] = []
    units: dict[str, Quantity] = {}
    for r in results:
        warnings += [f"{r.name}: {w}" for w in r.warnings]
        order = list(r.quantities)
        fields = _prior_fields(r, experiment, warnings)
        index = [order.index(v) for v in fields.values()]
        mean = np.array([r[v].value for v in fields.values()])
        blocks.append((list(fields), mean, r.covariance[np.ix_(index, index)]))
        units |= {k: r[v] for k, v in fields.items()}
    names = list(dict.fromkeys(n for b in blocks for n in b[0]))
    model = experiment.name if experiment else None
    if not names:
        return CalibrationSet(name, tuple(results), {}, np.zeros((0, 0)), tuple(warnings), model)
    means, covariance = _weighted_mean(names, blocks)
    for k, n in enumerate(names):
        warnings += _agreement(name, n, float(means[k]), blocks)
    priors = {
        n: replace(units[n], value=float(means[k]), sd=float(np.sqrt(covariance[k, k]))) for k, n in enumerate(names)
    }
    for n in [n for n in names if sum(n in b[0] for b in blocks) > 1]:  # a mean of several is taken for normal
        priors[n] = replace(priors[n], interval=None, factor=None)
    return CalibrationSet(name, tuple(results), priors, covariance, tuple(warnings), model)


def _prior_fields(r: Result, experiment: Experiment | None, warnings: list[str]) -> dict[str, str]:
    """{field: quantity} of a result that can be priors; `warnings` gets a line for each that cannot."""
    fields = {}
    for path, key in r.priors.items():
        if experiment is not None and not _settable(experiment, path):
            warnings.append(f"{r.name}: {path} is not set in '{experiment.name}': not a prior")
            continue
        fields[path] = key
    if r.p is not None and r.p < 1e-3 and fields:
        warnings.append(f"{r.name}: its model does not describe its data: its priors are left out")
        fields = {}
    fixed = [k for k, v in fields.items() if not r[v].sd > 0]
    for path in fixed:
        warnings.append(f"{r.name}: {path} has no error: no prior")
        del fields[path]
    for path in [k for k, v in fields.items() if r[v].factor == np.inf]:
        warnings.append(f"{r.name}: {path} has no upper bound: no prior")
        del fields[path]
    fields = _independent(r, fields)
    for path in [k for k, v in fields.items() if experiment is not None and not _possible(experiment, k, r[v])]:
        warnings.append(f"{r.name}: {path} = {r[fields[path]].value:.4g} {r[fields[path]].unit} cannot be: no prior")
        del fields[path]
    return fields


def _weighted_mean(names: Sequence[str], blocks: Sequence[_Block]) -> tuple[Array, Array]:
    """C = (sum_i V_i^-1)^-1, x = C sum_i V_i^-1 x_i: (x, C) over all `names`."""
    information, weighted = np.zeros((len(names), len(names))), np.zeros(len(names))
    for own, mean, V in blocks:
        if not own:
            continue
        index = [names.index(n) for n in own]
        scale = np.sqrt(np.diag(V))
        inverse = np.linalg.pinv(V / np.outer(scale, scale), rcond=1e-10, hermitian=True) / np.outer(scale, scale)
        information[np.ix_(index, index)] += inverse
        weighted[index] += inverse @ mean
    size = np.sqrt(np.diag(information))
    covariance = np.linalg.inv(information / np.outer(size, size)) / np.outer(size, size)
    return covariance @ weighted, covariance


def _agreement(name: str, path: str, mean: float, blocks: Sequence[_Block]) -> list[str]:
    """|x - y|/sqrt(v + w) of the pair of blocks that differ most on a field, as a warning; refused above 3."""
    known = [(m[f.index(path)], V[f.index(path), f.index(path)]) for f, m, V in blocks if path in f]
    pairs = [(abs(x - y) / np.sqrt(v + w), x, v, y, w) for i, (x, v) in enumerate(known) for y, w in known[i + 1 :]]
    if not pairs:
        return []
    apart, x, v, y, w = max(pairs)
    if apart > 3:
        raise InputError(
            f"{name}: two calibrations disagree on {path}: {x:.6g} +- {np.sqrt(v):.2g} and {y:.6g} +- {np.sqrt(w):.2g} "
            f"({apart:.1f} sd)"
        )
    return [f"{path}: {len(known)} calibrations combined ({apart:.1f} sd apart): {mean:.6g}"]


def _independent(r: Result, fields: Mapping[str, str]) -> dict[str, str]:
    """The fields whose quantities are not functions of those before them (a temperature and its occupation, say)."""
    order, kept = list(r.quantities), list[str]()
    out: dict[str, str] = {}
    for path, key in fields.items():
        index = [order.index(k) for k in [*kept, key]]
        V = r.covariance[np.ix_(index, index)]
        scale = np.sqrt(np.diag(V))
        if np.linalg.eigvalsh(V / np.outer(scale, scale))[0] > 1e-7:
            out[path] = key
            kept.append(key)
    return out


def _settable(experiment: Experiment, path: str) -> bool:
    try:
        value = experiment.value(path)
        unit_bounds(experiment, path)
    except InputError:
        return False
    return value is not None


def _possible(experiment: Experiment, path: str, q: Quantity) -> bool:
    """Whether a quantity has the field's unit and lies within its bounds."""
    unit, low, high = unit_bounds(experiment, path)
    return unit == q.unit and low <= q.value <= high


# -- the set ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    name: str
    method: type[Method]
    files: tuple[Path, ...]
    settings: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    priors: Mapping[str, str] | None = None


def run_set(path: str | Path, say: Progress | None = None) -> CalibrationSet:
    """Run a calibration set; see the module's text.

    Raises
    ------
    InputError
        One line naming file, calibration, key and what is allowed; also where a calibration uses one of a later stage
        (`STAGES`) or in a circle, or where two disagree by more than 3 sd.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    for key in table:
        if key not in ("name", "experiment", "description", "calibration"):
            raise InputError(
                f"{path}: unknown key '{key}'{nearest(key, ('name', 'experiment', 'description', 'calibration'))}"
            )
    experiment = None
    if "experiment" in table:
        wanted = str(table["experiment"])
        experiment = Experiment.load(path.parent / wanted if (path.parent / wanted).is_file() else wanted)
    items = table.get("calibration", [])
    if not isinstance(items, list) or not items or not all(isinstance(i, Mapping) for i in items):
        raise InputError(f"{path}: needs at least one [[calibration]]")
    entries = [_entry(item, path, k) for k, item in enumerate(items, 1)]
    names = [e.name for e in entries]
    for n in names:
        if names.count(n) > 1:
            raise InputError(f"{path}: two calibrations have the name '{n}'")
    done: dict[str, Result] = {}
    for e in _ordered(entries, path):
        if say is not None:
            say(e.name, None)
        method, lost = _built(e, done, path)
        result = run_one(method, e.files, e.given)
        result = replace(result, warnings=(*result.warnings, *lost))
        if e.priors is not None:
            for key, quantity in e.priors.items():
                if quantity not in result.quantities:
                    raise InputError(
                        f"{path}: {e.name}: priors: no quantity '{quantity}'{nearest(quantity, result.quantities)}"
                    )
                if experiment is not None and not _settable(experiment, key):
                    experiment.value(key)
                    raise InputError(f"{path}: {e.name}: priors: {key} is not set in '{experiment.name}'")
                if "." not in key:
                    raise InputError(f"{path}: {e.name}: priors: '{key}' is not of the form element.field")
            result = replace(result, priors=dict(e.priors))
        done[e.name] = result
    _joined(entries, done)
    out = combine(str(table.get("name", path.stem)), [done[n] for n in names], experiment)
    sources = {e.name: source_of(e.method, e.settings, e.files, e.given, e.uses) for e in entries}
    return replace(out, sources=sources)


def _joined(entries: Sequence[_Entry], done: dict[str, Result]) -> None:
    """A quantity that another calibration fits again, with its error as prior, is known best there, with its correlations.

    The prior of the field moves from the one to the other, so that it is not counted twice.
    """
    for e in entries:
        for setting, source in e.uses.items():
            name, _, quantity = str(source).partition(".")
            child = done[e.name]
            if _spread_key(e.method, setting) is None or setting not in child.quantities:
                continue
            for path in [k for k, v in done[name].priors.items() if v == quantity]:
                if path not in child.priors:
                    done[e.name] = child = replace(child, priors={**child.priors, path: setting})
                    rest = {k: v for k, v in done[name].priors.items() if k != path}
                    done[name] = replace(done[name], priors=rest)


def source_of(
    method: type[Method],
    settings: Mapping[str, Any],
    files: Sequence[str | Path],
    given: Mapping[str, Any],
    uses: Mapping[str, str],
) -> dict[str, Any]:
    """What a result was made of: files with their SHA-256, settings, what was said for the files."""
    digests = {}
    for f in files:
        own = Path(str(f)) if Path(str(f)).is_file() else Path(str(f).rpartition(":")[0])
        digests[own.name] = hashlib.sha256(own.read_bytes()).hexdigest() if own.is_file() else None
    return {
        "method": method.kind,
        "files": digests,
        "settings": dict(settings),
        "given": dict(given),
        "uses": dict(uses),
    }


def _entry(item: Mapping[str, Any], path: Path, index: int) -> _Entry:
    from backaction.calibration import METHODS

    where = f"{path}: [[calibration]] {index}"
    kind = item.get("method")
    if kind not in METHODS:
        raise InputError(f"{where}: method = {kind!r}: unknown{nearest(str(kind), METHODS)}")
    files = item.get("files", [])
    if not isinstance(files, list) or not all(isinstance(f, str) for f in files):
        raise InputError(f"{where}: files = {files!r}: expected a list of file names")
    tables = {}
    for key in ("given", "uses", "priors"):
        if key in item and not isinstance(item[key], Mapping):
            raise InputError(f"{where}: {key} = {item[key]!r}: expected a table")
        tables[key] = dict(item[key]) if key in item else None
    settings = {k: v for k, v in item.items() if k not in ("name", "method", "files", "given", "uses", "priors")}
    if "experiment" in settings and (path.parent / str(settings["experiment"])).is_file():
        settings["experiment"] = str(path.parent / str(settings["experiment"]))
    name = str(item.get("name", kind))
    return _Entry(
        name,
        METHODS[kind],
        tuple(p for f in files for p in _matching(path.parent, f, where)),
        settings,
        tables["given"] or {},
        tables["uses"] or {},
        tables["priors"],
    )


def _matching(folder: Path, name: str, where: str) -> list[Path]:
    if "*" not in name:
        return [folder / name]
    found = sorted(folder.glob(name))
    if not found:
        raise InputError(f"{where}: files: nothing matches '{name}'")
    return found


def _ordered(entries: Sequence[_Entry], path: Path) -> list[_Entry]:
    """By stage, and within one stage what is used first; a `uses` of a later stage or in a circle is refused."""
    by = {e.name: e for e in entries}
    for e in entries:
        for setting, source in e.uses.items():
            other = str(source).partition(".")[0]
            if other not in by:
                raise InputError(
                    f"{path}: {e.name}: uses {setting} = '{source}': no calibration '{other}'{nearest(other, by)}"
                )
            if by[other].method.stage > e.method.stage:
                raise InputError(
                    f"{path}: {e.name} ({STAGES[e.method.stage]}) uses {other} ({STAGES[by[other].method.stage]}), "
                    "which comes later: "
                    f"the order is {', '.join(STAGES)}"
                )
    order: list[_Entry] = []
    waiting = sorted(entries, key=lambda e: e.method.stage)
    while waiting:
        done = {e.name for e in order}
        ready = [e for e in waiting if all(str(s).partition(".")[0] in done for s in e.uses.values())]
        if not ready:
            raise InputError(f"{path}: {', '.join(e.name for e in waiting)}: use one another in a circle")
        order.append(ready[0])
        waiting.remove(ready[0])
    return order


def _built(e: _Entry, done: Mapping[str, Result], path: Path) -> tuple[Method, tuple[str, ...]]:
    settings, lost = dict(e.settings), list[str]()
    for setting, source in e.uses.items():
        name, _, quantity = str(source).partition(".")
        found = done[name].quantities
        p = done[name].p
        if p is not None and p < 1e-3:
            raise InputError(
                f"{path}: {e.name}: uses {setting}: the model of '{name}' does not describe its data (p = {p:.2g})"
            )
        if quantity not in found:
            raise InputError(
                f"{path}: {e.name}: uses {setting}: '{name}' has no quantity '{quantity}'{nearest(quantity, found)}"
            )
        if setting in settings:
            raise InputError(f"{path}: {e.name}: {setting} is given and used from '{source}': remove one")
        meta: Any = next((f.metadata for f in fields(e.method) if f.name == setting), {})
        if "unit" in meta and meta["unit"] != found[quantity].unit:
            raise InputError(
                f"{path}: {e.name}: uses {setting} ({meta['unit']}): '{source}' is in {found[quantity].unit}"
            )
        settings[setting] = found[quantity].value
        spread = _spread_key(e.method, setting)
        if spread is not None and spread not in settings:
            settings[spread] = found[quantity].sd
        elif spread is None and found[quantity].sd > 0:
            lost.append(
                f"{setting} is taken from '{source}' without its error ({found[quantity].sd:.2g}): the method has "
                "no setting for it"
            )
    return e.method.from_table(e.name, settings, str(path)), tuple(lost)


def _spread_key(method: type[Method], setting: str) -> str | None:
    """The setting that holds the error of another: `cavity_linewidth_sd_hz` of `cavity_linewidth_hz`."""
    known, words = method.keys(), setting.split("_")
    tries = ["_".join([*words[:k], "sd", *words[k:]]) for k in range(len(words), 0, -1)]
    return next((k for k in tries if k in known), None)
