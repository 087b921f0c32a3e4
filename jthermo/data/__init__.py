"""Data sources as values: what x and y are, and which of them a step sees."""

from jthermo.data.synthetic import Gaussian, Uniform

__all__ = ["Gaussian", "Uniform"]
