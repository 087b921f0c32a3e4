"""Networks as values: constructor arguments and the flax module they describe; one call for an example or a batch.

A module makes its pre-activations known to observables by ``self.sow("preactivations", name, a)``; a user's own
flax module can do the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jthermo import checks
from jthermo.errors import InputError

INITS = ("torch", "he", "unit", "paired_he")


class Model:
    """A network as a hashable value.

    Args:
        module: the flax module.
        input_shape: shape of one example.
        arguments: the constructor arguments of the subclass; they make the identity.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], arguments: Mapping[str, Any]) -> None:
        self.module, self.input_shape, self.arguments = module, input_shape, dict(arguments)

    def init(self, key: Array) -> Any:
        """Fresh parameters (a pytree of float32) from a key."""
        return self.module.init(key, jnp.zeros((1, *self.input_shape), jnp.float32))["params"]

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () for one example and (M,) for a batch where the net has one output, else (C,) and (M, C)."""
        return jnp.asarray(self.module.apply({"params": params}, x))

    def preactivations(self, params: Any, x: Array) -> dict[str, Array]:
        """Pre-activations by layer for a batch `x`, in the order of the layers."""
        _, sown = self.module.apply({"params": params}, x, mutable=["preactivations"])
        flat = jax.tree_util.tree_leaves_with_path(
            sown.get("preactivations", {}), is_leaf=lambda v: isinstance(v, tuple)
        )
        return {"/".join(str(k.key) for k in path): leaf[-1] for path, leaf in flat}

    @functools.cached_property
    def shapes(self) -> Any:
        """The parameters' shapes and dtypes, without making them."""
        return jax.eval_shape(
            lambda: self.init(jax.random.key(0))
        )  # nothing is computed, no device is touched

    @functools.cached_property
    def num_outputs(self) -> int:
        """Outputs per example."""
        out = jax.eval_shape(
            self.apply, self.shapes, jax.ShapeDtypeStruct((2, *self.input_shape), jnp.float32)
        )
        return 1 if out.ndim == 1 else out.shape[-1]

    def step_model(self) -> Model:
        """The model as the update sees it: equal for models that differ only in how they are initialised."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.arguments.items())))


class TwoLayerModule(nn.Module):
    """f(x) = Σ_i V_i relu(Σ_j W_ij x_j + b_i), the paper's two-layer net (Sec. 4)."""

    inputs: int
    hidden: int
    bias: bool
    scheme: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs for one example (inputs,) or a batch (M, inputs)."""
        init_w, init_b, init_v = _initializers(self.scheme, self.inputs, self.hidden)
        w = self.param("W", init_w, (self.hidden, self.inputs))
        a = x @ w.T
        if self.bias:
            a = a + self.param("b", init_b, (self.hidden,))
        self.sow("preactivations", "hidden", a)
        return nn.relu(a) @ self.param("V", init_v, (self.hidden,))


class TwoLayer(Model):
    """f(x) = Σ_i V_i relu(Σ_j W_ij x_j + b_i), one output and no output bias (Sec. 4 of the paper).

    Parameters: W (hidden, inputs), b (hidden,) unless ``bias=False``, V (hidden,).

    Args:
        inputs: d, the dimension of x.
        hidden: N, the number of hidden units.
        bias: the paper's first family has b; the second has none and x ≥ 0.
        init: ``"torch"`` W, b ~ U(±1/√d), V ~ U(±1/√N); ``"he"`` W ~ N(0, 2/d), b = 0, V ~ N(0, 1/N); ``"unit"``
            W ~ N(0, 1/d), b = 0, V ~ N(0, 1); ``"paired_he"`` He units copied with opposite V, so that f = 0.

    >>> import jax
    >>> model = TwoLayer(inputs=3, hidden=4, init="paired_he")
    >>> params = model.init(jax.random.key(0))
    >>> {name: params[name].shape for name in sorted(params)}
    {'V': (4,), 'W': (4, 3), 'b': (4,)}
    >>> round(abs(float(model.apply(params, jax.numpy.ones(3)))), 6)
    0.0
    """

    def __init__(self, inputs: int, hidden: int, bias: bool = True, init: str = "torch") -> None:
        inputs, hidden = (checks.whole(f"model.{k}", v) for k, v in (("inputs", inputs), ("hidden", hidden)))
        if init not in INITS:
            raise InputError("model.init", init, f"use one of {', '.join(INITS)}")
        if init == "paired_he" and hidden % 2:
            raise InputError("model.hidden", hidden, "paired_he copies units in pairs; give an even number")
        if not isinstance(bias, bool):
            raise InputError("model.bias", bias, "use True or False")
        module = TwoLayerModule(inputs, hidden, bias, init)
        given = {"inputs": inputs, "hidden": hidden, "bias": bias, "init": init}
        super().__init__(module, (inputs,), given)

    def step_model(self) -> Model:
        """The same net at the default init: compiled update and observables don't depend on it."""
        return TwoLayer(**{**self.arguments, "init": "torch"})


class Flax(Model):
    """Any flax (linen) module as a model; ``jt.Sweep(model=MyModule(...))`` wraps it so by itself.

    Args:
        module: maps a batch (M, *input_shape) to outputs (M,), (M, 1) or (M, C).
        input_shape: shape of one example.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(module, tuple(input_shape), {"module": module, "input_shape": tuple(input_shape)})

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () for one example and (M,) for a batch where the net has one output, else (C,) and (M, C)."""
        single = x.ndim == len(self.input_shape)
        out = jnp.asarray(self.module.apply({"params": params}, x[None] if single else x))
        out = out[..., 0] if out.ndim == 2 and out.shape[-1] == 1 else out
        return out[0] if single else out


def as_model(model: Any, input_shape: tuple[int, ...]) -> Model:
    """A :class:`Model`, from a model or a flax module."""
    if isinstance(model, Model):
        if model.input_shape != input_shape:
            raise InputError(
                "model.inputs",
                model.input_shape,
                f"the data have examples of shape {input_shape}; make them equal",
            )
        return model
    if isinstance(model, nn.Module):
        wrapped = Flax(model, input_shape)
        try:
            wrapped.num_outputs  # noqa: B018  traced once here, so that a misfit shows where it was given
        except Exception as error:
            raise InputError("model", model, f"can't take examples of shape {input_shape}: {error}") from None
        return wrapped
    raise InputError(
        "model", model, "give a jt.models value such as jt.models.TwoLayer(...) or a flax.linen module"
    )


def _initializers(scheme: str, inputs: int, hidden: int) -> tuple[Callable, Callable, Callable]:
    """Initializers of W, b and V: a draw of unit scale times the scale of the scheme."""
    w_scale, b_scale, v_scale = {
        "torch": (inputs**-0.5, inputs**-0.5, hidden**-0.5),
        "he": ((2 / inputs) ** 0.5, 0.0, hidden**-0.5),
        "unit": (inputs**-0.5, 0.0, 1.0),
        "paired_he": ((2 / inputs) ** 0.5, 0.0, hidden**-0.5),
    }[scheme]

    def scaled(scale: float, sign: float = 1.0) -> Callable[[Array, tuple[int, ...]], Array]:
        def init(key: Array, shape: tuple[int, ...]) -> Array:
            if scheme == "torch":
                return scale * jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)
            if scheme != "paired_he":
                return scale * jax.random.normal(key, shape, jnp.float32)
            half = scale * jax.random.normal(key, (shape[0] // 2, *shape[1:]), jnp.float32)
            return jnp.concatenate([half, sign * half])

        return init

    return scaled(w_scale), scaled(b_scale), scaled(v_scale, sign=-1.0)
