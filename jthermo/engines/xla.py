"""The XLA engine: one training step of one run, the loop over steps, and one record.

A run is (seed, stream, η, hyperparameters). Its random keys are
``fold_in(fold_in(fold_in(key(seed), role), stream), step)``, so the state holds no key and no
iterator, and adding runs changes no other run. Placement on devices is in ``execution/``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from jthermo.data.sampling import over_parts
from jthermo.engines.batches import begins_epoch, draw_batch, draw_probe, epoch_order, part_of_set
from jthermo.engines.run_state import State
from jthermo.engines.step_program import (
    HeldArrays,
    Program,
    Run,
    bound,
    built_optimizer,
    learning_rate_at,
    source_of,
)
from jthermo.errors import InputError
from jthermo.models import loss_inputs
from jthermo.models.model import forward_in
from jthermo.observables import Probe
from jthermo.observables.gradient_moments import loss_of_example
from jthermo.randomness.streams import (
    Streams,
    dataset_key,
    direction_key,
    model_key,
    noise_key,
    part_key,
    record_keys,
    streams,
)
from jthermo.sweep.axes import FULL_BATCH
from jthermo.sweep.run_config import RunConfig
from jthermo.update_rule import losses, residual_noise

# Examples whose gradients are computed together in a step on a whole set; it bounds the memory.
PART = 4096
# The same for the product of each example's Hessian with a vector, each as large as the parameters.
HESSIAN_PART = 64

# From indices (M,) to examples and labels.
BatchOf = Callable[[Array], tuple[Array, Array]]


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
    if _of_set(program):
        set_step = jax.vmap(functools.partial(_set_step, program, held), in_axes=(0, 0, 0, None))
        return jax.lax.fori_loop(start, stop, lambda t, s: set_step(runs, keys, s, t), state)
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


class LastStep(NamedTuple):
    """What a step did, shaped like the parameters; see :class:`jthermo.observables.Probe`."""

    update: Any
    batch_gradient: Any


def last_step(program: Program, run: Run, state: State, stop: Array, held: HeldArrays) -> LastStep:
    """The step of one run that ends at `stop`, from the state before it; zeros at step 0.

    It is computed again here, so that the loop over steps is the same whatever is recorded.
    """
    keys, t = streams(run), jnp.maximum(stop - 1, 0)
    if _of_set(program):
        gradient, _ = _gradient_of_set(program, held, run, keys, state, t)
    else:
        batch = draw_batch(program, held, run, keys, epoch_order(program, held, keys, t), t)
        gradient, _ = _gradient_of_batch(program, run, keys, state, batch, t)
    update, _ = _update(program, run, state, gradient)
    return jax.tree.map(lambda a: jnp.where(stop > 0, a, 0), LastStep(update, gradient))


def refuse_parts(config: RunConfig, size: int | None) -> None:
    """Raise if a step on a set of `size` examples goes in parts, but the net has a state.

    The statistics of batch normalisation are those of all examples that are computed together.
    """
    if size is None or size <= PART or not jax.tree.leaves(config.model.state_shapes):
        return
    remedy = (
        f"a step of {config.model.title} on {size:,} examples goes in parts of {PART:,}, each with "
        "its own batch statistics; use at most as many examples, or batches"
    )
    if config.full_batch:
        raise InputError("batch_size", FULL_BATCH, remedy)
    if residual_noise.of_set(config.noise):
        raise InputError("noise", config.noise, remedy)


def observe(
    program: Program,
    run: Run,
    state: State,
    last: LastStep | tuple[()],
    step: Array,
    record: Array,
    held: HeldArrays,
) -> dict[str, Array]:
    """All observables of one run at one record; NaN if it has diverged (``finite`` is False).

    `last` is empty for programs that do not record the last step.
    """
    data, keys, dataset = source_of(program, run), record_keys(run, step), dataset_key(run)
    x, y = draw_probe(program, held, run, keys.probe, dataset)
    test = draw_probe(program, held, run, keys.test, dataset, True) if data.has_test else None
    loss = bound(program.loss, "loss", run)
    settings = (data, loss, run.learning_rate, program.batch_size)
    of_step = (state.opt_state, *last)
    probe = Probe(x, y, *settings, test, keys.estimate, record, program.whole_probe, *of_step)
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]).all()
    model = program.model.with_state(state.model_state)
    recorded: dict[str, Array] = {}
    for observable in program.observables:
        recorded |= observable(model, state.params, probe)
    # A diverged run would have activation rate 0.0, which looks like the paper's effect.
    masked = {k: jnp.where(finite, v.astype(float), jnp.nan) for k, v in recorded.items()}
    return masked | {"finite": finite}


def _step(
    program: Program, run: Run, keys: Streams, state: State, batch: tuple[Array, Array], t: Array
) -> State:
    """θ ← θ − η g with g = (1/B) Σ r ∇f; r is the residual p − y or its noise control."""
    gradient, model_state = _gradient_of_batch(program, run, keys, state, batch, t)
    return _updated(program, run, state._replace(model_state=model_state), gradient)


def _gradient_of_batch(
    program: Program, run: Run, keys: Streams, state: State, batch: tuple[Array, Array], t: Array
) -> tuple[Any, Any]:
    """The gradient of step t on a batch, and the net's new state."""
    return _gradient(program, run, state, batch, noise_key(keys, t), _model_key(program, run, t))


def _set_step(
    program: Program, held: HeldArrays, run: Run, keys: Streams, state: State, t: Array
) -> State:
    """A step on the gradients of all examples of a finite set, without noise or with one of it."""
    gradient, model_state = _gradient_of_set(program, held, run, keys, state, t)
    return _updated(program, run, state._replace(model_state=model_state), gradient)


