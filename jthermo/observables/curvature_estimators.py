"""Estimators of curvature from Hessian-vector products: Hutchinson's trace and Lanczos eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import eigh_tridiagonal

from jthermo.update_rule import losses

HESSIAN_CHUNK = 16


# of the largest diagonal element, in float32
EXHAUSTED = 1e-5


def hutchinson(
    model: Any, params: Any, x: Array, y: Array, loss: str, key: Array, num_probes: int = 16
) -> tuple[Array, Array]:
    """Tr H ≈ mean of vᵀHv over random signs v, with its standard error, for any model and the Hessian itself.

    Args:
        model: anything with ``apply(params, x) -> outputs``.
        params: parameters of one network.
        x: inputs, (M, …).
        y: class indices, (M,).
        loss: ``"bce"``, ``"softmax"`` or ``"squared"``.
        key: draws the signs.
        num_probes: K ≥ 2 vectors; the relative error falls as 1/√K.

    Returns:
        () estimate and () standard error, both of the Hessian of the mean loss over these examples.

    Source: Hutchinson 1990, doi:10.1080/03610919008812866.
    """
    product, size = _hessian_product(model, params, x, y, loss)

    def one(k: Array) -> Array:
        v = jax.random.rademacher(k, (size,), dtype=jnp.float32)
        return v @ product(v)

    found = jax.lax.map(one, jax.random.split(key, num_probes))
    return found.mean(), found.std(ddof=1) / jnp.sqrt(jnp.float32(num_probes))


def top_eigenvalues(
    model: Any,
    params: Any,
    x: Array,
    y: Array,
    loss: str,
    key: Array,
    number: int = 1,
    num_matvecs: int = 20,
) -> Array:
    """The largest eigenvalues of the Hessian of the mean loss, by Lanczos with full reorthogonalisation (matfree).

    Args:
        model: anything with ``apply(params, x) -> outputs``.
        params: parameters of one network.
        x: inputs, (M, …).
        y: class indices, (M,).
        loss: ``"bce"``, ``"softmax"`` or ``"squared"``.
        key: draws the starting vector.
        number: how many.
        num_matvecs: Hessian products; no eigenvalue is overestimated, and the first ones converge first.

    Returns:
        (number,) eigenvalues, the largest first; NaN past the dimension of the Krylov space.
    """
    from matfree import decomp

    product, size = _hessian_product(model, params, x, y, loss)
    steps = min(num_matvecs, size)
    lanczos = decomp.tridiag_sym(steps, materialize=False, reortho="full", custom_vjp=False)
    diagonal, beside = lanczos(product, jax.random.normal(key, (size,))).J_small
    # where the Krylov space is exhausted the next vector is rounding error: what follows is cut off
    sound = jnp.cumprod(jnp.abs(beside) > EXHAUSTED * jnp.abs(diagonal).max())
    kept = jnp.concatenate([jnp.ones(1), sound])
    diagonal, beside = jnp.where(kept > 0, diagonal, diagonal.min()), beside * sound
    # by bisection, not LAPACK: jaxlib's batched LAPACK can wait for ever on the thread pool it runs in
    values = eigh_tridiagonal(diagonal, beside, eigvals_only=True)[::-1][:number]
    return jnp.where(jnp.arange(len(values)) < kept.sum(), values, jnp.nan)


def _hessian_product(
    model: Any, params: Any, x: Array, y: Array, loss: str
) -> tuple[Callable[[Array], Array], int]:
    """V → H v for flat vectors, and their length; the loss is averaged chunk by chunk."""
    flat, unflatten = ravel_pytree(params)

    def mean_loss(theta: Array, x: Array, y: Array) -> Array:
        outputs = model.apply(unflatten(theta), x)
        num_outputs = 1 if outputs.ndim == 1 else outputs.shape[-1]
        return losses.value(loss, outputs, losses.targets(loss, y, num_outputs)).mean()

    count, chunk = len(x), min(HESSIAN_CHUNK, len(x))
    whole = count // chunk * chunk
    parts = [a[:whole].reshape(-1, chunk, *a.shape[1:]) for a in (x, y)]

    def on(v: Array, x: Array, y: Array) -> Array:
        return jax.jvp(lambda theta: jax.grad(mean_loss)(theta, x, y), (flat,), (v,))[1]

    def product(v: Array) -> Array:
        def add(total: Array, part: Any) -> tuple[Array, None]:
            return total + chunk / count * on(v, *part), None

        total, _ = jax.lax.scan(add, jnp.zeros_like(flat), tuple(parts))
        return (
            total
            if whole == count
            else total + (count - whole) / count * on(v, x[whole:], y[whole:])
        )

    return product, flat.size
