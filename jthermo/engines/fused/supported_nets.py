"""What the fused kernels have to know of a net: its layers, and where they are among the parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jthermo.models import MLP, Model, TwoLayer


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
        """(out, in) and (out,) of weights and bias of each layer in turn, as the kernels order the parameters."""
        made: list[tuple[int, ...]] = []
        for n, m, bias in zip(self.widths[:-1], self.widths[1:], self.biases, strict=True):
            made += [(m, n), (m,)] if bias else [(m, n)]
        return made


def net_of(model: Model) -> Net | None:
    """The net of a model; None where it is none that the kernels know."""
    if isinstance(model, TwoLayer):
        given = model.arguments
        return Net((given["inputs"], given["hidden"], 1), (given["bias"], False), False)
    if isinstance(model, MLP) and model.arguments["hidden"]:
        given = model.arguments
        hidden = given["hidden"]
        return Net(
            (given["inputs"], *hidden, given["outputs"]), (given["bias"],) * (len(hidden) + 1), True
        )
    return None


def by_layer(model: Any, params: Any) -> list[int]:
    """Where the leaves of the parameters come in the kernels' order."""
    paths = [
        tuple(k.key for k in path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    if isinstance(model, TwoLayer):
        names: list[tuple[str, ...]] = [("W",), ("b",), ("V",)]
    else:
        names = [(layer, part) for layer in model.layers for part in ("kernel", "bias")]
    return [paths.index(name) for name in names if name in paths]
