"""Estimators of curvature from Hessian products: Hutchinson's trace and Lanczos eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, PRNGKeyArray, Real

from jthermo.models import loss_inputs
from jthermo.observables.observable import lane_by_lane, norm
from jthermo.update_rule import losses
from jthermo.update_rule.losses import Loss

# Examples per chunk of a Hessian product; it bounds the memory.
HESSIAN_CHUNK = 16
# A vector is in the span of others if what is left of it, without its projection on them, is below
# this fraction of the longest H v, in float32.
EXHAUSTED = 1e-5


def hutchinson(
    model: Any,
    params: Any,
    x: Float[Array, "m ..."],
    y: Real[Array, "m ..."],
    loss: Loss,
    key: PRNGKeyArray,
    num_probes: int = 16,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Tr H ≈ mean of vᵀHv over random sign vectors v, with its standard error, for any model.

    H is the Hessian itself, not the Gauss–Newton matrix, of the mean loss over these examples.

    Args:
        model: any object with ``apply(params, x) -> outputs``.
        params: parameters of one network.
        x: inputs, (M, …).
        y: class indices, (M,), or real targets, (M,) or (M, C).
        loss: the name of the loss, a ``jt.losses.Softmax``, or your own function.
        key: JAX random key of the sign vectors.
        num_probes: K ≥ 2 vectors; the relative error decreases as 1/√K.

    Returns:
        () estimate and () standard error.

    Source: Hutchinson 1990, doi:10.1080/03610919008812866.

    >>> import jax, jthermo as jt
    >>> model = jt.models.MLP(3, hidden=(4,))
    >>> params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (8, 3))
    >>> y = jnp.array([0, 1] * 4)
    >>> trace, error = hutchinson(model, params, x, y, "bce", jax.random.key(2))
    >>> trace.shape, bool(error > 0)
    ((), True)
    """
    product, size = _hessian_product(model, params, x, y, loss)

    def one(k: Array) -> Array:
        v = jax.random.rademacher(k, (size,), dtype=float)
        return v @ product(v)

    products = jax.lax.map(one, jax.random.split(key, num_probes))
    return products.mean(), products.std(ddof=1) / jnp.sqrt(jnp.asarray(num_probes, float))


def top_eigenvalues(
    model: Any,
    params: Any,
    x: Float[Array, "m ..."],
    y: Real[Array, "m ..."],
    loss: Loss,
    key: PRNGKeyArray,
    number: int = 1,
    num_matvecs: int = 20,
) -> Float[Array, " k"]:
    """The largest eigenvalues of the Hessian of the mean loss over these examples, by Lanczos.

    Block Lanczos with full reorthogonalisation: `number` random vectors, multiplied by H up to
    `num_matvecs` times each, so that an eigenvalue is found as often as it is repeated. A vector
    in the span of those before it is replaced by a random one, so that the spectrum of a Hessian
    of low rank is complete, zeros included. Lanczos does not overestimate the largest eigenvalues,
    and the largest converge first.

    Args:
        model: any object with ``apply(params, x) -> outputs``.
        params: parameters of one network.
        x: inputs, (M, …).
        y: class indices, (M,), or real targets, (M,) or (M, C).
        loss: the name of the loss, a ``jt.losses.Softmax``, or your own function.
        key: JAX random key of the starting vectors.
        number: number of eigenvalues.
        num_matvecs: number of Hessian products of each starting vector.

    Returns:
        (number,) eigenvalues, the largest first; fewer if the net has fewer parameters.

    >>> import jax, jthermo as jt
    >>> model = jt.models.MLP(3, hidden=(4,))
    >>> params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (8, 3))
    >>> y = jnp.array([0, 1] * 4)
    >>> top_eigenvalues(model, params, x, y, "bce", jax.random.key(2), number=2).shape
    (2,)
    """
    product, size = _hessian_product(model, params, x, y, loss)
    return block_lanczos(product, size, key, number, num_matvecs)


def block_lanczos(
    product: Callable[[Array], Array],
    size: int,
    key: PRNGKeyArray,
    number: int,
    num_matvecs: int,
) -> Float[Array, " k"]:
    """The `number` largest eigenvalues of the symmetric map v → H v of vectors of length `size`.

    See :func:`top_eigenvalues`. They are those of Q H Qᵀ, whose orthonormal rows span the block
    Krylov space.
    """
    steps = min(number * num_matvecs, size)

    def orthogonal(v: Array, rows: Array) -> Array:
        # Twice is enough: Giraud et al. 2005, doi:10.1007/s00211-005-0615-4.
        for _ in range(2):
            v = v - rows.T @ (rows @ v)
        return v

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, images = carry
        fresh = jax.random.normal(jax.random.fold_in(key, j), (size,))
        candidate = jnp.where(j < number, fresh, images[jnp.maximum(j - number, 0)])
        rest = orthogonal(candidate, rows)
        # What is left of a vector in the span of the rows is rounding error.
        largest = jnp.where(j < number, 0.0, norm(images).max())
        rest = jnp.where(norm(rest) <= EXHAUSTED * largest, orthogonal(fresh, rows), rest)
        row = orthogonal(rest / norm(rest), rows)
        row = row / norm(row)
        return rows.at[j].set(row), images.at[j].set(product(row))

    empty = jnp.zeros((steps, size))
    rows, images = jax.lax.fori_loop(0, steps, step, (empty, empty))
    projected = rows @ images.T
    values = lane_by_lane(lambda: jnp.linalg.eigvalsh((projected + projected.T) / 2))
    return values[::-1][:number]


def _hessian_product(
    model: Any, params: Any, x: Array, y: Array, loss: Loss
) -> tuple[Callable[[Array], Array], int]:
    """The map v → H v for flat vectors, and their length; it sums over chunks of examples."""
    flat, unflatten = ravel_pytree(params)

    def mean_loss(theta: Array, x: Array, y: Array) -> Array:
        outputs = loss_inputs(model.apply(unflatten(theta), x))
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
