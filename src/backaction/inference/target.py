"""The posterior density of a campaign in coordinates whose prior is standard normal, with its exact gradient.

    ln p(u | data) = -|u|^2/2 + sum_records ln L(data | theta(u)) + const

One traced program takes u to the matrices of all records; compiled loops do the rest (`numerics.loops.likelihood`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from backaction.constants import TWO_PI
from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.prior import Prior
from backaction.experiment.program import entries
from backaction.experiment.ties import follow_ties
from backaction.experiment.toml import unit_bounds
from backaction.inference.campaign import MODEL_ERROR, Campaign
from backaction.inference.data import Measured
from backaction.inference.model import Systems
from backaction.inference.parameter import Parameter
from backaction.numerics.compile import library
from backaction.numerics.matrices import Array
from backaction.numerics.tracing import Program, Trace, Var, traced

SCALE = "calibration.scale"
"""A record's shot-noise level relative to its calibration (without a shot record: the fitted floor)."""


def loops(layout: Array) -> Any:
    """The compiled functions, made for the number of states where all records have the same, up to eight of them."""
    sizes = set(layout[:, 0].tolist())
    n = sizes.pop() if len(sizes) == 1 and max(sizes) <= 8 else None
    return library("program", "spectrum", "riccati", "likelihood", n=n)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where a record's parameters come from: shared or own coordinates by field, its scale."""

    record: Measured
    own: Mapping[str, int]
    spread: Mapping[str, tuple[int, int, int]]
    scale: int


