"""Flow of an inhomogeneous random walk (Sec. 3–5): as printed (Eq. 9, 10, 11, A.4, ψ) and exact.

To order η², a walk with step covariance C(q) carries the flow J_i = −½ Σ_j ∂_j(C_ij ρ) per step.
If all coordinates share one ζ, C = η² g gᵀ. The flow then has three parts along ĝ and one
perpendicular to it. The printed equations differ from it by factors and by a missing part;
:mod:`jthermo.theory.walk` measures the flow, which decides between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, Real

from jthermo.errors import InputError
from jthermo.theory.moments import ReluMoments, gaussian

FORMS = ("exact", "eq10", "psi")
ALONG = ("exact", "eq10", "eq11", "a4")
CROSSING = ("exact", "eq9")
# Fixed-point iterations for a walker's starting point. Each reduces the error by the factor η |∇g|.
TURNS = 64
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


class Flow(NamedTuple):
    """The parts of a flow at a point: three along ĝ, one perpendicular to it.

    Attributes:
        diffusive: −(η²/2) |g| g·∇ρ.
        thermophoretic: −(η²/2) ρ A/|g| with A = Σ_ij g_i g_j ∂_j g_i.
        divergence: −(η²/2) ρ |g| div g; missing from Eq. 10.
        perpendicular: −(η²/2) ρ P⊥ (g·∇)g, (n,); missing from Eq. 10.
        direction: ĝ, (n,).
    """

    diffusive: Float[Array, "*batch"]
    thermophoretic: Float[Array, "*batch"]
    divergence: Float[Array, "*batch"]
    perpendicular: Float[Array, "*batch n"]
    direction: Float[Array, "*batch n"]

    @property
    def along(self) -> Float[Array, "*batch"]:
        """J·ĝ."""
        return self.diffusive + self.thermophoretic + self.divergence

    @property
    def vector(self) -> Float[Array, "*batch n"]:
        """J, (n,)."""
        return self.along[..., None] * self.direction + self.perpendicular


def decompose(
    g: Callable[[Array], Array],
    q: Real[ArrayLike, " n"],
    *,
    density: Callable[[Array], Array] | None = None,
    learning_rate: Real[ArrayLike, ""] = 1.0,
    batch_size: Real[ArrayLike, ""] = 1,
) -> Flow:
    """The four parts of the exact flow of the walk q' = q − η g ζ/√B with one common ζ.

    Args:
        g: q (n,) → (n,), differentiable.
        q: the point, (n,).
        density: q (n,) → ρ (), differentiable; None for ρ = 1.
        learning_rate: η.
        batch_size: B.

    The flow in one dimension at uniform ρ is −η² g g' ρ:

    >>> import jax.numpy as jnp
    >>> parts = decompose(lambda q: 1 + 0.5 * q, jnp.array([1.0]))
    >>> print(f"{parts.thermophoretic:.3f} {parts.divergence:.3f} {parts.along:.3f}")
    -0.375 -0.375 -0.750
    """
    q = jnp.asarray(q, jnp.result_type(float))
    unit = jnp.asarray(learning_rate) ** 2 / (2 * jnp.asarray(batch_size))
    rho, slope = (
        (jnp.ones((), q.dtype), jnp.zeros_like(q))
        if density is None
        else jax.value_and_grad(density)(q)
    )
    step = g(q)
    jacobian = jax.jacfwd(g)(q)
    size = jnp.linalg.norm(step)
    direction = step / size
    # (g·∇) g
    turning = jacobian @ step
    return Flow(
        diffusive=-unit * size * (step @ slope),
        thermophoretic=-unit * rho * (direction @ turning),
        divergence=-unit * rho * size * jnp.trace(jacobian),
        perpendicular=-unit * rho * (turning - direction * (direction @ turning)),
        direction=direction,
    )


def along(
    g: Callable[[Array], Array],
    q: Real[ArrayLike, " n"],
    *,
    density: Callable[[Array], Array] | None = None,
    learning_rate: Real[ArrayLike, ""] = 1.0,
    batch_size: Real[ArrayLike, ""] = 1,
    form: str = "exact",
) -> Float[Array, ""]:
    """J·ĝ of the walk with one common ζ, exact or as the paper prints it.

    - ``"exact"``: −(η²/2) [|g| g·∇ρ + ρ (A/|g| + |g| div g)]
    - ``"eq10"``: −η² |g| g·∇ρ − η² ρ A/|g|
    - ``"eq11"``: Eq. 10 with the coefficient c of Eq. 11, −η² |g| g·∇ρ − η² ρ A/(2|g|)
    - ``"a4"``: Eq. 11 with the sign of A.4, −η² |g| g·∇ρ + η² ρ A/(2|g|)

    Args:
        g: q (n,) → (n,), differentiable.
        q: the point, (n,).
        density: q (n,) → ρ (), differentiable; None for ρ = 1.
        learning_rate: η.
        batch_size: B.
        form: one of the forms above.

    Raises:
        InputError: unknown `form`.

    >>> import jax.numpy as jnp
    >>> g, q = lambda q: 1 + 0.5 * q, jnp.array([1.0])
    >>> [round(float(along(g, q, form=form)), 3) for form in ALONG]
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
    q: Real[ArrayLike, " n"],
    *,
    density: Callable[[Array], Array] | None = None,
    learning_rate: Real[ArrayLike, ""] = 1.0,
    batch_size: Real[ArrayLike, ""] = 1,
    form: str = "exact",
) -> Float[Array, ""]:
    """J·ĝ at a finite η, by counting the walkers that cross a surface at q in one step (Eq. 9).

    Of the walkers within one step of the surface, half step towards it. The flow is the number that
    cross forwards minus the number that cross backwards.

    - ``"exact"``: −(η/2) ∫_(−1)^1 sgn(λ) ρ(q_λ) g(q_λ)·ĝ / det(1 − λη ∇g) dλ over all starting
      points q_λ = q + λη g(q_λ) of walkers that pass through q. To order η² it equals `along`
      with ``"exact"``.
    - ``"eq9"``: ½ [ρ(q − Δ₋ĝ) Δ₋ − ρ(q + Δ₊ĝ) Δ₊] with Δ± = η ĝ·g(q ± Δ±ĝ). This is how we read
      Eq. 9, since its order η² is Eq. 10 as printed. Taking the density at the far ends doubles
      the diffusion. Counting along a single line omits that paths converge sideways, which is
      the part |g| div g.

    Args:
        g: q (n,) → (n,), differentiable; η |∇g| must be below 1.
        q: the point, (n,).
        density: q (n,) → ρ (); None for ρ = 1.
        learning_rate: η.
        batch_size: B.
        form: ``"exact"`` or ``"eq9"``.

    Raises:
        InputError: unknown `form`.

    For linear g in one dimension the exact count is −1/(1 − η² g'²) in units of η² g g':

    >>> import jax.numpy as jnp
    >>> flow = crossing(lambda q: 1 + 0.5 * q, jnp.array([1.0]), learning_rate=0.1)
    >>> print(f"{flow / (0.1**2 * 1.5 * 0.5):.4f}")
    -1.0025
    """
    if form not in CROSSING:
        raise InputError("form", form, f"use one of {', '.join(CROSSING)}")
    q = jnp.asarray(q, jnp.result_type(float))
    eta = jnp.asarray(learning_rate, q.dtype) / jnp.sqrt(jnp.asarray(batch_size, q.dtype))
    rho = (lambda q: jnp.ones((), q.dtype)) if density is None else density
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
    forward, backward = jax.vmap(passing)(jnp.stack([-nodes, nodes]).reshape(-1)).reshape(2, -1)
    return eta / 2 * (weights @ (forward - backward))


