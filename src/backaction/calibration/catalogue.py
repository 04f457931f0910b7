"""The methods of calibration by name; a new one is a class in a file of this folder and one line here."""

from __future__ import annotations

from backaction.calibration.cavity import DitherLock, SidebandBeat, SweptRingdown
from backaction.calibration.cifar import Cifar
from backaction.calibration.dynamical import OpticalSpring, Transparency
from backaction.calibration.efficiency import Efficiency, PowerBudget, Visibility
from backaction.calibration.linearity import Linearity
from backaction.calibration.mechanics import DrivenForce, PhaseTone, Ringdown
from backaction.calibration.method import Method
from backaction.calibration.microwave import CoolingSweep, SidebandAsymmetry, ThermalSweep
from backaction.calibration.mors import Mors
from backaction.calibration.spectra import Spectra
from backaction.calibration.squeezing import Squeezing
from backaction.calibration.thermal import ThermalOscillator
from backaction.calibration.white_noise import WhiteNoise

METHODS: dict[str, type[Method]] = {
    cls.kind: cls
    for cls in (
        Efficiency,
        Visibility,
        PowerBudget,
        Linearity,
        SidebandBeat,
        SweptRingdown,
        DitherLock,
        Ringdown,
        OpticalSpring,
        Transparency,
        ThermalOscillator,
        ThermalSweep,
        CoolingSweep,
        SidebandAsymmetry,
        PhaseTone,
        DrivenForce,
        Squeezing,
        Spectra,
        Cifar,
        Mors,
        WhiteNoise,
    )
}
"""Every method by its name on the command line and in a calibration set."""
