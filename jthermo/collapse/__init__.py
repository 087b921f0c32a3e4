"""Data collapse: the exponents of τ = t·Π cᵖ with intervals and a verdict. No jax."""

from jthermo.collapse.advice import Advice
from jthermo.collapse.fit import fit_collapse
from jthermo.collapse.result import CollapseFit, Combination, Exponent, Note

__all__ = ["Advice", "CollapseFit", "Combination", "Exponent", "Note", "fit_collapse"]
