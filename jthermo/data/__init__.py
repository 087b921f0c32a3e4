"""The data sources: synthetic, image sets, the user's arrays, and the base class for others."""

from jthermo.data.arrays import Arrays
from jthermo.data.images import CIFAR10, FashionMNIST
from jthermo.data.source import Source
from jthermo.data.synthetic import Gaussian, Sphere, Uniform
from jthermo.data.teacher import Teacher

__all__ = [
    "CIFAR10",
    "Arrays",
    "FashionMNIST",
    "Gaussian",
    "Source",
    "Sphere",
    "Teacher",
    "Uniform",
]
