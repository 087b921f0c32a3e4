"""The label-noise drift that moves b and V in real SGD: F = −(η²/4B) ∇ tr Σ1.

The drift acts along the valley of minima. Σ1 is the covariance of one example's gradient. With
random labels f fluctuates around 0, where E(p−y)² = ¼. These fluctuations, not the thermophoresis
of (V, b) alone, lower the activation rate and the weight norm.

Source: Blanc et al. 2020, Damian et al. 2021, Li, Wang & Arora 2022. The implicit regulariser of
Smith et al. 2021 has the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import ArrayLike, Float, Real
from scipy import special

from jthermo.errors import InputError
from jthermo.models import loss_inputs
from jthermo.theory.moments import gaussian
from jthermo.update_rule import losses

METHODS = ("autodiff", "differences")


def two_layer(
    V: Real[ArrayLike, "*#units"],
    b: Real[ArrayLike, "*#units"],
    *,
    w: Real[ArrayLike, "*#units"],
    dim: int,
    learning_rate: Real[ArrayLike, "*#units"] = 1.0,
    batch_size: Real[ArrayLike, "*#units"] = 1,
) -> tuple[Float[Array, "*units"], Float[Array, "*units"]]:
    """Label-noise drift (F_V, F_b) of one unit of the two-layer net at f = 0.

    For x ~ N(0, I) and random labels, tr Σ1 = ¼ Σ_i [Eσ² + V² ((d+1) Φ − uφ)] with u = b/w. Hence

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
        Change of V per step and change of b per step.

    He init, V → 0:

    >>> [round(float(f), 4) for f in two_layer(0.0, 0.0, w=2**0.5, dim=10)]
    [-0.0, -0.0705]
    """
    relu = gaussian(b, w=w)
    u, V = jnp.asarray(b) / w, jnp.asarray(V)
    unit = jnp.asarray(learning_rate) ** 2 / jnp.asarray(batch_size)
    return (
        -unit / 8 * V * _input_power(relu.active, u, w * relu.density, dim),
        -unit / 16 * (2 * relu.sigma + jnp.square(V) * (dim + u**2) * relu.density),
    )


def two_layer_radial(
    V: Real[ArrayLike, "*#units"],
    b: Real[ArrayLike, "*#units"],
    *,
    w: Real[ArrayLike, "*#units"],
    dim: int,
    learning_rate: Real[ArrayLike, "*#units"] = 1.0,
    batch_size: Real[ArrayLike, "*#units"] = 1,
) -> Float[Array, "*units"]:
    """Label-noise drift of w = ‖W‖: F_W·Ŵ = −(η²/16B) [2 w Φ(u) − V² (d + u²) u φ(u)/w].

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        dim: d.
        learning_rate: η.
        batch_size: B.

    Returns:
        Change of w per step.

    >>> round(float(two_layer_radial(0.0, 0.0, w=2**0.5, dim=10)), 4)
    -0.0884
    """
    relu = gaussian(b, w=w)
    u = jnp.asarray(b) / w
    unit = jnp.asarray(learning_rate) ** 2 / jnp.asarray(batch_size)
    return -unit / 16 * (2 * w * relu.active - jnp.square(V) * (dim + u**2) * u * relu.density)


def noise_floor(
    hidden: Real[ArrayLike, "*#cases"],
    learning_rate: Real[ArrayLike, "*#cases"],
    batch_size: Real[ArrayLike, "*#cases"] = 1,
    *,
    modes: Real[ArrayLike, " units"] | Sequence[float] | None = None,
) -> Float[Array, "*cases"]:
    """The value to which label noise relaxes E‖V‖² of a two-layer net: Nη/(2B).

    Near f = 0, with random labels and M = E σσᵀ, one step gives V → (1 − ηM/4) V plus noise of
    covariance (η²/4B) M. The stationary covariance of V is (η/2B)·1 whatever M is; in discrete time
    η/2B is divided by 1 − ηm/8 in the mode of M with eigenvalue m. Modes relax at rates ηm/4 per
    step, so the clock is ηt. Not contained: outputs f of size one, which raise the floor, and the
    motion of W and b, which lowers it slowly, on the clock η²t/B; see :mod:`.meanfield`.

    Source: Mandt, Hoffman & Blei 2017 and Jastrzębski et al. 2017 for the isotropic covariance of
    SGD whose noise is proportional to the Hessian.

    Args:
        hidden: N. Arrays broadcast.
        learning_rate: η.
        batch_size: B.
        modes: the N eigenvalues m of M, to include the factors of discrete time.

    Returns:
        E‖V‖² of the relaxed net.

    Raises:
        InputError: a mode with ηm ≥ 8, in which V diverges.

    >>> print(f"{noise_floor(10, 0.05):.3f} {noise_floor(2, 0.05, modes=[0.5, 16]):.3f}")
    0.250 0.053
    """
    eta = jnp.asarray(learning_rate)
    floor = jnp.asarray(hidden) * eta / (2 * jnp.asarray(batch_size))
    if modes is None:
        return floor
    below = 1 - jnp.multiply.outer(eta, jnp.asarray(modes)) / 8
    if not (below > 0).all():
        raise InputError("modes", np.max(modes), "V diverges here; give a smaller learning_rate")
    return floor * (1 / below).mean(-1)


def valley_rate(
    tau: Real[ArrayLike, " times"] | Sequence[float], rate: float = 0.5
) -> Float[np.ndarray, " times"]:
    """Activation rate of a unit against τ = η² t/B for η → 0, independent of d, N and ‖W‖.

    Once V fluctuates around 0 with variance η/2B, F gives db/dτ = −Eσ/8 and dw/dτ = −wΦ/8. Then
    u = b/w obeys du/dτ = −φ(u)/8, with the solution erfi(u/√2) = erfi(u₀/√2) − τ/8π.

    Args:
        tau: τ ≥ 0, (K,).
        rate: activation rate at τ = 0, between 0 and 1.

    Returns:
        (K,) activation rates.

    Raises:
        InputError: `rate` is not between 0 and 1.

    >>> valley_rate([0, 1, 10, 100]).round(3).tolist()
    [0.5, 0.48, 0.316, 0.021]
    """
    if not 0 < rate < 1:
        raise InputError("rate", rate, "give a number between 0 and 1")
    start = special.ndtri(rate)
    target = special.erfi(start / np.sqrt(2)) - np.asarray(tau, float) / (8 * np.pi)
    # Newton's method for |u|. erfi is convex there; the limits keep a step from overshooting.
    u = np.zeros_like(target)
    for _ in range(60):
        slope = np.sqrt(2 / np.pi) * np.exp(u**2 / 2)
        step = (np.abs(target) - special.erfi(u / np.sqrt(2))) / slope
        u = np.clip(u + np.clip(step, -1, 1), 0, 8)
    return special.ndtr(np.sign(target) * u)


def trace_covariance(
    model: Any,
    params: Any,
    x: Float[Array, "m ..."],
    y: Real[Array, " m"] | None = None,
    *,
    loss: losses.Loss = "bce",
) -> Float[Array, ""]:
    """Tr Σ1, the trace of the covariance of one example's gradient, estimated from M examples.

    Args:
        model: anything with ``apply(params, x) -> outputs`` for one example.
        params: parameters of one network.
        x: inputs, (M, …).
        y: labels, (M,) class indices. None: random labels, as an exact average over the classes.
        loss: the name of the loss, a ``jt.losses.Softmax``, or your own function.

    Returns:
        () tr Σ1 with M − 1 in the denominator.
    """
    num_outputs = int(np.prod(jax.eval_shape(model.apply, params, x[0]).shape, dtype=int))
    num_classes = max(2, num_outputs)
    labels = jnp.arange(num_classes) if y is None else jnp.asarray(y)

    def gradient(example: Array, label: Array) -> Array:
        def value(p: Any) -> Array:
            outputs = loss_inputs(model.apply(p, example)[None])
            return losses.value(loss, outputs, losses.targets(loss, label[None], num_outputs))[0]

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
    x: Float[Array, "m ..."],
    y: Real[Array, " m"] | None = None,
    *,
    learning_rate: Real[ArrayLike, ""] = 1.0,
    batch_size: Real[ArrayLike, ""] = 1,
    loss: losses.Loss = "bce",
    method: str = "autodiff",
    width: float = 0.1,
) -> Any:
    """F = −(η²/4B) ∇ tr Σ1 of any model, as a pytree like its parameters.

    A ReLU that switches on within the data adds δ(a) to ∇ tr Σ1, the term ∝ φ(u)/w of `two_layer`.
    Automatic differentiation treats σ' as constant and misses it; finite differences keep it.

    Args:
        model: anything with ``apply(params, x) -> outputs`` for one example.
        params: parameters of one network.
        x: inputs, (M, …).
        y: labels, (M,) class indices. None: random labels, as an exact average over the classes.
        learning_rate: η.
        batch_size: B.
        loss: the name of the loss, a ``jt.losses.Softmax``, or your own function.
        method: ``"autodiff"`` is exact for smooth activations. ``"differences"`` takes a central
            difference in each parameter, for nets with kinks: two evaluations per parameter.
        width: half-width of the differences, in units of the parameters.

    Returns:
        Change of the parameters per step.

    Raises:
        InputError: unknown `method`.

    >>> import jax, jthermo as jt
    >>> model = jt.models.TwoLayer(inputs=3, hidden=2, init="paired_he")
    >>> params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64, 3))
    >>> {name: leaf.shape for name, leaf in force(model, params, x).items()}
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


def _input_power(active: Array, u: Any, height: Any, dim: int) -> Array:
    """E σ' (|x|² + 1) = (d+1) Φ − uφ: one unit's contribution to |∇f|² through W and b, over V²."""
    return (dim + 1) * active - u * height
