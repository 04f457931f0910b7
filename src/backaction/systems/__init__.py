"""Linear quantum systems with named ports: joined, checked, their poles, steady states, spectra and sampled models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
