"""The nets that the fused kernels support: their layers, and the order of their parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jthermo.models import MLP, Model, TwoLayer
from jthermo.models.built_in import BuiltIn


class Net(NamedTuple):
    """A dense ReLU net.

    Attributes:
        widths: inputs, hidden layers, outputs.
        biases: of each layer, whether it has a bias.
        inputs_first: whether weights are (in, out) among the parameters.
    """

    widths: tuple[int, ...]
    biases: tuple[bool, ...]
    inputs_first: bool

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """(out, in) and (out,) of the weights and bias of each layer, in the kernels' order."""
        shapes: list[tuple[int, ...]] = []
        for n, m, bias in zip(self.widths[:-1], self.widths[1:], self.biases, strict=True):
            shapes += [(m, n), (m,)] if bias else [(m, n)]
        return shapes


def net_of(model: Model) -> Net | None:
    """The net of a model; None if the kernels do not support it.

    A subclass is not supported: it may have another nonlinearity.
    """
    if not (isinstance(model, BuiltIn) and model.is_plain_relu):
        return None
    if type(model) is TwoLayer:
        arguments = model.arguments
        return Net((arguments["inputs"], arguments["hidden"], 1), (arguments["bias"], False), False)
    if type(model) is MLP and model.arguments["hidden"]:
        arguments = model.arguments
        hidden = arguments["hidden"]
        return Net(
            (arguments["inputs"], *hidden, arguments["outputs"]),
            (arguments["bias"],) * (len(hidden) + 1),
            True,
        )
    return None


def by_layer(model: Any, params: Any) -> list[int]:
    """Indices of the leaves of the parameter tree, in the kernels' order."""
    paths = [
        tuple(k.key for k in path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    if type(model) is TwoLayer:
        names: list[tuple[str, ...]] = [("W",), ("b",), ("V",)]
    else:
        names = [(layer, part) for layer in model.layers for part in ("kernel", "bias")]
    return [paths.index(name) for name in names if name in paths]
