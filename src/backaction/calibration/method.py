"""What every calibration shares: its settings, the table it reads, its result, and how that becomes priors of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Fit, Gaussian, Relative, Values
from backaction.elements.fields import Part, quantity
from backaction.errors import InputError
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table, to_spectrum


@dataclass(frozen=True)
class Quantity:
    """A number that a calibration found.

    Where its law is not normal: `interval` holds 95 % of it, and `factor` is that of the log-normal prior about `value` that
    follows (inf: the data set no upper bound, no prior follows).
    """

    value: float
    sd: float
    unit: str = "1"
    meaning: str = ""
    interval: tuple[float, float] | None = None
    factor: float | None = None

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        out: dict[str, Any] = {"value": self.value, "sd": self.sd, "unit": self.unit, "meaning": self.meaning}
        return out if self.interval is None else out | {"interval": list(self.interval), "factor": self.factor}

    def prior(self) -> dict[str, Any]:
        """The prior that follows, as a calibration file holds it: mean and sd, and of a log-normal one median and factor."""
        out: dict[str, Any] = {"mean": self.value, "sd": self.sd, "unit": self.unit}
        return out if self.factor is None else out | {"median": self.value, "factor": self.factor}


@dataclass(frozen=True, eq=False)
class Panel:
    """One curve for the report: measured values with their errors, and the model."""

    title: str
    x: Array
    y: Array
    model: Array
    sd: Any = None
    x_label: str = ""
    y_label: str = ""
    log: bool = False
    log_x: bool = False


@dataclass(frozen=True, eq=False)
class Result:
    """What a calibration says: quantities with their covariance, the fit's statistics, priors by field, warnings.

    `priors` maps fields of an experiment (`element.field`) to names of quantities. `covariance` is that of all
    `quantities` in order. `deviance` is not rescaled into the errors; `p` says whether the model describes the data.
    """

    method: str
    name: str
    quantities: Mapping[str, Quantity]
    covariance: Array
    priors: Mapping[str, str] = field(default_factory=dict)
    deviance: float | None = None
    dof: int | None = None
    p: float | None = None
    condition: float | None = None
    at_bound: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()

    def __getitem__(self, name: str) -> Quantity:
        return self.quantities[name]

    def correlation(self, a: str, b: str) -> float:
        """Correlation coefficient of two quantities."""
        names = list(self.quantities)
        i, j = names.index(a), names.index(b)
        product = self.quantities[a].sd * self.quantities[b].sd
        return float(self.covariance[i, j] / product) if product > 0 else 0.0

    def extended(
        self,
        functions: Mapping[str, tuple[Callable[[Values], float], str, str]],
        inputs: Mapping[str, tuple[float, float]] | None = None,
        priors: Mapping[str, str] | None = None,
    ) -> Result:
        """With quantities more: functions of those that are here and of independent `inputs` {name: (value, sd)}.

        `functions` holds {name: (function of all values by name, unit, meaning)}; errors to first order, so that what
        shares an input is correlated through it.
        """
        inputs = dict(inputs or {})
        at = {k: q.value for k, q in self.quantities.items()} | {k: v for k, (v, _) in inputs.items()}
        size, extra = len(self.quantities), len(inputs)
        V = np.zeros((size + extra, size + extra))
        V[:size, :size] = self.covariance
        V[range(size, size + extra), range(size, size + extra)] = [sd**2 for _, sd in inputs.values()]
        slopes = np.zeros((len(functions), size + extra))
        for j, name in enumerate(at):
            h = 1e-3 * float(np.sqrt(V[j, j]))
            if h > 0:
                up, down = (at | {name: at[name] + s * h} for s in (1, -1))
                slopes[:, j] = [(f(up) - f(down)) / (2 * h) for f, _, _ in functions.values()]
        rows = np.vstack([np.eye(size, size + extra), slopes])
        covariance = rows @ V @ rows.T
        sds = np.sqrt(np.diag(covariance))[size:]
        new = {
            k: Quantity(float(f(at)), float(sd), unit, meaning)
            for (k, (f, unit, meaning)), sd in zip(functions.items(), sds, strict=True)
        }
        return replace(
            self, quantities={**self.quantities, **new}, covariance=covariance, priors={**self.priors, **(priors or {})}
        )

    def renamed(self, method: str, name: str, priors: Mapping[str, str], warnings: Sequence[str]) -> Result:
        """The result of a method that used another one."""
        return replace(self, method=method, name=name, priors=dict(priors), warnings=(*self.warnings, *warnings))

    def warned(self, text: str) -> Result:
        """With one warning more."""
        return replace(self, warnings=(*self.warnings, text))

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = list(self.quantities)
        strong = {
            f"{a} ~ {b}": self.correlation(a, b)
            for i, a in enumerate(names)
            for b in names[i + 1 :]
            if abs(self.correlation(a, b)) > 0.5
        }
        return {
            "name": self.name,
            "method": self.method,
            "quantities": {k: q.document() for k, q in self.quantities.items()},
            "covariance": {"names": names, "matrix": self.covariance},
            "priors": dict(self.priors),
            "deviance": self.deviance,
            "dof": self.dof,
            "p": self.p,
            "condition": self.condition,
            "at_bound": list(self.at_bound),
            "correlations": strong,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Method(Part, ABC):
    """A calibration: settings as fields (units allowed, as in experiments), data from tables, a `Result`."""

    kind: ClassVar[str] = ""
    reads: ClassVar[str] = ""
    stage: ClassVar[int] = 0
    """Place in the order in which calibrations depend on one another (`calibration.collection`)."""
    files: ClassVar[tuple[int, int]] = (1, 1)
    """Fewest and most data files."""

    @abstractmethod
    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Fit the data and say what they determine; raises InputError for bad data, ModelError where there is no answer."""

    def report(
        self,
        found: Fit,
        derived: Mapping[str, tuple[Any, str, str]],
        priors: Mapping[str, str],
        panels: Sequence[Panel] = (),
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
        meanings: Mapping[str, str] | None = None,
    ) -> Result:
        """A result of a fit: its unknowns, then `derived` ones, {name: (function of the unknowns, unit, meaning)}."""
        words = dict(meanings or {})
        functions: dict[str, Any] = {n: (lambda v, n=n: v[n]) for n in found.names}
        units = {u.name: (u.unit, words.get(u.name, "")) for u in found.unknowns}
        for name, (function, unit, meaning) in derived.items():
            functions[name] = function
            units[name] = (unit, meaning)
        at, covariance = found.derived(functions)
        sds = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        quantities = {n: Quantity(float(v), float(s), *units[n]) for n, v, s in zip(functions, at, sds, strict=True)}
        notices = [*warnings, *found.conflicts]
        if found.at_bound:
            notices.append(
                f"at a bound: {', '.join(found.at_bound)}; the other errors are conditional on that and too small"
            )
        if not found.tested:
            notices.append(
                "errors are scaled by the scatter of the residuals: whether the model describes the data is not tested"
            )
        elif found.dof > 0 and found.p < 1e-3:
            notices.append(
                f"the model does not describe the data: chi2 {found.deviance:.4g} for {found.dof} degrees of "
                f"freedom, p = {found.p:.2g}"
            )
        return Result(
            self.kind,
            self.name,
            quantities,
            covariance,
            dict(priors),
            found.deviance,
            found.dof,
            found.p if found.dof > 0 and found.tested else None,
            found.condition,
            found.at_bound,
            tuple(notices),
            tuple(notes),
            tuple(panels),
        )

    def direct(
        self,
        functions: Mapping[str, tuple[Any, str, str]],
        inputs: Mapping[str, tuple[float, float]],
        priors: Mapping[str, str],
        warnings: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Result:
        """A result computed from independent inputs {name: (value, sd)}, with first-order errors."""
        empty = Result(self.kind, self.name, {}, np.zeros((0, 0)), {}, warnings=tuple(warnings), notes=tuple(notes))
        return empty.extended(functions, inputs, priors)


@dataclass(frozen=True, kw_only=True)
class Scatter(Part):
    """How Gaussian data scatter: an absolute or a relative standard deviation, or that of the residuals themselves."""

    axis_unit: str = field(default="", metadata={"doc": "unit of the first column, where its header does not say it"})
    noise: Any = quantity(
        "1", None, above=0.0, doc="standard deviation of the values (of each quadrature), in their own unit"
    )
    relative_noise: Any = quantity("1", None, above=0.0, doc="the same, relative to each value's model")
    noise_column: Any = quantity(
        "1", None, minimum=1.0, doc="column (from 0) that holds the standard deviation of each value"
    )
    noise_from: str = field(default="", metadata={"doc": "residuals: take the scatter from the fit's own residuals"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_from not in ("", "residuals"):
            raise InputError(f"{self.name}.noise_from = {self.noise_from!r}: must be residuals, or left out")
        if sum(v not in (None, "") for v in (self.noise, self.relative_noise, self.noise_column, self.noise_from)) > 1:
            raise InputError(f"{self.name}: give only one of noise, relative_noise, noise_column, noise_from")

    def block(self, y: Array, table: Table, rows: Any = slice(None)) -> Any:
        """The data (`rows` of the table) as a block of the fit."""
        if self.noise_column is not None:
            sd = table.column(int(self.noise_column))[rows]
            if not np.all(sd > 0):
                raise InputError(
                    f"{table.name}: column {int(self.noise_column)} holds standard deviations that are not > 0"
                )
            return Gaussian(y, sd)
        if self.relative_noise is not None:
            return Relative(y, float(self.relative_noise))
        if self.noise is not None:
            return Gaussian(y, float(self.noise))
        if self.noise_from:
            parts = [y.real, y.imag] if np.iscomplexobj(y) else [np.asarray(y, dtype=float)]
            if y.size < 8:
                raise InputError(
                    f"{self.name}: {y.size} values: too few to take their scatter from the residuals; say noise"
                )
            bend = np.concatenate([np.diff(p, 2) for p in parts])  # a smooth signal hardly shows in second differences
            return Gaussian(y, float(np.sqrt(np.mean(bend**2) / 6) or 1e-300))
        raise InputError(
            f"{self.name}: does not say how the data scatter: --set noise=... (sd in the data's unit), relative_noise=..., "
            "noise_column=... or noise_from=residuals"
        )

    def rescaled(self, found: Fit) -> Fit:
        """With `noise_from = residuals`: the covariance times chi2/dof (asked for, never silently)."""
        if not self.noise_from:
            return found
        factor = found.deviance / max(1, found.dof)
        return replace(found, covariance=found.covariance * factor, tested=False)


def densities(table: Table, columns: Sequence[int], given: Mapping[str, Any], axis_unit: str) -> list[Spectrum]:
    """Columns of a table as spectra in shot-noise units (linear)."""
    out = [to_spectrum(table, c, given, axis_unit) for c in columns]
    for s in out:
        if s.unit != "SN":
            raise InputError(
                f"{table.name}: unit {s.unit}: this method needs shot-noise units: divide by the (shot - dark) "
                "level (unit=SN)"
            )
    return out


def within(frequency: Array, bands: Sequence[float]) -> Array:
    """Where a frequency is in none of the bands (low, high, low, high, ...)."""
    keep = np.ones(frequency.size, dtype=bool)
    if len(bands) % 2:
        raise InputError(f"mask_hz = {list(bands)}: pairs of low, high")
    for low, high in zip(bands[::2], bands[1::2], strict=True):
        keep &= ~((frequency >= low) & (frequency <= high))
    return keep
