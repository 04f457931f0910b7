"""The kinds of element by their word in TOML; a new element is one file and one line here."""

from __future__ import annotations

from backaction.elements.base import Element
from backaction.elements.driven_cavity import DrivenCavity
from backaction.elements.homodyne import Homodyne
from backaction.elements.optics import BeamSplitter, Loss, Rotation, Squeezer
from backaction.elements.optomechanical_cavity import OptomechanicalCavity
from backaction.elements.oscillator import Oscillator
from backaction.elements.sideband_oscillator import SidebandOscillator
from backaction.elements.spin_oscillator import SpinOscillator
from backaction.elements.technical_noise import TechnicalNoise

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
