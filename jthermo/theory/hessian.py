"""Curvature of ReLU nets (App. A.5): the exact trace of the Hessian, and its bound.

H = K + R with K the Gauss–Newton matrix. For ReLU nets, also with convolutions and max pools,
tr R = 0 almost everywhere. Hence tr H = tr K, a sum of squared gradient norms that needs no second
derivative. Estimators that hold for any net are in ``observables/curvature_estimators.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core as jex
from jaxtyping import Float

from jthermo.errors import InputError
from jthermo.models import MLP, Model, TwoLayer, per_example

# Examples per chunk; it bounds the memory.
CHUNK = {"dense": 256, "convolution": 8, "vjp": 32}
# Weight (out, in) and bias of each layer.
_Layers = list[tuple[Array, Array | None]]


def trace(
    model: Any, params: Any, x: Float[Array, "m ..."], *, loss: str = "auto"
) -> Float[Array, ""]:
    """Tr H = tr K, the mean over the batch of Σ_y p_y |∇L_y|² (A.5).

    Tr H = tr K holds for ReLU nets almost everywhere. For one output and the logistic loss, tr K is
    E[p(1−p) |∇f|²]; for squared error it is E Σ_k |∇f_k|².

    Args:
        model: a ``jt.models`` value, or any object with ``apply(params, x) -> outputs`` for one
            example.
        params: parameters of one network.
        x: inputs, (M, …).
        loss: ``"auto"`` (logistic for one output, softmax for several), ``"squared"`` or
            ``"multi_label"`` (logistic for each output).

    Returns:
        () the trace.

    >>> import jax, jthermo as jt
    >>> model = jt.models.TwoLayer(inputs=3, hidden=4, init="paired_he")
    >>> bool(trace(model, model.init(jax.random.key(0)), jax.numpy.ones((5, 3))) > 0)
    True
    """
    if isinstance(model, Model) and per_example.covers(model):
        chunk = CHUNK["convolution" if per_example.convolves(model) else "dense"]
        return _mean_over_chunks(lambda part: _taped_squares(model, params, part, loss), x, chunk)

    if isinstance(model, MLP) and x.shape[1] == 1:
        # an example of shape (1, rows, columns) would look like a batch of one
        x = x.reshape(len(x), *model.input_shape)
    # JAX cannot vmap a grouped convolution over classes, examples and runs.
    grouped = _grouped(jax.make_jaxpr(model.apply)(params, x[0]).jaxpr)

    def one(example: Array) -> Array:
        outputs, pull_back = jax.vjp(lambda p: jnp.atleast_1d(model.apply(p, example)), params)
        rows = _rows(outputs, loss)
        (gradients,) = jax.lax.map(pull_back, rows) if grouped else jax.vmap(pull_back)(rows)
        return sum(
            (jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradients)),
            start=jnp.asarray(0.0, float),
        )

    return jax.lax.map(one, x, batch_size=CHUNK["vjp"]).mean()


def trace_bound(
    model: Any, params: Any, x: Float[Array, "m ..."], *, loss: str = "auto"
) -> Float[Array, ""]:
    """Bound on tr H by activation and weight norms (A.5), mean over the batch.

    With M^l the mask of active units, ‖M^l W^l‖_F² = Σ_active |W_i|² is the activation rate times
    the weight norm:

        tr K ≤ (1 − |p|²) G_(n−1) + ½ Σ_(l<n) G_(l−1) Π_(m>l) ‖W^m M^(m−1)‖_F²

    where G_l = F_l + [layer l+1 has a bias], F_0 = |x|² and
    F_l = (√F_(l−1) ‖M^l W^l‖_F + |M^l b^l|)². For one output and the logistic loss, p(1 − p)
    replaces both 1 − |p|² and ½. The deeper the net, the looser the bound: report its ratio to the
    trace.

    Args:
        model: a ``jt.models.TwoLayer`` or ``jt.models.MLP``.
        params: parameters of one network.
        x: inputs, (M, …).
        loss: ``"auto"``: logistic for one output, softmax for several.

    Returns:
        () the bound.

    Raises:
        InputError: the net is not a chain of dense layers, or `loss` is not ``"auto"``.

    >>> import jax, jthermo as jt
    >>> model = jt.models.MLP(3, hidden=(4, 4), outputs=2)
    >>> params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 3))
    >>> bool(trace_bound(model, params, x) > trace(model, params, x))
    True
    """
    if loss != "auto":
        raise InputError(
            "loss", loss, "the bound holds for the logistic and softmax losses; use 'auto'"
        )
    layers = _chain(model, params)
    a, masks = _masks(layers, x)
    below, above = _masked_squares(layers, masks)
    # F_(l−1), and the list of G_(l−1)
    reach, reaches = jnp.square(x.reshape(len(x), -1)).sum(1), []
    # not strict: the output layer has no mask
    for (_, bias), mask, grown in zip(layers, masks, below, strict=False):
        reaches.append(reach + (0.0 if bias is None else 1.0))
        shift = 0.0 if bias is None else jnp.sqrt(mask @ jnp.square(bias))
        reach = jnp.square(jnp.sqrt(reach * grown) + shift)
    reaches.append(reach + (0.0 if layers[-1][1] is None else 1.0))
    if a.shape[1] == 1:
        p = jax.nn.sigmoid(a[:, 0])
        last = most = p * (1 - p)
    else:
        last, most = 1 - jnp.square(jax.nn.softmax(a)).sum(1), jnp.asarray(0.5, float)
    total, product = last * reaches[-1], jnp.ones_like(reach)
    for into, out in zip(reversed(reaches[:-1]), reversed(above), strict=True):
        product = product * out
        total = total + most * into * product
    return total.mean()


def layer_factors(
    model: Any, params: Any, x: Float[Array, "m ..."]
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    """Activation rate times weight norm of each hidden layer, the factors in the bound of A.5.

    ‖M^l W^l‖_F² = Σ_i 1[a_i > 0] |W_i|² sums over the incoming weights of the active units, and
    ‖W^(l+1) M^l‖_F² over their outgoing weights. The mean over the batch is Σ_i rate_i |W_i|².

    Args:
        model: a ``jt.models.TwoLayer`` or ``jt.models.MLP``.
        params: parameters of one network.
        x: inputs, (M, …).

    Returns:
        The factors of the incoming weights and of the outgoing weights, each (hidden layers,).

    Raises:
        InputError: the net is not a chain of dense layers.

    >>> import jax.numpy as jnp, jthermo as jt
    >>> model = jt.models.TwoLayer(inputs=1, hidden=2)
    >>> params = {"W": jnp.array([[3.0], [-2.0]]), "b": jnp.zeros(2), "V": jnp.array([5.0, 7.0])}
    >>> [f.tolist() for f in layer_factors(model, params, jnp.ones((1, 1)))]
    [[9.0], [25.0]]
    """
    layers = _chain(model, params)
    below, above = _masked_squares(layers, _masks(layers, x)[1])
    return jnp.stack(below).mean(1), jnp.stack(above).mean(1)


def _taped_squares(model: Any, params: Any, x: Array, loss: str) -> Array:
    """Σ_y p_y |∇L_y|² per example, (M,), by one forward pass and one backward pass per class."""
    tape = per_example.record(model, params, x)
    outputs = tape.outputs if tape.outputs.ndim == 2 else tape.outputs[:, None]
    rows = (
        jax.vmap(lambda f: _rows(f, loss))(outputs).swapaxes(0, 1).reshape(-1, *tape.outputs.shape)
    )

    def squares(row: Array) -> Array:
        return sum(
            per_example.squared_norms(tape, tape.pull_back(row), model).values(),
            start=jnp.asarray(0.0, float),
        )

    return jax.vmap(squares)(rows).sum(0)


def _grouped(jaxpr: Any) -> bool:
    """Whether a jaxpr has a convolution with groups."""
    return any(
        eqn.params.get("feature_group_count", 1) > 1
        or any(_grouped(sub) for sub in jex.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _rows(outputs: Array, loss: str) -> Array:
    """Rows r_y with Σ_y r_y r_yᵀ = ∂²L/∂f² of one example's outputs (C,)."""
    if loss == "squared":
        return jnp.eye(len(outputs))
    if len(outputs) == 1 or loss == "multi_label":
        p = jax.nn.sigmoid(outputs)
        roots = jnp.sqrt(p * (1 - p))
        # the same, but other operations would change the digests of existing folders
        return roots[:, None] if len(outputs) == 1 else jnp.diag(roots)
    p = jax.nn.softmax(outputs)
    return jnp.sqrt(p)[:, None] * (p[None] - jnp.eye(len(outputs)))


