"""Properties 4.1 and 4.2 (monotone second moments) as predicates; counter-examples.

The second moments of ∇f for one unit with a = W·x + b are h_v = E σ(a)², h_w = V² E σ'(a)|x|² and
h_b = V² E σ'(a). Expectations are means over the inputs that the caller gives, so they are exact
for the distribution that puts equal weight on these inputs. No sampling error can produce or hide
a counter-example.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, PRNGKeyArray, Real

from jthermo.errors import InputError
from jthermo.theory.moments import gaussian

COORDINATES = ("V", "b", "W")
# A relative decrease below this is attributed to float32 rounding.
ROUNDING = 1e-6


class SecondMoments(NamedTuple):
    """h_v, h_w and h_b of one unit, each ()."""

    h_v: Float[Array, "*units"]
    h_w: Float[Array, "*units"]
    h_b: Float[Array, "*units"]


@dataclass(frozen=True)
class Property:
    """A claim that h_v, h_w and h_b never decrease when a coordinate of a unit is raised.

    Args:
        name: number of the property in the paper.
        raised: coordinates that may be raised: V (its modulus), b or W (any component).
        nonnegative: whether the property assumes x ≥ 0.
    """

    name: str
    raised: tuple[str, ...]
    nonnegative: bool

    def applies(self, x: Real[ArrayLike, "m d"]) -> bool:
        """Whether inputs x (M, d) satisfy the property's assumption."""
        return not self.nonnegative or bool((np.asarray(x) >= 0).all())


PROPERTY_4_1 = Property("4.1", ("V", "b"), nonnegative=False)
PROPERTY_4_2 = Property("4.2", ("V", "b", "W"), nonnegative=True)


class CounterExample(NamedTuple):
    """A unit for which raising a coordinate decreases a second moment.

    Attributes:
        moment: the moment that decreases, ``"h_v"``, ``"h_w"`` or ``"h_b"``.
        raised: the coordinate, ``"V"``, ``"b"`` or ``"W[j]"``.
        unit: W (d,), b and V before the raise.
        by: amount by which the coordinate is raised.
        before: the second moment before the raise.
        after: the second moment after the raise.
    """

    moment: str
    raised: str
    unit: dict[str, Any]
    by: float
    before: float
    after: float


def second_moments(
    W: Real[ArrayLike, " d"],
    b: Real[ArrayLike, ""],
    V: Real[ArrayLike, ""],
    x: Real[ArrayLike, "m d"],
) -> SecondMoments:
    """Second moments of ∇f for one unit.

    h_v = E σ(a)², h_w = V² E σ'(a)|x|², h_b = V² E σ'(a), with a = W·x + b.

    Args:
        W: input weights of one unit, (d,).
        b: bias.
        V: output weight.
        x: inputs, (M, d).

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> [float(h) for h in second_moments(jnp.ones(2), 0.0, 2.0, x)]
    [0.5, 2.0, 2.0]
    """
    x = jnp.asarray(x)
    a = (x * jnp.asarray(W)[None]).sum(-1) + b
    active = (a > 0).astype(a.dtype)
    return SecondMoments(
        h_v=jnp.square(jnp.maximum(a, 0)).mean(),
        h_w=jnp.square(V) * (active * jnp.square(x).sum(-1)).mean(),
        h_b=jnp.square(V) * active.mean(),
    )


