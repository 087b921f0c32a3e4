"""Properties 4.1 and 4.2 as predicates, with a search for a counter-example (Sec. 4.2, App. A.1).

The second moments of ∇f for one unit with a = W·x + b are h_v = E σ(a)², h_w = V² E σ'(a)|x|² and h_b = V² E σ'(a).
Expectations run over given inputs, so they are exact for the law that puts equal weight on these, whatever it is:
a counter-example is one, and no sampling error can make or hide it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.errors import InputError
from jthermo.theory.moments import gaussian

COORDINATES = ("V", "b", "W")
# a fall by less than this share is rounding
ROUNDING = 1e-6


class SecondMoments(NamedTuple):
    """h_v, h_w and h_b of one unit, each ()."""

    h_v: Array
    h_w: Array
    h_b: Array


@dataclass(frozen=True)
class Property:
    """A claim that h_v, h_w and h_b never fall when some coordinate of a unit is raised.

    Args:
        name: its number in the paper.
        raised: the coordinates, among V (its modulus), b and W (any component).
        nonnegative: whether it asks for x ≥ 0.
    """

    name: str
    raised: tuple[str, ...]
    nonnegative: bool

    def applies(self, x: Any) -> bool:
        """Whether inputs x meet its hypothesis."""
        return not self.nonnegative or bool((np.asarray(x) >= 0).all())


PROPERTY_4_1 = Property("4.1", ("V", "b"), nonnegative=False)
PROPERTY_4_2 = Property("4.2", ("V", "b", "W"), nonnegative=True)


class CounterExample(NamedTuple):
    """A unit whose second moment falls although a coordinate is raised.

    Attributes:
        moment: which of ``"h_v"``, ``"h_w"``, ``"h_b"`` falls.
        raised: which coordinate, ``"V"``, ``"b"`` or ``"W[j]"``.
        unit: W (d,), b and V before.
        by: how far it is raised.
        before: the second moment before.
        after: and after.
    """

    moment: str
    raised: str
    unit: dict[str, Any]
    by: float
    before: float
    after: float


def second_moments(W: Any, b: Any, V: Any, x: Any) -> SecondMoments:
    """h_v = E σ(a)², h_w = V² E σ'(a)|x|², h_b = V² E σ'(a), a = W·x + b.

    Args:
        W: input weights of one unit, (d,).
        b: bias.
        V: output weight.
        x: inputs, (M, d).

    >>> import jax.numpy as jnp
    >>> [float(h) for h in second_moments(jnp.ones(2), 0.0, 2.0, jnp.array([[1.0, 0.0], [-1.0, 0.0]]))]
    [0.5, 2.0, 2.0]
    """
    x = jnp.asarray(x)
    a = (x * W).sum(-1) + b
    active = (a > 0).astype(a.dtype)
    return SecondMoments(
        h_v=jnp.square(jnp.maximum(a, 0)).mean(),
        h_w=jnp.square(V) * (active * jnp.square(x).sum(-1)).mean(),
        h_b=jnp.square(V) * active.mean(),
    )


def counter_example(
    claim: Property, x: Any, *, key: Array, num_trials: int = 10_000, scale: float = 2.0
) -> CounterExample | None:
    """Look for a unit that breaks a property on given inputs; None where all trials keep to it.

    Each trial draws a unit, raises one coordinate by a random amount, and compares the three second moments.

    Args:
        claim: `PROPERTY_4_1` or `PROPERTY_4_2`.
        x: inputs, (M, d).
        key: JAX random key.
        num_trials: number of units and raises to try.
        scale: standard deviation of the units' coordinates; raises range over four decades below it.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> counter_example(PROPERTY_4_1, x, key=jax.random.key(1)) is None
    True
    >>> counter_example(PROPERTY_4_2, x, key=jax.random.key(1)).raised[0]     # x ≥ 0 is needed
    'W'
    """
    x = jnp.asarray(x, jnp.result_type(float))
    if x.ndim != 2 or not x.size:
        raise InputError("x", x.shape, "give inputs as (M, d)")
    if num_trials < 1:
        raise InputError("num_trials", num_trials, "give at least 1")
    # six entries hold one, two or three coordinates equally often: one program serves every claim
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
    num_trials: int, table: Array, x: Array, scale: float, key: Array
) -> tuple[dict[str, Array], dict[str, Array], Array, Array]:
    """Units, raises and the second moments before and after, (trials, 3)."""
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


def slopes_in_bias(V: Any, b: Any, *, w: Any = 1.0, dim: int) -> SecondMoments:
    """Derivatives of h_v, h_w and h_b in b for x ~ N(0, I), none of them negative (App. A.1).

    ∂h_v = 2 Eσ, ∂h_w = V² (d − 1 + u²) φ(u)/w, ∂h_b = V² φ(u)/w, with u = b/w.

    Args:
        V: output weight. Arrays broadcast.
        b: bias.
        w: ‖W‖.
        dim: d.

    >>> [round(float(h), 3) for h in slopes_in_bias(1.0, 0.0, dim=3)]
    [0.798, 0.798, 0.399]
    """
    seen = gaussian(b, w=w)
    u = jnp.asarray(b) / w
    height = jnp.square(jnp.asarray(V)) * seen.density
    return SecondMoments(2 * seen.sigma, height * (dim - 1 + u**2), height)
