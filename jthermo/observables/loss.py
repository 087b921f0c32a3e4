"""Loss, accuracy and mean squared residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError, one_of
from jthermo.models import Model, loss_inputs
from jthermo.observables.observable import Observable, Probe, Variable, mean_over_parts
from jthermo.update_rule import losses


@dataclass(frozen=True)
class _OnSplit(Observable):
    """A mean over the probe or the test split."""

    split: str = "probe"

    def __post_init__(self) -> None:
        one_of("split", self.split, ("probe", "test"))

    def check(self, model: Model, data: Any, loss: losses.Loss) -> None:
        """Refuse ``split="test"`` for data without a test split."""
        if self.split == "test" and not data.has_test:
            remedy = "the data have no test split; give x_test and y_test, or use 'probe'"
            raise InputError("split", self.split, remedy)

    def _examples(self, probe: Probe) -> tuple[Array, Array]:
        if self.split == "probe":
            return probe.x, probe.y
        assert probe.test is not None
        return probe.test

    def _named(self, name: str, definition: str, units: str = "1") -> dict[str, Variable]:
        test = self.split == "test"
        where = "fresh examples of the test split" if test else "the probe"
        label = Variable(f"{definition} over {where}", units=units)
        return {f"test_{name}" if test else name: label}


@dataclass(frozen=True)
class Loss(_OnSplit):
    """Mean loss over the probe; see :func:`loss`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``loss`` or ``test_loss``."""
        return self._named("loss", "mean loss", units="nat")

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean L(f(x), y)."""
        (name,) = self.variables(model, probe.data)
        x, y = self._examples(probe)
        target = losses.targets(probe.loss, y, model.num_outputs)

        def mean(x: Array, target: Array) -> Array:
            return losses.value(probe.loss, loss_inputs(model.apply(params, x)), target).mean()

        return {name: mean_over_parts(probe, mean, x, target)}


@dataclass(frozen=True)
class Accuracy(_OnSplit):
    """Fraction of examples whose class is predicted; see :func:`accuracy`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``accuracy`` or ``test_accuracy``."""
        return self._named("accuracy", "fraction of examples whose class is predicted")

    def check(self, model: Model, data: Any, loss: losses.Loss) -> None:
        """Refuse data whose labels are real numbers."""
        super().check(model, data, loss)
        if getattr(data, "num_targets", None):
            raise InputError(
                "record.observables",
                "accuracy",
                "the labels are real numbers, not classes; use jt.loss() instead",
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean 1[predicted class = y]."""
        (name,) = self.variables(model, probe.data)
        x, y = self._examples(probe)
        threshold = 0.5 if probe.loss == "squared" else 0.0

        def mean(x: Array, y: Array) -> Array:
            outputs = loss_inputs(model.apply(params, x))
            several = model.num_outputs > 1
            predicted = outputs.argmax(-1) if several else (outputs > threshold).astype(jnp.int32)
            return (predicted == y).astype(float).mean()

        return {name: mean_over_parts(probe, mean, x, y)}


@dataclass(frozen=True)
class MeanSquaredResidual(Observable):
    """s² = E(p − y)²; see :func:`mean_squared_residual`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``mean_squared_residual``."""
        return {
            "mean_squared_residual": Variable(
                "s² = mean of (p − y)² over the probe and the outputs"
            )
        }

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean (p − y)²."""
        target = losses.targets(probe.loss, probe.y, model.num_outputs)

        def mean(x: Array, target: Array) -> Array:
            outputs = loss_inputs(model.apply(params, x))
            return jnp.square(losses.gradient(probe.loss, outputs, target)).mean()

        return {"mean_squared_residual": mean_over_parts(probe, mean, probe.x, target)}


def loss(split: str = "probe") -> Loss:
    """Mean loss, in nats for the logistic and softmax losses.

    Args:
        split: ``"probe"`` records ``loss`` over the probe: fresh examples of a synthetic source,
            also of one with `num_samples`, or examples of the training split of images and arrays.
            ``"test"`` records ``test_loss`` over the test split.

    Raises:
        InputError: unknown `split`, or data without a test split.

    >>> loss("test")
    Loss(split='test')
    """
    return Loss(split)


def accuracy(split: str = "probe") -> Accuracy:
    """Fraction of examples whose class is predicted.

    The predicted class is the largest output, or the sign of the only output; with the squared loss
    a single output is compared with ½.

    Args:
        split: ``"probe"`` or ``"test"``, as for :func:`loss`.

    Raises:
        InputError: unknown `split`, data without a test split, or labels that are real numbers.

    >>> accuracy()
    Accuracy(split='probe')
    """
    return Accuracy(split)


def mean_squared_residual() -> MeanSquaredResidual:
    """s² = mean (p − y)² over the probe, the strength of the noise (Sec. 5); ¼ at f = 0.

    >>> mean_squared_residual()
    MeanSquaredResidual()
    """
    return MeanSquaredResidual()
