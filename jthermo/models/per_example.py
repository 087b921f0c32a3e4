"""Per-example gradients from the inputs h and output gradients δ = ∂L/∂a of every linear layer.

For a = W·h + b the gradient of one example is Σ_t h_t δ_tᵀ, with t over the positions of a
convolution. So one backward pass over the batch gives the gradients of all its examples. This
holds for flax's ``Dense`` and ``Conv`` and for the layers of :mod:`jthermo.models`, each called
once; :func:`covers` says whether all parameters of a net are in such layers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array
from jaxtyping import Float

from jthermo.models import Model
from jthermo.models.layer import Layer

Deltas = tuple[Float[Array, "m _ _"], ...]


class Seen(NamedTuple):
    """The inputs of one layer for a batch of M examples.

    Attributes:
        path: the layer's path in the parameter tree.
        inputs: h, (M, T, fan_in), with T positions; T = 1 for a dense layer applied to a vector.
    """

    path: tuple[str, ...]
    inputs: Float[Array, "m t fan_in"]


class Tape(NamedTuple):
    """Per-layer inputs h of one batch, and the function that gives the output gradients δ.

    Attributes:
        outputs: f, (M,) or (M, C).
        layers: the layers in the order in which they were called.
        pull_back: maps cotangents of the outputs to the δ of every layer, (M, T, features) each.
    """

    outputs: Float[Array, " m *c"]
    layers: tuple[Seen, ...]
    pull_back: Callable[[Array], Deltas]


def record(model: Model, params: Any, x: Float[Array, "m ..."]) -> Tape:
    """Run a batch forward; return the outputs, and a tape of the inputs of every linear layer."""
    shapes = _shapes(model, params, x)

    def forward(shifts: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        seen: list[Array] = []

        def keep(layer: nn.Module, h: Array, a: Array) -> Array:
            h = _unfold(layer, h)
            seen.append(h.reshape(h.shape[0], -1, h.shape[-1]))
            return a + shifts[len(seen) - 1]

        return _run(model, params, x, keep), tuple(seen)

    zeros = tuple(jnp.zeros(shape, jnp.float32) for _, shape in shapes)
    outputs, pull, inputs = jax.vjp(forward, zeros, has_aux=True)

    def pull_back(cotangent: Array) -> Deltas:
        (deltas,) = pull(cotangent)
        return tuple(d.reshape(d.shape[0], -1, d.shape[-1]) for d in deltas)

    return Tape(
        outputs,
        tuple(Seen(path, h) for (path, _), h in zip(shapes, inputs, strict=True)),
        pull_back,
    )


@functools.lru_cache(maxsize=256)
def covers(model: Model) -> bool:
    """Whether every parameter of a model is in a linear layer that is called exactly once."""
    try:
        shapes = _shapes(
            model, model.shapes, jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
        )
    except NotImplementedError:
        return False
    paths = [path for path, _ in shapes]
    covered = {(*path, name) for path in paths for name in ("kernel", "bias")}
    leaves = (
        set(traverse_util.flatten_dict(model.shapes)) if isinstance(model.shapes, dict) else {None}
    )
    batched = all(shape[0] == 2 for _, shape in shapes)
    return bool(paths) and batched and len(set(paths)) == len(paths) and leaves <= covered


def convolves(model: Model) -> bool:
    """Whether some layer of a model has more than one position; the model must be covered."""
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    return any(math.prod(shape[1:-1]) > 1 for _, shape in _shapes(model, model.shapes, x))


def squared_norms(
    tape: Tape, deltas: Deltas, model: Model
) -> dict[tuple[str, ...], Float[Array, " m"]]:
    """|g_i|² of every kernel and bias, (M,): |h|²|δ|² and |δ|² for a single position."""
    norms = {}
    for layer, delta in zip(tape.layers, deltas, strict=True):
        kernel, bias = _squares(layer.inputs, delta)
        norms[*layer.path, "kernel"], norms[*layer.path, "bias"] = kernel, bias
    return {path: norms[path] for path in traverse_util.flatten_dict(model.shapes)}


def sums(
    tape: Tape, deltas: Deltas, model: Model
) -> dict[tuple[str, ...], tuple[Float[Array, " ..."], Float[Array, ""]]]:
    """(Σ_i g_i, Σ_i |g_i|²) of every kernel and bias."""
    moments = {}
    for layer, delta in zip(tape.layers, deltas, strict=True):
        h = layer.inputs
        if h.shape[1] == 1:
            total = h[:, 0].T @ delta[:, 0]
            kernel, bias = (s.sum() for s in _squares(h, delta))
        else:
            gradients = _gradients(h, delta)
            total, kernel = gradients.sum(0), jnp.square(gradients).sum()
            bias = jnp.square(delta.sum(1)).sum()
        moments[*layer.path, "kernel"] = total, kernel
        moments[*layer.path, "bias"] = delta.sum((0, 1)), bias
    return {path: moments[path] for path in traverse_util.flatten_dict(model.shapes)}


def _squares(h: Array, delta: Array) -> tuple[Array, Array]:
    """|Σ_t h_t δ_tᵀ|² and |Σ_t δ_t|² per example."""
    bias = jnp.square(delta.sum(1)).sum(1)
    if h.shape[1] == 1:
        return jnp.square(h).sum((1, 2)) * bias, bias
    return jnp.square(_gradients(h, delta)).sum((1, 2)), bias


def _gradients(h: Array, delta: Array) -> Array:
    """Σ_t h_t δ_tᵀ per example, (M, fan_in, features)."""
    return jnp.einsum("mtk,mtf->mkf", h, delta)


def _run(
    model: Model, params: Any, x: Array, on_call: Callable[[nn.Module, Array, Array], Array]
) -> Array:
    """The outputs, with the a of every linear layer replaced by `on_call(layer, inputs, a)`."""

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        a = call(*args, **kwargs)
        linear = context.method_name == "__call__" and type(context.module) in (
            Layer,
            nn.Dense,
            nn.Conv,
        )
        return on_call(context.module, args[0], a) if linear else a

    with nn.intercept_methods(watch):
        return model.apply(params, x)


def _shapes(model: Model, params: Any, x: Any) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Path and pre-activation shape of every linear layer, in the order of the calls."""
    shapes: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def note(layer: nn.Module, h: Array, a: Array) -> Array:
        _unfold(layer, h)
        shapes.append((layer.path, a.shape))
        return a

    jax.eval_shape(lambda params, x: _run(model, params, x, note), params, x)
    return shapes


def _unfold(layer: nn.Module, h: Array) -> Array:
    """The factor of the kernel, with the fan-in last; norms don't depend on the order within it."""
    if isinstance(layer, Layer):
        if layer.bias_factor != 1:
            raise NotImplementedError("the gradient of this layer's bias is not δ")
        return layer.unfold(h)
    if isinstance(layer, nn.Dense):
        return h
    assert isinstance(layer, nn.Conv)
    size, padding = layer.kernel_size, layer.padding
    plain = not isinstance(size, int) and len(size) == 2 and padding in ("SAME", "VALID")
    whole = layer.feature_group_count == 1 and layer.mask is None
    if not (
        plain
        and whole
        and all(d in (None, 1) for d in (layer.input_dilation, layer.kernel_dilation))
    ):
        raise NotImplementedError(
            f"no per-example gradients for {layer}: only 2-dimensional convolutions with SAME or "
            "VALID padding and without dilation, groups or mask"
        )
    assert isinstance(size, Sequence)
    assert isinstance(padding, str)
    steps = layer.strides or 1
    return jax.lax.conv_general_dilated_patches(
        h,
        tuple(size),
        (steps, steps) if isinstance(steps, int) else tuple(steps),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