class Target:
    """Posterior density of a campaign.

    `parameters` are the fitted numbers in the order of u; `names` theirs. `density(u)` and `gradient(u)` are for one
    point; several threads need an `evaluator()` each.
    """

    def __init__(self, campaign: Campaign) -> None:
        for r in campaign.records:
            if len(r.experiment.system.currents) != 1:
                raise InputError(
                    f"{r.name}: a fit needs exactly one detected current, '{r.experiment.name}' has "
                    f"{', '.join(r.experiment.system.currents) or 'none'}"
                )
        self.campaign = campaign
        self.parameters: list[Parameter] = []
        self._at: dict[str, int] = {}
        self._plans = [self._plan(r) for r in campaign.records]
        self._error = self._model_error()
        if campaign.correlated:
            self._mix = self._mixing()
        else:
            self._mix = {}
        self.program, self._slots = self._trace()
        self._lay()

    # -- parameters -----------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(p.name for p in self.parameters)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    def _index(self, name: str, prior: Prior, experiment: Experiment | None = None, field: str = "") -> int:
        if name not in self._at:
            unit, low, high = "1", -np.inf, np.inf
            if experiment is not None:
                unit, low, high = unit_bounds(experiment, field)
            self._at[name] = len(self.parameters)
            made = Parameter(name, prior, unit, low, high)
            if prior.outside(low, high):
                raise InputError(f"prior of '{name}': {made.described()} lies outside the allowed {low:g}..{high:g}")
            self.parameters.append(made)
        return self._at[name]

    def _plan(self, record: Measured) -> _Plan:
        c, e = self.campaign, record.experiment
        single = len(c.records) == 1
        own: dict[str, int] = {}
        spread: dict[str, tuple[int, int, int]] = {}
        for field, prior in {**record.priors, **c.priors}.items():
            if e.value(field) is None or (field in record.fixed and field not in c.vary and field not in record.priors):
                continue
            mine = record.priors.get(field)
            if mine is None and field in record.fixed:
                mine = prior.moved(float(e.value(field)))
            if field in c.vary and not single:
                width = c.vary[field]
                if width is None or (mine is not None and mine != prior):
                    own[field] = self._index(f"{field}[{record.name}]", mine or prior, e, field)
                    continue
                centre = self._index(field, prior, e, field)
                size = self._index(f"{field}:spread", Prior(lower=0.0, upper=None, mean=0.0, sd=width))
                offset = self._index(f"{field}:offset[{record.name}]", Prior(0.0, 1.0))
                spread[field] = (centre, size, offset)
            elif mine is not None:
                own[field] = self._index(f"{field}[{record.name}]", mine, e, field)
            else:
                own[field] = self._index(field, prior, e, field)
        k = record.calibration
        several = len({r.calibrated_by or r.name for r in c.records}) > 1
        name = f"{SCALE}[{record.calibrated_by or record.name}]" if several and not single else SCALE
        prior = Prior(median=1.0, factor=float(np.exp(max(k.relative_sd, 1e-6))))
        if not k.floor_known:
            level = float(np.median(record.density_sn) / np.median(record.bins().expected(e.system)))
            prior = Prior(median=level, factor=float(np.exp(1.0)))
        return _Plan(record, own, spread, self._index(name, prior))

    def _model_error(self) -> int | float:
        error = self.campaign.likelihood.model_error
        return self._index(MODEL_ERROR, error) if isinstance(error, Prior) else float(error)

    def _mixing(self) -> dict[int, tuple[list[int], Array]]:
        """Rows of the Cholesky factor that correlate normal scores: {index: (indices, weights)}."""
        out: dict[int, tuple[list[int], Array]] = {}
        for names, matrix in self.campaign.correlated:
            for n in names:
                others = np.delete(matrix[names.index(n)], names.index(n))
                apart = n in self.campaign.vary and len(self.campaign.records) > 1
                if np.any(others != 0) and (apart or any(n in r.priors for r in self.campaign.records)):
                    raise InputError(
                        f"{self.campaign.name}: '{n}' comes from a calibration with correlations and cannot vary between "
                        "records or have a record's own prior"
                    )
                if n in self._at and self._at[n] in out:
                    raise InputError(f"{self.campaign.name}: two calibrations know of '{n}': give one of them")
            here = [n for n in names if n in self._at]
            if len(here) < 2:
                continue
            pick = [names.index(n) for n in here]
            L = np.linalg.cholesky(matrix[np.ix_(pick, pick)])
            indices = [self._at[n] for n in here]
            for row, i in enumerate(indices):
                out[i] = (indices[: row + 1], L[row, : row + 1])
        return out

    def _scores(self, u: Sequence[Any]) -> list[Any]:
        """The normal scores of the parameters: u itself but for correlated calibrations."""
        out = list(u)
        for i, (indices, weights) in self._mix.items():
            out[i] = sum((float(w) * u[j] for j, w in zip(indices, weights, strict=True)), 0.0)
        return out

    def values(self, u: Any) -> Array:
        """Theta (..., P) at u (..., P); offsets of varying fields are given as the field's value in that record."""
        u = np.asarray(u, dtype=float)
        z = self._scores(list(np.moveaxis(u, -1, 0)))
        theta = [p.value(z[i]) for i, p in enumerate(self.parameters)]
        out = list(theta)
        for plan in self._plans:
            for centre, size, offset in plan.spread.values():
                out[offset] = theta[centre] + theta[size] * theta[offset]
        return np.stack(np.broadcast_arrays(*out), axis=-1)

    def slopes(self, u: Array) -> Array:
        """D theta/du (P, P) at one point, by central differences."""
        out = np.empty((self.size, self.size))
        for i in range(self.size):
            e = np.zeros(self.size)
            e[i] = 1e-5
            out[:, i] = (self.values(u + e) - self.values(u - e)) / 2e-5
        return out

    def poles(self, plan: int, u: Array) -> Array:
        """Poles |f| + i width/2 (Hz) of one record's system at u."""
        values = np.linalg.eigvals(self.experiment(plan, u).system.A) / TWO_PI
        return np.abs(values.imag) + 1j * np.abs(values.real)

    def scores(self, theta: Mapping[str, float]) -> Array:
        """The coordinates u of parameter values (of those not named: the prior's median)."""
        z = np.zeros(self.size)
        for name, value in theta.items():
            z[self._at[name]] = float(self.parameters[self._at[name]].score(value))
        return np.asarray(np.linalg.solve(self.mixing(), z))

    def mixing(self) -> Array:
        """M (P, P) with z = M u the normal scores of the parameters: the identity but for correlated calibrations."""
        M = np.eye(self.size)
        for i, (indices, weights) in self._mix.items():
            M[i] = 0.0
            M[i, indices] = weights
        return M

    def model_error(self, u: Any) -> Array:
        """The relative model error at u (draws, P)."""
        u = np.atleast_2d(u)
        if isinstance(self._error, float):
            return np.full(len(u), self._error)
        return np.asarray(self.values(u)[:, self._error])

    def labels(self) -> list[str]:
        """The names as shown: an offset is the field's value in its record."""
        return [n.replace(":offset[", "[") for n in self.names]

    def fields(self, plan: int, u: Any) -> dict[str, Any]:
        """Values of the fields of one record at u (..., P), ties included: what `Experiment.with_values` takes."""
        columns = list(np.moveaxis(np.asarray(u, dtype=float), -1, 0))
        return self._fields(self._plans[plan], columns)

    def _fields(self, plan: _Plan, u: Sequence[Any]) -> dict[str, Any]:
        z = self._scores(u)
        made: dict[int, Any] = {}

        def theta(i: int) -> Any:
            if i not in made:
                made[i] = self.parameters[i].value(z[i])
            return made[i]

        out = {f: theta(i) for f, i in plan.own.items()}
        for f, (centre, size, offset) in plan.spread.items():
            out[f] = theta(centre) + theta(size) * theta(offset)
        tied = {f: rule for f, rule in self.campaign.ties.items() if f not in plan.record.fixed}
        return out | follow_ties(tied, plan.record.experiment.value, out)

    def experiment(self, plan: int, u: Any) -> Experiment:
        """One record's experiment at u: a single point, or a batch for u (draws, P)."""
        return self._plans[plan].record.experiment.with_values(self.fields(plan, u), "draws")

    # -- the program ----------------------------------------------------------------------------------------------

    def _trace(self) -> tuple[Program, list[Array]]:
        trace = Trace([0.0] * self.size)
        outputs: list[Any] = []
        sizes: list[int] = []
        try:
            for plan in self._plans:
                values = {f: traced(v) for f, v in self._fields(plan, trace.inputs).items()}
                own = entries(plan.record.experiment.with_values(values, "trace").build())
                sizes.append(len(own))
                outputs += own
            guards: list[tuple[Any, float, float]] = []
            for plan in self._plans:
                values = self._fields(plan, trace.inputs)
                loose = [*plan.spread, *(f for f in self.campaign.ties if f in values)]
                for f in loose:
                    _, low, high = unit_bounds(plan.record.experiment, f)
                    if isinstance(values[f], Var):
                        guards.append((values[f], low, high))
            self._guards = np.array([[low, high] for _, low, high in guards]).reshape(-1, 2)
            outputs += [value for value, _, _ in guards]
            z = self._scores(trace.inputs)
            outputs += [self.parameters[p.scale].value(z[p.scale]) for p in self._plans]
            outputs.append(self._error if isinstance(self._error, float) else self.parameters[self._error].value(
                z[self._error]))  # fmt: skip
            program = trace.program(outputs)
        except (TypeError, AttributeError) as error:
            raise ModelError(f"{self.campaign.name}: this model cannot be traced ({error})") from None
        self._check(program, sizes)
        ends = np.cumsum([0, *sizes])
        return program, [program.outputs[a:b] for a, b in pairwise(ends)]

    def _check(self, program: Program, sizes: Sequence[int]) -> None:
        """The program against the builders at three points of the prior."""
        rng = np.random.default_rng(0)
        for u in (np.zeros(self.size), *rng.uniform(-1.5, 1.5, (2, self.size))):
            got, start = program(u), 0
            for k, size in enumerate(sizes):
                try:
                    want = np.array([float(x) for x in entries(self.experiment(k, u).build())])
                except (ModelError, InputError):  # no answer there, or a tied field beyond its bounds
                    start += size
                    continue
                part = got[start : start + size]
                n = round((np.sqrt(8 * (size - 1) + 4) - 2) / 4)
                blocks = np.split(np.arange(size), np.cumsum([n * n, n * n, n, 1]))
                error = [np.max(np.abs(part[b] - want[b]), initial=0.0) for b in blocks]
                scale = [np.max(np.abs(want[b]), initial=0.0) for b in blocks]
                if not all(e <= 1e-9 * x + 1e-12 * scale[0] ** 0.5 for e, x in zip(error, scale, strict=True)):
                    raise ModelError(
                        f"{self.campaign.name}: the model takes another form within its priors than at their centre"
                    )
                start += size

    def _lay(self) -> None:
        """Flat arrays that the compiled density takes."""
        rows, slots, f, phase = [], [], [], []
        W, B, T, white, y, averages, constant = [], [], [], [], [], [], []
        thomas = self.campaign.likelihood.kind == "thomas2021"
        count = len(self._plans)
        at = np.zeros(6, dtype=int)  # slots, points, bins, weights, node weights, alias weights
        from scipy import special

        self.bins = [p.record.bins() for p in self._plans]
        for k, (plan, b) in enumerate(zip(self._plans, self.bins, strict=True)):
            n = round((np.sqrt(8 * (self._slots[k].size - 1) + 4) - 2) / 4)  # 2 n^2 + 2 n + 1 entries
            size, q = b.weights.shape
            nodes, aliases = b.alias_weights.shape
            outputs = self.program.outputs
            rows.append([n, at[0], at[1], b.frequency_hz.size, at[2], size, q, nodes, aliases, at[3], at[4], at[5],
                         outputs[len(outputs) - 1 - count + k], outputs[-1], int(thomas),
                         int(np.any(b.phase != 1))])  # fmt: skip
            data = plan.record.density_sn
            if np.any(data <= 0):
                raise ModelError(f"{plan.record.name}: a bin of the spectrum is not positive")
            N = plan.record.averages
            slots.append(self._slots[k])
            f.append(b.frequency_hz)
            phase.append(b.phase)
            W.append(b.weights.ravel())
            B.append(b.node_weights.ravel())
            T.append(b.alias_weights.ravel())
            white.append(b.white)
            y.append(data)
            averages.append(0.08 * data + 0.1 if thomas else N)
            constant.append(N * np.log(N) - special.gammaln(N) + (N - 1) * np.log(data))
            at += [self._slots[k].size, b.frequency_hz.size, size, size * q, size * nodes, nodes * aliases]
        join = [np.ascontiguousarray(np.concatenate(x)) for x in (W, B, T, white, y, averages, constant)]
        turn = np.concatenate(phase)
        w = TWO_PI * np.concatenate(f)
        self._layout = np.array(rows, dtype=np.int64)
        first = sum(s.size for s in self._slots)
        self._guard_slots = self.program.outputs[first : first + len(self._guards)]
        self._slot_table = np.concatenate(slots)
        self._frequencies = (w, np.ascontiguousarray(turn.real), np.ascontiguousarray(turn.imag))
        self._maps, self._data = tuple(join[:4]), list(join[4:])

    @property
    def data(self) -> list[Array]:
        """Measured bins (SN) of every record."""
        return self._split(self._data[0])

    def _split(self, flat: Array) -> list[Array]:
        ends = np.cumsum([0, *(b.white.size for b in self.bins)])
        return [flat[..., a:b] for a, b in pairwise(ends)]

    def with_data(self, data: Sequence[Array]) -> Target:
        """The same posterior for other data (SN, one array per record); nothing is traced again."""
        from scipy import special

        new = object.__new__(Target)
        new.__dict__.update(self.__dict__)
        records = [p.record.with_density(y) for p, y in zip(self._plans, data, strict=True)]
        new.campaign = self.campaign.with_records(records)
        new._plans = [replace(p, record=r) for p, r in zip(self._plans, records, strict=True)]
        y = np.concatenate(list(data))
        N = np.concatenate([r.averages for r in records])
        thomas = self.campaign.likelihood.kind == "thomas2021"
        sd = 0.08 * y + 0.1 if thomas else N
        new._data = [y, sd, N * np.log(N) - special.gammaln(N) + (N - 1) * np.log(y)]
        return new

    # -- densities ------------------------------------------------------------------------------------------------

    def evaluator(self) -> Evaluator:
        """Density and gradient with work space of their own (one per thread)."""
        return Evaluator(self)

    def models(self, u: Any) -> list[Array]:
        """Expected bins (SN, scale included) of every record at u (P,) or (draws, P); NaN where there is none."""
        u = np.asarray(u, dtype=float)
        run = self.evaluator()
        out = np.array([run.model(x) for x in u.reshape(-1, self.size)]).reshape(*u.shape[:-1], -1)
        return self._split(out)

    def only(self, record: int) -> Target:
        """The posterior of one record's data alone, over the same parameters."""
        new = object.__new__(Target)
        new.__dict__.update(self.__dict__)
        new._layout = np.ascontiguousarray(self._layout[record : record + 1])
        return new

    def fisher(self, u: Array, prior: bool = True, rough: bool = False) -> Array:
        """Expected information at u in these coordinates: differences of exact gradients for data equal to the model.

        With the prior's identity unless `prior` is False; `rough`: one-sided differences.
        """
        models = [np.asarray(m) for m in self.models(u)]
        if not np.all(np.isfinite(np.concatenate(models))):
            raise ModelError(f"{self.campaign.name}: the model has no spectrum at this point")
        at = -np.asarray(u) if rough and not self.campaign.likelihood.model_error else None
        H = self.with_data(models).evaluator().hessian(u, at)
        if not isinstance(self._error, float):
            # of the scatter: sum [trigamma(N_e) - 1/N_e] (dN_e/du)^2, N_e = 1/(1/N + e^2); none shared with the means
            from scipy import special

            i, e = self._error, float(self.model_error(u)[0])
            N = 1 / (1 / np.concatenate([r.averages for r in self.campaign.records]) + e * e)
            by_u = -2 * e * N**2 * float(self.slopes(u)[i, i])
            H[i, :], H[:, i] = 0.0, 0.0
            H[i, i] = 1.0 + float(np.sum((special.polygamma(1, N) - 1 / N) * by_u**2))
        return H if prior else H - np.eye(self.size)

    def systems(self, plan: int, bare: bool = False) -> Systems:
        """The program of one record's matrices alone; `bare` without technical noise and further modes."""
        chosen = self._plans[plan]
        return Systems(chosen.record.experiment, lambda u: self._fields(chosen, u), self.size, bare)


