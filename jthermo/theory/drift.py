"""What moves b and V in real SGD: the drift by label noise along the valley of minima, F = −(η²/4B) ∇ tr Σ1.

Blanc et al. 2020, Damian et al. 2021, Li, Wang & Arora 2022; the same form as the implicit regulariser of Smith et
al. 2021. Σ1 is the covariance of one example's gradient. With random labels f fluctuates around 0, where
E(p−y)² = ¼; these fluctuations, not the thermophoresis of (V, b) alone, lower activation rate and norm.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from scipy import special

from jthermo.errors import InputError
from jthermo.theory.moments import gaussian
from jthermo.update_rule import losses

METHODS = ("autodiff", "differences")


def two_layer(
    V: Any, b: Any, *, w: Any, dim: int, learning_rate: Any = 1.0, batch_size: Any = 1
) -> tuple[Array, Array]:
    """(F_V, F_b) of one unit of the two-layer net at f = 0, for x ~ N(0, I) and random labels.

    From tr Σ1 = ¼ Σ_i [Eσ² + V² ((d+1) Φ − uφ)] with u = b/w:

    - F_V = −(η²/8B) V [(d+1) Φ(u) − u φ(u)]
    - F_b = −(η²/16B) [2 Eσ + V² (d + u²) φ(u)/w]

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        dim: d.
        learning_rate: η.
        batch_size: B.

    Returns:
        Change of V and of b per step.

    >>> [round(float(f), 4) for f in two_layer(0.0, 0.0, w=2**0.5, dim=10)]     # He init, V → 0
    [-0.0, -0.0705]
    """
    seen = gaussian(b, w=w)
    u, V = jnp.asarray(b) / w, jnp.asarray(V)
    unit = jnp.asarray(learning_rate) ** 2 / jnp.asarray(batch_size)
    return (
        -unit / 8 * V * _input_power(seen.active, u, w * seen.density, dim),
        -unit / 16 * (2 * seen.sigma + jnp.square(V) * (dim + u**2) * seen.density),
    )


def two_layer_radial(
    V: Any, b: Any, *, w: Any, dim: int, learning_rate: Any = 1.0, batch_size: Any = 1
) -> Array:
    """F_W·Ŵ = −(η²/16B) [2 w Φ(u) − V² (d + u²) u φ(u)/w], the same drift of the input weights' norm w.

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        dim: d.
        learning_rate: η.
        batch_size: B.

    >>> round(float(two_layer_radial(0.0, 0.0, w=2**0.5, dim=10)), 4)
    -0.0884
    """
    seen = gaussian(b, w=w)
    u = jnp.asarray(b) / w
    unit = jnp.asarray(learning_rate) ** 2 / jnp.asarray(batch_size)
    return -unit / 16 * (2 * w * seen.active - jnp.square(V) * (dim + u**2) * u * seen.density)


def valley_rate(tau: Any, rate: float = 0.5) -> np.ndarray:
    """Activation rate of a unit in the limit η → 0, against τ = η² t/B: no parameter, whatever d, N or ‖W‖.

    Once V fluctuates around 0 with variance η/2B, F gives db/dτ = −Eσ/8 and dw/dτ = −wΦ/8, so that u = b/w obeys
    du/dτ = −φ(u)/8, solved by erfi(u/√2) = erfi(u₀/√2) − τ/8π.

    Args:
        tau: τ ≥ 0.
        rate: activation rate at τ = 0.

    >>> valley_rate([0, 1, 10, 100]).round(3).tolist()
    [0.5, 0.48, 0.316, 0.021]
    """
    if not 0 < rate < 1:
        raise InputError("rate", rate, "give a number between 0 and 1")
    start = special.ndtri(rate)
    goal = special.erfi(start / np.sqrt(2)) - np.asarray(tau, float) / (8 * np.pi)
    # Newton from below on a convex function of |u|, after taking the sign out
    u = np.zeros_like(goal)
    for _ in range(60):
        slope = np.sqrt(2 / np.pi) * np.exp(u**2 / 2)
        u = np.clip(u + np.clip((np.abs(goal) - special.erfi(u / np.sqrt(2))) / slope, -1, 1), 0, 8)
    return special.ndtr(np.sign(goal) * u)


def trace_covariance(
    model: Any, params: Any, x: Array, y: Array | None = None, *, loss: str = "bce"
) -> Array:
    """Tr Σ1, the trace of the covariance of one example's gradient, over given examples.

    Args:
        model: anything with ``apply(params, x) -> outputs`` for one example.
        params: parameters of one network.
        x: inputs, (M, …).
        y: labels, (M,) class indices; None for random labels, averaged over every class exactly.
        loss: ``"bce"``, ``"squared"`` or ``"softmax"``.

    Returns:
        () unbiased over the examples (divided by M − 1).
    """
    num_outputs = int(np.prod(jax.eval_shape(model.apply, params, x[0]).shape, dtype=int))
    num_classes = max(2, num_outputs)
    labels = jnp.arange(num_classes) if y is None else jnp.asarray(y)

    def gradient(example: Array, label: Array) -> Array:
        def value(p: Any) -> Array:
            outputs = model.apply(p, example)
            return losses.value(
                loss, outputs[None], losses.targets(loss, label[None], num_outputs)
            )[0]

        return ravel_pytree(jax.grad(value)(params))[0]

    if y is None:
        per_example = jax.vmap(lambda e: jax.vmap(lambda c: gradient(e, c))(labels))(x)
    else:
        per_example = jax.vmap(gradient)(x, labels)[:, None]
    mean = per_example.mean((0, 1))
    number = x.shape[0]
    return number / (number - 1) * (jnp.square(per_example).sum(-1).mean() - jnp.square(mean).sum())


def force(
    model: Any,
    params: Any,
    x: Array,
    y: Array | None = None,
    *,
    learning_rate: Any = 1.0,
    batch_size: Any = 1,
    loss: str = "bce",
    method: str = "autodiff",
    width: float = 0.1,
) -> Any:
    """F = −(η²/4B) ∇ tr Σ1 of any model, a tree like its parameters.

    A ReLU that switches on within the data adds δ(a) to ∇ tr Σ1, the term ∝ φ(u)/w of `two_layer`. Automatic
    differentiation treats σ' as constant and misses it; differences over a finite width keep it.

    Args:
        model: anything with ``apply(params, x) -> outputs`` for one example.
        params: parameters of one network.
        x: inputs, (M, …).
        y: labels, (M,); None for random labels, averaged over every class exactly.
        learning_rate: η.
        batch_size: B.
        loss: ``"bce"``, ``"squared"`` or ``"softmax"``.
        method: ``"autodiff"``, exact for smooth activations; ``"differences"``, central ones in each parameter, for
            nets with kinks, at two evaluations a parameter.
        width: half-width of the differences.

    >>> import jax, jthermo as jt
    >>> model = jt.models.TwoLayer(inputs=3, hidden=2, init="paired_he")
    >>> found = force(model, model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64, 3)))
    >>> {name: leaf.shape for name, leaf in found.items()}
    {'V': (2,), 'W': (2, 3), 'b': (2,)}
    """
    if method not in METHODS:
        raise InputError("method", method, f"use one of {', '.join(METHODS)}")
    flat, unravel = ravel_pytree(params)

    def trace(flat: Array) -> Array:
        return trace_covariance(model, unravel(flat), x, y, loss=loss)

    if method == "autodiff":
        slope = jax.grad(trace)(flat)
    else:
        basis = jnp.eye(flat.shape[0], dtype=flat.dtype)
        slope = jax.lax.map(
            lambda e: (trace(flat + width * e) - trace(flat - width * e)) / (2 * width), basis
        )
    return unravel(-(learning_rate**2) / (4 * batch_size) * slope)


def _input_power(active: Array, u: Array, height: Array, dim: int) -> Array:
    """E σ' (|x|² + 1) = (d+1) Φ − uφ: one unit's share of |∇f|² through W and b, over V²."""
    return (dim + 1) * active - u * height
