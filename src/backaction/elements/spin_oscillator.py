"""A polarised atomic ensemble in a magnetic field, read and driven by light."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from backaction.constants import TWO_PI
from backaction.elements.base import Element, Light
from backaction.elements.baths import damped_rotation, thermal_bath
from backaction.elements.fields import choice, quantity
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.errors import InputError
from backaction.numerics.matrices import Array, block_diagonal, join, stack
from backaction.systems.labels import Mode, Port
from backaction.systems.linear import LinearSystem


@dataclass(frozen=True, kw_only=True)
class SpinOscillator(Element):
    r"""Collective spin: dx = ... + sqrt(2 Gamma) Z x_in, x_out = x_in + sqrt(2 Gamma) Z x, Z = [[0, -zeta], [1, 0]].

    Drift [[-d, omega], [-omega, -d]] with d = gamma_0/2 + zeta Gamma (`damping = "symmetric"`), or the full width
    gamma_0 + 2 zeta Gamma on P alone (`"velocity"`). A negative Larmor frequency is a negative mass. Source: Thomas
    2021 (B10), (B11) with x = sqrt(2) X_L, so that [X, P] = i for the light too.

    `broadband_noise_sn` adds classical white noise to the P quadrature at the output (in units of vacuum). A
    dynamical broadband mode (`broadband_linewidth_hz`, `broadband_readout_rate_hz`; Thomas B17) sees the same
    light with the same Z; the field-mediated coupling -zeta sqrt(Gamma Gamma_bb) between the two modes, which
    the paper leaves out, is kept because without it the commutators decay; `broadband_coupling = "none"` leaves it out.
    """

    kind: ClassVar[str] = "spin_oscillator"
    groups: ClassVar[tuple[tuple[str, ...], ...]] = (("larmor_hz", "larmor_offset_hz", "larmor_offset_linewidths"),)

    larmor_hz: Any = quantity("Hz", None, doc="signed Larmor frequency; negative = negative mass")
    larmor_offset_hz: Any = quantity("Hz", None, doc="|omega_S| - omega_M,eff")
    larmor_offset_linewidths: Any = quantity("1", None, doc="the same in units of gamma_M")
    mass: str = choice("negative", "negative", "positive", doc="sign of the frequency when an offset is given")
    intrinsic_linewidth_hz: Any = quantity("Hz", minimum=0.0, doc="gamma_S0, with power broadening, without dynamical")
    readout_rate_hz: Any = quantity("Hz", minimum=0.0, root=True, doc="Gamma_S")
    tensor_ratio: Any = quantity("1", 0.0, doc="zeta_S")
    occupation: Any = quantity("1", 0.0, minimum=0.0, doc="n_S of the bath")
    broadband_noise_sn: Any = quantity("SN", 0.0, minimum=0.0, doc="white noise added to P at the output")
    broadband_linewidth_hz: Any = quantity("Hz", None, above=0.0, doc="linewidth of a dynamical broadband mode")
    broadband_readout_rate_hz: Any = quantity("Hz", None, minimum=0.0, doc="its readout rate")
    broadband_coupling: str = choice(
        "mediated", "mediated", "none", doc="of the broadband mode to the spin, by the field"
    )
    damping: str = choice("symmetric", "symmetric", "velocity")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.broadband_linewidth_hz is None) != (self.broadband_readout_rate_hz is None):
            raise InputError(f"{self.name}: give broadband_linewidth_hz and broadband_readout_rate_hz together")
        if all(getattr(self, k) is None for k in self.groups[0]):
            raise InputError(f"{self.name} (spin_oscillator): missing one of {', '.join(self.groups[0])}")

    @property
    def needs_reference(self) -> bool:
        """Whether the Larmor frequency is given relative to the effective mechanical frequency."""
        return self.larmor_hz is None

    def resolved(self, omega_eff_hz: Any, gamma_eff_hz: Any) -> Self:
        """The same spin with `larmor_hz` from its offset to a mechanical mode's effective frequency and width."""
        if self.larmor_hz is not None:
            return self
        offset = self.larmor_offset_hz
        if offset is None:
            offset = np.asarray(self.larmor_offset_linewidths) * gamma_eff_hz
        sign = -1.0 if self.mass == "negative" else 1.0
        larmor = sign * (omega_eff_hz + offset)
        return replace(self, larmor_hz=larmor, larmor_offset_hz=None, larmor_offset_linewidths=None)

    def rotating_wave(self) -> SidebandOscillator:
        """The limit omega >> Gamma: Gamma (1 + zeta^2), theta = 45 degrees + arctan zeta (DESIGN 2); no broadband noise."""
        if self.larmor_hz is None:
            raise InputError(f"{self.name}: a Larmor offset needs an optomechanical_cavity in the experiment")
        if np.any(np.asarray(self.broadband_noise_sn) != 0) or self.broadband_linewidth_hz is not None:
            raise InputError(f"{self.name}: the rotating-wave oscillator has no broadband noise")
        zeta = np.asarray(self.tensor_ratio) * 1.0
        return SidebandOscillator(
            name=self.name,
            mass="negative" if np.all(np.real(self.larmor_hz) < 0) else "positive",
            intrinsic_linewidth_hz=self.intrinsic_linewidth_hz,
            occupation=self.occupation,
            readout_rate_hz=np.asarray(self.readout_rate_hz) * (1 + zeta**2),
            coupling_angle_deg=45.0 + np.arctan(zeta) * (180.0 / np.pi),
        )

    def in_rotating_wave(self) -> tuple[tuple[Element, ...], Any]:
        """Its `rotating_wave` oscillator, and |Larmor frequency|."""
        return (self.rotating_wave(),), np.abs(np.real(self.larmor_hz))

    def facts(self, reference: Element | None) -> dict[str, Any]:
        """Larmor frequency, mass in words, linewidth, cooperativities by their definitions, distance to the reference."""
        larmor, gamma0, rate = float(self.larmor_hz), float(self.intrinsic_linewidth_hz), float(self.readout_rate_hz)
        n = float(self.occupation)
        out: dict[str, Any] = {
            "larmor_hz": larmor,
            "mass": "negative mass" if larmor < 0 else "positive mass",
            "linewidth_hz": gamma0 + 2 * float(self.tensor_ratio) * rate,
            "cooperativity Thomas/Moller Gamma_S/[gamma_S0 (2n+1)]": rate / (gamma0 * (2 * n + 1))
            if gamma0
            else float("inf"),
            "cooperativity Huang Gamma_S/[gamma_S0 (n+1/2)]": rate / (gamma0 * (n + 0.5)) if gamma0 else float("inf"),
        }
        if reference is not None:
            f, gamma = (float(v) for v in reference.effective_mechanics())
            out["|omega_S| - omega_M,eff (Hz)"] = abs(larmor) - f
            out["in units of gamma_M"] = (abs(larmor) - f) / gamma
        return out

    def build(self, light: Light = Light()) -> LinearSystem:
        """LinearSystem with inputs in, bath, broadband, output out and the mode `name` (and `name.broadband`)."""
        self._lab_only(light)
        if self.larmor_hz is None:
            raise InputError(f"{self.name}: a Larmor offset needs an optomechanical_cavity in the experiment")
        omega = TWO_PI * np.asarray(self.larmor_hz)
        gamma0 = TWO_PI * np.asarray(self.intrinsic_linewidth_hz)
        zeta = np.asarray(self.tensor_ratio) * 1.0
        rates = [TWO_PI * np.asarray(self.readout_rate_hz)]
        widths = [gamma0]
        names = [self.name]
        if self.broadband_linewidth_hz is not None:
            rates.append(TWO_PI * np.asarray(self.broadband_readout_rate_hz))
            widths.append(TWO_PI * np.asarray(self.broadband_linewidth_hz))
            names.append(f"{self.name}.broadband")
        Z = stack([[0.0 * zeta, -zeta], [1.0, 0.0]])
        drift = block_diagonal(
            [damped_rotation(omega, w + 2 * zeta * g, self.damping) for w, g in zip(widths, rates, strict=True)]
        )
        if len(names) == 2 and self.broadband_coupling == "mediated":
            shared = -zeta * np.sqrt(rates[0] * rates[1])
            drift = drift + block_cross(shared)
        couple = np.concatenate(np.broadcast_arrays(*[np.sqrt(2 * g)[..., None, None] * Z for g in rates]), axis=-2)
        readout = np.concatenate(np.broadcast_arrays(*[np.sqrt(2 * g)[..., None, None] * Z for g in rates]), axis=-1)
        baths = [
            thermal_bath(f"{n}.bath" if n == self.name else f"{n}_bath", w, self.occupation, self.damping)
            for n, w in zip(names, widths, strict=True)
        ]
        noise = np.asarray(self.broadband_noise_sn) / 2
        B = join([couple, block_diagonal([b[1] for b in baths]), np.zeros((2 * len(names), 1))], -1)
        feed = sum(b[0].size for b in baths)
        D = np.concatenate([np.eye(2), np.zeros((2, feed)), np.array([[0.0], [1.0]])], axis=-1)
        S = block_diagonal([0.5 * np.eye(2), *[b[2] for b in baths], stack([[noise]])])
        modes = (Mode(names[0]), *(Mode(n, "auxiliary") for n in names[1:]))
        inputs = (
            Port(f"{self.name}.in", "field"),
            *(b[0] for b in baths),
            Port(f"{self.name}.broadband", "classical", 1),
        )
        outputs = (Port(f"{self.name}.out", "field", carrier=light.carrier),)
        return LinearSystem(drift, B, readout, D, S, modes, inputs, outputs)


def block_cross(value: Any) -> Array:
    """The 4x4 drift that couples two modes by `value` x identity, both ways."""
    value = np.asarray(value)
    return value[..., None, None] * np.kron(np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2))
