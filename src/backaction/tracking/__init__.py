"""Conditional trajectories from records: filter, smoother, retrodiction, Wiener kernels, and tests of their innovations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
