"""Fit the fields of an experiment to spectra at several values of one of them: squeezing against the angle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from backaction.calibration.fitting import Averaged, Fit, Gaussian, Unknown, Values, fit
from backaction.calibration.linearity import lines
from backaction.calibration.method import Method, Panel, Quantity, Result, within
from backaction.elements.fields import flag, quantity, series
from backaction.elements.homodyne import Homodyne
from backaction.errors import InputError
from backaction.experiment.experiment import Experiment
from backaction.experiment.spectra import frequency_response
from backaction.experiment.toml import unit_bounds
from backaction.inference.parameter import Parameter
from backaction.numerics.matrices import Array
from backaction.records.spectrum import Spectrum
from backaction.records.tables import Table, to_spectrum
from backaction.systems.response import VACUUM

MEANING = {
    "thermal_sn": "thermal noise before detection losses, mean over the band at the experiment's own value",
    "offset": "common error of the values",
}


@dataclass(frozen=True, kw_only=True)
class Spectra(Method):
    """Any fields of an experiment from spectra at several values of one of them, such as the homodyne angle.

    Experiments that are known by their spectra only are accepted. The fields with a prior in the experiment are
    fitted, in coordinates in which their priors are standard normal; the posterior is drawn by Student-t importance
    sampling about the maximum (Pareto k is reported). `along` is the field that differs from column to column; its
    values stand in the header. Points scatter by `noise_db`, which stands for statistics and for what the model
    leaves out; without it, by the averages that the file says.
    """

    kind: ClassVar[str] = "spectra"
    reads: ClassVar[str] = "frequency, then one spectrum per value of `along` (dB or SN)"
    stage: ClassVar[int] = 4

    experiment: str = field(metadata={"doc": "a TOML file or a shipped name"})
    along: str = "detector.angle_deg"
    values: tuple[float, ...] = series("1", "of `along`; default the numbers in the header")
    offset_sd: Any = quantity("1", 0.0, minimum=0.0, doc="prior of a common offset of these values")
    value_sd: Any = quantity("1", 0.0, minimum=0.0, doc="prior of the own error of each of these values")
    band_hz: tuple[float, ...] = series("Hz", "low, high; default the experiment's")
    mask_hz: tuple[float, ...] = series("Hz", "low, high, low, high, ... left out")
    skip_lines: bool = flag("leave out single bins that stand out of their neighbourhood")
    noise_db: Any = quantity("dB", None, above=0.0, doc="scatter of a point about the model")
    draws: Any = quantity("1", 2000, minimum=0.0, doc="of the posterior; 0: the maximum and its Fisher errors alone")
    leave_out: bool = flag("leave each spectrum out in turn and predict it from the others")
    seed: Any = quantity("1", 0, minimum=0.0)
    axis_unit: str = ""

    def run(self, tables: Sequence[Table], given: Mapping[str, Any] | None = None) -> Result:
        """Posterior of the fields, residuals, and which spectra lie below shot noise."""
        problem = _Problem.of(self, tables[0], given or {})
        found = problem.fit(range(problem.values.size))
        mu = problem.model(found.values)
        residual = problem.db - 10 * np.log10(mu)
        used = problem.used
        notes = [f"median |measured - model| {np.median(np.abs(residual[used])):.3g} dB"]
        notes += self._squeezed(problem, mu)
        if self.leave_out:
            notes += self._predicted(problem, found)
        names, draws, k = problem.drawn(found, int(self.draws), int(self.seed))
        if self._thermal(problem):
            names, draws = [*names, "thermal_sn"], np.column_stack([draws, problem.thermal(names, draws)])
        covariance = np.cov(draws.T).reshape(len(names), len(names))
        quantities = {
            n: Quantity(
                float(np.mean(draws[:, i])), float(np.sqrt(covariance[i, i])), problem.unit(n), MEANING.get(n, "")
            )
            for i, n in enumerate(names)
        }
        warnings = list(found.conflicts)
        if k is not None and k > 0.7:
            warnings.append(f"importance sampling failed (Pareto k = {k:.2f} > 0.7): errors are those of the maximum")
        elif k is not None:
            notes.append(f"posterior by importance sampling, Pareto k = {k:.2f}")
        if found.p < 1e-3 and self.noise_db is None:
            warnings.append(
                "the model does not describe the data within their statistics: noise_db = what it leaves out"
            )
        result = Result(
            self.kind,
            self.name,
            quantities,
            covariance,
            {n: n for n in names if "." in n},
            found.deviance,
            found.dof,
            found.p,
            found.condition,
            found.at_bound,
            tuple(warnings),
            tuple(notes),
            tuple(self._panels(problem, mu)),
        )
        return replace(result, notes=(*result.notes, *alone(result, found), *_correlated(result)))

    def _panels(self, p: _Problem, mu: Array) -> list[Panel]:
        f = p.frequency_hz / 1e3
        return [
            Panel(
                f"{self.along.rpartition('.')[2]} = {v:g}",
                f,
                p.db[:, i],
                10 * np.log10(mu[:, i]),
                None,
                "frequency (kHz)",
                "dB to shot noise",
            )
            for i, v in enumerate(p.values)
        ]

    def _thermal(self, p: _Problem) -> bool:
        return any(q.name.startswith(f"{e.name}.") for q in p.parameters for e in p.experiment.detectors())

    def _squeezed(self, p: _Problem, mu: Array) -> list[str]:
        """Columns whose measured spectrum, averaged over a twentieth of the band, lies below shot noise; and the model's."""
        size = max(1, p.frequency_hz.size // 20)
        kernel = np.ones(size) / size
        measured = [float(np.min(np.convolve(10 ** (p.db[:, i] / 10), kernel, "valid"))) for i in range(p.values.size)]
        words = [f"{v:.4g} ({10 * np.log10(m):+.2f} dB)" for v, m in zip(p.values, measured, strict=True) if m < 1]
        model = [f"{v:.4g}" for i, v in enumerate(p.values) if np.min(mu[:, i]) < 1]
        return [f"below shot noise at {', '.join(words) or 'none'}; the model at {', '.join(model) or 'none'}"]

    def _predicted(self, p: _Problem, whole: Fit) -> list[str]:
        rows = []
        for i in range(p.values.size):
            found = p.fit([j for j in range(p.values.size) if j != i], whole)
            miss = np.abs(p.db[:, i] - 10 * np.log10(p.model(found.values)[:, i]))[p.used[:, i]]
            rows.append((float(np.median(miss)), float(p.values[i])))
        worst = max(rows)
        return [
            f"each spectrum predicted from the others: median |difference| at most {worst[0]:.3g} dB (at {worst[1]:.4g})"
        ]


def alone(result: Result, found: Fit, most: int = 6) -> list[str]:
    """Where a quantity's error is mostly that of the others: marginal beside conditional standard deviation."""
    names = [n for n in result.quantities if n in found.names]
    index = [list(result.quantities).index(n) for n in names]
    V = result.covariance[np.ix_(index, index)]
    scale = np.sqrt(np.diag(V))
    own = scale / np.sqrt(np.diag(np.linalg.inv(V / np.outer(scale, scale))))
    rows = sorted(((s / o, n, s, o) for n, s, o in zip(names, scale, own, strict=True)), reverse=True)
    rows = [r for k, r in enumerate(rows) if k < most or r[1].endswith("efficiency")]
    words = [f"{n} +- {s:.3g} (+- {o:.2g} if all others were known)" for r, n, s, o in rows if r > 1.3]
    return [f"degenerate: {'; '.join(words)}"] if words else []


def _correlated(result: Result) -> list[str]:
    """The strongest correlations above 0.3, always with that of an efficiency and the thermal noise."""
    names = list(result.quantities)
    rows = sorted(
        ((abs(result.correlation(a, b)), a, b) for i, a in enumerate(names) for b in names[i + 1 :]), reverse=True
    )
    told = [r for k, r in enumerate(rows) if k < 3 or (r[1].endswith("efficiency") and r[2] == "thermal_sn")]
    shared = [f"{a} and {b} ({result.correlation(a, b):+.2f})" for r, a, b in told if r > 0.3]
    return [f"correlated, not known one by one: {'; '.join(shared)}"] if shared else []


@dataclass(frozen=True, eq=False)
class _Problem:
    """The data and the model of one table."""

    method: Spectra
    experiment: Experiment
    parameters: tuple[Parameter, ...]
    frequency_hz: Array
    density: Array
    spectrum: Spectrum
    place: Array
    used: Array
    values: Array
    cache: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, method: Spectra, table: Table, given: Mapping[str, Any]) -> _Problem:
        experiment = Experiment.load(method.experiment)
        if not experiment.priors:
            raise InputError(f"spectra: {experiment.name} has no [prior]: nothing to fit")
        experiment.value(method.along)
        columns = table.values.shape[1] - 1
        values = np.array(method.values or [table.header_number(k) for k in range(1, columns + 1)])
        if values.size != columns:
            raise InputError(f"{table.name}: {columns} spectra, {values.size} values of {method.along}")
        if method.noise_db is not None:
            given = {"averages": 1, "reference": "shot noise", **given}  # the scatter is said, not counted
        spectra = [to_spectrum(table, k, given, method.axis_unit) for k in range(1, columns + 1)]
        if spectra[0].unit != "SN":
            raise InputError(f"{table.name}: unit {spectra[0].unit}: needs shot-noise units or dB to shot noise")
        band = method.band_hz or experiment.band_hz
        f = spectra[0].frequency_hz
        inside = within(f, method.mask_hz)
        if band:
            inside &= (f >= band[0]) & (f <= band[1])
        if np.count_nonzero(inside) < 8:
            raise InputError(f"{table.name}: {np.count_nonzero(inside)} frequencies in the band: too few")
        density = np.array([s.density for s in spectra]).T[inside]
        used = np.ones(density.shape, dtype=bool)
        if method.skip_lines:
            scatter = 1 / (np.log(10) / 10 * float(method.noise_db)) ** 2 if method.noise_db else spectra[0].averages
            used = ~np.array([lines(density[:, i], scatter, 7, 3.0) for i in range(columns)]).T
        parameters = tuple(Parameter(k, p, *unit_bounds(experiment, k)) for k, p in experiment.priors.items())
        return cls(
            method,
            experiment,
            parameters,
            f[inside],
            density,
            spectra[0],
            np.flatnonzero(inside)[:, None] + 2 * f.size * np.arange(columns),
            used,
            values,
        )

    @property
    def db(self) -> Array:
        return 10 * np.log10(self.density)

    def block(self, keep: Array) -> Averaged:
        """Some of the densities as data; bins of one column are neighbours."""
        return Averaged(self.density[keep], float(self.spectrum.averages), self.spectrum.neighbours, self.place[keep])

    def unit(self, name: str) -> str:
        return next((q.unit for q in self.parameters if q.name == name), "1")

    def fields(self, u: Values) -> dict[str, float]:
        return {q.name: float(q.value(u[q.name])) for q in self.parameters}

    def model(self, u: Values) -> Array:
        """Densities (frequencies, columns) in shot-noise units, as the spectra's windows see them."""
        if not self.spectrum.windowed:
            return self.at(u, self.frequency_hz)
        return np.array(self.spectrum.seen(lambda f: list(self.at(u, f).T), self.frequency_hz, self.finest)).T

    @property
    def finest(self) -> float:
        """1/L, as which lines of the model count that are narrower."""
        return float(self.spectrum.resolution_hz * (self.spectrum.estimate.padding if self.spectrum.estimate else 1))

    def at(self, u: Values, frequency_hz: Array) -> Array:
        """Densities (frequencies, columns) at any frequencies."""
        at = (
            self.values
            + u.get("offset", 0.0)
            + np.array([u.get(f"error_{i + 1}", 0.0) for i in range(self.values.size)])
        )
        experiment = replace(self.experiment.with_values(self.fields(u)), priors={})
        head, _, tail = self.method.along.partition(".")
        element = experiment.element(head)
        if isinstance(element, Homodyne) and tail == "angle_deg":  # S = a + b cos 2 theta + c sin 2 theta, exactly
            key = (*self.fields(u).values(), frequency_hz.size)
            if key not in self.cache:  # the angles alone change nothing else
                if len(self.cache) > 64:
                    self.cache.clear()
                three = np.array([0.0, 60.0, 120.0])
                self.cache[key] = self._one(
                    experiment, three[:, None] if experiment.spectra_only else three, frequency_hz
                )
            three = self.cache[key]
            mean = np.mean(three, axis=0)
            turn = np.radians(2 * np.array([0.0, 60.0, 120.0]))
            c, s = (2 / 3 * np.tensordot(w, three, 1) for w in (np.cos(turn), np.sin(turn)))
            angle = np.radians(2 * at)
            return np.asarray(mean[:, None] + np.outer(c, np.cos(angle)) + np.outer(s, np.sin(angle)))
        return np.array([self._one(experiment, x, frequency_hz) for x in at]).T

    def _one(self, experiment: Experiment, value: Any, frequency_hz: Array) -> Array:
        response = frequency_response(experiment.with_values({self.method.along: value}), frequency_hz)
        return np.real(response.spectrum()[..., 0, 0]) / VACUUM

    def fit(self, columns: Sequence[int], near: Fit | None = None) -> Fit:
        """The maximum from some of the columns; the search begins at another fit where one is given."""
        keep = np.zeros(self.used.shape, dtype=bool)
        keep[:, list(columns)] = True
        keep &= self.used
        noise = self.method.noise_db
        block: Any = self.block(keep) if noise is None else Gaussian(self.db[keep], float(noise))
        unknowns = [Unknown(q.name, 0.0, 0.1, lower=-q.reach, upper=q.reach, prior=(0.0, 1.0)) for q in self.parameters]
        if self.method.offset_sd:
            sd = float(self.method.offset_sd)
            unknowns.append(Unknown("offset", 0.0, 0.1 * sd, prior=(0.0, sd)))
        if self.method.value_sd:
            sd = float(self.method.value_sd)
            unknowns += [Unknown(f"error_{i + 1}", 0.0, 0.1 * sd, prior=(0.0, sd)) for i in columns]

        def model(u: Values) -> list[Array]:
            mu = self.model(u)[keep]
            return [mu if noise is None else 10 * np.log10(mu)]

        if near is not None:
            unknowns = [replace(u, start=near[u.name], scale=near.sd(u.name) or u.scale) for u in unknowns]
        return fit(model, [block], unknowns, (), self.method.kind)

    def drawn(self, found: Fit, count: int, seed: int) -> tuple[list[str], Array, float | None]:
        """(names, draws of fields and offset, Pareto k); Gaussian draws of the maximum's covariance where count is 0."""
        rng = np.random.default_rng(seed)
        names = list(found.names)
        L = np.linalg.cholesky(found.covariance + 1e-14 * np.eye(len(names)))
        size = max(count, 1000)
        z = rng.standard_normal((size, len(names)))
        if count == 0:
            return names, self._values(found.best + z @ L.T, names), None
        nu = 6.0
        scale = np.sqrt(nu / rng.chisquare(nu, size))
        x = z * scale[:, None]
        u = found.best + x @ L.T
        log_q = -(nu + len(names)) / 2 * np.log1p(np.sum(x**2, axis=1) / nu)
        log_p = np.array([-0.5 * self._deviance(dict(zip(names, row, strict=True))) for row in u])
        from backaction.inference.samplers import smoothed

        weights, k = smoothed(log_p - log_q)
        if k > 0.7:
            return names, self._values(found.best + z @ L.T, names), k
        chosen = rng.choice(size, size, p=weights / np.sum(weights))
        return names, self._values(u[chosen], names), float(k)

    def thermal(self, names: Sequence[str], draws: Array, most: int = 500) -> Array:
        """Thermal noise before the detection's losses, mean over the band at the experiment's own `along`, per draw.

        Evaluated for `most` draws; the others take their regression on the parameters, so that correlations are kept.
        """
        count = min(most, len(draws))
        out = np.empty(count)
        for k in range(count):
            values = {n: float(draws[k, i]) for i, n in enumerate(names) if "." in n}
            if "offset" in names:
                own = float(self.experiment.value(self.method.along))
                values[self.method.along] = own + float(draws[k, list(names).index("offset")])
            experiment = replace(self.experiment.with_values(values), priors={})
            eta = float(np.prod([float(np.real(d.value("efficiency"))) for d in experiment.detectors()]))
            parts = frequency_response(experiment, self.frequency_hz).budget(experiment.detectors()[0].name).sources
            out[k] = sum(float(np.mean(v)) for n, v in parts.items() if n.endswith("bath")) / eta
        if count == len(draws):
            return out
        X = np.column_stack([np.ones(len(draws)), (draws - draws.mean(0)) / np.maximum(draws.std(0), 1e-300)])
        weights = np.linalg.lstsq(X[:count], np.log(out), rcond=None)[0]
        return np.concatenate([out, np.exp(X[count:] @ weights)])

    def _values(self, u: Array, names: Sequence[str]) -> Array:
        out = np.array(u)
        for q in self.parameters:
            i = list(names).index(q.name)
            out[:, i] = [float(q.value(x)) for x in u[:, i]]
        return out

    def _deviance(self, u: dict[str, float]) -> float:
        mu = self.model(u)[self.used]
        if not np.all(mu > 0):
            return np.inf
        noise, y = self.method.noise_db, self.density[self.used]
        block: Any = self.block(self.used) if noise is None else Gaussian(10 * np.log10(y), float(noise))
        prior = sum(u[q.name] ** 2 for q in self.parameters)
        offset = (u["offset"] / float(self.method.offset_sd)) ** 2 if "offset" in u else 0.0
        if self.method.value_sd:
            offset += sum((v / float(self.method.value_sd)) ** 2 for k, v in u.items() if k.startswith("error_"))
        return float(np.sum(block.residual(mu if noise is None else 10 * np.log10(mu)) ** 2) + prior + offset)