def _start(g: Callable[[Array], Array], q: Array, length: Array) -> Array:
    """The starting point q' = q + length·g(q') of a walker that passes through q."""
    return jax.lax.fori_loop(0, TURNS, lambda _, start: q + length * g(start), q)


def exact(
    covariance: Callable[[Array], Array],
    q: Real[ArrayLike, " n"],
    *,
    density: Callable[[Array], Array] | None = None,
) -> Float[Array, " n"]:
    """J_i = −½ Σ_j ∂_j(C_ij ρ), the flow of any walk with step covariance C.

    Args:
        covariance: q (n,) → C (n, n), differentiable. It is η² Σ1/B for SGD and η² diag(g²) for
            independent ζ.
        q: the point, (n,).
        density: q (n,) → ρ (), differentiable; None for ρ = 1.

    >>> import jax.numpy as jnp
    >>> exact(lambda q: jnp.diag((1 + 0.5 * q) ** 2), jnp.array([1.0, 0.0])).tolist()
    [-0.75, -0.5]
    """
    q = jnp.asarray(q, jnp.result_type(float))
    slopes = jax.jacfwd(lambda q: covariance(q) * (1.0 if density is None else density(q)))(q)
    return -0.5 * jnp.einsum("ijj->i", slopes)


class Phi(NamedTuple):
    """φ1, φ2 and their derivatives in b: g_V = φ1/√B, g_b = V φ2/√B (Sec. 5)."""

    phi1: Float[Array, "*units"]
    phi2: Float[Array, "*units"]
    slope1: Float[Array, "*units"]
    slope2: Float[Array, "*units"]


