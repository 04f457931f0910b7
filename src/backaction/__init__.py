"""Continuously measured linear quantum systems: from a network and a photocurrent to states and entanglement.

The names that a user types in the first hour live here; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
