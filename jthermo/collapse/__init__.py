"""Data collapse: the exponents of τ = t·Π cᵖ with intervals and a verdict. No jax."""

from .design import Advice
from .fit import fit_collapse
from .result import CollapseFit, Combination, Exponent, Note

__all__ = ["Advice", "CollapseFit", "Combination", "Exponent", "Note", "fit_collapse"]
