"""Per-example gradients from the inputs h and output gradients δ = ∂L/∂a of every linear layer.

For a = W·h + b the gradient of one example is Σ_t h_t δ_tᵀ, with t over the positions of a
convolution. So one backward pass over the batch gives the gradients of all its examples. This
holds for flax's ``Dense`` and ``Conv`` and for the layers of :mod:`jthermo.models`, if each is
called once and its weights are used nowhere else; :func:`covers` says whether that is so.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array
from jaxtyping import Float

from jthermo.models import CNN, MLP, Model, loss_inputs
from jthermo.models.layer import Layer
from jthermo.randomness.jax_settings import pinned

LOG = logging.getLogger("jthermo")
# Examples of the comparison in `covers`; a number that is rarely the size of another axis.
EXAMPLES = 7
# Largest relative error there. Rounding gives about 1e-6.
TOLERANCE = 1e-3
SLOW_WAY = "gradient_variance, hessian_trace and kappa differentiate it example by example, slower"
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

    zeros = tuple(jnp.zeros(shape, float) for _, shape in shapes)
    outputs, pull, inputs = jax.vjp(forward, zeros, has_aux=True)

    def pull_back(cotangent: Array) -> Deltas:
        (deltas,) = pull(cotangent)
        return tuple(d.reshape(d.shape[0], -1, d.shape[-1]) for d in deltas)

    return Tape(
        outputs,
        tuple(Seen(path, h) for (path, _), h in zip(shapes, inputs, strict=True)),
        pull_back,
    )


def covers(model: Model) -> bool:
    """Whether the tape gives the gradients of every parameter of a model.

    Every parameter must be in a linear layer that is called exactly once, and gradients of a few
    random examples at random parameters must be those of ``jax.vjp``. Only the comparison sees a
    weight that is also used outside of its layer's call. If it fails, one line is logged.
    """
    return _covers(model.step_model())


@functools.lru_cache(maxsize=256)
@pinned()
def _covers(model: Model) -> bool:
    """The cached part of :func:`covers`."""
    if not isinstance(model.shapes, dict):
        return False
    try:
        shapes = _shapes(model, model.shapes, model.examples(EXAMPLES))
    except NotImplementedError:
        return False
    paths = [path for path, _ in shapes]
    covered = {(*path, name) for path in paths for name in ("kernel", "bias")}
    batched = all(shape[0] == EXAMPLES for _, shape in shapes)
    if not (
        paths
        and batched
        and len(set(paths)) == len(paths)
        and set(traverse_util.flatten_dict(model.shapes)) <= covered
    ):
        return False
    # Their layers are used once, see tests/observables/test_gradient_moments.py.
    if type(model) in (MLP, CNN):
        return True
    # A trace may be under way, and the comparison needs numbers.
    with jax.ensure_compile_time_eval():
        try:
            error = float(_error(model))
        except Exception as failure:
            LOG.warning("%r: %s; %s", model, failure, SLOW_WAY)
            return False
    if not error < TOLERANCE:
        LOG.warning("%r uses a weight outside of its layer's call; %s", model, SLOW_WAY)
        return False
    return True


@functools.partial(jax.jit, static_argnums=0)
def _error(model: Model) -> Array:
    """Largest relative error of the tape, over parameters, on random numbers."""
    keys = iter(jax.random.split(jax.random.key(0), 2 + len(jax.tree.leaves(model.shapes))))
    params = jax.tree.map(
        lambda s: jax.random.normal(next(keys), s.shape) / math.sqrt(math.prod(s.shape[:-1])),
        model.shapes,
    )
    x = jax.random.normal(next(keys), (EXAMPLES, *model.input_shape)).astype(model.x_dtype)
    tape = record(model, params, x)
    cotangents = jax.random.normal(next(keys), tape.outputs.shape)

    def gradients(example: tuple[Array, Array]) -> Any:
        _, pull_back = jax.vjp(lambda p: loss_inputs(model.apply(p, example[0][None]))[0], params)
        return pull_back(example[1])[0]

    exact = traverse_util.flatten_dict(jax.lax.map(gradients, (x, cotangents)))
    deltas = tape.pull_back(cotangents)
    squares = {path: jnp.square(g).reshape(EXAMPLES, -1).sum(1) for path, g in exact.items()}
    least = 1e-6 * jnp.stack([s.max() for s in squares.values()]).max()
    norms = squared_norms(tape, deltas, model)
    errors = [jnp.abs(norms[p] - s).max() / jnp.maximum(s.max(), least) for p, s in squares.items()]
    return jnp.stack(errors).max()


def convolves(model: Model) -> bool:
    """Whether some layer of a model has more than one position; the model must be covered."""
    shapes = _shapes(model, model.shapes, model.examples(2))
    return any(math.prod(shape[1:-1]) > 1 for _, shape in shapes)


def squared_norms(
    tape: Tape, deltas: Deltas, model: Model
) -> dict[tuple[str, ...], Float[Array, " m"]]:
    """|g_i|² of every kernel and bias, (M,): |h|²|δ|² and |δ|² for a single position."""
    norms = {}
    for layer, delta in zip(tape.layers, deltas, strict=True):
        kernel, bias = _squares(layer.inputs, delta)
        norms[*layer.path, "kernel"], norms[*layer.path, "bias"] = kernel, bias
    return {path: norms[path] for path in traverse_util.flatten_dict(model.shapes)}


def sums_about_first(
    tape: Tape, deltas: Deltas, weight: Float[Array, " m"], model: Model
) -> dict[tuple[str, ...], tuple[Float[Array, " ..."], Float[Array, " ..."], Float[Array, ""]]]:
    """:func:`about_first` of the gradients of every kernel and bias.

    For a single position, g_i − g_1 = (h_i − h_1) δ_iᵀ + h_1 (δ_i − δ_1)ᵀ.
    """
    found = {}
    for layer, delta in zip(tape.layers, deltas, strict=True):
        if layer.inputs.shape[1] == 1:
            h, d = layer.inputs[:, 0], delta[:, 0]
            dh, dd = (weight[:, None] * (a - a[:1]) for a in (h, d))
            crossed = 2 * ((dh @ h[0]) * (dd * d).sum(1)).sum()
            squares = (jnp.square(dh).sum(1) * jnp.square(d).sum(1)).sum()
            squares = squares + jnp.square(h[0]).sum() * jnp.square(dd).sum() + crossed
            total = dh.T @ d + jnp.outer(h[0], dd.sum(0))
            kernel = jnp.outer(h[0], d[0]), total, squares
        else:
            kernel = about_first(_gradients(layer.inputs, delta), weight)
        found[*layer.path, "kernel"] = kernel
        found[*layer.path, "bias"] = about_first(delta.sum(1), weight)
    return {path: found[path] for path in traverse_util.flatten_dict(model.shapes)}


def about_first(
    gradients: Float[Array, " m *n"], weight: Float[Array, " m"]
) -> tuple[Float[Array, " *n"], Float[Array, " *n"], Float[Array, ""]]:
    """g_1, Σ_i w_i (g_i − g_1) and Σ_i w_i |g_i − g_1|², with weights w_i of 0 or 1.

    The variance from these has no difference of large numbers where the g_i are nearly equal.
    """
    w = weight.reshape(-1, *(1,) * (gradients.ndim - 1))
    difference = w * (gradients - gradients[:1])
    return gradients[0], difference.sum(0), jnp.square(difference).sum()


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
        return loss_inputs(model.apply(params, x))


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
