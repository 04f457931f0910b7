"""The physical things an experiment is made of, one file each."""

from backaction.elements.base import Drive, Element, Light, Part
from backaction.elements.driven_cavity import CavityPort, DrivenCavity, DrivenMode, Probe, Tone
from backaction.elements.homodyne import Homodyne
from backaction.elements.optics import BeamSplitter, Loss, Rotation, Squeezer
from backaction.elements.optomechanical_cavity import MechanicalMode, OptomechanicalCavity
from backaction.elements.oscillator import Oscillator
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.elements.technical_noise import Line, TechnicalNoise

ELEMENTS: dict[str, type[Element]] = {
    cls.kind: cls
    for cls in (
        SpinOscillator,
        SidebandOscillator,
        Oscillator,
        OptomechanicalCavity,
        DrivenCavity,
        Loss,
        Rotation,
        BeamSplitter,
        Squeezer,
        Homodyne,
        TechnicalNoise,
    )
}
"""Every element by its `kind` in TOML."""

__all__ = [
    "ELEMENTS",
    "BeamSplitter",
    "CavityPort",
    "Drive",
    "DrivenCavity",
    "DrivenMode",
    "Element",
    "Homodyne",
    "Light",
    "Line",
    "Loss",
    "MechanicalMode",
    "OptomechanicalCavity",
    "Oscillator",
    "Part",
    "Probe",
    "Rotation",
    "SidebandOscillator",
    "SpinOscillator",
    "Squeezer",
    "TechnicalNoise",
    "Tone",
]