def counter_example(
    claim: Property,
    x: Real[ArrayLike, "m d"],
    *,
    key: PRNGKeyArray,
    num_trials: int = 10_000,
    scale: float = 2.0,
) -> CounterExample | None:
    """Search for a unit that violates a property on given inputs.

    Each trial draws a unit, raises one coordinate by a random amount, and compares the three second
    moments before and after.

    Args:
        claim: `PROPERTY_4_1` or `PROPERTY_4_2`.
        x: inputs, (M, d).
        key: JAX random key.
        num_trials: number of trials.
        scale: standard deviation of the units' coordinates. Raises range from 10⁻³ to 10 times
            `scale`.

    Returns:
        The largest relative decrease of all trials; None if no moment decreased.

    Raises:
        InputError: `x` is not a non-empty array (M, d), or `num_trials` is below 1.

    Property 4.2 needs x ≥ 0; for normal x, raising W violates it:

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> counter_example(PROPERTY_4_1, x, key=jax.random.key(1)) is None
    True
    >>> counter_example(PROPERTY_4_2, x, key=jax.random.key(1)).raised[0]
    'W'
    """
    x = jnp.asarray(x, jnp.result_type(float))
    if x.ndim != 2 or not x.size:
        raise InputError("x", x.shape, "give inputs as a non-empty array (M, d)")
    if num_trials < 1:
        raise InputError("num_trials", num_trials, "give a whole number of at least 1")
    # Six entries hold one, two or three coordinates equally often, so every claim has the same
    # shapes and shares one compiled program.
    table = jnp.array([COORDINATES.index(c) for c in (claim.raised * 6)[:6]])
    units, raises, before, after = _trials(num_trials, table, x, scale, key)
    falls = after < before * (1 - ROUNDING)
    if not bool(falls.any()):
        return None
    worst = np.unravel_index(
        int(
            np.argmax(
                np.where(falls, np.asarray((before - after) / jnp.maximum(before, 1e-30)), -1)
            )
        ),
        falls.shape,
    )
    trial, which = int(worst[0]), int(worst[1])
    kind = COORDINATES[int(raises["kind"][trial])]
    return CounterExample(
        moment=SecondMoments._fields[which],
        raised=f"W[{int(raises['component'][trial])}]" if kind == "W" else kind,
        unit={name: np.asarray(value[trial]) for name, value in units.items()},
        by=float(raises["by"][trial]),
        before=float(before[trial, which]),
        after=float(after[trial, which]),
    )


@functools.partial(jax.jit, static_argnums=0)
def _trials(
    num_trials: int, table: Array, x: Array, scale: Array, key: Array
) -> tuple[dict[str, Array], dict[str, Array], Array, Array]:
    """Random units, their raises, and the second moments before and after, (trials, 3)."""
    w_key, b_key, v_key, kind_key, component_key, by_key = jax.random.split(key, 6)
    dim, dtype = x.shape[1], x.dtype
    units = {
        "W": scale * jax.random.normal(w_key, (num_trials, dim), dtype),
        "b": scale * jax.random.normal(b_key, (num_trials,), dtype),
        "V": scale * jax.random.normal(v_key, (num_trials,), dtype),
    }
    raises = {
        "kind": table[jax.random.randint(kind_key, (num_trials,), 0, len(table))],
        "component": jax.random.randint(component_key, (num_trials,), 0, dim),
        "by": scale * 10 ** jax.random.uniform(by_key, (num_trials,), dtype, -3, 1),
    }
    chosen = {c: raises["kind"] == i for i, c in enumerate(COORDINATES)}
    component = jax.nn.one_hot(raises["component"], dim, dtype=dtype)
    moved = {
        "W": units["W"] + jnp.where(chosen["W"], raises["by"], 0)[:, None] * component,
        "b": units["b"] + jnp.where(chosen["b"], raises["by"], 0),
        "V": units["V"]
        + jnp.where(chosen["V"], raises["by"], 0) * jnp.where(units["V"] < 0, -1, 1),
    }

    def moments(unit: dict[str, Array]) -> Array:
        return jnp.stack(second_moments(unit["W"], unit["b"], unit["V"], x))

    return units, raises, jax.vmap(moments)(units), jax.vmap(moments)(moved)


def slopes_in_bias(
    V: Real[ArrayLike, "*#units"],
    b: Real[ArrayLike, "*#units"],
    *,
    w: Real[ArrayLike, "*#units"] = 1.0,
    dim: int,
) -> SecondMoments:
    """Derivatives of h_v, h_w and h_b in b for x ~ N(0, I); none is negative (App. A.1).

    ∂h_v/∂b = 2 Eσ, ∂h_w/∂b = V² (d − 1 + u²) φ(u)/w, ∂h_b/∂b = V² φ(u)/w, with u = b/w.

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        dim: d.

    >>> [round(float(h), 3) for h in slopes_in_bias(1.0, 0.0, dim=3)]
    [0.798, 0.798, 0.399]
    """
    relu = gaussian(b, w=w)
    u = jnp.asarray(b) / w
    height = jnp.square(jnp.asarray(V)) * relu.density
    return SecondMoments(2 * relu.sigma, height * (dim - 1 + u**2), height)
