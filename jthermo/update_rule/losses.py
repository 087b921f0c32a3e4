"""The losses by name, softmax with label smoothing, and your own: value, targets and dL/df.

Labels y are class indices, or real-valued targets from a teacher or the user's arrays. The paper
prints L = y ln p + (1−y) ln(1−p) with p = 1/(1+eᶠ). This pair gives Eq. 15 only because two sign
errors cancel, and minimising it makes the labels less likely. Here L = softplus(f) − y f and
p = 1/(1+e⁻ᶠ), so dL/df = p − y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Real

from jthermo.errors import InputError, finite_number, one_line
from jthermo.randomness.jax_settings import real


@dataclass(frozen=True)
class Softmax:
    """−Σ_c y_c log softmax(f)_c with smoothed labels y = (1 − α) onehot(class) + α/C.

    Args:
        label_smoothing: α from 0 to below 1. Its values can be swept without another compilation:
            ``vary={"loss.label_smoothing": (0.0, 0.1)}``.

    Raises:
        InputError: α is outside its range.

    >>> Softmax(label_smoothing=0.1)
    Softmax(label_smoothing=0.1)
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        name = "loss.label_smoothing"
        alpha = finite_number(name, self.label_smoothing)
        if not 0 <= alpha < 1:
            raise InputError(name, alpha, "give a number from 0 to below 1")
        object.__setattr__(self, "label_smoothing", alpha)


# The name of a loss, a softmax with label smoothing, or a function (outputs, y) -> (M,).
Loss = str | Softmax | Callable[[Array, Array], Array]


@dataclass(frozen=True)
class _Named:
    """What a loss by name requires and computes.

    Attributes:
        needs: its requirements of model and labels, for the error message.
        value: L (M, C) of each output and its target, or L (M,) if `joint`.
        prediction: the p for which dL/df = p − y; None if there is none.
        margin: whether it compares the only output with s = ±1.
        joint: whether all outputs of an example enter one value.
    """

    needs: str
    value: Callable[[Array, Array], Array]
    prediction: Callable[[Array], Array] | None = None
    margin: bool = False
    joint: bool = False


def _logistic(f: Array, y: Array) -> Array:
    return jax.nn.softplus(f) - y * f


_BINARY = "1 output and 2 classes"
_NAMED = {
    "bce": _Named(_BINARY, _logistic, jax.nn.sigmoid),
    "squared": _Named(
        "one output per class, or 1 output and 2 classes",
        lambda f, y: 0.5 * jnp.square(f - y),
        lambda f: f,
    ),
    "softmax": _Named(
        "one output per class", optax.softmax_cross_entropy, jax.nn.softmax, joint=True
    ),
    "hinge": _Named(_BINARY, lambda f, s: jax.nn.relu(1 - s * f), margin=True),
    "logistic": _Named(_BINARY, lambda f, s: jax.nn.softplus(-s * f), margin=True),
    "exponential": _Named(_BINARY, lambda f, s: jnp.exp(-s * f), margin=True),
    "multi_label": _Named("real-valued targets from 0 to 1", _logistic, jax.nn.sigmoid),
}
LOSSES = tuple(_NAMED)
# Losses of real-valued targets; a function is one of its own.
_OF_TARGETS = ("squared", "multi_label")
# Losses of class labels with dL/df = p − y; the noise controls replace this residual.
WITH_RESIDUAL = ("bce", "softmax", "squared")


def as_loss(loss: Any) -> Loss:
    """A name, a :class:`Softmax` with label smoothing or a function, checked.

    A softmax without label smoothing becomes its name, so that both have one identity.

    >>> as_loss(Softmax())
    'softmax'
    """
    if isinstance(loss, Softmax):
        return loss if loss.label_smoothing else "softmax"
    if isinstance(loss, str) and loss in ("auto", *LOSSES):
        return loss
    # a functools.partial has no name, by which a results folder could refer to it
    if not isinstance(loss, type) and callable(loss) and hasattr(loss, "__qualname__"):
        return loss
    raise InputError(
        "loss",
        loss,
        f"use one of auto, {', '.join(LOSSES)}, jt.losses.Softmax(label_smoothing=0.1), or a "
        "function (outputs, y) -> (M,)",
    )


def name(loss: Loss) -> str:
    """The name of a loss: its own, or that of the function."""
    if isinstance(loss, Softmax):
        return "softmax"
    return loss if isinstance(loss, str) else loss.__qualname__


