"""Random keys in the state of an optimizer: every run has its own, kept as words of uint32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


def with_own_keys(
    transformation: optax.GradientTransformation, key: Array
) -> optax.GradientTransformation:
    """The transformation whose state starts from the random keys of one run.

    The i-th key of the state becomes 64 or more random bits drawn from ``fold_in(key, i)``, xor the
    key that the optimizer was given, so that another given key is another stream. The state holds
    the words of its keys instead of typed keys, since only numbers can be saved.

    Args:
        transformation: an optax optimizer; one without keys is unchanged.
        key: the run's key for its optimizer.
    """

    def init(params: Any) -> Any:
        state = transformation.init(params)
        leaves, structure = jax.tree.flatten(state)
        places = [i for i, leaf in enumerate(leaves) if _is_key(leaf)]
        for number, i in enumerate(places):
            words = _words(leaves[i])
            own = jax.random.bits(jax.random.fold_in(key, number), words.shape, jnp.uint32)
            leaves[i] = words ^ own
        return jax.tree.unflatten(structure, leaves)

    def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        if not any(map(_is_typed, jax.tree.leaves(jax.eval_shape(transformation.init, params)))):
            return transformation.update(updates, state, params)
        # only the kinds of its leaves are used
        like = jax.tree.leaves(transformation.init(params))
        leaves, structure = jax.tree.flatten(state)
        typed = [
            jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(new))
            if _is_typed(new)
            else leaf
            for leaf, new in zip(leaves, like, strict=True)
        ]
        updates, state = transformation.update(
            updates, jax.tree.unflatten(structure, typed), params
        )
        return updates, jax.tree.map(lambda leaf: _words(leaf) if _is_typed(leaf) else leaf, state)

    return optax.GradientTransformation(init, update)


def _is_typed(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _is_key(leaf: Any) -> bool:
    """Whether a leaf of an optimizer's state is a random key: typed, or the words of one."""
    raw = (jnp.shape(leaf), jnp.result_type(leaf)) == ((2,), jnp.uint32)
    return raw or _is_typed(leaf)


def _words(key: Array) -> Array:
    return jax.random.key_data(key) if _is_typed(key) else key
