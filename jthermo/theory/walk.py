"""The inhomogeneous random walk (Sec. 3): simulation, and estimators with standard errors.

Walkers step by q' = q − η g(q) ζ with ζ = ±1. Their density and flux decide between the printed and
the exact flow in :mod:`jthermo.theory.flow`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Bool, Float, PRNGKeyArray, Real
from scipy import optimize

from jthermo.errors import InputError

WALLS = ("none", "reflecting", "periodic", "absorbing")
# Largest number n of coordinates with independent ζ: `flux` enumerates all 2ⁿ sign patterns.
MAX_SIGNS = 12


@dataclass(frozen=True)
class Walk:
    """The walk q' = q − η g(q) ζ, ζ = ±1 with probability ½.

    Args:
        g: q (n,) → step in each coordinate divided by η, (n,).
        learning_rate: η.
        common: True for one ζ common to all coordinates, as Sec. 3 assumes; False for independent
            ζ in each coordinate.
        walls: ``"none"``, ``"reflecting"``, ``"periodic"`` or ``"absorbing"``; the walls are at
            `low` and `high` of each coordinate.
        low: lower walls, a number or (n,).
        high: upper walls, a number or (n,).

    Raises:
        InputError: η is not positive, the kind of walls is unknown, or the walls are not in order.
    """

    g: Callable[[Array], Array]
    learning_rate: float
    common: bool = True
    walls: str = "none"
    low: float | tuple[float, ...] = -math.inf
    high: float | tuple[float, ...] = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError("learning_rate", self.learning_rate, "give a positive finite number")
        if self.walls not in WALLS:
            raise InputError("walls", self.walls, f"use one of {', '.join(WALLS)}")
        if not np.all(np.asarray(self.low) < np.asarray(self.high)):
            raise InputError("high", self.high, f"give upper walls above low = {self.low}")
        if self.walls in ("reflecting", "periodic") and not np.all(
            np.isfinite([*np.ravel(self.low), *np.ravel(self.high)])
        ):
            raise InputError(
                "walls", self.walls, "give finite low and high, or walls='absorbing' or 'none'"
            )

    def step(self, q: Float[Array, "m n"], zeta: Real[Array, "#m #n"]) -> Float[Array, "m n"]:
        """Next positions of the walkers, (M, n), before the walls act."""
        return q - self.learning_rate * jax.vmap(self.g)(q) * zeta

    def confine(self, q: Float[Array, "m n"]) -> tuple[Float[Array, "m n"], Bool[Array, " m"]]:
        """Positions after the walls have acted, (M, n), and which walkers still walk, (M,)."""
        low, high = (jnp.atleast_2d(jnp.asarray(v, q.dtype)) for v in (self.low, self.high))
        if self.walls == "absorbing":
            return q, ((q > low) & (q < high)).all(-1)
        if self.walls == "periodic":
            q = low + jnp.mod(q - low, high - low)
        if self.walls == "reflecting":
            folded = jnp.mod(q - low, 2 * (high - low))
            q = low + jnp.minimum(folded, 2 * (high - low) - folded)
        return q, jnp.ones(q.shape[0], bool)


class Walkers(NamedTuple):
    """Positions of the walkers, (M, n), and whether each still walks, (M,).

    An absorbed walker stays where it was absorbed.
    """

    q: Float[Array, "m n"]
    alive: Bool[Array, " m"]


class Estimate(NamedTuple):
    """A measured number, or an array of them, and its standard error."""

    value: Any
    standard_error: Any

    def away(self, other: Any) -> Any:
        """Distance of `other` from the value, in standard errors."""
        return np.abs(np.asarray(other) - self.value) / self.standard_error


def simulate(
    walk: Walk,
    q: Float[ArrayLike, " m"] | Float[ArrayLike, "m n"],
    num_steps: int,
    *,
    key: PRNGKeyArray,
) -> Walkers:
    """Move independent walkers for a number of steps.

    Args:
        walk: the walk.
        q: starting positions, (M, n), or (M,) in one dimension.
        num_steps: t.
        key: JAX random key.

    Returns:
        Final positions and which walkers still walk.

    Diffusion with g = 1 spreads the walkers to η √t:

    >>> import jax, jax.numpy as jnp
    >>> walk = Walk(lambda q: jnp.ones_like(q), 0.1)
    >>> end = simulate(walk, jnp.zeros(20_000), 100, key=jax.random.key(0))
    >>> print(f"{end.q.std():.1f}")
    1.0
    """
    q = jnp.atleast_1d(jnp.asarray(q))
    q = q[:, None] if q.ndim == 1 else q
    q, alive = walk.confine(q)
    return _simulate(walk, q, alive, jnp.int32(num_steps), key)


@functools.partial(jax.jit, static_argnames="walk")
def _simulate(walk: Walk, q: Array, alive: Array, num_steps: Array, key: Array) -> Walkers:
    shape = (q.shape[0], 1 if walk.common else q.shape[1])

    def body(t: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, alive, bits = carry
        draw = functools.partial(jax.random.bits, jax.random.fold_in(key, t), shape, jnp.uint32)
        # one 32-bit word supplies the signs of 32 steps
        bits = jax.lax.cond(t % 32 == 0, draw, lambda: bits)
        zeta = 1 - 2 * ((bits >> (t % 32).astype(jnp.uint32)) & 1).astype(q.dtype)
        moved, stays = walk.confine(walk.step(q, zeta))
        return jnp.where(alive[:, None], moved, q), alive & stays, bits

    q, alive, _ = jax.lax.fori_loop(0, num_steps, body, (q, alive, jnp.zeros(shape, jnp.uint32)))
    return Walkers(q, alive)


def flux(
    walk: Walk,
    at: Real[ArrayLike, ""] | Real[ArrayLike, " n"] | Sequence[float],
    *,
    key: PRNGKeyArray,
    normal: Real[ArrayLike, ""] | Real[ArrayLike, " n"] | Sequence[float] | None = None,
    density: Callable[[Array], Array] | None = None,
    patch: float | None = None,
    num_samples: int = 2**16,
    num_replicates: int = 16,
) -> Estimate:
    """The flux J·n at a point: walkers that cross a small patch of a plane in one step.

    Walkers that cross along n count as +1, those that cross against n as −1. Starting points fill a
    box around the patch, and every ζ is applied to each of them. Each point is paired with its
    mirror image, so that the gross flow (∝ η) cancels and the net flow (∝ η²) remains.

    Args:
        walk: the walk; its walls are ignored.
        at: the point, (n,) or a number.
        key: JAX random key.
        normal: n, (n,); None for ĝ at the point.
        density: q (n,) → ρ (); None for ρ = 1.
        patch: half-width of the patch perpendicular to n, over which the flow is averaged; None for
            the length of two steps.
        num_samples: number of starting points per replicate; they form a randomly shifted lattice.
        num_replicates: number of independent lattices; their scatter gives the standard error.

    Returns:
        Walkers per step and unit area, in units of ρ.

    Raises:
        InputError: too many coordinates with independent ζ, no direction because g = 0, or an η so
            large that g doubles within one step.

    For η → 0 the exact result is −1 in units of η² g g':

    >>> import jax
    >>> walk = Walk(lambda q: 1 + 0.5 * q, learning_rate=0.05)
    >>> flow = flux(walk, 1.0, key=jax.random.key(0))
    >>> print(f"{flow.value / (0.05**2 * 1.5 * 0.5):.3f}")
    -1.001
    """
    at = jnp.atleast_1d(jnp.asarray(at, jnp.result_type(float)))
    n = at.shape[0]
    signs = [(1,) * n, (-1,) * n] if walk.common else list(itertools.product((1, -1), repeat=n))
    if not walk.common and n > MAX_SIGNS:
        raise InputError(
            "at",
            tuple(at.shape),
            f"independent ζ need at most {MAX_SIGNS} coordinates",
        )
    g = walk.g(at)
    normal = g if normal is None else jnp.asarray(normal, at.dtype).reshape(n)
    if not float(jnp.linalg.norm(normal)) > 0:
        raise InputError(
            "normal", normal, "g is zero at this point; give the direction as `normal`"
        )
    reach = 2 * walk.learning_rate * float(jnp.linalg.norm(g))
    side = reach if patch is None else float(patch)
    run = functools.partial(_flux, walk, density, num_samples)
    shifts = jax.random.uniform(key, (num_replicates, n), at.dtype)
    flows, farthest = jax.lax.map(
        lambda shift: run(at, normal, reach, side, jnp.asarray(signs, at.dtype), shift), shifts
    )
    if float(farthest.max()) > 0.95:
        raise InputError(
            "learning_rate",
            walk.learning_rate,
            "g doubles within one step of this point; give a smaller learning rate",
        )
    values = np.asarray(flows, float)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(num_replicates)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _flux(
    walk: Walk,
    density: Callable[[Array], Array] | None,
    num_samples: int,
    at: Array,
    normal: Array,
    reach: Array,
    side: Array,
    signs: Array,
    shift: Array,
) -> tuple[Array, Array]:
    """J·n from one lattice, and how far from the plane the farthest crossing began (box = 1)."""
    n = at.shape[0]
    # its first row is n, the others span the plane
    frame = _frame(normal)
    # the generalised golden ratio, which gives an evenly spread lattice in n dimensions
    root = optimize.brentq(lambda x: x ** (n + 1) - x - 1, 1, 2)
    lattice = np.mod(np.outer(np.arange(num_samples), root ** -np.arange(1.0, n + 1)), 1)
    unit = 2 * jnp.mod(jnp.asarray(lattice, at.dtype) + shift[None], 1) - 1
    half = jnp.where(jnp.arange(n) == 0, reach, side + reach)[None]
    total, farthest = jnp.zeros((), at.dtype), jnp.zeros((), at.dtype)
    for mirror, zeta in itertools.product((1, -1), signs[:, None]):
        offset = mirror * unit * half
        q = at[None] + offset @ frame
        end = offset - (q - walk.step(q, zeta)) @ frame.T
        crosses = (offset[:, 0] < 0) != (end[:, 0] < 0)
        share = jnp.where(
            crosses, offset[:, 0] / jnp.where(crosses, offset[:, 0] - end[:, 0], 1), 0
        )
        hit = offset[:, 1:] + share[:, None] * (end[:, 1:] - offset[:, 1:])
        counts = crosses & (jnp.abs(hit) < side).all(-1)
        weight = 1.0 if density is None else jax.vmap(density)(q).reshape(-1)
        total += (weight * jnp.where(counts, jnp.sign(end[:, 0] - offset[:, 0]), 0)).mean() / (
            2 * len(signs)
        )
        farthest = jnp.maximum(farthest, jnp.where(counts, jnp.abs(offset[:, 0]) / reach, 0).max())
    volume, area = 2 * reach * (2 * (side + reach)) ** (n - 1), (2 * side) ** (n - 1)
    return total * volume / area, farthest


def _frame(normal: Array) -> Array:
    """Orthonormal frame (n, n) with the unit normal as first row, by a Householder reflection."""
    n = normal / jnp.linalg.norm(normal)
    axis = jnp.zeros_like(n).at[0].set(jnp.where(n[0] > 0, -1.0, 1.0))
    v = n - axis
    reflected = jnp.eye(n.shape[0], dtype=n.dtype) - 2 * jnp.outer(v, v) / (v @ v)
    return reflected.at[0].set(n)


def density(
    q: Real[ArrayLike, " m"] | Real[ArrayLike, "m 1"],
    edges: Real[ArrayLike, " edges"] | Sequence[float],
) -> Estimate:
    """Density of walkers along one coordinate, with its binomial standard error.

    Args:
        q: positions, (M,) or (M, 1).
        edges: bin edges, (K + 1,).

    Returns:
        The density ρ per unit length in each of the K bins, ``value`` (K,), and its
        ``standard_error`` (K,). ρ integrates to the fraction of walkers within the edges.

    >>> import numpy as np
    >>> rho = density(np.linspace(0, 1, 1000), [0, 0.5, 1])
    >>> rho.value.tolist(), rho.standard_error.round(2).tolist()
    ([1.0, 1.0], [0.03, 0.03])
    """
    q, edges = np.ravel(np.asarray(q)), np.asarray(edges, float)
    share = np.histogram(q, edges)[0] / q.size
    width = np.diff(edges)
    return Estimate(share / width, np.sqrt(share * (1 - share) / q.size) / width)


def equilibrium(
    g: Callable[[Any], Any], q: Real[ArrayLike, " k"], exponent: float = -2.0
) -> Float[np.ndarray, " k"]:
    """The density ρ ∝ g^a on a grid, with integral 1 over the grid.

    a = −2 is the state without flux (Soret equilibrium, Sec. 2): J = −T ρ' − ρ T' = 0 with
    T = η² g²/2, so the Soret coefficient is 1/T and ρ ∝ 1/T ∝ 1/g².

    Args:
        g: an elementwise function of q.
        q: increasing grid, (K,).
        exponent: a; Eq. 10 as printed gives −1.

    Returns:
        ρ on the grid, (K,).

    >>> import numpy as np
    >>> rho = equilibrium(lambda q: 1 + q, np.linspace(0, 1, 201))
    >>> print(f"{rho[0] / rho[-1]:.3f}")
    4.000
    """
    q = np.asarray(q, float)
    rho = np.abs(np.asarray(g(q), float)) ** exponent
    return rho / np.trapezoid(rho, q)


def stationary_exponent(
    walk: Walk,
    q: Real[ArrayLike, " m"] | Real[ArrayLike, "m 1"],
    *,
    low: float | None = None,
    high: float | None = None,
) -> Estimate:
    """Maximum-likelihood exponent a of ρ ∝ g^a, from walkers between two walls (exact: −2).

    a solves E_a log g = mean log g over the walkers; its standard error is 1/√(M Var_a log g).

    Args:
        walk: a one-dimensional walk with walls.
        q: positions of independent walkers in their stationary state, (M,) or (M, 1).
        low: only walkers above it count; None for the lower wall.
        high: only walkers below it count; None for the upper wall.
    """
    low = float(np.ravel(walk.low)[0]) if low is None else low
    high = float(np.ravel(walk.high)[0]) if high is None else high
    q = np.ravel(np.asarray(q, float))
    q = q[(q >= low) & (q <= high)]
    nodes, weights = np.polynomial.legendre.leggauss(200)
    grid = low + (high - low) * (nodes + 1) / 2
    log_g = np.log(np.abs(_each(walk.g, grid)))
    mean_log_g = float(np.log(np.abs(_each(walk.g, q))).mean())

    def moments(a: float) -> tuple[float, float]:
        p = weights * np.exp(a * (log_g - log_g.mean()))
        p /= p.sum()
        mean = float(p @ log_g)
        return mean, float(p @ (log_g - mean) ** 2)

    a = optimize.brentq(lambda a: moments(a)[0] - mean_log_g, -20, 20)
    return Estimate(a, 1 / math.sqrt(q.size * moments(a)[1]))


def _each(g: Callable[[Array], Array], q: np.ndarray) -> np.ndarray:
    """Values of g, (M,), at positions in one dimension."""
    return np.asarray(jax.vmap(g)(jnp.asarray(q)[:, None]), float).reshape(-1)
