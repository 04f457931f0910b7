"""The main job: from an experiment and a photocurrent to a verdict and what it rests on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
