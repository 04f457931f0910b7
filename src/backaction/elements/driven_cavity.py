"""A microwave or optical cavity driven by several tones and coupled to mechanical modes by radiation pressure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from backaction.constants import HBAR, TWO_PI
from backaction.elements.base import Element, Light
from backaction.elements.baths import occupation_at, thermal_bath
from backaction.elements.fields import Part, parts, quantity
from backaction.errors import InputError, ModelError, nearest
from backaction.numerics.matrices import Array, Pair, block_diagonal, concrete, cos_sin_deg, join, stack
from backaction.systems.labels import Frame, Mode, Port
from backaction.systems.linear import LinearSystem
from backaction.systems.periodic import PeriodicSystem


@dataclass(frozen=True, kw_only=True)
class CavityPort(Part):
    """One loss channel of the cavity: its rate, and the thermal occupation of what enters there."""

    rate_hz: Any = quantity("Hz", minimum=0.0, root=True, doc="full width that it contributes")
    occupation: Any = quantity("1", 0.0, minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class DrivenMode(Part):
    """A mechanical mode of a driven cavity."""

    groups: ClassVar[tuple[tuple[str, ...], ...]] = (("occupation", "temperature_k"),)

    mechanical_hz: Any = quantity("Hz", above=0.0)
    mechanical_linewidth_hz: Any = quantity("Hz", above=0.0)
    occupation: Any = quantity("1", None, minimum=0.0)
    temperature_k: Any = quantity("K", None, minimum=0.0)
    coupling: Any = quantity("1", 1.0, doc="single-photon coupling relative to the reference that the tones' rates use")


@dataclass(frozen=True, kw_only=True)
class Tone(Part):
    """A drive tone: at a sideband of a mode (`drum1-`: below the cavity by its frequency) or an offset, plus a detuning.

    Its strength is the many-photon rate G, or the power at the input port: then G = g_0 |alpha| with alpha = sqrt(kappa_in
    P/hbar omega)/(kappa/2 - i(omega_t - omega_c)), whose phase is added (g_0: `single_photon_coupling_hz` of the cavity).
    """

    groups: ClassVar[tuple[tuple[str, ...], ...]] = (("sideband", "offset_hz"), ("coupling_hz", "power_w"))

    sideband: str | None = None
    offset_hz: Any = quantity("Hz", None, doc="from the cavity's frequency")
    detuning_hz: Any = quantity("Hz", 0.0, doc="delta, added to it")
    coupling_hz: Any = quantity("Hz", None, minimum=0.0, doc="many-photon rate G = g_0 alpha at the reference coupling")
    power_w: Any = quantity("W", None, minimum=0.0, root=True, doc="power at the input port")
    phase_deg: Any = quantity("deg", 0.0)


class Term(NamedTuple):
    """One term c a' b (or c a' b') e^{-i nu t}: rate |c|/2 pi, frequency nu/2 pi, and whether the rotating wave keeps it."""

    tone: str
    mode: str
    kind: str
    rate_hz: float
    frequency_hz: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class Probe(Part):
    """A weak pair of tones on a cavity mode of its own (same ports): reads X cos phi + P sin phi of the collective motion.

    H = -eps c'c + sum_j s_j [c' (g_- e^{-i phi} b_j + g_+ e^{i phi} b_j') + h.c.], in the frame of the drive tones.
    """

    red_coupling_hz: Any = quantity("Hz", minimum=0.0, doc="g_-")
    blue_coupling_hz: Any = quantity("Hz", minimum=0.0, doc="g_+")
    phase_deg: Any = quantity("deg", 0.0)
    offset_hz: Any = quantity("Hz", 0.0, doc="eps: centre of the tones from the cavity")