class Evaluator:
    """Compiled density of a `Target` with its own work space; calls release the interpreter lock."""

    def __init__(self, target: Target) -> None:
        memory, size = target.program.memory, target.size
        self._run = loops(target._layout).density
        self._front = (*target.program.arrays, memory.copy(), np.zeros(len(memory)))
        points, bins = target._frequencies[0].size, target._data[0].size
        self._back = (
            target._layout, target._slot_table, target._guard_slots, target._guards, *target._frequencies, *target._maps,
            *target._data,
            np.empty(points), np.empty(points),
        )  # fmt: skip
        self._mu, self._none, self.size = np.empty(bins), np.empty(0), size

    def density(self, u: Array) -> float:
        """Log-posterior (with its constants); -inf where the model has no answer."""
        value = float(self._run(*self._front, np.ascontiguousarray(u), *self._back, self._mu, self._none))
        return value if np.isfinite(value) else -np.inf

    def gradient(self, u: Array) -> tuple[float, Array]:
        """(log-posterior, its gradient)."""
        grad = np.zeros(self.size)
        value = float(self._run(*self._front, np.ascontiguousarray(u), *self._back, self._mu, grad))
        if not (np.isfinite(value) and np.all(np.isfinite(grad))):
            return -np.inf, np.zeros(self.size)
        return value, grad

    def model(self, u: Array) -> Array:
        """Expected bins of all records (SN), NaN where there is none."""
        return self._mu.copy() if np.isfinite(self.density(u)) else np.full(self._mu.size, np.nan)

    def hessian(self, u: Array, at: Array | None = None) -> Array:
        """Minus the second derivatives: central differences of exact gradients, symmetric.

        Steps are 1e-4, or a hundredth of the width that the data leave to a coordinate where that is less. With `at`, the
        gradient at u itself, one-sided differences: half the work.
        """
        H = np.empty((self.size, self.size))
        for i in range(self.size):
            step = 1e-4
            for _ in range(4):
                e = np.zeros(self.size)
                e[i] = step
                if at is not None:
                    H[i] = (at - self.gradient(u + e)[1]) / step
                else:
                    H[i] = (self.gradient(u - e)[1] - self.gradient(u + e)[1]) / (2 * step)
                wanted = 0.01 / np.sqrt(max(abs(H[i, i]), 1.0))
                if step <= 2 * wanted:
                    break
                step = wanted
        return (H + H.T) / 2
