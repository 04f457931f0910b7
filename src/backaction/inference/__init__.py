"""From measured spectra to the posterior of parameters and states: campaigns, densities, samplers, checks, advice."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