@dataclass(frozen=True, kw_only=True)
class DrivenCavity(Element):
    r"""Radiation pressure H = omega_c a'a + sum_j omega_j b_j'b_j + sum_j g_j (b_j + b_j') a'a under tones at omega_t.

    Linearised, it couples by

        sum_{t,j} s_j G_t [a' (b_j e^{-i w_j t} + b_j' e^{i w_j t}) e^{-i(omega_t - omega_f) t} + h.c.],    g_j = s_j g_ref

    in frames at omega_f (cavity) and w_j (modes). The frame is chosen so that the resonant terms stand still; two tones
    always have one, with w_j = (omega_+ - omega_-)/2 for all modes. What is left repeats at one base frequency: a
    `PeriodicSystem`, whose constant part is the rotating-wave system. Fields at every port are in the frame omega_f,
    a_out = sqrt(kappa_k) a - a_in. Source: Ockeloen-Korppi et al., Nature 556, 478 (2018), Eq. (1); docs: derivations.

    `coupling_ratio` (g_1/g_2, two modes) sets s_1 = sqrt(ratio), s_2 = 1/sqrt(ratio): G refers to sqrt(g_1 g_2).
    """

    kind: ClassVar[str] = "driven_cavity"
    turns: ClassVar[bool] = True

    frequency_hz: Any = quantity("Hz", above=0.0, doc="of the cavity")
    coupling_ratio: Any = quantity("1", None, above=0.0, doc="g_1/g_2 of two modes")
    ports: tuple[CavityPort, ...] = parts(CavityPort, "loss channels")
    modes: tuple[DrivenMode, ...] = parts(DrivenMode, "mechanical modes")
    tones: tuple[Tone, ...] = parts(Tone, "drive tones, those that fix the frame first")
    probes: tuple[Probe, ...] = parts(Probe, "weak read-out tones, each pair on a cavity mode of its own")
    single_photon_coupling_hz: Any = quantity("Hz", None, doc="reference g_0, for tones given by their power")
    input_port: str = "input"
    output_port: str = "output"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ports or not self.modes:
            raise InputError(f"{self.name} (driven_cavity): needs at least one port and one mode")
        names = [p.name for p in self.ports]
        for key in ("input_port", "output_port"):
            port = getattr(self, key)
            if port not in names:
                raise InputError(
                    f"{self.name}.{key} = {port!r}: not among the ports {', '.join(names)}{nearest(port, names)}"
                )
        for m in self.modes:
            if m.occupation is None and m.temperature_k is None:
                raise InputError(f"{self.name}.{m.name}: missing occupation or temperature_k")
        for t in self.tones:
            if t.coupling_hz is None and (t.power_w is None or self.single_photon_coupling_hz is None):
                raise InputError(
                    f"{self.name}.{t.name}: give coupling_hz, or power_w with {self.name}.single_photon_coupling_hz"
                )
            if t.sideband is None and t.offset_hz is None:
                raise InputError(f"{self.name}.{t.name}: missing sideband ('{self.modes[0].name}-') or offset_hz")
            if t.sideband is not None:
                if not isinstance(t.sideband, str):
                    raise InputError(f"{self.name}.{t.name}.sideband = {t.sideband!r}: expected a mode and + or -")
                self._sideband(t)
        if self.coupling_ratio is not None and len(self.modes) != 2:
            raise InputError(f"{self.name}.coupling_ratio: is of two modes, here are {len(self.modes)}")

    def _sideband(self, tone: Tone) -> tuple[DrivenMode, float]:
        assert tone.sideband is not None
        names = [m.name for m in self.modes]
        name, sign = tone.sideband[:-1], tone.sideband[-1:]
        if sign not in ("+", "-") or name not in names:
            raise InputError(
                f"{self.name}.{tone.name}.sideband = {tone.sideband!r}: expected a mode and + or -: "
                + ", ".join(f"{n}-" for n in names)
                + nearest(tone.sideband, [f"{n}{x}" for n in names for x in "-+"])
            )
        return self.modes[names.index(name)], 1.0 if sign == "+" else -1.0

    # -- rates and frequencies ----------------------------------------------------------------------------------------

    def linewidth_hz(self) -> Any:
        """Kappa, the sum over the ports."""
        return sum((np.asarray(p.rate_hz) * 1.0 for p in self.ports), np.asarray(0.0))

    def tone_offset_hz(self, tone: Tone) -> Any:
        """Omega_t - omega_c in Hz."""
        if tone.sideband is None:
            return np.asarray(tone.offset_hz) + np.asarray(tone.detuning_hz)
        mode, sign = self._sideband(tone)
        return sign * np.asarray(mode.mechanical_hz) + np.asarray(tone.detuning_hz)

    def amplitude(self, tone: Tone) -> Pair:
        """(Re, Im) of the many-photon rate G of a tone at the reference coupling, in Hz."""
        c, s = cos_sin_deg(tone.phase_deg)
        if tone.coupling_hz is not None:
            return np.asarray(tone.coupling_hz) * c, np.asarray(tone.coupling_hz) * s
        offset = TWO_PI * np.asarray(self.tone_offset_hz(tone))
        energy = HBAR * (TWO_PI * np.asarray(self.frequency_hz) + offset)
        port = next(p for p in self.ports if p.name == self.input_port)
        drive = np.sqrt(TWO_PI * np.asarray(port.rate_hz) * np.asarray(tone.power_w) / energy)
        half = TWO_PI * self.linewidth_hz() / 2
        size = np.asarray(self.single_photon_coupling_hz) * drive / (half * half + offset * offset)
        re, im = size * half, size * offset
        return re * c - im * s, re * s + im * c

    def weights(self) -> list[Any]:
        """S_j = g_j/g_ref."""
        if self.coupling_ratio is not None:
            root = np.sqrt(np.asarray(self.coupling_ratio) * 1.0)
            return [root * self.modes[0].coupling, self.modes[1].coupling / root]
        return [np.asarray(m.coupling) * 1.0 for m in self.modes]

    def frame(self) -> tuple[Any, list[Any]]:
        """(omega_f - omega_c, [w_j]) in Hz: where as many resonant terms as possible stand still, tones in their order.

        A term omega_t + s w_j (s = +1: a' b, -1: a' b') is resonant if it meets the cavity closer than the lowest
        mechanical frequency. Each tone's conditions omega_t + s w_j = omega_f are taken if they agree with those before.
        """
        bare = [np.asarray(0.0), *(np.asarray(m.mechanical_hz) * 1.0 for m in self.modes)]
        lowest = float(min(np.min(np.real(b)) for b in bare[1:]))
        rows: list[list[float]] = []
        right: list[Any] = []
        for tone in self.tones:
            offset = self.tone_offset_hz(tone)
            own, values = [], []
            for j, m in enumerate(self.modes):
                for s in (1.0, -1.0):
                    if self._agreed(np.abs(np.real(offset) + s * np.real(np.asarray(m.mechanical_hz))) < lowest):
                        row = [0.0] * (1 + len(self.modes))
                        row[0], row[1 + j] = 1.0, -s
                        own.append(row)
                        values.append(offset)
            if own and self._consistent(rows + own, right + values):
                rows, right = rows + own, right + values
        y = bare
        if rows:
            M = np.array(rows)
            gap = [r - sum(M[i, k] * bare[k] for k in range(len(bare))) for i, r in enumerate(right)]
            # where the conditions leave freedom, the first tone's own mode stays at its frequency
            first = self.tones[0]
            own_mode = self.modes.index(self._sideband(first)[0]) if first.sideband is not None else 0
            fixed = [k for k in range(len(bare)) if k != 1 + own_mode]
            free = fixed if self._solvable(M[:, fixed], gap) else list(range(len(bare)))
            inverse = np.linalg.pinv(M[:, free])
            y = list(bare)
            for row_of, k in enumerate(free):
                y[k] = bare[k] + sum(inverse[row_of, i] * gap[i] for i in range(len(gap)))
        if self.probes and any(np.any(np.abs(np.real(y[1] - w)) > 1e-9 * lowest) for w in y[2:]):
            raise ModelError(f"{self.name}: a probe needs one frame for all modes: a red and a blue tone that fix it")
        return y[0], list(y[1:])

    def _agreed(self, resonant: Any) -> bool:
        """Whether a term is resonant, which must be the same at all points of a batch."""
        if np.any(resonant) != np.all(resonant):
            raise ModelError(f"{self.name}: which terms are resonant differs between the points: evaluate them apart")
        return bool(np.all(resonant))

    def _solvable(self, M: Array, gap: list[Any]) -> bool:
        b = np.stack(np.broadcast_arrays(*[np.real(np.asarray(g, dtype=complex)) for g in gap]), axis=-1)
        left = b - b @ np.linalg.pinv(M).T @ M.T
        scale = float(np.max(np.real(np.asarray(self.modes[0].mechanical_hz))))
        return bool(np.max(np.abs(left)) <= 1e-9 * scale)

    def _consistent(self, rows: list[list[float]], right: list[Any]) -> bool:
        """Whether the conditions have a solution, to 1e-9 of the frequencies."""
        M = np.array(rows)
        b = np.stack(np.broadcast_arrays(*[np.real(np.asarray(r, dtype=complex)) for r in right]), axis=-1)
        left = b - b @ np.linalg.pinv(M).T @ M.T
        return bool(np.max(np.abs(left)) <= 1e-9 * np.max(np.abs(b)))

    def terms(self) -> list[Term]:
        """All terms of the coupling with their rate and frequency in the frame: what the rotating wave keeps and drops."""
        return [t for t, _ in self._terms()]

    def _terms(self) -> list[tuple[Term, tuple[int, float, Any, Any]]]:
        """(term, (mode, s, G as (cos, sin) rates in rad/s, nu in Hz))."""
        centre, w = self.frame()
        out = []
        for tone in self.tones:
            offset = self.tone_offset_hz(tone)
            re, im = self.amplitude(tone)
            for j, (m, weight) in enumerate(zip(self.modes, self.weights(), strict=True)):
                strength = np.hypot(concrete(re), concrete(im)) * concrete(weight)
                for s in (1.0, -1.0):
                    nu = offset - centre + s * w[j]
                    still = self._agreed(np.abs(np.real(nu)) <= 1e-9 * np.real(np.asarray(m.mechanical_hz)))
                    label = "a' b" if s > 0 else "a' b'"
                    shown = (
                        float(np.max(np.abs(strength))),
                        float(np.ravel(np.real(nu))[np.argmin(np.abs(np.ravel(np.real(nu))))]),
                    )
                    term = Term(tone.name, m.name, label, shown[0], 0.0 if still else shown[1], still)
                    out.append((term, (j, s, (TWO_PI * re * weight, TWO_PI * im * weight), nu)))
        return out

    # -- systems ------------------------------------------------------------------------------------------------------

    def facts(self, reference: Element | None) -> dict[str, Any]:
        """Linewidth, the rotating frames, and every term of the drive with its rate."""
        centre, w = self.frame()
        out: dict[str, Any] = {
            "cavity_linewidth_hz": float(self.linewidth_hz()),
            "frame of the fields (Hz)": float(self.frequency_hz + centre),
            "frame of the modes (Hz)": ", ".join(
                f"{m.name} {float(x):.9g}" for m, x in zip(self.modes, w, strict=True)
            ),
        }
        for t in self.terms():
            word = "kept" if t.kept else f"dropped, turns at {t.frequency_hz:.9g} Hz"
            out[f"{t.tone} {t.kind} {t.mode}"] = f"{t.rate_hz:.6g} Hz, {word}"
        return out

    def build(self, light: Light = Light()) -> LinearSystem:
        """The rotating-wave LinearSystem: inputs one field per port and a bath per mode, modes by their own names.

        Raises
        ------
        ModelError
            Where a resonant term cannot be made to stand still: there is no such system (`periodic` there is).
        """
        kept = self.linewidth_hz()
        slow = [t for t in self.terms() if not t.kept and abs(t.frequency_hz) < min(
            float(np.min(np.real(m.mechanical_hz))) for m in self.modes) and t.rate_hz > 0]  # fmt: skip
        if slow:
            t = slow[0]
            raise ModelError(
                f"{self.name}: no frame in which all resonant terms stand still: {t.kind} of tone '{t.tone}' on "
                f"'{t.mode}' turns at {t.frequency_hz:.6g} Hz (cavity linewidth {float(np.max(np.real(kept))):.4g} Hz); "
                "see it beyond the rotating wave"
            )
        return self._average(light)

    def periodic(self, light: Light = Light(), below_hz: float | None = None) -> PeriodicSystem:
        """All terms: the rotating-wave part and the harmonics of the base frequency; `below_hz` drops faster ones.

        Raises
        ------
        ModelError
            If the frequencies that are left have no common base.
        """
        limit = np.inf if below_hz is None else below_hz
        moving = [(t, x) for t, x in self._terms() if not t.kept and t.rate_hz > 0 and abs(t.frequency_hz) < limit]
        average = self._average(light)
        if not moving:
            return PeriodicSystem(average, float(np.min(np.real(self.modes[0].mechanical_hz))), {})
        base = _base([abs(t.frequency_hz) for t, _ in moving])
        if base is None:
            listed = ", ".join(f"{t.frequency_hz:.9g}" for t, _ in moving)
            raise ModelError(f"{self.name}: the frequencies of the moving terms have no common base: {listed} Hz")
        harmonics: dict[int, Array] = {}
        size = average.A.shape[-1]
        for term, (j, s, (cr, ci), _) in moving:
            k = round(term.frequency_hz / base)
            # c e^{-i nu t}: Re c -> c/2, Im c -> c/(2i) at e^{-i nu t}, and the conjugate at the opposite frequency
            c = complex(np.real(cr), np.real(ci))
            block = _coupling(c / 2, c / 2j, s)
            part = np.zeros((size, size), dtype=complex)
            _add(part, 1 + j, block)
            part = part if k > 0 else np.conj(part)
            harmonics[abs(k)] = harmonics.get(abs(k), 0) + part
        return PeriodicSystem(average, base, harmonics)

    def _average(self, light: Light) -> LinearSystem:
        centre, w = self.frame()
        count = len(self.modes)
        rates = [TWO_PI * np.asarray(p.rate_hz) for p in self.ports]
        kappa = sum(rates, np.asarray(0.0))
        # H0 = (omega_c - omega_f) a'a + (omega_j - w_j) b_j'b_j
        blocks = [_rotation(-TWO_PI * centre, kappa)]
        baths = []
        for m, frame in zip(self.modes, w, strict=True):
            gamma = TWO_PI * np.asarray(m.mechanical_linewidth_hz)
            blocks.append(_rotation(TWO_PI * (np.asarray(m.mechanical_hz) - frame), gamma))
            n = m.occupation if m.occupation is not None else occupation_at(m.temperature_k, m.mechanical_hz)
            baths.append(thermal_bath(f"{self.name}.{m.name}_bath", gamma, n, "symmetric"))
        A = block_diagonal(blocks)
        for term, (j, s, (cr, ci), _) in self._terms():
            if term.kept:
                block = _coupling(cr, ci, s)
                shape = np.broadcast_shapes(A.shape[:-2], block.shape[:-2])
                A = np.array(np.broadcast_to(A, shape + A.shape[-2:]), dtype=np.result_type(A, block))
                _add(A, 1 + j, block)
        weights = self.weights()
        cavities = 1 + len(self.probes)
        A = block_diagonal([A, *(_rotation(-TWO_PI * np.asarray(p.offset_hz), kappa) for p in self.probes)])
        for k, p in enumerate(self.probes):
            c, s_ = cos_sin_deg(p.phase_deg)
            minus, plus = (TWO_PI * np.asarray(g) for g in (p.red_coupling_hz, p.blue_coupling_hz))
            for j, weight in enumerate(weights):
                block = _coupling(minus * weight * c, -minus * weight * s_, 1.0) + _coupling(
                    plus * weight * c, plus * weight * s_, -1.0
                )
                shape = np.broadcast_shapes(A.shape[:-2], block.shape[:-2])
                A = np.array(np.broadcast_to(A, shape + A.shape[-2:]), dtype=np.result_type(A, block))
                _add(A, 1 + j, block, 1 + count + k)
        return self._with_ports(A, rates, baths, centre, w, cavities)

    def _with_ports(
        self, A: Array, rates: list[Any], baths: list[Any], centre: Any, w: list[Any], cavities: int
    ) -> LinearSystem:
        """The drift with its fields: every cavity mode (the driven one, then the probes) sees all ports."""
        order = [p.name for p in self.ports]
        count, n = len(self.modes), A.shape[-1]
        entry, leave = order.index(self.input_port), order.index(self.output_port)
        first = [entry, *(i for i in range(len(order)) if i != entry)]
        leaving = [leave, *(i for i in range(len(order)) if i != leave)]
        starts = [0, *(2 + 2 * count + 2 * k for k in range(cavities - 1))]
        names = [f"{self.name}.", *(f"{self.name}.{p.name}_" for p in self.probes)]
        centres = [
            np.asarray(self.frequency_hz) + centre,
            *(np.asarray(self.frequency_hz) + p.offset_hz for p in self.probes),
        ]
        gains = [np.sqrt(r)[..., None, None] * np.eye(2) for r in rates]
        B_parts, C_parts, quanta, inputs, outputs = [], [], [], [], []
        for start, name, at in zip(starts, names, centres, strict=True):
            fields = Frame("rotating", float(np.ravel(np.real(at))[0]))
            B_parts += [_rows(gains[i], start, n) for i in first]
            C_parts += [_columns(gains[i], start, n) for i in leaving]
            quanta += [np.asarray(self.ports[i].occupation) + 0.5 for i in first]
            inputs += [Port(f"{name}{'in' if i == entry else order[i]}", "field", 2, fields) for i in first]
            outputs += [
                Port(f"{name}{'out' if i == leave else order[i] + '_out'}", "field", 2, fields) for i in leaving
            ]
        B = join([*B_parts, *(_rows(b[1], 2 + 2 * j, n) for j, b in enumerate(baths))], -1)
        D = np.zeros((2 * len(outputs), B.shape[-1]))
        for k in range(cavities):
            for r, i in enumerate(leaving):
                row, column = 2 * (k * len(order) + r), 2 * (k * len(order) + first.index(i))
                D[row : row + 2, column : column + 2] = -np.eye(2)
        S = block_diagonal([*(stack([[q, 0.0 * q], [0.0 * q, q]]) for q in quanta), *(b[2] for b in baths)])
        frames = [Frame("rotating", float(np.ravel(np.real(x))[0])) for x in w]
        modes = [Mode(f"{self.name}.cavity", "cavity", frame=outputs[0].frame)]
        modes += [Mode(m.name, frame=f) for m, f in zip(self.modes, frames, strict=True)]
        modes += [
            Mode(f"{self.name}.{p.name}", "cavity", frame=outputs[(k + 1) * len(order)].frame)
            for k, p in enumerate(self.probes)
        ]
        return LinearSystem(
            A, B, join(C_parts, -2), D, S, tuple(modes), (*inputs, *(b[0] for b in baths)), tuple(outputs)
        )


