"""Flow of an inhomogeneous random walk (Sec. 3–5): as printed (Eq. 9, 10, 11, A.4, ψ) and exact.

A walk with step covariance C(q) carries the flow J_i = −½ Σ_j ∂_j(C_ij ρ) per step, exactly to order η². With one ζ
for all coordinates C = η² g gᵀ, and along ĝ it has three parts; a fourth is perpendicular. The printed equations
differ from it by factors and by a missing part, which :mod:`jthermo.theory.walk` can measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.errors import InputError
from jthermo.theory.moments import ReluMoments, gaussian

FORMS = ("exact", "eq10", "psi")
ALONG = ("exact", "eq10", "eq11", "a4")
CROSSING = ("exact", "eq9")
# towards a starting point; each gains a factor η |∇g|
TURNS = 64
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


class Flow(NamedTuple):
    """The parts of a flow at a point: three along ĝ, one perpendicular to it.

    Attributes:
        diffusive: −(η²/2) |g| g·∇ρ.
        thermophoretic: −(η²/2) ρ A/|g| with A = Σ_ij g_i g_j ∂_j g_i.
        divergence: −(η²/2) ρ |g| div g; missing in Eq. 10.
        perpendicular: −(η²/2) ρ P⊥ (g·∇)g, (n,); missing in Eq. 10.
        direction: ĝ, (n,).
    """

    diffusive: Array
    thermophoretic: Array
    divergence: Array
    perpendicular: Array
    direction: Array

    @property
    def along(self) -> Array:
        """J·ĝ."""
        return self.diffusive + self.thermophoretic + self.divergence

    @property
    def vector(self) -> Array:
        """J, (n,)."""
        return self.along[..., None] * self.direction + self.perpendicular


def decompose(
    g: Callable[[Array], Array],
    q: Any,
    *,
    density: Callable[[Array], Array] | None = None,
    learning_rate: Any = 1.0,
    batch_size: Any = 1,
) -> Flow:
    """The exact flow of the walk q' = q − η g ζ/√B with one common ζ, by parts.

    Args:
        g: q (n,) → (n,), differentiable.
        q: the point, (n,).
        density: q (n,) → ρ, differentiable; 1 where None.
        learning_rate: η.
        batch_size: B.

    >>> import jax.numpy as jnp
    >>> parts = decompose(lambda q: 1 + 0.5 * q, jnp.array([1.0]))
    >>> print(f"{parts.thermophoretic:.3f} {parts.divergence:.3f} {parts.along:.3f}")     # −η² g g' ρ
    -0.375 -0.375 -0.750
    """
    q = jnp.asarray(q, jnp.result_type(float))
    unit = jnp.asarray(learning_rate) ** 2 / (2 * jnp.asarray(batch_size))
    rho, slope = (
        (jnp.ones((), q.dtype), jnp.zeros_like(q))
        if density is None
        else jax.value_and_grad(density)(q)
    )
    at = g(q)
    jacobian = jax.jacfwd(g)(q)
    size = jnp.linalg.norm(at)
    direction = at / size
    # (g·∇) g
    turning = jacobian @ at
    return Flow(
        diffusive=-unit * size * (at @ slope),
        thermophoretic=-unit * rho * (direction @ turning),
        divergence=-unit * rho * size * jnp.trace(jacobian),
        perpendicular=-unit * rho * (turning - direction * (direction @ turning)),
        direction=direction,
    )


def along(
    g: Callable[[Array], Array],
    q: Any,
    *,
    density: Callable[[Array], Array] | None = None,
    learning_rate: Any = 1.0,
    batch_size: Any = 1,
    form: str = "exact",
) -> Array:
    """J·ĝ of the walk with one common ζ, exact or as the paper prints it.

    - ``"exact"``: −(η²/2) [|g| g·∇ρ + ρ (A/|g| + |g| div g)]
    - ``"eq10"``: −η² |g| g·∇ρ − η² ρ A/|g|
    - ``"eq11"``: Eq. 10 with the coefficient c of Eq. 11, −η² |g| g·∇ρ − η² ρ A/(2|g|)
    - ``"a4"``: the same with the sign of A.4, −η² |g| g·∇ρ + η² ρ A/(2|g|)

    Args:
        g: q (n,) → (n,), differentiable.
        q: the point, (n,).
        density: q (n,) → ρ, differentiable; 1 where None.
        learning_rate: η.
        batch_size: B.
        form: which.

    >>> import jax.numpy as jnp
    >>> [round(float(along(lambda q: 1 + 0.5 * q, jnp.array([1.0]), form=form)), 3) for form in ALONG]
    [-0.75, -0.75, -0.375, 0.375]
    """
    if form not in ALONG:
        raise InputError("form", form, f"use one of {', '.join(ALONG)}")
    parts = decompose(g, q, density=density, learning_rate=learning_rate, batch_size=batch_size)
    if form == "exact":
        return parts.along
    factor = {"eq10": 2.0, "eq11": 1.0, "a4": -1.0}[form]
    return 2 * parts.diffusive + factor * parts.thermophoretic


def crossing(
    g: Callable[[Array], Array],
    q: Any,
    *,
    density: Callable[[Array], Array] | None = None,
    learning_rate: Any = 1.0,
    batch_size: Any = 1,
    form: str = "exact",
) -> Array:
    """J·ĝ at a finite η, counted: half of the walkers within a step move through a surface at q (Eq. 9).

    - ``"exact"``: −(η/2) ∫_(−1)^1 sgn(λ) ρ(q_λ) g(q_λ)·ĝ / det(1 − λη ∇g) dλ over all starts q_λ = q + λη g(q_λ) that
      pass through q. To order η² it is `along` with ``"exact"``.
    - ``"eq9"``: ½ [ρ(q − Δ₋ĝ) Δ₋ − ρ(q + Δ₊ĝ) Δ₊] with Δ± = η ĝ·g(q ± Δ±ĝ), the count of which Eq. 10 as printed is the
      order η², and so read as Eq. 9. The density at the far ends doubles the diffusion, and a single line misses how
      paths converge sideways, the part |g| div g.

    Args:
        g: q (n,) → (n,), differentiable; η times its gradient has to stay below 1.
        q: the point, (n,).
        density: q (n,) → ρ; 1 where None.
        learning_rate: η.
        batch_size: B.
        form: which.

    >>> import jax.numpy as jnp
    >>> found = crossing(lambda q: 1 + 0.5 * q, jnp.array([1.0]), learning_rate=0.1)
    >>> print(f"{found / (0.1**2 * 1.5 * 0.5):.4f}")     # −1/(1 − η² g'²) in units of η² g g'
    -1.0025
    """
    if form not in CROSSING:
        raise InputError("form", form, f"use one of {', '.join(CROSSING)}")
    q = jnp.asarray(q, jnp.result_type(float))
    eta = jnp.asarray(learning_rate, q.dtype) / jnp.sqrt(jnp.asarray(batch_size, q.dtype))
    rho = (lambda at: jnp.ones((), q.dtype)) if density is None else density
    direction = g(q) / jnp.linalg.norm(g(q))
    if form == "eq9":

        def along_line(s: Array) -> Array:
            return (direction @ g(q + s[0] * direction))[None]

        near, far = (_start(along_line, jnp.zeros(1, q.dtype), sign * eta)[0] for sign in (-1, 1))
        return -(rho(q + near * direction) * near + rho(q + far * direction) * far) / 2

    def passing(share: Array) -> Array:
        start = _start(g, q, share * eta)
        spread = jnp.linalg.det(jnp.eye(q.size, dtype=q.dtype) - share * eta * jax.jacfwd(g)(start))
        return rho(start) * (g(start) @ direction) / spread

    nodes, weights = (jnp.asarray(a, q.dtype) for a in ((_NODES + 1) / 2, _WEIGHTS / 2))
    there, back = jax.vmap(passing)(jnp.stack([-nodes, nodes]).reshape(-1)).reshape(2, -1)
    return eta / 2 * (weights @ (there - back))


def _start(g: Callable[[Array], Array], q: Array, length: Array) -> Array:
    """The start q' = q + length·g(q') of a walker that passes through q."""
    return jax.lax.fori_loop(0, TURNS, lambda _, at: q + length * g(at), q)


def exact(
    covariance: Callable[[Array], Array], q: Any, *, density: Callable[[Array], Array] | None = None
) -> Array:
    """J_i = −½ Σ_j ∂_j(C_ij ρ), the flow of any walk with step covariance C.

    Args:
        covariance: q (n,) → C (n, n), differentiable; η² Σ1/B for SGD, η² diag(g²) for independent ζ.
        q: the point, (n,).
        density: q (n,) → ρ; 1 where None.

    >>> import jax.numpy as jnp
    >>> exact(lambda q: jnp.diag((1 + 0.5 * q) ** 2), jnp.array([1.0, 0.0])).tolist()
    [-0.75, -0.5]
    """
    q = jnp.asarray(q, jnp.result_type(float))
    slopes = jax.jacfwd(lambda q: covariance(q) * (1.0 if density is None else density(q)))(q)
    return -0.5 * jnp.einsum("ijj->i", slopes)


class Phi(NamedTuple):
    """φ1, φ2 and their derivatives in b: g_V = φ1/√B, g_b = V φ2/√B (Sec. 5)."""

    phi1: Array
    phi2: Array
    slope1: Array
    slope2: Array


def phi(moments: ReluMoments, s2: Any = 0.25) -> Phi:
    """φ1 = s √Eσ², φ2 = s √Eσ' and their derivatives in b, for any x.

    Args:
        moments: of relu(W·x + b); see :mod:`jthermo.theory.moments`.
        s2: s² = E(p−y)²; ¼ at f = 0.

    >>> print(f"{phi(gaussian(0.0)).phi1:.4f}")     # ½ √½
    0.3536
    """
    s = jnp.sqrt(s2)
    return Phi(
        phi1=s * jnp.sqrt(moments.square),
        phi2=s * jnp.sqrt(moments.active),
        slope1=s * _over_root(moments.sigma, moments.square),
        slope2=s * _over_root(moments.density, moments.active) / 2,
    )


def effective_gradient(
    V: Any, b: Any, *, w: Any = 1.0, s2: Any = 0.25, batch_size: Any = 1
) -> Array:
    """G = (g_V, g_b) = (φ1, |V| φ2)/√B of one unit for x ~ N(0, I) (Sec. 5), (…, 2).

    >>> [round(float(g), 4) for g in effective_gradient(1.0, 0.0)]
    [0.3536, 0.3536]
    """
    found = phi(gaussian(b, w=w), s2)
    parts = jnp.broadcast_arrays(found.phi1, jnp.abs(V) * found.phi2)
    return jnp.stack(parts, axis=-1) / jnp.sqrt(jnp.asarray(batch_size))


def projected(
    V: Any,
    b: Any,
    *,
    w: Any = 1.0,
    s2: Any = 0.25,
    learning_rate: Any = 1.0,
    batch_size: Any = 1,
    form: str = "exact",
    moments: ReluMoments | None = None,
) -> Array:
    """J·ĝ of (V, b) per unit density, at uniform ρ, with one common ζ (Sec. 5).

    With A = V φ1 φ2² + V φ1 φ2 φ1' + V³ φ2² φ2' and |g|² = φ1² + V² φ2²:

    - ``"exact"``: −(η²/2B) [A + V φ2' |g|²]/|g|
    - ``"eq10"``: −(η²/B) A/|g|
    - ``"psi"``: −(η²/B) ψ with the printed ψ = A/(2|g|); printed with a plus, which points the wrong way

    Args:
        V: output weight; its modulus counts. Arrays broadcast.
        b: bias.
        w: ‖W‖, for x ~ N(0, I).
        s2: s² = E(p−y)².
        learning_rate: η.
        batch_size: B.
        form: which.
        moments: of relu(W·x + b) for another law of x, in place of `w`.

    Returns:
        Flow per step and unit density, of the shape of V and b together. Negative: against ĝ, to smaller V and b.

    >>> [round(float(projected(1.0, 0.0, form=form)), 4) for form in FORMS]
    [-0.1323, -0.1942, -0.0971]
    """
    if form not in FORMS:
        raise InputError("form", form, f"use one of {', '.join(FORMS)}")
    phi1, phi2, slope1, slope2 = phi(gaussian(b, w=w) if moments is None else moments, s2)
    V = jnp.abs(jnp.asarray(V, jnp.result_type(float)))
    size2 = phi1**2 + V**2 * phi2**2
    # A
    turning = V * phi1 * phi2**2 + V * phi1 * phi2 * slope1 + V**3 * phi2**2 * slope2
    unit = jnp.asarray(learning_rate) ** 2 / jnp.asarray(batch_size)
    if form == "exact":
        return -unit / 2 * _over_root(turning + V * slope2 * size2, size2)
    return -unit * (1.0 if form == "eq10" else 0.5) * _over_root(turning, size2)


def unit(
    V: Any,
    b: Any,
    *,
    w: Any = 1.0,
    s2: Any = 0.25,
    dim: Any = None,
    learning_rate: Any = 1.0,
    batch_size: Any = 1,
) -> tuple[Array, Array]:
    """(J_V, J_b) of one unit per unit density, from the true noise covariance instead of one common ζ.

    At uniform ρ and x ~ N(0, I), with u = b/w:

    - J_V = −(η² s²/2B) V Φ(u); with W walking too, V [(d + 1) Φ − uφ] in place of V Φ
    - J_b = −(η² s²/2B) (Eσ + V² φ/w); with W walking too, Eσ + V² φ (d + u²)/w

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        s2: s² = E(p−y)².
        dim: d where W walks too; None where only V and b do.
        learning_rate: η.
        batch_size: B.

    >>> [round(float(j), 4) for j in unit(1.0, 0.0)]
    [-0.0625, -0.0997]
    """
    seen = gaussian(b, w=w)
    u = jnp.asarray(b) / w
    walking_v = 0.0 if dim is None else dim * seen.active - u * w * seen.density
    walking_b = 0.0 if dim is None else seen.density * ((dim - 1) + u**2)
    scale = -(jnp.asarray(learning_rate) ** 2) * s2 / (2 * jnp.asarray(batch_size))
    return (
        scale * V * (seen.active + walking_v),
        scale * (seen.sigma + jnp.square(V) * (seen.density + walking_b)),
    )


def _over_root(a: Array, b: Array) -> Array:
    """A/√b, 0 where b has underflowed: a unit that no input activates does not flow."""
    return jnp.where(b > 0, a / jnp.sqrt(jnp.where(b > 0, b, 1)), 0)