def _mean_over_chunks(each: Callable[[Array], Array], x: Array, chunk: int) -> Array:
    """Mean of ``each(x)``, (M,), in chunks of `chunk` examples; the remainder comes last."""
    count = len(x)
    if count <= chunk:
        return each(x).mean()
    whole = count // chunk * chunk
    sums = jax.lax.map(lambda part: each(part).sum(), x[:whole].reshape(-1, chunk, *x.shape[1:]))
    rest = each(x[whole:]).sum() if whole < count else 0.0
    return (sums.sum() + rest) / count


def _masks(layers: _Layers, x: Array) -> tuple[Array, list[Array]]:
    """Outputs (M, C), and for each hidden layer the mask (M, N) of active units, 0 or 1."""
    h, masks = x.reshape(len(x), -1), []
    for weight, bias in layers:
        a = h @ weight.T + (0.0 if bias is None else bias[None])
        masks.append((a > 0).astype(a.dtype))
        h = a * masks[-1]
    return a, masks[:-1]


def _masked_squares(layers: _Layers, masks: list[Array]) -> tuple[list[Array], list[Array]]:
    """‖M^l W^l‖_F² and ‖W^(l+1) M^l‖_F² of each hidden layer, (M,)."""
    below = [
        mask @ jnp.square(weight).sum(1)
        for (weight, _), mask in zip(layers[:-1], masks, strict=True)
    ]
    above = [
        mask @ jnp.square(weight).sum(0)
        for (weight, _), mask in zip(layers[1:], masks, strict=True)
    ]
    return below, above


def is_chain(model: Any) -> bool:
    """Whether the bound of A.5 holds: a plain ReLU chain, and no subclass of the nets' classes."""
    return type(model) in (TwoLayer, MLP) and model.is_plain_relu


def _chain(model: Any, params: Any) -> _Layers:
    """Weights (out, in) and biases of a net that is a chain of dense layers."""
    if not is_chain(model):
        remedy = "the bound of A.5 needs a chain of dense ReLU layers: use TwoLayer or MLP"
        raise InputError("model", model, remedy)
    if isinstance(model, TwoLayer):
        return [(params["W"], params.get("b")), (params["V"][None], None)]
    return [(params[n]["kernel"].T, params[n].get("bias")) for n in model.layers]
