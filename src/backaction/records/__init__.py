"""Photocurrent records and their spectra: read, averaged, calibrated to shot noise, simulated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
