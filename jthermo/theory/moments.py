"""ReluMoments of one rectified unit relu(W·x + b): closed for Gaussian x, by quadrature or Monte Carlo for any x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.errors import InputError

# below this u the closed forms cancel; an integral over the tail does not
TAIL = -3.0
_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(24)


class ReluMoments(NamedTuple):
    """Of relu(z + b) with z = W·x.

    Attributes:
        sigma: Eσ.
        square: Eσ².
        active: Eσ' = P(z + b > 0), the unit's activation rate.
        density: dEσ'/db, the density of z at −b.
    """

    sigma: Array
    square: Array
    active: Array
    density: Array


def gaussian(b: Any, *, w: Any = 1.0) -> ReluMoments:
    """For x ~ N(0, I): Eσ = w(uΦ + φ), Eσ² = w²((1 + u²)Φ + uφ), Eσ' = Φ(u), density φ(u)/w, with u = b/w.

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
    # E (z − x)^k over z > x is φ(x) x^−(k+1) ∫ s^k e^−s e^−(s/x)²/2 ds: positive terms, by Gauss–Laguerre
    x = jnp.maximum(-u, -TAIL)
    bent = jnp.asarray(_WEIGHTS, dtype) * jnp.exp(
        -0.5 * jnp.square(jnp.asarray(_NODES, dtype) / x[..., None])
    )
    tail = [
        height * (bent * jnp.asarray(_NODES, dtype) ** k).sum(-1) / x ** (k + 1) for k in range(3)
    ]
    rate = jax.scipy.special.ndtr(u)
    bulk = [rate, u * rate + height, (1 + u * u) * rate + u * height]
    active, sigma, square = (jnp.where(u < TAIL, t, c) for t, c in zip(tail, bulk, strict=True))
    return ReluMoments(w * sigma, w * w * square, active, height / w)


def quadrature(
    b: Any, pdf: Callable[[Array], Array], low: float, high: float, order: int = 200
) -> ReluMoments:
    """For any z = W·x with a density on [low, high], by Gauss–Legendre on the part of it that is active.

    Args:
        b: bias, () or (K,).
        pdf: z → p(z), elementwise and smooth on [low, high].
        low: lower end of the support of z.
        high: upper end.
        order: number of nodes.

    >>> import jax.numpy as jnp
    >>> [round(float(m), 4) for m in quadrature(-0.5, jnp.ones_like, 0.0, 1.0)]     # z ~ U(0, 1)
    [0.125, 0.0417, 0.5, 1.0]
    """
    if not low < high:
        raise InputError("high", high, f"must be larger than low = {low}")
    dtype = jnp.result_type(float)
    nodes, weights = (jnp.asarray(a, dtype) for a in np.polynomial.legendre.leggauss(order))
    b = jnp.asarray(b, dtype)
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


def sampled(b: Any, z: Any, bandwidth: float | None = None) -> ReluMoments:
    """For any z = W·x, from samples of it.

    Args:
        b: bias, () or (K,).
        z: samples of W·x, (M,).
        bandwidth: half-width of the window that counts samples near −b for the density; std·M^−⅕ where None.

    >>> import jax
    >>> z = jax.random.normal(jax.random.key(0), (100_000,))
    >>> print(f"{sampled(0.0, z).active:.2f} {sampled(0.0, z).density:.1f}")
    0.50 0.4
    """
    dtype = jnp.result_type(float)
    z, b = jnp.asarray(z, dtype), jnp.asarray(b, dtype)
    if z.ndim != 1:
        raise InputError("z", z.shape, "give samples of W·x as one axis, (M,)")
    near = z.std() * z.shape[0] ** -0.2 if bandwidth is None else jnp.asarray(bandwidth, dtype)
    a = z + b[..., None]
    rectified = jnp.maximum(a, 0)
    return ReluMoments(
        rectified.mean(-1),
        (rectified**2).mean(-1),
        (a > 0).astype(dtype).mean(-1),
        (jnp.abs(a) < near).astype(dtype).mean(-1) / (2 * near),
    )
