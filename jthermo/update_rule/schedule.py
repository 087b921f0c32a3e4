"""Learning-rate schedules, such as a rate that falls once; used as a sweep's optimizer."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from jthermo.errors import InputError, finite_number, is_number


def stepped_sgd(
    learning_rate: Any,
    momentum: float | None = None,
    nesterov: bool = False,
    decay_at: float = 0.0,
    decay: float = 10.0,
) -> optax.GradientTransformation:
    """SGD with η for the first `decay_at` updates and η/decay afterwards: :func:`jthermo.sgd`."""
    # inside a compiled step both are tracers
    if is_number(decay_at) and not 0 <= decay_at < 2**24:
        raise InputError(
            "optimizer.decay_at", decay_at, "give a number of updates from 0 to 2²⁴ − 1"
        )
    if is_number(decay):
        finite_number("optimizer.decay", decay, above=0)

    def schedule(count: Any) -> Any:
        return stepped_rate(learning_rate, decay_at, decay, count)

    return optax.sgd(schedule, momentum, nesterov)


def stepped_rate(learning_rate: Any, decay_at: Any, decay: Any, count: Any) -> Any:
    """The learning rate of the update after `count` others: η, or η/decay from `decay_at` on."""
    return jnp.where(count < decay_at, learning_rate, learning_rate / decay)