def _rotation(omega: Any, gamma: Any) -> Array:
    """Drift of a mode of H = omega a'a with full linewidth gamma."""
    return stack([[-gamma / 2, omega], [-omega, -gamma / 2]])


def _coupling(cr: Any, ci: Any, s: float) -> Array:
    """Block h_ab of H = x^T h x/2 for c a'b + h.c. (s = 1) or c a'b' + h.c. (s = -1), c = cr + i ci."""
    return stack([[cr, -ci], [ci, cr]]) if s > 0 else stack([[cr, ci], [ci, -cr]])


_OMEGA = np.array([[0.0, 1.0], [-1.0, 0.0]])


def _add(A: Array, mode: int, block: Array, cavity: int = 0) -> None:
    """Add the drift Omega h of a coupling between a cavity mode (default: the driven one) and a mechanical mode."""
    a, b = slice(2 * cavity, 2 * cavity + 2), slice(2 * mode, 2 * mode + 2)
    A[..., a, b] += _OMEGA @ block
    A[..., b, a] += _OMEGA @ np.swapaxes(block, -1, -2)


def _rows(block: Array, start: int, n: int) -> Array:
    out = np.zeros((*block.shape[:-2], n, block.shape[-1]), dtype=block.dtype)
    out[..., start : start + block.shape[-2], :] = block
    return out


def _columns(block: Array, start: int, n: int) -> Array:
    return np.swapaxes(_rows(np.swapaxes(block, -1, -2), start, n), -1, -2)


def _base(frequencies: list[float]) -> float | None:
    """Largest frequency of which all are multiples (to 1e-9), or None."""
    values = sorted(set(frequencies))
    base = values[0]
    for f in values[1:]:
        a, b = f, base
        while b > 1e-7 * f:
            a, b = b, abs(a - round(a / b) * b)
        base = a
    whole = [f / base for f in values]
    if max(whole) > 2000 or any(abs(x - round(x)) > 1e-6 for x in whole):
        return None
    return base
