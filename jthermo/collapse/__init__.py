"""Data collapse: the exponents of τ = t·Π cᵖ with intervals and a verdict. It imports no JAX."""

from jthermo.collapse.advice import Advice
from jthermo.collapse.choose import compare
from jthermo.collapse.comparison import Comparison, FormScore
from jthermo.collapse.fit import fit_collapse
from jthermo.collapse.forms import Crossover, Form
from jthermo.collapse.result import CollapseFit
from jthermo.collapse.result_types import Combination, Exponent, Note

__all__ = [
    "Advice",
    "CollapseFit",
    "Combination",
    "Comparison",
    "Crossover",
    "Exponent",
    "Form",
    "FormScore",
    "Note",
    "compare",
    "fit_collapse",
]