def resolve(loss: Loss, outputs: int, num_classes: int, num_targets: int | None = None) -> Loss:
    """The loss to use, checked against model outputs and labels.

    Args:
        loss: a loss, or ``"auto"``: logistic for one output, softmax for several, squared for
            real-valued targets.
        outputs: number of outputs of the model.
        num_classes: number of classes of the labels.
        num_targets: number of real-valued targets per example; None for class labels.

    Raises:
        InputError: the loss is unknown, or doesn't fit the outputs or the labels.

    >>> resolve("auto", outputs=3, num_classes=3)
    'softmax'
    """
    named = as_loss(loss)
    # a swept label smoothing of 0 stays a number of the program
    loss = loss if isinstance(loss, Softmax) else named
    if loss == "auto":
        loss = "squared" if num_targets is not None else "bce" if outputs == 1 else "softmax"
    kind = name(loss)
    if callable(loss):
        _check_function(loss, outputs, num_targets)
    elif num_targets is not None:
        if kind not in _OF_TARGETS:
            remedy = (
                "the labels are real-valued targets; use 'squared', 'multi_label' or a function"
            )
            raise InputError("loss", kind, remedy)
        if outputs != num_targets:
            raise InputError(
                "model.outputs",
                outputs,
                f"the data have num_targets = {num_targets}; give the model as many outputs",
            )
    elif kind == "multi_label":
        remedy = "needs real-valued targets from 0 to 1, but the labels are classes; use 'softmax'"
        raise InputError("loss", kind, remedy)
    else:
        several = kind == "softmax" or (kind == "squared" and outputs > 1)
        needed = num_classes if several else 1
        if outputs != needed or (outputs == 1 and num_classes != 2):
            raise InputError(
                "loss",
                kind,
                f"{kind} needs {_NAMED[kind].needs}, but outputs = {outputs} and classes = "
                f"{num_classes}, counted from 0; change the model's outputs, the data's classes or "
                "the loss",
            )
    return loss


def targets(loss: Loss, labels: Real[Array, "m ..."], num_outputs: int) -> Real[Array, "m ..."]:
    """Labels as the targets of the loss.

    Class labels become numbers: (M,) for one output, ±1 for losses of a margin, and one-hot (M, C)
    for several outputs. Real-valued targets, (M,) or (M, C), and the labels of your own function
    are returned unchanged.
    """
    if callable(loss) or jnp.issubdtype(labels.dtype, jnp.floating):
        return labels
    if isinstance(loss, str) and _NAMED[loss].margin:
        return 2 * labels.astype(float) - 1
    if loss == "bce" or num_outputs == 1:
        return labels.astype(float)
    one_hot = jax.nn.one_hot(labels, num_outputs, dtype=float)
    if isinstance(loss, Softmax):
        return (1 - loss.label_smoothing) * one_hot + loss.label_smoothing / num_outputs
    return one_hot


def value(
    loss: Loss, outputs: Float[Array, " m *c"], target: Real[Array, " m *c"]
) -> Float[Array, " m"]:
    """L per example, (M,); a sum over the outputs if there are several."""
    if callable(loss):
        return loss(outputs, target)
    named = _NAMED[name(loss)]
    each = named.value(outputs, target)
    return each if named.joint or each.ndim == 1 else each.sum(-1)


def prediction(loss: Loss, outputs: Float[Array, " m *c"]) -> Float[Array, " m *c"]:
    """The p for which dL/df = p − y: the probability, or f itself for the squared loss."""
    predicted = _NAMED[name(loss)].prediction
    assert predicted is not None
    return predicted(outputs)


def gradient(
    loss: Loss, outputs: Float[Array, " m *c"], target: Real[Array, " m *c"]
) -> Float[Array, " m *c"]:
    """dL/df of each example, shaped like `outputs`: p − y, or by automatic differentiation."""
    if not callable(loss) and _NAMED[name(loss)].prediction is not None:
        return prediction(loss, outputs) - target
    return jax.grad(lambda f: value(loss, f, target).sum())(outputs)


def _check_function(loss: Callable, outputs: int, num_targets: int | None) -> None:
    """Trace the user's function once, so that its errors are raised where it was passed."""
    number = 2
    f = jax.ShapeDtypeStruct((number, outputs)[: min(outputs, 2)], real())
    if num_targets is None:
        y = jax.ShapeDtypeStruct((number,), jnp.int32)
    else:
        y = jax.ShapeDtypeStruct((number, num_targets)[: min(num_targets, 2)], real())
    seen = f"outputs {f.shape} {real()} and y {y.shape} {y.dtype}"
    try:
        result = jax.eval_shape(lambda f, y: jnp.asarray(loss(f, y)), f, y)
        jax.eval_shape(lambda f, y: jax.grad(lambda f: loss(f, y).sum())(f), f, y)
    except Exception as error:
        remedy = f"fails on {seen}: {type(error).__name__}: {one_line(error)}"
        raise InputError("loss", name(loss), remedy) from None
    if result.shape != (number,) or result.dtype != real():
        remedy = (
            f"returns {result.shape} {result.dtype} for {seen}; return one {real()} per example, "
            f"({number},)"
        )
        raise InputError("loss", name(loss), remedy)
