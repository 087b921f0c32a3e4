"""The networks: the paper's nets, their initialisations, and the wrapper for flax modules."""

from jthermo.models.cnn import CNN
from jthermo.models.init import INITS, Init
from jthermo.models.mlp import MLP
from jthermo.models.model import Flax, Model, as_model
from jthermo.models.two_layer import TwoLayer

__all__ = ["CNN", "INITS", "MLP", "Flax", "Init", "Model", "TwoLayer", "as_model"]
