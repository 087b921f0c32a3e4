"""Data sources as values: what x and y are, and which of them a step sees."""

from jthermo.data.arrays import Arrays
from jthermo.data.images import CIFAR10, FashionMNIST
from jthermo.data.synthetic import Gaussian, Uniform

__all__ = ["CIFAR10", "Arrays", "FashionMNIST", "Gaussian", "Uniform"]
