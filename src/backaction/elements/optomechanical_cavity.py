"""An optical or microwave cavity whose field is coupled to mechanical modes by radiation pressure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from backaction.constants import C_LIGHT, HBAR, TWO_PI
from backaction.elements.base import Element, Light
from backaction.elements.baths import damped_rotation, occupation_at, structural, thermal_bath
from backaction.elements.fields import Part, choice, flag, parts, quantity
from backaction.elements.optics import Rotation
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.errors import InputError, ModelError
from backaction.numerics.matrices import Array, Pair, block_diagonal, concrete, join, solve, stack
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, kw_only=True)
class MechanicalMode(Part):
    """A further mechanical mode that sees the same intracavity field (with back-action)."""

    groups: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("bath_occupation", "bath_temperature_k"),
        ("coupling_hz", "single_photon_coupling_hz"),
    )

    mechanical_hz: Any = quantity("Hz", above=0.0)
    mechanical_linewidth_hz: Any = quantity("Hz", above=0.0)
    bath_occupation: Any = quantity("1", None, minimum=0.0)
    bath_temperature_k: Any = quantity("K", None, minimum=0.0)
    coupling_hz: Any = quantity("Hz", None)
    single_photon_coupling_hz: Any = quantity("Hz", None)


@dataclass(frozen=True, kw_only=True)
class OptomechanicalCavity(Element):
    r"""H/hbar = -Delta a'a + omega_m b'b - g (a + a')(b + b'), Delta = omega_laser - omega_cavity, g = g_0 sqrt(n).

    With [X, P] = i everywhere and the intracavity carrier real:

        dX = omega P,    dP = -omega X - gamma P + 2 g X_a + F
        dX_a = -kappa/2 X_a - Delta P_a + ...,    dP_a = -kappa/2 P_a + Delta X_a + 2 g X + ...
        a_out = sqrt(kappa_port) a - a_in

    The field at the input port is referred to its carrier (real positive there); the intracavity field is turned from
    it by psi = arctan(2 Delta/kappa), and the outgoing carrier by arg(kappa_in/(kappa/2 - i Delta) - 1). Source:
    Thomas 2021 (B20)-(B27); g is the textbook coupling, sqrt(2) times the paper's (`physics notes`, section 1).
    `mode_matching` is a power: kappa_in -> eta kappa_in and the rest joins the loss (Moller 2017, Methods). That is
    light in the spatial mode of the incoming beam. With `detect_unmatched` the rest is a port of its own, the
    orthogonal spatial mode, and `name.out` is the superposition of the two that carries all the reflected carrier,
    b = (alpha_1^* a_1 + alpha_2^* a_2)/|alpha|: what a photodiode that catches all the light detects (docs: derivations).
    The superposition without carrier leaves by `name.unmatched_out`.
    """

    kind: ClassVar[str] = "optomechanical_cavity"
    mechanical: ClassVar[bool] = True
    groups: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("bath_occupation", "bath_temperature_k"),
        ("coupling_hz", "single_photon_coupling_hz"),
        ("photons", "power_w"),
        ("ports", "overcoupling"),
    )

    mechanical_hz: Any = quantity("Hz", above=0.0, doc="bare mechanical frequency")
    mechanical_linewidth_hz: Any = quantity("Hz", above=0.0, doc="bare linewidth gamma_M0")
    bath_occupation: Any = quantity("1", None, minimum=0.0)
    bath_temperature_k: Any = quantity("K", None, minimum=0.0)
    cavity_linewidth_hz: Any = quantity("Hz", above=0.0, doc="kappa, full width")
    ports: Mapping[str, float] | None = field(default=None, metadata={"fractions": True, "doc": "fractions of kappa"})
    input_port: str | None = field(default=None, metadata={"doc": "where the path of the light enters"})
    output_port: str | None = field(default=None, metadata={"doc": "where it leaves"})
    carrier_port: str | None = field(default=None, metadata={"doc": "where the carrier enters"})
    overcoupling: Any = quantity(
        "1", None, minimum=0.0, root=True, maximum=1.0, doc="kappa_in/kappa of a two-port cavity"
    )
    detuning_hz: Any = quantity("Hz", doc="Delta, red negative")
    coupling_hz: Any = quantity("Hz", None, doc="textbook g = g_0 sqrt(n)")
    single_photon_coupling_hz: Any = quantity("Hz", None, doc="g_0, with photons or power_w")
    photons: Any = quantity("1", None, minimum=0.0, root=True, doc="intracavity photon number")
    power_w: Any = quantity(
        "W", None, minimum=0.0, root=True, doc="carrier power at the carrier port, with wavelength_m"
    )
    wavelength_m: Any = quantity("m", None, above=0.0, doc="of the carrier; needed with power_w")
    mode_matching: Any = quantity("1", 1.0, minimum=0.0, maximum=1.0, doc="power overlap with the cavity mode")
    detect_unmatched: bool = flag("all the reflected light leaves by `out`, not only the incoming beam's spatial mode")
    damping: str = choice("velocity", "velocity", "symmetric", "structural", doc="structural: spectra only")
    modes: tuple[MechanicalMode, ...] = parts(MechanicalMode, "further mechanical modes in the same field")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ports is None and self.overcoupling is None:
            raise InputError(f"{self.name} ({self.kind}): missing overcoupling, or ports with their fractions of kappa")
        parts_: list[OptomechanicalCavity | MechanicalMode] = [self, *self.modes]
        for part in parts_:
            if part.bath_occupation is None and part.bath_temperature_k is None:
                raise InputError(f"{part.name}: missing bath_occupation or bath_temperature_k")
        if self.coupling_hz is None and self.single_photon_coupling_hz is None:
            raise InputError(f"{self.name} ({self.kind}): missing coupling_hz (or single_photon_coupling_hz)")
        if self.ports is None:
            for key in ("input_port", "output_port", "carrier_port"):
                if getattr(self, key) not in (None, "in", "loss"):
                    raise InputError(
                        f"{self.name}.{key} = {getattr(self, key)!r}: with overcoupling the ports are in, loss"
                    )
        if self.ports is not None:
            total = sum(self.ports.values())
            if abs(total - 1) > 1e-9 or min(self.ports.values()) < 0:
                raise InputError(
                    f"{self.name}.ports = {dict(self.ports)}: fractions must be >= 0 and sum to 1, got {total:g}"
                )
            for key in ("input_port", "output_port", "carrier_port"):
                port = getattr(self, key)
                if port is not None and port not in self.ports:
                    raise InputError(f"{self.name}.{key} = {port!r}: not among the ports {', '.join(self.ports)}")

        if self.detect_unmatched and (len(set(self.port_roles())) > 1 or "unmatched" in (self.ports or ())):
            raise InputError(
                f"{self.name}.detect_unmatched: needs light and carrier that leave where they enter (reflection), and no "
                "port of the name 'unmatched'"
            )

    # -- derived quantities ---------------------------------------------------------------------------------------

    def port_roles(self) -> tuple[str, str, str]:
        """Names of the input, output and carrier port."""
        first = "in" if self.ports is None else next(iter(self.ports))
        entry = self.input_port or first
        return entry, self.output_port or entry, self.carrier_port or entry

    def port_rates(self) -> dict[str, Any]:
        """Kappa of each port in rad/s, after the mode matching of the input port."""
        kappa = TWO_PI * np.asarray(self.cavity_linewidth_hz)
        shares: dict[str, Any]
        if self.ports is None:
            share = np.asarray(self.overcoupling) * 1.0
            shares = {"in": share, "loss": 1.0 - share}
        else:
            shares = {k: np.asarray(v) * 1.0 for k, v in self.ports.items()}
        entry, leave, _ = self.port_roles()
        if self.detect_unmatched or np.any(np.asarray(self.mode_matching) != 1.0):  # a complex step at one counts
            lost = (1.0 - np.asarray(self.mode_matching)) * shares[entry]
            sink = next((k for k in ("loss", *shares) if k in shares and k not in (entry, leave)), None)
            if sink is None or self.detect_unmatched:
                sink = "unmatched"
                shares[sink] = 0.0 * lost
            shares[entry] = shares[entry] - lost
            shares[sink] = shares[sink] + lost
        return {k: kappa * v for k, v in shares.items()}

    def intracavity_photons(self) -> Any:
        """N = kappa_c P / (hbar omega_L) / (kappa^2/4 + Delta^2), or the number given; None if neither is."""
        if self.photons is not None or self.power_w is None:
            return self.photons
        if self.wavelength_m is None:
            raise InputError(f"{self.name}: power_w needs wavelength_m")
        rates = self.port_rates()
        kappa, delta = sum(rates.values()), TWO_PI * np.asarray(self.detuning_hz)
        energy = HBAR * TWO_PI * C_LIGHT / np.asarray(self.wavelength_m)
        return rates[self.port_roles()[2]] * np.asarray(self.power_w) / energy / (kappa**2 / 4 + delta**2)

    def coupling(self, part: OptomechanicalCavity | MechanicalMode | None = None) -> Any:
        """Textbook g = g_0 sqrt(n) in rad/s of the main mode (or of a further `part`)."""
        part = part or self
        if part.coupling_hz is not None:
            return TWO_PI * np.asarray(part.coupling_hz)
        if part.single_photon_coupling_hz is None:
            raise InputError(f"{self.name}.{part.name}: missing coupling_hz or single_photon_coupling_hz")
        photons = self.intracavity_photons()
        if photons is None:
            raise InputError(f"{self.name}: single_photon_coupling_hz needs photons or power_w")
        return TWO_PI * np.asarray(part.single_photon_coupling_hz) * np.sqrt(photons)

    def effective_mechanics(self) -> tuple[Any, Any]:
        """(omega_M,eff, gamma_M) / 2 pi in Hz: modulus and -2 Re of the pole of cavity + main mode nearest to it.

        The quartic (s^2 + gamma s + omega^2)((s + kappa/2)^2 + Delta^2) + 4 g^2 omega Delta is split into two real
        quadratics s^2 + u s + v by Newton's method, so that both numbers are analytic in the fields:
        omega_eff = sqrt(v), gamma_M = u.
        """
        f0 = np.asarray(self.mechanical_hz) * 1.0
        scale = np.real(f0)
        w, gm = f0 / scale, np.asarray(self.mechanical_linewidth_hz) / scale
        k, d = np.asarray(self.cavity_linewidth_hz) / scale, np.asarray(self.detuning_hz) / scale
        g = self.coupling() / TWO_PI / scale
        m0 = w * w + (gm * gm / 4 if self.damping == "symmetric" else 0.0)
        c0 = k * k / 4 + d * d
        b3, b2, b1, b0 = np.broadcast_arrays(gm + k, m0 + c0 + gm * k, gm * c0 + k * m0, m0 * c0 + 4 * g * g * w * d)
        r0, r1, r2, r3 = (concrete(b) for b in (b0, b1, b2, b3))
        zero, one = 0.0 * r0, 1.0 + 0.0 * r0
        companion = stack(
            [[zero, one, zero, zero], [zero, zero, one, zero], [zero, zero, zero, one]] + [[-r0, -r1, -r2, -r3]]
        )
        roots = np.linalg.eigvals(companion)
        near = np.argmin(np.abs(roots - 1j * concrete(w)[..., None]), axis=-1)
        pole = np.take_along_axis(roots, near[..., None], axis=-1)[..., 0]
        u, v = -2 * np.real(pole) + 0.0 * b0, np.abs(pole) ** 2 + 0.0 * b0
        p, q = b3 - u, b0 / v
        for _ in range(4):
            residual = np.stack([u + p - b3, v + u * p + q - b2, u * q + v * p - b1, v * q - b0], axis=-1)
            o, z = np.ones_like(u), np.zeros_like(u)
            jacobian = stack([[o, z, o, z], [p, o, u, o], [q, p, v, u], [z, q, z, v]])
            step = solve(jacobian, residual[..., None])[..., 0]
            u, v, p, q = u - step[..., 0], v - step[..., 1], p - step[..., 2], q - step[..., 3]
        return np.sqrt(v) * scale, u * scale

    def readout(self) -> tuple[Any, Any]:
        """(Gamma_M / 2 pi in Hz, zeta_M): Gamma_M = (2 g^2/kappa)(|L+| + |L-|)^2, zeta_M = (|L+| - |L-|)/(|L+| + |L-|).

        L+- = (kappa/2)/(kappa/2 - i(Delta +- omega_M,eff)), g textbook; Thomas 2021 (B32), where 4 g_paper^2 = 2 g^2.
        """
        f, _ = self.effective_mechanics()
        kappa = np.asarray(self.cavity_linewidth_hz) * 1.0
        delta, g = np.asarray(self.detuning_hz) * 1.0, self.coupling() / TWO_PI
        up, down = (1 / np.sqrt(1 + (2 * (s * f + delta) / kappa) ** 2) for s in (1, -1))
        return 2 * g**2 / kappa * (up + down) ** 2, (up - down) / (up + down)

    def carrier_phases(self, port: str | None = None) -> tuple[Pair, Pair]:
        """(cos, sin) of psi_in (input to intracavity) and of the carrier that leaves by `port` (default: the output port).

        Relative to the incoming carrier: sqrt(kappa_port kappa_carrier)/(kappa/2 - i Delta), minus one at the carrier's
        own port.
        """
        rates = self.port_rates()
        kappa, delta = sum(rates.values()), TWO_PI * np.asarray(self.detuning_hz)
        norm = np.sqrt(kappa**2 / 4 + delta**2)
        inner = (kappa / 2 / norm, delta / norm)
        if self.detect_unmatched and port in (None, self.port_roles()[1], "unmatched"):
            return inner, (1.0, 0.0)  # the outgoing modes are turned to their carrier (`_by_carrier`)
        re, im = self.carrier_amplitude(port)
        size = np.sqrt(re * re + im * im)
        if np.any(np.real(size) < 1e-12):
            raise ModelError(
                f"{self.name}: no carrier leaves the cavity (critically coupled on resonance): no phase reference"
            )
        return inner, (re / size, im / size)

    def carrier_amplitude(self, port: str | None = None) -> Pair:
        """(Re, Im) of the carrier that leaves by `port` per incoming carrier, in amplitude."""
        rates = self.port_rates()
        _, leave, entry = self.port_roles()
        leave = port or leave
        kappa, delta = sum(rates.values()), TWO_PI * np.asarray(self.detuning_hz)
        square = kappa**2 / 4 + delta**2
        product = np.sqrt(rates[leave] * rates[entry])
        return product * (kappa / 2) / square - (1.0 if leave == entry else 0.0), product * delta / square

    def minimum_occupation(self) -> Any:
        """n_min = |L-|^2/(|L+|^2 - |L-|^2), L+- as in `readout` at the bare frequency: the limit of sideband cooling.

        Needs red detuning (nan otherwise). Marquardt et al., PRL 99, 093902 (2007); Moller 2017 (S1).
        """
        f = np.asarray(self.mechanical_hz) * 1.0
        kappa, delta = np.asarray(self.cavity_linewidth_hz) * 1.0, np.asarray(self.detuning_hz) * 1.0
        up, down = (1 / (1 + (2 * (s * f + delta) / kappa) ** 2) for s in (1, -1))
        with np.errstate(divide="ignore"):
            return np.where(np.real(up - down) > 0, down / (up - down), np.nan)[()]

    def rotating_wave(self) -> tuple[Any, SidebandOscillator]:
        """(phase in degrees, oscillator): the limit omega >> Gamma, kappa >> gamma_M of a one-sided cavity.

        Gamma_B,P = (4 g^2/kappa)|L+-|^2 at omega_M,eff, i.e. Gamma = readout rate (1 + zeta^2), theta = 45 degrees + arctan
        zeta, behind a common turn of the two sidebands by (theta_+ + theta_-)/2 - psi_in, theta_+- = arctan 2(Delta +-
        omega)/kappa; their difference only delays. Huang 2018 (S5)-(S9); how far it holds: docs, huang2018.
        """
        if len(self.port_rates()) > 1 and not np.all(np.real(self.port_rates()[self.port_roles()[0]]) > (1 - 1e-12) * TWO_PI
                                                     * np.real(np.asarray(self.cavity_linewidth_hz))):  # fmt: skip
            raise InputError(
                f"{self.name}: the rotating-wave oscillator has one field: overcoupling = 1, mode_matching = 1"
            )
        if self.modes:
            raise InputError(f"{self.name}: the rotating-wave oscillator has one mode")
        f, _ = self.effective_mechanics()
        rate, zeta = self.readout()
        kappa, delta = np.asarray(self.cavity_linewidth_hz) * 1.0, np.asarray(self.detuning_hz) * 1.0
        up, down, inner = (np.arctan(2 * (delta + s * f) / kappa) for s in (1, -1, 0))
        oscillator = SidebandOscillator(
            name=self.name,
            intrinsic_linewidth_hz=self.mechanical_linewidth_hz,
            occupation=bath_quanta(self),
            readout_rate_hz=rate * (1 + zeta**2),
            coupling_angle_deg=45.0 + np.arctan(zeta) * (180.0 / np.pi),
        )
        return ((up + down) / 2 - inner) * (180.0 / np.pi), oscillator

    def _leaving(self, port: str) -> Pair:
        try:
            return self.carrier_phases(port)[1]
        except ModelError:  # no carrier leaves by this port: its quadratures have no reference of their own
            return 1.0, 0.0

    def at_frequency(self, frequency_hz: Any = None) -> Self:
        """With structural damping: friction of the same loss at each frequency, of every mechanical mode."""
        if self.damping != "structural":
            return self

        def width(part: OptomechanicalCavity | MechanicalMode) -> Any:
            return structural(part.mechanical_linewidth_hz, part.mechanical_hz, frequency_hz)

        modes = tuple(replace(m, mechanical_linewidth_hz=width(m)) for m in self.modes)
        return replace(self, damping="velocity", mechanical_linewidth_hz=width(self), modes=modes)

    # -- the element ----------------------------------------------------------------------------------------------

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Its oscillator between rotations `NAME_phase` and `NAME_phase_out`, and the effective frequency."""
        angle, oscillator = self.rotating_wave()
        before, behind = (Rotation(name=f"{self.name}_{w}", angle_deg=angle) for w in ("phase", "phase_out"))
        return (before, oscillator, behind), self.effective_mechanics()[0]

    def facts(self, reference: Element | None) -> dict[str, Any]:
        """Effective mechanics, readout, carrier phases, photons, and the cooperativities by their definitions."""
        f, gamma = (float(v) for v in self.effective_mechanics())
        (ci, si), (co, so) = self.carrier_phases()
        kappa, g = float(self.cavity_linewidth_hz), float(self.coupling()) / (2 * np.pi)
        readout, asymmetry = (float(v) for v in self.readout())
        n, gamma0 = float(bath_quanta(self)), float(self.mechanical_linewidth_hz)
        photons = self.intracavity_photons()
        entry, leave, carrier = self.port_roles()
        return {
            "light enters, leaves, carrier enters at": f"{entry}, {leave}, {carrier}",
            "effective_frequency_hz": f,
            "optical_spring_hz": f - float(self.mechanical_hz),
            "effective_linewidth_hz": gamma,
            "optical_damping_hz": gamma - float(self.mechanical_linewidth_hz),
            "minimum_occupation": float(least) if np.isfinite(least := self.minimum_occupation()) else None,
            "readout_rate_hz": readout,
            "sideband_asymmetry": asymmetry,
            "bath_occupation": n,
            "psi_in_deg": float(np.degrees(np.arctan2(si, ci))),
            "carrier_out_deg": float(np.degrees(np.arctan2(so, co))),
            "photons": None if photons is None else float(photons),
            "cooperativity 4 g^2/(kappa gamma_M0)": 4 * g**2 / (kappa * gamma0),
            "cooperativity Thomas/Moller Gamma_M/[gamma_M0 (2n+1)]": readout / (gamma0 * (2 * n + 1)),
            "cooperativity Huang Gamma_M/[gamma_M0 (n+1/2)]": readout / (gamma0 * (n + 0.5)),
            "cooperativity 2 g^2/(kappa gamma_M0 n) (Thomas's table, 4 g_paper^2/(kappa gamma_M0 n))": (
                2 * g**2 / (kappa * gamma0 * n) if n else float("inf")
            ),
        }

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with one input and output field per port, `name.in` and `name.out` on the path, and the baths."""
        self._lab_only(light)
        if self.damping == "structural":
            raise ModelError(
                f"{self.name}: structural damping has no state-space form: spectra only (a frequency-domain Response)"
            )
        entry, leave, carrier_port = self.port_roles()
        rates = self.port_rates()
        names = [self.name, *(f"{self.name}.{m.name}" for m in self.modes)]
        A, baths = self._drift(names, sum(rates.values()))
        # the field enters turned to its own carrier where that carrier enters by this port
        lead = light.carrier if carrier_port == entry else (1.0, 0.0)
        turn = stack([[lead[0], lead[1]], [-np.asarray(lead[1]), lead[0]]])
        order = [entry, *(k for k in rates if k != entry)]
        B = self._inward(order, turn, A.shape[-1], baths)
        leave_order = [leave, *(k for k in rates if k != leave)]
        rows, direct = self._outward(order, leave_order, turn, B.shape[-1], A.shape[-1])
        carriers = {k: self._leaving(k) for k in leave_order}
        if self.detect_unmatched:
            rows, direct = self._by_carrier(leave_order, rows), self._by_carrier(leave_order, direct)
            carriers[leave] = carriers["unmatched"] = (1.0, 0.0)
        modes = (Mode(self.name), Mode(f"{self.name}.cavity", "cavity"), *(Mode(n, "auxiliary") for n in names[1:]))
        inputs = tuple(Port(f"{self.name}.{'in' if k == entry else k}", "field") for k in order)
        outputs = tuple(
            Port(f"{self.name}.{'out' if k == leave else k + '_out'}", "field", carrier=carriers[k])
            for k in leave_order
        )
        S = block_diagonal([0.5 * np.eye(2 * len(order)), *(b[2] for b in baths)])
        every = (*inputs, *(b[0] for b in baths))
        return LinearSystem(A, B, join(rows, -2), join(direct, -2), S, modes, every, outputs)

    def _drift(self, names: list[str], kappa: Any) -> tuple[Array, list[tuple[Port, Array, Array]]]:
        """A of main mode, cavity, further modes (X_cavity drives every P, every X drives P_cavity, by 2 g); the baths."""
        mechanics: list[OptomechanicalCavity | MechanicalMode] = [self, *self.modes]
        drifts, baths, gains = [], [], []
        for part, name in zip(mechanics, names, strict=True):
            omega = TWO_PI * np.asarray(part.mechanical_hz)
            gamma = TWO_PI * np.asarray(part.mechanical_linewidth_hz)
            drifts.append(damped_rotation(omega, gamma, self.damping))
            bath = f"{name}.bath" if part is self else f"{name}_bath"
            baths.append(thermal_bath(bath, gamma, bath_quanta(part), self.damping))
            gains.append(self.coupling(part))
        delta = TWO_PI * np.asarray(self.detuning_hz)
        cavity = stack([[-kappa / 2, -delta], [delta, -kappa / 2]])
        A = block_diagonal([drifts[0], cavity, *drifts[1:]])
        A = np.array(
            np.broadcast_to(A, np.broadcast_shapes(A.shape[:-2], *(np.shape(g) for g in gains)) + A.shape[-2:])
        )
        A = A.astype(np.result_type(A, *(np.asarray(g) for g in gains)))
        for i, g in enumerate(gains):
            x = 0 if i == 0 else 2 + 2 * i
            A[..., x + 1, 2] = 2 * g
            A[..., 3, x] = 2 * g
        return A, baths

    def _inward(self, order: list[str], turn: Array, size: int, baths: list[tuple[Port, Array, Array]]) -> Array:
        """B: sqrt(kappa_k) of every port's field, turned to the intracavity field's phase, and the baths."""
        rates, ((ci, si), _) = self.port_rates(), self.carrier_phases()
        inward = stack([[ci, si], [-si, ci]])
        fields_in = {k: np.sqrt(rates[k])[..., None, None] * inward for k in order}
        fields_in[order[0]] = fields_in[order[0]] @ turn
        light = join([fields_in[k] for k in order], -1)
        pad = np.zeros(light.shape[:-2] + (size, light.shape[-1]), dtype=light.dtype)
        pad[..., 2:4, :] = light
        return join([pad, block_diagonal([baths[0][1], np.zeros((2, 0)), *(b[1] for b in baths[1:])])], -1)

    def _outward(
        self, order: list[str], leave_order: list[str], turn: Array, width: int, size: int
    ) -> tuple[list[Array], list[Array]]:
        """Rows of C and D of every leaving field: a_out = sqrt(kappa_k) a - a_in."""
        rates, ((ci, si), _) = self.port_rates(), self.carrier_phases()
        outward = stack([[ci, -si], [si, ci]])
        rows, reflected = [], []
        for k in leave_order:
            read = np.sqrt(rates[k])[..., None, None] * outward
            row = np.zeros(read.shape[:-2] + (2, size), dtype=read.dtype)
            row[..., :, 2:4] = read
            direct = np.zeros((*turn.shape[:-2], 2, width), dtype=turn.dtype)
            start = 2 * order.index(k)
            direct[..., :, start : start + 2] = -turn if k == order[0] else -np.eye(2)
            rows.append(row)
            reflected.append(direct)
        return rows, reflected

    def _by_carrier(self, order: list[str], rows: list[Any]) -> list[Any]:
        """Rows of the reflected beam and of the unmatched mode, turned into those with all and with none of the carrier."""
        beam, rest = order[0], "unmatched"
        (a, b), (c, d) = self.carrier_amplitude(beam), self.carrier_amplitude(rest)
        size = np.sqrt(a * a + b * b + c * c + d * d)
        if np.any(np.real(size) < 1e-12):
            raise ModelError(f"{self.name}: no carrier leaves the cavity: nothing is detected directly")
        first, second = rows[0], rows[order.index(rest)]
        times = {"a*": stack([[a, b], [-b, a]]), "c*": stack([[c, d], [-d, c]])}
        times |= {"a": stack([[a, -b], [b, a]]), "c": stack([[c, -d], [d, c]])}
        norm = np.asarray(size)[..., None, None]
        out = list(rows)
        out[0] = (times["a*"] @ first + times["c*"] @ second) / norm
        out[order.index(rest)] = (times["a"] @ second - times["c"] @ first) / norm
        return out


def bath_quanta(part: OptomechanicalCavity | MechanicalMode) -> Any:
    """Occupation of a mechanical mode's bath, as given or from its temperature."""
    if part.bath_occupation is not None:
        return part.bath_occupation
    return occupation_at(part.bath_temperature_k, part.mechanical_hz)
