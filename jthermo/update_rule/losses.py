"""The losses bce, softmax and squared: value, targets, and the p for which dL/df = p − y.

Labels y are class indices, or real-valued targets from a teacher or the user's arrays. The paper
prints L = y ln p + (1−y) ln(1−p) with p = 1/(1+eᶠ). This pair gives Eq. 15 only because two sign
errors cancel, and minimising it makes the labels less likely. Here L = softplus(f) − y f and
p = 1/(1+e⁻ᶠ), so dL/df = p − y.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Real

from jthermo.errors import InputError, one_of

LOSSES = ("bce", "squared", "softmax")
# Requirements of each loss on model and labels, for the error message.
_NEEDS = {
    "bce": "1 output and 2 classes",
    "softmax": "one output per class",
    "squared": "one output per class, or 1 output and 2 classes",
}


def resolve(loss: str, outputs: int, num_classes: int, num_targets: int | None = None) -> str:
    """The loss to use, from a name or ``"auto"``, checked against model outputs and labels.

    Args:
        loss: one of LOSSES, or ``"auto"``: logistic for one output, softmax for several, squared
            for real-valued targets.
        outputs: number of outputs of the model.
        num_classes: number of classes of the labels.
        num_targets: number of real-valued targets per example; None for class labels.

    Raises:
        InputError: the loss is unknown, or doesn't fit the outputs or the labels.

    >>> resolve("auto", outputs=3, num_classes=3)
    'softmax'
    """
    one_of("loss", loss, ("auto", *LOSSES))
    if num_targets is not None:
        if loss not in ("auto", "squared"):
            raise InputError("loss", loss, "the labels are real-valued targets; use 'squared'")
        if outputs != num_targets:
            raise InputError(
                "model.outputs",
                outputs,
                f"the data have num_targets = {num_targets}; give the model as many outputs",
            )
        return "squared"
    resolved = ("bce" if outputs == 1 else "softmax") if loss == "auto" else loss
    needed = {
        "bce": 1,
        "softmax": num_classes,
        "squared": outputs if outputs == 1 else num_classes,
    }[resolved]
    if outputs != needed or (outputs == 1 and num_classes != 2):
        raise InputError(
            "loss",
            loss,
            f"{resolved} needs {_NEEDS[resolved]}, but outputs = {outputs} and classes = "
            f"{num_classes}; change the model's outputs, the data's num_classes or the loss",
        )
    return resolved


def targets(loss: str, labels: Real[Array, "m ..."], num_outputs: int) -> Float[Array, "m ..."]:
    """Labels as float32 targets of the loss.

    Class labels become (M,) for one output and one-hot (M, C) for several. Real-valued targets,
    (M,) or (M, C), are returned unchanged.
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return labels
    one_output = loss == "bce" or num_outputs == 1
    return (
        labels.astype(jnp.float32)
        if one_output
        else jax.nn.one_hot(labels, num_outputs, dtype=jnp.float32)
    )


def value(
    loss: str, outputs: Float[Array, " m *c"], target: Float[Array, " m *c"]
) -> Float[Array, " m"]:
    """L per example, (M,): softplus(f) − y f (bce), ½|f − y|² (squared) or −Σ y log softmax(f)."""
    if loss == "bce":
        return jax.nn.softplus(outputs) - target * outputs
    if loss == "softmax":
        return optax.softmax_cross_entropy(outputs, target)
    squared = 0.5 * jnp.square(outputs - target)
    return squared if squared.ndim == 1 else squared.sum(-1)


def prediction(loss: str, outputs: Float[Array, " m *c"]) -> Float[Array, " m *c"]:
    """The p for which dL/df = p − y: the probability, or f itself for the squared loss."""
    if loss == "bce":
        return jax.nn.sigmoid(outputs)
    return jax.nn.softmax(outputs) if loss == "softmax" else outputs
