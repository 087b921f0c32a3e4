"""The networks: the paper's nets, their initialisations, and adapters for other libraries."""

from jthermo.models.as_model import as_model
from jthermo.models.cnn import CNN
from jthermo.models.flax_linen import Flax
from jthermo.models.flax_nnx import NNX
from jthermo.models.function import Function
from jthermo.models.init import INITS, Init
from jthermo.models.mlp import MLP
from jthermo.models.model import Model, leaves_by_path, loss_inputs, named_leaves
from jthermo.models.two_layer import TwoLayer

__all__ = [
    "CNN",
    "INITS",
    "MLP",
    "NNX",
    "Flax",
    "Function",
    "Init",
    "Model",
    "TwoLayer",
    "as_model",
    "leaves_by_path",
    "loss_inputs",
    "named_leaves",
]