def phi(moments: ReluMoments, s2: Real[ArrayLike, "*#units"] = 0.25) -> Phi:
    """φ1 = s √Eσ², φ2 = s √Eσ' and their derivatives in b, for any x.

    Args:
        moments: the moments of relu(W·x + b); see :mod:`jthermo.theory.moments`.
        s2: s² = E(p−y)²; ¼ at f = 0.

    At b = 0 and w = 1, φ1 = ½ √½:

    >>> print(f"{phi(gaussian(0.0)).phi1:.4f}")
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
    V: Real[ArrayLike, "*#units"],
    b: Real[ArrayLike, "*#units"],
    *,
    w: Real[ArrayLike, "*#units"] = 1.0,
    s2: Real[ArrayLike, "*#units"] = 0.25,
    batch_size: Real[ArrayLike, ""] = 1,
) -> Float[Array, "*units 2"]:
    """G = (g_V, g_b) = (φ1, |V| φ2)/√B of one unit for x ~ N(0, I) (Sec. 5), (…, 2).

    >>> [round(float(g), 4) for g in effective_gradient(1.0, 0.0)]
    [0.3536, 0.3536]
    """
    phis = phi(gaussian(b, w=w), s2)
    parts = jnp.broadcast_arrays(phis.phi1, jnp.abs(V) * phis.phi2)
    return jnp.stack(parts, axis=-1) / jnp.sqrt(jnp.asarray(batch_size))


def projected(
    V: Real[ArrayLike, "*#units"],
    b: Real[ArrayLike, "*#units"],
    *,
    w: Real[ArrayLike, "*#units"] = 1.0,
    s2: Real[ArrayLike, "*#units"] = 0.25,
    learning_rate: Real[ArrayLike, "*#units"] = 1.0,
    batch_size: Real[ArrayLike, "*#units"] = 1,
    form: str = "exact",
    moments: ReluMoments | None = None,
) -> Float[Array, "*units"]:
    """J·ĝ of (V, b) per unit density, at uniform ρ, with one common ζ (Sec. 5).

    With A = V φ1 φ2² + V φ1 φ2 φ1' + V³ φ2² φ2' and |g|² = φ1² + V² φ2²:

    - ``"exact"``: −(η²/2B) [A + V φ2' |g|²]/|g|
    - ``"eq10"``: −(η²/B) A/|g|
    - ``"psi"``: −(η²/B) ψ with the printed ψ = A/(2|g|). The paper prints it with a plus sign,
      which points the wrong way.

    Args:
        V: output weight; only its modulus enters. Arrays broadcast.
        b: bias.
        w: ‖W‖, for x ~ N(0, I).
        s2: s² = E(p−y)².
        learning_rate: η.
        batch_size: B.
        form: one of the forms above.
        moments: the moments of relu(W·x + b) for another distribution of x, instead of `w`.

    Returns:
        Flow per step and unit density, in the shape to which the arguments broadcast. Negative
        values point against ĝ, to smaller V and b.

    Raises:
        InputError: unknown `form`.

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
    V: Real[ArrayLike, "*#units"],
    b: Real[ArrayLike, "*#units"],
    *,
    w: Real[ArrayLike, "*#units"] = 1.0,
    s2: Real[ArrayLike, "*#units"] = 0.25,
    dim: int | None = None,
    learning_rate: Real[ArrayLike, "*#units"] = 1.0,
    batch_size: Real[ArrayLike, "*#units"] = 1,
) -> tuple[Float[Array, "*units"], Float[Array, "*units"]]:
    """Flow (J_V, J_b) of one unit per unit density, from the true noise covariance.

    The other functions assume one common ζ. At uniform ρ and x ~ N(0, I), with u = b/w:

    - J_V = −(η² s²/2B) V Φ(u). If W walks too, V [(d + 1) Φ − uφ] replaces V Φ.
    - J_b = −(η² s²/2B) (Eσ + V² φ/w). If W walks too, Eσ + V² φ (d + u²)/w replaces the bracket.

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        s2: s² = E(p−y)².
        dim: d if W walks too; None if only V and b walk.
        learning_rate: η.
        batch_size: B.

    >>> [round(float(j), 4) for j in unit(1.0, 0.0)]
    [-0.0625, -0.0997]
    """
    relu = gaussian(b, w=w)
    u = jnp.asarray(b) / w
    from_W_in_V = 0.0 if dim is None else dim * relu.active - u * w * relu.density
    from_W_in_b = 0.0 if dim is None else relu.density * ((dim - 1) + u**2)
    scale = -(jnp.asarray(learning_rate) ** 2) * s2 / (2 * jnp.asarray(batch_size))
    return (
        scale * V * (relu.active + from_W_in_V),
        scale * (relu.sigma + jnp.square(V) * (relu.density + from_W_in_b)),
    )


def _over_root(a: Array, b: Array) -> Array:
    """A/√b, and 0 where b has underflowed: a unit that no input activates has no flow."""
    return jnp.where(b > 0, a / jnp.sqrt(jnp.where(b > 0, b, 1)), 0)
