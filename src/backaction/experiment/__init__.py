"""Experiments: elements on the path of the light, from TOML or Python; every result by name, with exact gradients."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
