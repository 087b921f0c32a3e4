"""Factors of weights and biases in the forward pass: standard, NTK, mean-field and μP nets.

A layer computes a = m·W h + m_b·b. With one η for all parameters, the factors m and m_b and the
scale of the start decide how a net behaves as its width grows: for SGD, a learning rate per layer
is the same as such factors (Yang & Hu 2021, Sec. 3).
"""

from __future__ import annotations

from typing import NamedTuple

PARAMETRIZATIONS = ("standard", "ntk", "mean_field", "mup")


class Factors(NamedTuple):
    """The factors of one layer.

    Attributes:
        weight: m, of the weights in the forward pass.
        bias: m_b, of the bias.
        weight_start: factor of the initial weights, relative to the standard ones.
        bias_start: factor of the initial bias.
    """

    weight: float = 1.0
    bias: float = 1.0
    weight_start: float = 1.0
    bias_start: float = 1.0


def factors(parametrization: str, fan_in: int, fan_out: int, place: str, first: bool) -> Factors:
    """The factors of a layer.

    Args:
        parametrization: one of PARAMETRIZATIONS.
        fan_in: number of inputs per unit.
        fan_out: number of units.
        place: ``"hidden"``, ``"last_hidden"`` or ``"output"``.
        first: whether the layer's inputs are the data.

    >>> factors("ntk", 100, 50, "hidden", first=False)
    Factors(weight=0.1, bias=1.0, weight_start=10.0, bias_start=1.0)
    """
    root_in, root_out = fan_in**0.5, fan_out**0.5
    if parametrization == "ntk":
        return Factors(weight=1 / root_in, weight_start=root_in)
    if parametrization == "mean_field" and place == "output":
        return Factors(weight=1 / fan_in, weight_start=root_in)
    if parametrization == "mup" and place == "output":
        return Factors(weight=1 / root_in)
    if parametrization == "mup":
        # the bias is a weight whose input is 1; only the layer of the data feeds on few inputs
        bias = Factors(bias=root_out, bias_start=1 / root_out)
        return bias._replace(weight=root_out, weight_start=1 / root_out) if first else bias
    return Factors()
