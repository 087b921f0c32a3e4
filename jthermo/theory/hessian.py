"""Curvature of ReLU nets (App. A.5): the trace of the Hessian, which is that of the Gauss–Newton matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

CHUNK = 32  # examples differentiated together; bounds the memory to this many gradients


def trace(model: Any, params: Any, x: Array, *, loss: str = "auto") -> Array:
    """Tr H = tr K, the mean over the batch of Σ_y p_y |∇L_y|² (A.5); exact for ReLU nets almost everywhere.

    For one output and the logistic loss this is E[p(1−p) |∇f|²]; for squared error E Σ_k |∇f_k|².

    Args:
        model: anything with ``apply(params, x) -> outputs`` for one example.
        params: parameters of one network.
        x: inputs, (M, …).
        loss: ``"auto"`` (logistic for one output, softmax for several) or ``"squared"``.

    Returns:
        () the trace.

    >>> import jax, jthermo as jt
    >>> model = jt.models.TwoLayer(inputs=3, hidden=4, init="paired_he")
    >>> bool(trace(model, model.init(jax.random.key(0)), jax.numpy.ones((5, 3))) > 0)
    True
    """

    def one(example: Array) -> Array:
        outputs, pull_back = jax.vjp(lambda p: jnp.atleast_1d(model.apply(p, example)), params)
        # rows of the factor of the loss curvature: S = Σ_y rows_y rows_yᵀ
        if loss == "squared":
            rows = jnp.eye(len(outputs))
        elif len(outputs) == 1:
            p = jax.nn.sigmoid(outputs)
            rows = jnp.sqrt(p * (1 - p))[:, None]
        else:
            p = jax.nn.softmax(outputs)
            rows = jnp.sqrt(p)[:, None] * (p - jnp.eye(len(outputs)))
        (gradients,) = jax.vmap(pull_back)(rows)
        return sum((jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradients)), start=jnp.float32(0))

    return jax.lax.map(one, x, batch_size=CHUNK).mean()
