"""Gaussian states of modes and what can be asked of them: entanglement, steering, occupations, purity."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
