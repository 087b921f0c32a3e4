"""The user's model as a :class:`Model` for the examples of a sweep."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from jthermo.errors import InputError
from jthermo.models.flax_linen import Flax
from jthermo.models.model import Model, check
from jthermo.models.wrapped import Wrapped


def as_model(model: Any, input_shape: tuple[int, ...], input_dtype: str = "float32") -> Model:
    """A model or a flax module as a :class:`Model` for such examples.

    Raises:
        InputError: it is neither, it isn't hashable, it fails on such examples, or it has
            parameters or outputs that can't be trained.
    """
    shown = model
    if isinstance(model, nn.Module):
        model = Flax(model, input_shape, input_dtype)
    elif isinstance(model, Flax):
        shown = model.module
    elif isinstance(model, Wrapped):
        model = model.for_examples(input_shape, input_dtype)
    elif not isinstance(model, Model):
        raise InputError(
            "model",
            model,
            "give a jt.models value such as jt.models.TwoLayer(...) or a flax.linen module; "
            "jt.models.NNX(Net, ...) takes a flax.nnx class, jt.models.Function(init=..., "
            "apply=...) functions",
        )
    if not model.takes(input_shape):
        raise InputError(
            "model.inputs",
            model.input_shape,
            f"the data have examples of shape {input_shape}; make the two equal",
        )
    check(model, shown)
    return model
