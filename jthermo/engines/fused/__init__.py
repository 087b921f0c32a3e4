"""The fused engine: all steps between two records in one kernel, for dense ReLU nets."""

from jthermo.engines.fused.build import Unavailable, load
from jthermo.engines.fused.engine import advance, refusal

__all__ = ["Unavailable", "advance", "load", "refusal"]
