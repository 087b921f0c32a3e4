"""How far training is: loss, accuracy, residuals and parameter norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from jthermo.errors import InputError
from jthermo.models import Model
from jthermo.observables.observable import Observable, Probe, Variable
from jthermo.update_rule import losses


@dataclass(frozen=True)
class _OnSplit(Observable):
    """A mean over the probe or the test split."""

    split: str = "probe"

    def __post_init__(self) -> None:
        if self.split not in ("probe", "test"):
            raise InputError("split", self.split, "use 'probe' or 'test'")

    def check(self, model: Model, data: Any, loss: str) -> None:
        """The test split has to be there."""
        if self.split == "test" and not data.has_test:
            raise InputError(
                "split", self.split, f"{data!r} has no test split; use the probe, which is fresh"
            )

    def _examples(self, probe: Probe) -> tuple[Array, Array]:
        if self.split == "probe":
            return probe.x, probe.y
        assert probe.test is not None
        return probe.test

    def _named(self, name: str, words: str, units: str = "1") -> dict[str, Variable]:
        test = self.split == "test"
        where = "fresh examples of the test split" if test else "the probe"
        return {f"test_{name}" if test else name: Variable(f"{words} over {where}", units=units)}


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
        return {name: losses.value(probe.loss, model.apply(params, x), target).mean()}


@dataclass(frozen=True)
class Accuracy(_OnSplit):
    """Fraction of examples whose class is predicted; see :func:`accuracy`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """``accuracy`` or ``test_accuracy``."""
        return self._named("accuracy", "fraction of examples whose class is predicted")

    def check(self, model: Model, data: Any, loss: str) -> None:
        """Labels have to be classes."""
        super().check(model, data, loss)
        if getattr(data, "num_targets", None):
            raise InputError(
                "record.observables",
                "accuracy",
                "the labels are real numbers, not classes; use loss",
            )

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Mean 1[predicted class = y]."""
        (name,) = self.variables(model, probe.data)
        x, y = self._examples(probe)
        outputs = model.apply(params, x)
        threshold = 0.5 if probe.loss == "squared" else 0.0
        predicted = (
            outputs.argmax(-1) if model.num_outputs > 1 else (outputs > threshold).astype(jnp.int32)
        )
        return {name: (predicted == y).astype(jnp.float32).mean()}


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
        residual = losses.prediction(probe.loss, model.apply(params, probe.x)) - target
        return {"mean_squared_residual": jnp.square(residual).mean()}


def loss(split: str = "probe") -> Loss:
    """Mean loss, in nats for the logistic and softmax losses; ``loss`` over the probe, ``test_loss`` over the test split.

    Args:
        split: ``"probe"``: fresh examples of a synthetic source, of the training split of a held set; ``"test"``.

    >>> loss("test")
    Loss(split='test')
    """
    return Loss(split)


def accuracy(split: str = "probe") -> Accuracy:
    """Fraction of examples whose class is predicted: the largest output, or the sign of the only one.

    Args:
        split: ``"probe"`` or ``"test"``, as for :func:`loss`.

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
