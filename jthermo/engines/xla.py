"""The XLA engine: one training step of one run, the loop over steps, and one record.

A run is (seed, stream, η, hyperparameters). Its random keys are
``fold_in(fold_in(fold_in(key(seed), role), stream), step)``, so the state holds no key and no
iterator, and adding runs changes no other run. Placement on devices is in ``execution/``.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jthermo.engines.batches import begins_epoch, draw_batch, draw_probe, epoch_order, part_of_set
from jthermo.engines.run_state import State
from jthermo.engines.step_program import HeldArrays, Program, Run, bound, built_optimizer, source_of
from jthermo.observables import Probe
from jthermo.randomness.streams import (
    Streams,
    dataset_key,
    noise_key,
    part_key,
    record_keys,
    streams,
)
from jthermo.update_rule import losses

# Examples whose gradients are computed together in a step on a whole set; it bounds the memory.
PART = 4096


def advance(
    program: Program, runs: Run, state: State, start: Array, stop: Array, held: HeldArrays
) -> State:
    """Train a block of W runs from step `start` to step `stop`.

    Args:
        program: the static program.
        runs: the runs, with leading axis W.
        state: their states, with leading axis W.
        start: number of steps already trained, common to all runs.
        stop: number of steps at the end.
        held: arrays of a data set in memory.

    Returns:
        The states after `stop` steps.
    """
    keys = jax.vmap(streams)(runs)
    if program.full_batch:
        full_step = jax.vmap(functools.partial(_full_step, program, held), in_axes=(0, 0, 0, None))
        return jax.lax.fori_loop(start, stop, lambda t, s: full_step(runs, keys, s, t), state)
    order_of = jax.vmap(functools.partial(epoch_order, program, held), in_axes=(0, None))
    batch_of = jax.vmap(functools.partial(draw_batch, program, held), in_axes=(0, 0, 0, None))
    step = jax.vmap(functools.partial(_step, program), in_axes=(0, 0, 0, 0, None))

    def body(t: Array, carry: tuple[State, Any, Any]) -> tuple[State, Any, Any]:
        state, order, batch = carry
        state = step(runs, keys, state, batch, t)
        # The order of an epoch is carried: drawing it in every step would cost more than the step.
        if order is not None:
            order = jax.lax.cond(
                begins_epoch(program, held, t + 1), lambda: order_of(keys, t + 1), lambda: order
            )
        # The next batch is carried too: XLA would otherwise redraw a number wherever it is used.
        return state, order, batch_of(runs, keys, order, t + 1)

    order = order_of(keys, start)
    # The first batch is drawn in a loop too, since XLA may round a teacher's targets differently
    # outside of one. The number of iterations is hidden, or XLA would dissolve the loop.
    once = start + jax.lax.optimization_barrier(jnp.int32(1))
    shapes = jax.eval_shape(batch_of, runs, keys, order, start)
    empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    first = jax.lax.fori_loop(start, once, lambda t, _: batch_of(runs, keys, order, t), empty)
    return jax.lax.fori_loop(start, stop, body, (state, order, first))[0]


def observe(
    program: Program, run: Run, state: State, step: Array, record: Array, held: HeldArrays
) -> dict[str, Array]:
    """All observables of one run at one record; NaN if it has diverged (``finite`` is False)."""
    data, keys, dataset = source_of(program, run), record_keys(run, step), dataset_key(run)
    x, y = draw_probe(program, held, run, keys.probe, dataset)
    test = draw_probe(program, held, run, keys.test, dataset, True) if data.has_test else None
    loss = bound(program.loss, "loss", run)
    settings = (data, loss, run.learning_rate, program.batch_size)
    probe = Probe(x, y, *settings, test, keys.estimate, record, program.whole_probe)
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]).all()
    recorded: dict[str, Array] = {}
    for observable in program.observables:
        recorded |= observable(program.model, state.params, probe)
    # A diverged run would have activation rate 0.0, which looks like the paper's effect.
    masked = {k: jnp.where(finite, v.astype(jnp.float32), jnp.nan) for k, v in recorded.items()}
    return masked | {"finite": finite}


def _step(
    program: Program, run: Run, keys: Streams, state: State, batch: tuple[Array, Array], t: Array
) -> State:
    """θ ← θ − η g with g = (1/B) Σ r ∇f; r is the residual p − y or its noise control."""
    gradient = _gradient(program, run, state.params, batch, noise_key(keys, t))
    return _updated(program, run, state, gradient)


def _full_step(
    program: Program, held: HeldArrays, run: Run, keys: Streams, state: State, t: Array
) -> State:
    """A step on all examples of a finite set, whose gradients are summed over parts of the set."""
    size = program.batch_size
    part = min(PART, size)

    def of(index: Array) -> Any:
        batch = part_of_set(program, held, run, keys, index, t)
        return _gradient(program, run, state.params, batch, part_key(noise_key(keys, t), index[0]))

    def add(total: Any, first: Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of(first + jnp.arange(part))), None

    zero = jax.tree.map(jnp.zeros_like, state.params)
    gradient, _ = jax.lax.scan(add, zero, part * jnp.arange(size // part))
    if rest := size % part:
        gradient = jax.tree.map(jnp.add, gradient, of(size - rest + jnp.arange(rest)))
    return _updated(program, run, state, gradient)


def _gradient(
    program: Program, run: Run, params: Any, batch: tuple[Array, Array], key: Array
) -> Any:
    """(1/B) Σ r ∇f over the examples of a batch, or of a part of it."""
    x, y = batch
    outputs, pull_back = jax.vjp(lambda params: program.model.apply(params, x), params)
    loss, noise = bound(program.loss, "loss", run), bound(program.noise, "noise", run)
    target = losses.targets(loss, y, program.model.num_outputs)
    residual = noise.residual(loss, outputs, target, key)
    (gradient,) = pull_back(residual / program.batch_size)
    return gradient


def _updated(program: Program, run: Run, state: State, gradient: Any) -> State:
    """The state after the optimizer's update by a gradient."""
    optimizer = built_optimizer(program.optimizer, run)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    if (factor := program.model.learning_rate_factor) != 1:
        updates = jax.tree.map(lambda update: factor * update, updates)
    return State(optax.apply_updates(state.params, updates), opt_state)
