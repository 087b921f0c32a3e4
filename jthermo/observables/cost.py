"""The cost of an observable: operations of its traced program. Nothing is recorded here."""

from __future__ import annotations

import math
from typing import Any

from jax.extend import core as jex


def operations(jaxpr: Any) -> float:
    """Floating-point operations of a jaxpr.

    A matrix product counts 2mnk operations; any other operation, also an eigenvalue problem, counts
    one per number that it returns. A loop counts once per iteration if the number of iterations is
    known, otherwise once. Of several branches the most expensive one counts.

    >>> import jax, jax.numpy as jnp
    >>> product = jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 4)))
    >>> operations(product.jaxpr)
    48.0
    """
    return float(sum(_of_equation(eqn) for eqn in jaxpr.eqns))


def primitives(jaxpr: Any) -> set[str]:
    """Names of all primitives of a jaxpr, also those inside its loops and branches."""
    return {name for eqn in jaxpr.eqns for name in (eqn.primitive.name, *_inside(eqn))}


def largest(jaxpr: Any) -> int:
    """Number of elements of the largest array of a jaxpr, also inside its loops and branches.

    >>> import jax, jax.numpy as jnp
    >>> largest(jax.make_jaxpr(lambda x: (x[:, None] * x[None]).sum())(jnp.ones(5)).jaxpr)
    25
    """
    made = [math.prod(v.aval.shape) for eqn in jaxpr.eqns for v in eqn.outvars]
    inner = [largest(sub) for eqn in jaxpr.eqns for sub in jex.jaxprs_in_params(eqn.params)]
    return max([0, *made, *inner])


def _inside(eqn: Any) -> set[str]:
    return {name for sub in jex.jaxprs_in_params(eqn.params) for name in primitives(sub)}


def _of_equation(eqn: Any) -> float:
    inner = [operations(sub) for sub in jex.jaxprs_in_params(eqn.params)]
    num_returned = sum(math.prod(v.aval.shape) for v in eqn.outvars)
    name = eqn.primitive.name
    if name == "cond":
        return max(inner)
    if inner:
        return eqn.params.get("length", 1) * sum(inner)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2.0 * num_returned * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, features = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec[0]
        return 2.0 * num_returned * math.prod(kernel) / kernel[features]
    if name.startswith(("reduce", "arg")):
        return math.prod(eqn.invars[0].aval.shape)
    return num_returned
