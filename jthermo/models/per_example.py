"""What every linear layer of a net saw on the way forward and feels on the way back: its inputs h and its δ = ∂L/∂a.

For a = W·h + b the gradient of one example is Σ_t h_t δ_tᵀ, with t over the positions of a convolution, so δ and h
give every per-sample gradient without one backward pass per example. It holds for flax's ``Dense`` and ``Conv`` and for
the layers of :mod:`jthermo.models`, each called once; a net with any other parameter has no tape.
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

from jthermo.models import Model
from jthermo.models.layer import Layer

Deltas = tuple[Array, ...]


class Seen(NamedTuple):
    """A layer's part of the tape, for a batch of M examples.

    Attributes:
        path: the module's path in the parameter tree.
        inputs: h, (M, T, fan_in), T positions; 1 for a dense layer of one vector.
    """

    path: tuple[str, ...]
    inputs: Array


class Tape(NamedTuple):
    """One forward pass over a batch.

    Attributes:
        outputs: f, (M,) or (M, C).
        layers: the layers in the order in which they were called.
        pull_back: cotangents of the outputs → δ of every layer, (M, T, features).
    """

    outputs: Array
    layers: tuple[Seen, ...]
    pull_back: Callable[[Array], Deltas]


def record(model: Model, params: Any, x: Array) -> Tape:
    """Run a batch forward and keep what the layers saw."""
    shapes = _shapes(model, params, x)

    def forward(shifts: Deltas) -> tuple[Array, tuple[Array, ...]]:
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
    """Whether the tape holds every parameter of a model, each in one layer that is called once."""
    try:
        shapes = _shapes(
            model, model.shapes, jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
        )
    except NotImplementedError:
        return False
    paths = [path for path, _ in shapes]
    found = {(*path, name) for path in paths for name in ("kernel", "bias")}
    leaves = (
        set(traverse_util.flatten_dict(model.shapes)) if isinstance(model.shapes, dict) else {None}
    )
    batched = all(shape[0] == 2 for _, shape in shapes)
    return bool(paths) and batched and len(set(paths)) == len(paths) and leaves <= found


def convolves(model: Model) -> bool:
    """Whether some layer of a model that the tape covers has more than one position."""
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    return any(math.prod(shape[1:-1]) > 1 for _, shape in _shapes(model, model.shapes, x))


def squared_norms(tape: Tape, deltas: Deltas, model: Model) -> dict[tuple[str, ...], Array]:
    """|g_i|² of every kernel and bias, (M,): |h|²|δ|² and |δ|² where there is one position."""
    made = {}
    for layer, delta in zip(tape.layers, deltas, strict=True):
        kernel, bias = _squares(layer.inputs, delta)
        made[*layer.path, "kernel"], made[*layer.path, "bias"] = kernel, bias
    return {path: made[path] for path in traverse_util.flatten_dict(model.shapes)}


def sums(tape: Tape, deltas: Deltas, model: Model) -> dict[tuple[str, ...], tuple[Array, Array]]:
    """(Σ_i g_i, Σ_i |g_i|²) of every kernel and bias."""
    made = {}
    for layer, delta in zip(tape.layers, deltas, strict=True):
        h = layer.inputs
        if h.shape[1] == 1:
            total = h[:, 0].T @ delta[:, 0]
            kernel, bias = (s.sum() for s in _squares(h, delta))
        else:
            each = _gradients(h, delta)
            total, kernel = each.sum(0), jnp.square(each).sum()
            bias = jnp.square(delta.sum(1)).sum()
        made[*layer.path, "kernel"] = total, kernel
        made[*layer.path, "bias"] = delta.sum((0, 1)), bias
    return {path: made[path] for path in traverse_util.flatten_dict(model.shapes)}


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
    """The outputs, with `on_call(layer, its inputs, a)` in place of the pre-activations a of every linear layer."""

    def watch(call: Callable[..., Array], args: Any, kwargs: Any, context: Any) -> Array:
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
    """Path and shape of the pre-activations of every linear layer, in the order of their calls."""
    found: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def note(layer: nn.Module, h: Array, a: Array) -> Array:
        _unfold(layer, h)
        found.append((layer.path, a.shape))
        return a

    jax.eval_shape(lambda params, x: _run(model, params, x, note), params, x)
    return found


def _unfold(layer: nn.Module, h: Array) -> Array:
    """What the kernel multiplies, with the fan-in last; the order within it doesn't matter to a norm."""
    if isinstance(layer, Layer):
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
        raise NotImplementedError(f"no patches for {layer}")
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
