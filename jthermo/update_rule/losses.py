"""Losses of the paper as a value and its derivative with respect to the network's outputs.

Labels are class indices, or real numbers where a teacher or the user's own data give them. The printed pair
L = y ln p + (1−y) ln(1−p), p = 1/(1+eᶠ) gives Eq. 15 only because two sign slips cancel, and descending it anti-learns;
here L = softplus(f) − y f with p = 1/(1+e⁻ᶠ), so dL/df = p − y.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jthermo.errors import InputError

LOSSES = ("bce", "squared", "softmax")


def resolve(loss: str, outputs: int, num_classes: int, num_targets: int | None = None) -> str:
    """The loss meant by ``"auto"``: logistic for one output, softmax for several, squared for `num_targets` real labels."""
    if loss not in ("auto", *LOSSES):
        raise InputError("loss", loss, f"use one of {', '.join(('auto', *LOSSES))}")
    if num_targets is not None:
        if loss not in ("auto", "squared"):
            raise InputError("loss", loss, "the labels are real numbers; use 'squared'")
        if outputs != num_targets:
            raise InputError(
                "model",
                f"{outputs} outputs",
                f"the labels are {num_targets} real numbers; make them equal",
            )
        return "squared"
    found = ("bce" if outputs == 1 else "softmax") if loss == "auto" else loss
    wanted = {
        "bce": 1,
        "softmax": num_classes,
        "squared": outputs if outputs == 1 else num_classes,
    }[found]
    if outputs != wanted or (outputs == 1 and num_classes != 2):
        raise InputError(
            "loss",
            loss,
            f"{found} needs {wanted if outputs != wanted else 2} outputs or classes, "
            f"but the model has {outputs} outputs and the data {num_classes} classes",
        )
    return found


def targets(loss: str, labels: Array, num_outputs: int) -> Array:
    """Labels as the loss compares them: (M,) for one output, one-hot (M, C) for several; real labels as they are."""
    if jnp.issubdtype(labels.dtype, jnp.floating):
        return labels
    one_output = loss == "bce" or num_outputs == 1
    return (
        labels.astype(jnp.float32)
        if one_output
        else jax.nn.one_hot(labels, num_outputs, dtype=jnp.float32)
    )


def value(loss: str, outputs: Array, target: Array) -> Array:
    """L per example, (M,): softplus(f) − y f; ½(f − y)²; −log softmax."""
    if loss == "bce":
        return jax.nn.softplus(outputs) - target * outputs
    if loss == "softmax":
        return optax.softmax_cross_entropy(outputs, target)
    squared = 0.5 * jnp.square(outputs - target)
    return squared if squared.ndim == 1 else squared.sum(-1)


def prediction(loss: str, outputs: Array) -> Array:
    """P with dL/df = p − y: the probability, or f itself for squared error."""
    if loss == "bce":
        return jax.nn.sigmoid(outputs)
    return jax.nn.softmax(outputs) if loss == "softmax" else outputs
