"""Exact derivatives of results with respect to an experiment's fields.

Builders are analytic in their fields, so one batched complex step (imaginary part 1e-30) gives dA, dB, dC, dD, dS to
machine precision. Every result supplies its adjoint: with V_bar = d result/dV,

    Lyapunov    A^T L + L A + V_bar = 0,                d result = <L, dA V + V dA^T + dQ>
    Riccati     (A - KC)^T L + L (A - KC) + V_bar = 0,  d result = <L, dA V + V dA^T + dQ - dX K^T - K dX^T + K dR K^T>,
                dX = V dC^T + dN

so that a gradient costs one linear solve and one contraction per field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

import numpy as np

from backaction.errors import InputError, ModelError
from backaction.experiment.experiment import Experiment
from backaction.experiment.program import SOLVED, BatchView, batch
from backaction.experiment.results import Slopes, parse
from backaction.numerics import matrix_equations
from backaction.numerics.complex_step import STEP
from backaction.numerics.matrices import Array, solve_right, transpose
from backaction.systems import poles, response
from backaction.systems.linear import LinearSystem
from backaction.systems.response import noise_spectrum_tangent
from backaction.systems.view import covariances


def stepped(experiment: Experiment, fields: Sequence[str]) -> LinearSystem:
    """The system with a leading axis over `fields`, each moved by i * 1e-30; imaginary parts / 1e-30 are derivatives."""
    _numbers(experiment, fields)
    base = experiment.system.batch_shape
    values: dict[str, Any] = {}
    eye = np.eye(len(fields))
    for k, path in enumerate(fields):
        value = experiment.value(path)
        hot = eye[:, k].reshape((len(fields),) + (1,) * len(base))
        values[path] = np.asarray(value) * 1.0 + 1j * STEP * hot
    system = experiment.with_values(values, "gradient").build()
    # every derivative keeps its field axis, also of fields on which nothing depends
    shape = (len(fields), *base, *system.A.shape[-2:])
    return replace(system, A=np.broadcast_to(system.A, np.broadcast_shapes(system.A.shape, shape)))


def gradient(result: str, experiment: Experiment, fields: Sequence[str], **options: Any) -> Array:
    """D result/d field for every field, in the field's own unit.

    Parameters
    ----------
    result
        A result's name (`conditional.epr.variance`, `unconditional.log_negativity`, ...), `STATE.covariance`, or
        `spectrum` (shot-noise units; options `frequency_hz`, `current`).
    fields
        Paths `element.field`; each must be set to a number (or an array: everything broadcasts).

    Returns
    -------
    Array
        Shape (..., F), (..., F, 2k, 2k) for a covariance, (..., F, f) for the spectrum; `...` the experiment's axes.

    Raises
    ------
    InputError
        For unknown results or fields.

    ModelError
        As the result itself.

    Notes
    -----
    A field that enters through a square root (a transmission, an efficiency, a readout rate) has no derivative at exactly 0:
    NaN there.
    """
    head, _, tail = result.partition(".")
    if result == "spectrum" or tail == "covariance":
        system, step = experiment.system, stepped(experiment, fields)
        zero = np.array([_at_root(experiment, f) for f in fields])
        if result == "spectrum":
            return _last(_mask(_spectrum(system, step, **options), zero), 1)
        return _last(_mask(experiment.view.of(covariance_tangent(system, step, head)), zero), 2)
    return value_and_gradient(result, experiment, fields)[1]


def value_and_gradient(result: str, experiment: Experiment, fields: Sequence[str]) -> tuple[Any, Array]:
    """A scalar result and its derivatives (..., F) together: the state is solved for once. Raises as `gradient`.

    Many points go through compiled loops: the program of the builders forward, the adjoint of the state, and back.
    """
    _numbers(experiment, fields)
    found = parse(result, experiment)
    zero = np.array([_at_root(experiment, f) for f in fields])
    if isinstance(experiment.view, BatchView):
        many = batch(experiment, experiment.view.modes, fields)
        slopes = Slopes() if many is None else found.slopes(many)
        if many is not None and slopes.drift is None and slopes.direct is None and set(slopes.states) <= set(SOLVED):
            value = found.value(many)
            columns = [many.fields.index(f) for f in fields]
            moved = np.moveaxis(many.gradients(slopes.states)[..., columns], -1, 0)
            return value, _last(_mask(np.where(np.isfinite(value), moved, np.nan), zero), 0)
    view, step = experiment.view, stepped(experiment, fields)
    slopes = found.slopes(view)
    value = found.value(view)
    total: Any = 0.0
    for state, part in slopes.states.items():
        total = total + _adjoint(view.system, step, state, view.whole(state), view.embedded(part))
    if slopes.drift is not None:
        total = total + np.sum(slopes.drift * (np.imag(step.A) / STEP), axis=(-2, -1))
    if slopes.direct is not None:
        total = total + slopes.direct(step)
    return value, _last(_mask(total, zero), 0)


def _numbers(experiment: Experiment, fields: Sequence[str]) -> None:
    """Refuse fields that have no derivative."""
    if not fields:
        raise InputError("gradient: name at least one field")
    for path in fields:
        value = experiment.value(path)
        if value is None or isinstance(value, (str, tuple, dict)):
            raise InputError(f"gradient: '{path}' is not a number that is set in '{experiment.name}'")


def _at_root(experiment: Experiment, path: str) -> bool:
    """Whether a field that enters through a square root is exactly zero: no derivative exists there."""
    part: Any = experiment.element(path.partition(".")[0])
    name = path.rpartition(".")[2]
    meta: Any = next((f.metadata for f in dataclass_fields(part) if f.name == name), {})
    return bool(meta.get("root")) and bool(np.any(np.asarray(experiment.value(path)) == 0))


def _mask(values: Array, zero: Array) -> Array:
    if not np.any(zero):
        return values
    out = np.array(values)
    out[zero] = np.nan
    return out


def _terms(system: LinearSystem, step: LinearSystem, state: str, V: Array) -> tuple[Array, Array]:
    """Closed-loop drift F and the forcing M (leading axis: fields) of F dV + dV F^T + M = 0 for one steady state."""
    dA = np.imag(step.A) / STEP
    dQ, dN, dR = (np.imag(x) / STEP for x in step.noise())
    if state == "unconditional":
        half = dA @ V
        return system.A, half + transpose(half) + dQ
    detected, d_step = system.detected(), step.detected()
    dC = np.imag(d_step.C) / STEP
    Q, N, R = system.noise()
    if state == "conditional":
        K = solve_right(V @ transpose(detected.C) + N, R)
        half = dA @ V - (V @ transpose(dC) + dN) @ transpose(K)
        return system.A - K @ detected.C, half + transpose(half) + dQ + K @ dR @ transpose(K)
    # the effect operator: J = V^-1 solves J A~ + A~^T J - J Q~ J + G = 0, dV = -V dJ V
    Qs, Ns, Rs = step.noise()
    KN = solve_right(Ns, Rs)
    dAt = np.imag(step.A - KN @ d_step.C) / STEP
    dQt = np.imag(Qs - KN @ transpose(Ns)) / STEP
    dG = np.imag(transpose(d_step.C) @ np.linalg.solve(Rs, d_step.C)) / STEP
    K0 = solve_right(N, R)
    At, Qt = system.A - K0 @ detected.C, Q - K0 @ transpose(N)
    J = np.linalg.inv(V)
    # multiply the equation of dJ by V on both sides: (-F) dV + dV (-F)^T + ... with F = V (At - Qt J)^T J
    F = V @ transpose(At - Qt @ J) @ J
    half = V @ (J @ dAt) @ V
    return F, -(half + transpose(half) - dQt + V @ dG @ V)


def _adjoint(system: LinearSystem, step: LinearSystem, state: str, V: Array, V_bar: Array) -> Array:
    F, M = _terms(system, step, state, V)
    L = matrix_equations.lyapunov(transpose(F), V_bar)
    return np.sum(L * M, axis=(-2, -1))


def covariance_tangent(system: LinearSystem, step: LinearSystem, state: str) -> Array:
    """D V/d field of one steady state along the fields of `stepped`, shape (F, ..., n, n)."""
    F, M = _terms(system, step, state, covariances(system, state))
    return matrix_equations.lyapunov(F, M)


def _spectrum(system: LinearSystem, step: LinearSystem, frequency_hz: Any, current: str | None = None) -> Array:
    """D S(f)/d field of a current, shape (F, ..., f)."""
    name = response.pick_current(system, current)
    stable = np.all(np.linalg.eigvals(system.A).real < 0, axis=-1)
    if system.batch_shape == () and not stable:
        raise ModelError(poles.instability(system))
    row, row_s = system.output(name), step.output(name)
    Q, N, R = system.noise()
    k = system.currents.index(name)
    Qs, Ns, Rs = step.noise()
    args = (system.A, Q, N[..., k : k + 1], R[..., k : k + 1, k : k + 1], system.C[..., row, :])
    tangents = (
        np.imag(step.A) / STEP,
        np.imag(Qs) / STEP,
        np.imag(Ns[..., k : k + 1]) / STEP,
        np.imag(Rs[..., k : k + 1, k : k + 1]) / STEP,
        np.imag(step.C[..., row_s, :]) / STEP,
    )
    f = np.atleast_1d(np.asarray(frequency_hz, dtype=float))
    slopes = noise_spectrum_tangent(args, tangents, -2j * np.pi * f)[1] / response.VACUUM
    return np.where(stable[..., None], slopes, np.nan)


def _last(values: Array, inner: int) -> Array:
    """Move the field axis from the front to just before the result's own axes."""
    return np.moveaxis(values, 0, values.ndim - 1 - inner)
