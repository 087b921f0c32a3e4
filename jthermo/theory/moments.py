"""Moments of one unit relu(W·x + b): in closed form for Gaussian x, numerically for any x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, Real

from jthermo.errors import InputError

# Below this u = b/w the closed forms lose their digits by cancellation; an integral over the tail,
# whose terms are all positive, replaces them.
TAIL = -3.0
_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(24)


class ReluMoments(NamedTuple):
    """Moments of relu(z + b) with z = W·x.

    Attributes:
        sigma: Eσ.
        square: Eσ².
        active: Eσ' = P(z + b > 0), the unit's activation rate.
        density: dEσ'/db, the density of z at −b.
    """

    sigma: Float[Array, "*units"]
    square: Float[Array, "*units"]
    active: Float[Array, "*units"]
    density: Float[Array, "*units"]


def gaussian(b: Real[ArrayLike, "*#units"], *, w: Real[ArrayLike, "*#units"] = 1.0) -> ReluMoments:
    """Moments for x ~ N(0, I), in closed form.

    Eσ = w(uΦ + φ), Eσ² = w²((1 + u²)Φ + uφ), Eσ' = Φ(u), density φ(u)/w, with u = b/w.

    Args:
        b: bias. Arrays broadcast.
        w: ‖W‖ > 0.

    >>> [round(float(m), 4) for m in gaussian(0.0, w=2.0)]
    [0.7979, 2.0, 0.5, 0.1995]
    """
    dtype = jnp.result_type(float)
    b, w = jnp.broadcast_arrays(jnp.asarray(b, dtype), jnp.asarray(w, dtype))
    u = b / w
    height = jnp.exp(-u * u / 2) / jnp.sqrt(2 * jnp.pi).astype(dtype)
    # E (z − x)^k over z > x is φ(x) x^−(k+1) ∫ s^k e^−s e^−(s/x)²/2 ds: all terms are positive.
    # The integral is taken by Gauss–Laguerre quadrature.
    x = jnp.maximum(-u, -TAIL)
    nodes, weights = (_last_axis(a, b.ndim, dtype) for a in (_NODES, _WEIGHTS))
    bent = weights * jnp.exp(-0.5 * jnp.square(nodes / x[..., None]))
    tail = [height * (bent * nodes**k).sum(-1) / x ** (k + 1) for k in range(3)]
    rate = jax.scipy.special.ndtr(u)
    bulk = [rate, u * rate + height, (1 + u * u) * rate + u * height]
    active, sigma, square = (jnp.where(u < TAIL, t, c) for t, c in zip(tail, bulk, strict=True))
    return ReluMoments(w * sigma, w * w * square, active, height / w)


def quadrature(
    b: Real[ArrayLike, "*units"],
    pdf: Callable[[Array], Array],
    low: float,
    high: float,
    order: int = 200,
) -> ReluMoments:
    """Moments for any z = W·x with a density on [low, high], by Gauss–Legendre quadrature.

    The nodes cover the part of the interval where the unit is active.

    Args:
        b: bias, () or (K,).
        pdf: z → p(z), elementwise and smooth on [low, high].
        low: lower end of the support of z.
        high: upper end of the support of z.
        order: number of nodes.

    Raises:
        InputError: `high` is not above `low`.

    For z ~ U(0, 1):

    >>> import jax.numpy as jnp
    >>> [round(float(m), 4) for m in quadrature(-0.5, jnp.ones_like, 0.0, 1.0)]
    [0.125, 0.0417, 0.5, 1.0]
    """
    if not low < high:
        raise InputError("high", high, f"give a number above low = {low}")
    dtype = jnp.result_type(float)
    b = jnp.asarray(b, dtype)
    nodes, weights = (_last_axis(a, b.ndim, dtype) for a in np.polynomial.legendre.leggauss(order))
    first = jnp.clip(-b, low, high)
    half = (high - first) / 2
    z = first[..., None] + half[..., None] * (nodes + 1)
    share = half[..., None] * weights * pdf(z)
    rectified = z + b[..., None]
    inside = (-b > low) & (-b < high)
    return ReluMoments(
        (share * rectified).sum(-1),
        (share * rectified**2).sum(-1),
        share.sum(-1),
        jnp.where(inside, pdf(first), 0),
    )


def sampled(
    b: Real[ArrayLike, "*units"], z: Real[ArrayLike, " m"], bandwidth: float | None = None
) -> ReluMoments:
    """Moments for any z = W·x, from samples of z.

    Args:
        b: bias, () or (K,).
        z: samples of W·x, (M,).
        bandwidth: half-width of the window around −b whose samples give the density; std(z)·M^−⅕ if
            None.

    Raises:
        InputError: `z` does not have exactly one axis.

    >>> import jax
    >>> z = jax.random.normal(jax.random.key(0), (100_000,))
    >>> print(f"{sampled(0.0, z).active:.2f} {sampled(0.0, z).density:.1f}")
    0.50 0.4
    """
    dtype = jnp.result_type(float)
    z, b = jnp.asarray(z, dtype), jnp.asarray(b, dtype)
    if z.ndim != 1:
        raise InputError("z", z.shape, "give samples of W·x as an array with one axis, (M,)")
    near = z.std() * z.shape[0] ** -0.2 if bandwidth is None else jnp.asarray(bandwidth, dtype)
    a = _last_axis(z, b.ndim, dtype) + b[..., None]
    rectified = jnp.maximum(a, 0)
    return ReluMoments(
        rectified.mean(-1),
        (rectified**2).mean(-1),
        (a > 0).astype(dtype).mean(-1),
        (jnp.abs(a) < near).astype(dtype).mean(-1) / (2 * near),
    )


def _last_axis(values: Any, rank: int, dtype: Any) -> Array:
    """A vector as the last axis of an array whose first `rank` axes have length 1."""
    values = jnp.asarray(values, dtype)
    return jnp.expand_dims(values, tuple(range(rank)))