def _gradient_of_set(
    program: Program, held: HeldArrays, run: Run, keys: Streams, state: State, t: Array
) -> tuple[Any, Any]:
    """The gradient of step t on all examples of a finite set, and the net's new state."""
    batch_of = functools.partial(part_of_set, program, held, run, keys, t=t)
    size, key = program.data.size(held), noise_key(keys, t)
    assert isinstance(size, int)
    inside = _model_key(program, run, t)
    total = functools.partial(_set_gradient, program, run, state, batch_of, size, key, inside)
    noise = program.noise
    if not isinstance(noise, residual_noise.Gaussian):
        gradient, model_state = total()
    else:
        weights = noise.weights(key, size, program.batch_size)
        if isinstance(noise, residual_noise.Isotropic):
            gradient, model_state = total()
            gradient = jax.tree.map(jnp.add, gradient, _turned(total(weights)[0], key))
        else:
            gradient, model_state = total(1 / size + weights)
    if isinstance(noise, residual_noise.Drift):
        slope = _trace_gradient(program, run, state.params, batch_of, size, gradient)
        by = learning_rate_at(program, run, t) / (4 * program.batch_size)
        gradient = jax.tree.map(lambda g, s: g + by * s, gradient, slope)
    return gradient, model_state


def _set_gradient(
    program: Program,
    run: Run,
    state: State,
    batch_of: BatchOf,
    size: int,
    noise_key: Array,
    model_key: Array | None,
    weights: Array | None = None,
) -> tuple[Any, Any]:
    """Σ w r ∇f over a finite set with weights w (n,) or 1/n, part by part; the net's new state."""

    def add(carry: tuple[Any, Any], index: Array) -> tuple[Any, Any]:
        total, model_state = carry
        gradient, model_state = _gradient(
            program,
            run,
            state._replace(model_state=model_state),
            batch_of(index),
            part_key(noise_key, index[0]),
            None if model_key is None else part_key(model_key, index[0]),
            1 / size if weights is None else weights[index],
        )
        return jax.tree.map(jnp.add, total, gradient), model_state

    start = jax.tree.map(jnp.zeros_like, state.params), state.model_state
    return over_parts(add, start, size, PART)


def _trace_gradient(
    program: Program, run: Run, params: Any, batch_of: BatchOf, size: int, mean: Any
) -> Any:
    """∇ tr Σ1 = (2/n) Σ_i H_i (g_i − G) over a finite set, from its mean gradient G."""
    value = loss_of_example(program.model, bound(program.loss, "loss", run))

    def of(x: Array, y: Array) -> Any:
        gradient = functools.partial(jax.grad(value), x=x, y=y)
        apart = jax.tree.map(jnp.subtract, gradient(params), mean)
        return jax.jvp(gradient, (params,), (apart,))[1]

    # The examples are drawn in the parts of the mean gradient, so redrawn labels are the same.
    def add(total: Any, index: Array) -> Any:
        x, y = batch_of(index)

        def few(total: Any, place: Array) -> Any:
            products = jax.vmap(of)(x[place], y[place])
            return jax.tree.map(lambda s, h: s + h.sum(0), total, products)

        return over_parts(few, total, len(x), HESSIAN_PART)

    total = over_parts(add, jax.tree.map(jnp.zeros_like, params), size, PART)
    return jax.tree.map(lambda s: 2 / size * s, total)


def _turned(noise: Any, key: Array) -> Any:
    """A vector of the same norm in a random direction of parameter space."""
    flat, unflatten = ravel_pytree(noise)
    direction = jax.random.normal(direction_key(key), flat.shape)
    return unflatten(direction * (jnp.linalg.norm(flat) / jnp.linalg.norm(direction)))


def _gradient(
    program: Program,
    run: Run,
    state: State,
    batch: tuple[Array, Array],
    noise_key: Any,
    model_key: Array | None,
    weights: Array | float | None = None,
) -> tuple[Any, Any]:
    """Σ w r ∇f over the examples of a batch, with w = 1/B or weights (M,); the net's new state."""
    (x, y), model = batch, program.model

    def forward(params: Any) -> tuple[Array, Any]:
        outputs, model_state = forward_in(
            program.dtype, model, params, state.model_state, x, model_key
        )
        return loss_inputs(outputs), model_state

    outputs, pull_back, model_state = jax.vjp(forward, state.params, has_aux=True)
    loss, noise = bound(program.loss, "loss", run), bound(program.noise, "noise", run)
    target = losses.targets(loss, y, model.num_outputs)
    residual = noise.residual(loss, outputs, target, noise_key)
    weighted = residual / program.batch_size if weights is None else (residual.T * weights).T
    (gradient,) = pull_back(weighted)
    return gradient, model_state


def _model_key(program: Program, run: Run, t: Array) -> Array | None:
    """The key of the random numbers inside the net at step t; None for a net without."""
    return model_key(run, t) if program.model.is_random else None


def _updated(program: Program, run: Run, state: State, gradient: Any) -> State:
    """The state after the optimizer's update by a gradient."""
    update, opt_state = _update(program, run, state, gradient)
    return State(optax.apply_updates(state.params, update), opt_state, state.model_state)


def _update(program: Program, run: Run, state: State, gradient: Any) -> tuple[Any, Any]:
    """The change of the parameters by a gradient, and the optimizer's new state."""
    if isinstance(program.noise, residual_noise.SVAG):
        run = run._replace(learning_rate=run.learning_rate / program.noise.l)
    optimizer = built_optimizer(program.optimizer, run)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    if (factor := program.model.learning_rate_factor) != 1:
        updates = jax.tree.map(lambda update: factor * update, updates)
    return updates, opt_state


def _of_set(program: Program) -> bool:
    """Whether a step uses all examples of a finite set."""
    return program.full_batch or residual_noise.of_set(program.noise)
