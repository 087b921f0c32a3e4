"""The base class of models, and the wrapper of the user's own flax modules.

A module shows its pre-activations to observables by ``self.sow("preactivations", name, a)``. Under
the name ``"a"``, the layer is called by the module's path instead.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jthermo.errors import MOST_WHOLE, InputError, one_line
from jthermo.randomness.jax_settings import pinned


class Model:
    """A network as a hashable value.

    Args:
        module: the flax module.
        input_shape: shape of one example.
        arguments: the constructor arguments of the subclass; models are equal when they are.
    """

    def __init__(
        self, module: nn.Module, input_shape: tuple[int, ...], arguments: Mapping[str, Any]
    ) -> None:
        self.module, self.input_shape, self.arguments = module, input_shape, dict(arguments)

    def init(self, key: Array) -> Any:
        """Initial parameters (a pytree of float32) from a key; empty for a fixed function."""
        return self.module.init(key, jnp.zeros((1, *self.input_shape), jnp.float32)).get(
            "params", {}
        )

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () or (C,) of an example, (M,) or (M, C) of a batch; no C for one output."""
        return jnp.asarray(self.module.apply({"params": params}, x))

    def preactivations(self, params: Any, x: Array) -> dict[str, Array]:
        """Pre-activations of a batch `x` by layer name, in the order in which layers are called."""
        _, sown = self.module.apply({"params": params}, x, mutable=["preactivations"])
        flat = traverse_util.flatten_dict(sown.get("preactivations", {}))
        names = [
            "/".join(path[:-1] if len(path) > 1 and path[-1] == "a" else path) for path in flat
        ]
        return {name: leaf[-1] for name, leaf in zip(names, flat.values(), strict=True)}

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether the model accepts examples of this shape."""
        return tuple(shape) == self.input_shape

    @property
    def shapes(self) -> Any:
        """Shapes and dtypes of the parameters, without computing them."""
        return _shapes(self)

    @property
    def num_outputs(self) -> int:
        """Number of outputs per example."""
        return _num_outputs(self)

    def step_model(self) -> Model:
        """The model for the compiled update: equal for models that differ only in their init."""
        return self

    @property
    def init_floats(self) -> dict[str, float]:
        """The numbers of the initialisation that compiled programs take as inputs, by name."""
        return {}

    def with_init_floats(self, floats: Mapping[str, Any]) -> Model:
        """The model with these numbers in its initialisation; they may be traced."""
        return self

    @property
    def learning_rate_factor(self) -> float:
        """The factor by which every update is multiplied, beside η."""
        return 1.0

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.arguments.items())))


class Flax(Model):
    """Any flax (linen) module as a model; ``jt.Sweep(model=MyModule(...))`` wraps it automatically.

    Args:
        module: maps a batch ``(M, *input_shape)`` to outputs (M,), (M, 1) or (M, C).
        input_shape: shape of one example.

    >>> Flax(nn.Dense(2), input_shape=(3,)).num_outputs
    2
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(
            module, tuple(input_shape), {"module": module, "input_shape": tuple(input_shape)}
        )

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () or (C,) of an example, (M,) or (M, C) of a batch; no C for one output."""
        single = x.ndim == len(self.input_shape)
        out = jnp.asarray(self.module.apply({"params": params}, x[None] if single else x))
        out = out[..., 0] if out.ndim == 2 and out.shape[-1] == 1 else out
        return out[0] if single else out


# The cache's key is the model's value, so that equal models are traced once.
@functools.lru_cache(maxsize=256)
@pinned()
def _shapes(model: Model) -> Any:
    # eval_shape computes nothing and uses no device
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))


@functools.lru_cache(maxsize=256)
@pinned()
def _outputs(model: Model) -> Any:
    """Shape and dtype of the outputs of a batch of two examples."""
    batch = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    return jax.eval_shape(model.apply, model.shapes, batch)


def _num_outputs(model: Model) -> int:
    out = _outputs(model)
    return 1 if out.ndim == 1 else out.shape[-1]


def as_model(model: Any, input_shape: tuple[int, ...]) -> Model:
    """A model or a flax module as a :class:`Model` for examples of `input_shape`.

    Raises:
        InputError: it is neither, it isn't hashable, it fails on such examples, or it has
            parameters or outputs that can't be trained.
    """
    if isinstance(model, nn.Module):
        model = Flax(model, input_shape)
    elif not isinstance(model, Model):
        raise InputError(
            "model",
            model,
            "give a jt.models value such as jt.models.TwoLayer(...) or a flax.linen module",
        )
    elif not model.takes(input_shape):
        raise InputError(
            "model.inputs",
            model.input_shape,
            f"the data have examples of shape {input_shape}; make the two equal",
        )
    try:
        hash(model)
    except Exception:
        # flax raises any error of a field's own hash or repr
        raise InputError(
            "model",
            _shown(model),
            "isn't hashable: it has a list or a dict as a field; use a tuple",
        ) from None
    _check(model)
    return model


@functools.lru_cache(maxsize=256)
def _check(model: Model) -> None:
    """Trace a model once, so that its errors are raised where the user passed it."""
    try:
        outputs, shapes = _outputs(model), model.shapes
    except Exception as error:
        remedy = f"fails on examples of shape {model.input_shape}: {one_line(error)}"
        raise InputError("model", _shown(model), remedy) from None
    leaves = {
        f"parameters {jax.tree_util.keystr(path)}": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }
    number = sum(math.prod(leaf.shape) for leaf in leaves.values())
    if number > MOST_WHOLE:
        remedy = f"has {number:,} parameters, more than {MOST_WHOLE:,}; give a smaller net"
        raise InputError("model", _shown(model), remedy)
    for name, array in {**leaves, "outputs": outputs}.items():
        if array.dtype != jnp.float32:
            remedy = (
                f"has {array.dtype} {name}, but jthermo trains in float32; give the module "
                "dtype=jnp.float32 and param_dtype=jnp.float32"
            )
            raise InputError("model", _shown(model), remedy)
    if outputs.shape[:1] != (2,) or outputs.ndim > 2 or 0 in outputs.shape:
        remedy = (
            f"returns the shape {outputs.shape} for 2 examples of shape {model.input_shape}; "
            "return (M,), (M, 1) or (M, C) for M examples"
        )
        raise InputError("model", _shown(model), remedy)


def _shown(model: Model) -> Any:
    """What the user passed: a flax module or a model."""
    return model.module if isinstance(model, Flax) else model
