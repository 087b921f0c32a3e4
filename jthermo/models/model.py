"""Networks as values: constructor arguments and the flax module they describe; one call for an example or a batch.

A module makes its pre-activations known to observables by ``self.sow("preactivations", name, a)``; a user's own
flax module can do the same. The name may be left at ``"a"``: the layer then goes by the module's path.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jthermo.errors import InputError


class Model:
    """A network as a hashable value.

    Args:
        module: the flax module.
        input_shape: shape of one example.
        arguments: the constructor arguments of the subclass; they make the identity.
    """

    def __init__(
        self, module: nn.Module, input_shape: tuple[int, ...], arguments: Mapping[str, Any]
    ) -> None:
        self.module, self.input_shape, self.arguments = module, input_shape, dict(arguments)

    def init(self, key: Array) -> Any:
        """Fresh parameters (a pytree of float32) from a key; empty for a fixed function."""
        return self.module.init(key, jnp.zeros((1, *self.input_shape), jnp.float32)).get(
            "params", {}
        )

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () for one example and (M,) for a batch where the net has one output, else (C,) and (M, C)."""
        return jnp.asarray(self.module.apply({"params": params}, x))

    def preactivations(self, params: Any, x: Array) -> dict[str, Array]:
        """Pre-activations by layer for a batch `x`, in the order in which the layers are called."""
        _, sown = self.module.apply({"params": params}, x, mutable=["preactivations"])
        flat = traverse_util.flatten_dict(sown.get("preactivations", {}))
        names = [
            "/".join(path[:-1] if len(path) > 1 and path[-1] == "a" else path) for path in flat
        ]
        return {name: leaf[-1] for name, leaf in zip(names, flat.values(), strict=True)}

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether examples of this shape fit."""
        return tuple(shape) == self.input_shape

    @property
    def shapes(self) -> Any:
        """The parameters' shapes and dtypes, without making them."""
        return _shapes(self)

    @property
    def num_outputs(self) -> int:
        """Outputs per example."""
        return _num_outputs(self)

    def step_model(self) -> Model:
        """The model as the update sees it: equal for models that differ only in how they are initialised."""
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.arguments.items())))


class Flax(Model):
    """Any flax (linen) module as a model; ``jt.Sweep(model=MyModule(...))`` wraps it so by itself.

    Args:
        module: maps a batch ``(M, *input_shape)`` to outputs (M,), (M, 1) or (M, C).
        input_shape: shape of one example.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(
            module, tuple(input_shape), {"module": module, "input_shape": tuple(input_shape)}
        )

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () for one example and (M,) for a batch where the net has one output, else (C,) and (M, C)."""
        single = x.ndim == len(self.input_shape)
        out = jnp.asarray(self.module.apply({"params": params}, x[None] if single else x))
        out = out[..., 0] if out.ndim == 2 and out.shape[-1] == 1 else out
        return out[0] if single else out


# by value: equal models are traced once
@functools.lru_cache(maxsize=256)
def _shapes(model: Model) -> Any:
    # nothing is computed, no device is touched
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))


@functools.lru_cache(maxsize=256)
def _num_outputs(model: Model) -> int:
    batch = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    out = jax.eval_shape(model.apply, model.shapes, batch)
    return 1 if out.ndim == 1 else out.shape[-1]


def as_model(model: Any, input_shape: tuple[int, ...]) -> Model:
    """A :class:`Model`, from a model or a flax module."""
    if isinstance(model, Model):
        if not model.takes(input_shape):
            raise InputError(
                "model.inputs",
                model.input_shape,
                f"the data have examples of shape {input_shape}; make them equal",
            )
        return model
    if isinstance(model, nn.Module):
        wrapped = Flax(model, input_shape)
        try:
            hash(wrapped)
        except TypeError:
            raise InputError(
                "model", model, "has a list or a dict as a field; give a tuple, which can't change"
            ) from None
        try:
            # traced once here, so that a module that does not fit is refused where it was given
            wrapped.num_outputs  # noqa: B018
        except Exception as error:
            raise InputError(
                "model", model, f"can't take examples of shape {input_shape}: {error}"
            ) from None
        return wrapped
    raise InputError(
        "model",
        model,
        "give a jt.models value such as jt.models.TwoLayer(...) or a flax.linen module",
    )
