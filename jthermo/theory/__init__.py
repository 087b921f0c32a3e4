"""The paper's equations, as printed and as corrected, and the simulations that decide between them.

``walk`` simulates the random walk and ``flow`` computes its flow. ``moments`` holds the moments of
one ReLU unit and ``properties`` checks Properties 4.1 and 4.2. ``drift`` is the label-noise drift
of real SGD, ``meanfield`` predicts its curves, and ``hessian`` is App. A.5.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("drift", "flow", "hessian", "meanfield", "moments", "properties", "walk")
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a module of the theory when it is first used."""
    if name not in _MODULES:
        raise AttributeError(
            f"module 'jthermo.theory' has no attribute {name!r}; it has {', '.join(_MODULES)}"
        )
    return importlib.import_module(f"jthermo.theory.{name}")
