"""The fused engine: all steps and most records in one kernel, for dense ReLU nets."""

from jthermo.engines.fused.build import Unavailable, load
from jthermo.engines.fused.engine import advance, measured, refusal, train

__all__ = ["Unavailable", "advance", "load", "measured", "refusal", "train"]
