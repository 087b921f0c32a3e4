"""One step for one run, the loop over steps, and one record: everything a device executes, written without placement.

A run is (seed, stream, η, hyperparameters); its randomness is ``fold_in(fold_in(fold_in(key(seed), role), stream),
step)``, so no key and no iterator is part of the state, and adding runs changes no other run.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jthermo.data import Teacher, sampling
from jthermo.data.in_memory import InMemory
from jthermo.models import Model
from jthermo.observables import Observable, Probe
from jthermo.randomness import threefry
from jthermo.sweep.record import Record
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.spec_value import float_fields
from jthermo.sweep.sweep import Sweep
from jthermo.update_rule import losses
from jthermo.update_rule.optimizer import Optimizer

KEY_IMPL = threefry.IMPL
HeldArrays = Mapping[
    str, Any
]  # the examples of a set that is held whole, shared by all runs; empty for the others


class Role(IntEnum):
    """What a random number is for. These integers are part of every result's identity: never renumber them."""

    INIT = 0
    BATCH = 1
    NOISE = 2
    PROBE = 3
    DATASET = 4
    TEST = 5
    ESTIMATE = 6


@dataclass(frozen=True)
class Program:
    """What is static in a group of runs: two runs with equal programs share their compiled code.

    The floats of data, noise and optimizer stand at zero here; each run brings its own (see :func:`split`).
    """

    model: Model
    data: Any
    noise: Any
    optimizer: Optimizer
    loss: str
    batch_size: int
    observables: tuple[Observable, ...]
    probe_size: int
    engine: str = "xla"


class Run(NamedTuple):
    """What is traced: one run's numbers, or a batch of runs with leading axes; NumPy on the host.

    Attributes:
        seed: () uint32.
        stream: () uint32, the hash of the run's configuration; 0 where the sweep shares its data.
        learning_rate: () float32, η.
        hyper: () float32 by dotted name, every float of data, noise and optimizer.
    """

    seed: Any
    stream: Any
    learning_rate: Any
    hyper: Mapping[str, Any]


class Streams(NamedTuple):
    """The keys of a run that a step folds its number into; the finite data set is shared by the runs of a seed."""

    batch: Array
    noise: Array
    dataset: Array


class State(NamedTuple):
    """What training carries and a checkpoint keeps: parameters and optimizer state."""

    params: Any
    opt_state: Any


def split(config: RunConfig, record: Record, engine: str = "xla") -> tuple[Program, dict[str, float]]:
    """A configuration's static part and its traced floats."""
    parts = {"data": config.data, "noise": config.noise, "optimizer": config.optimizer}
    hyper = {f"{part}.{k}": v for part, value in parts.items() for k, v in float_fields(value).items()}
    data, noise, optimizer = (_bind(v, dict.fromkeys(float_fields(v), 0.0)) for v in parts.values())
    model = config.model.step_model()
    static = (model, data, noise, optimizer, config.loss, config.batch_size)
    return Program(*static, record.observables, record.probe_size, engine), hyper


def programs(sweep: Sweep) -> tuple[Program, ...]:
    """The different programs of a sweep, by the XLA engine."""
    return tuple(dict.fromkeys(split(config, sweep.record)[0] for config in sweep.configs))


def init(model: Model, optimizer: Optimizer, run: Run) -> State:
    """The state of one run before its first step; runs of one seed share their parameters."""
    params = model.init(jax.random.fold_in(_key(run.seed), Role.INIT))
    return State(params, _built(optimizer, run).init(params))


def advance(program: Program, runs: Run, state: State, start: Array, stop: Array, held: HeldArrays) -> State:
    """Train a block of runs, each with leading axis W, from step `start` to step `stop` on one shared clock."""
    keys = jax.vmap(streams)(runs)
    order_of = jax.vmap(functools.partial(epoch_order, program, held), in_axes=(0, None))
    batch_of = jax.vmap(functools.partial(_batch, program, held), in_axes=(0, 0, 0, None))
    step = jax.vmap(functools.partial(_step, program), in_axes=(0, 0, 0, 0, None))

    def body(t: Array, carry: tuple[State, Any, Any]) -> tuple[State, Any, Any]:
        state, order, batch = carry
        state = step(runs, keys, state, batch, t)
        if (
            order is not None
        ):  # a sort a step would cost more than the step, so the order of an epoch is carried
            order = jax.lax.cond(
                _begins_epoch(program, held, t + 1), lambda: order_of(keys, t + 1), lambda: order
            )
        # the next batch crosses the turn of the loop: XLA would otherwise draw a number anew wherever it is used
        return state, order, batch_of(runs, keys, order, t + 1)

    order = order_of(keys, start)
    return jax.lax.fori_loop(start, stop, body, (state, order, batch_of(runs, keys, order, start)))[0]


def observe(
    program: Program, run: Run, state: State, step: Array, record: Array, held: HeldArrays
) -> dict[str, Array]:
    """Every observable of one run at one record, NaN where the run has diverged; ``finite`` says which."""
    data = _source(program, run)
    probe_key, test_key, estimate_key = (
        jax.random.fold_in(_stream(run, role), step) for role in (Role.PROBE, Role.TEST, Role.ESTIMATE)
    )
    if isinstance(data, InMemory):
        dataset = _dataset(run)
        x, y = data.sample(held, probe_key, dataset, program.probe_size)
        test = data.sample(held, test_key, dataset, program.probe_size, test=True) if data.has_test else None
    else:
        (x, y), test = data.draw(probe_key, program.probe_size), None
    probe = Probe(x, y, data, program.loss, run.learning_rate, program.batch_size, test, estimate_key, record)
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)]).all()
    recorded: dict[str, Array] = {}
    for observable in program.observables:
        recorded |= observable(program.model, state.params, probe)
    # a diverged run would read activation rate 0.0 and mimic the paper's effect
    masked = {k: jnp.where(finite, v.astype(jnp.float32), jnp.nan) for k, v in recorded.items()}
    return masked | {"finite": finite}


def _step(
    program: Program, run: Run, keys: Streams, state: State, batch: tuple[Array, Array], t: Array
) -> State:
    """θ ← θ − η g with g = (1/B) Σ r ∇f and r the residual p − y, or what the noise control puts in its place."""
    x, y = batch
    outputs, pull_back = jax.vjp(lambda params: program.model.apply(params, x), state.params)
    target = losses.targets(program.loss, y, program.model.num_outputs)
    noise = _bound(program.noise, "noise", run)
    residual = noise.residual(program.loss, outputs, target, jax.random.fold_in(keys.noise, t))
    (gradient,) = pull_back(residual / program.batch_size)
    updates, opt_state = _built(program.optimizer, run).update(gradient, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state)


def _batch(
    program: Program, held: HeldArrays, run: Run, keys: Streams, order: Array | None, t: Array
) -> tuple[Array, Array]:
    """X (B, …) and labels (B,) of step t."""
    data, size = _source(program, run), _set_size(program, held)
    if size is None:
        key = jax.random.fold_in(keys.batch, t)
        x, y = data.draw(key, program.batch_size)
        return x, data.redrawn(y, jax.random.fold_in(key, 1)) if isinstance(data, Teacher) else y
    if order is None:
        index = sampling.with_replacement(keys.batch, t, program.batch_size, size)
    else:
        index = sampling.by_epoch(order, t, program.batch_size)
    fresh = jax.random.fold_in(jax.random.fold_in(keys.batch, t), 1)
    if isinstance(data, InMemory):
        return data.gather(held, index, keys.dataset, fresh)
    x, y = sampling.rows(data.draw, keys.dataset, index)
    return x, data.redrawn(y, fresh)


def epoch_order(program: Program, held: HeldArrays, keys: Streams, t: Array) -> Array | None:
    """The order of the examples in the epoch of step t; None where there are no epochs."""
    size = _set_size(program, held)
    if size is None or program.data.sampling != "epochs":
        return None
    return sampling.permutation(keys.batch, t // sampling.steps_per_epoch(size, program.batch_size), size)


def _begins_epoch(program: Program, held: HeldArrays, t: Array) -> Array:
    size = _set_size(program, held)
    assert size is not None
    return t % sampling.steps_per_epoch(size, program.batch_size) == 0


def _set_size(program: Program, held: HeldArrays) -> int | None:
    """N of a finite set, None for fresh data."""
    return program.data.size(held) if isinstance(program.data, InMemory) else program.data.num_samples


def _key(seed: Array) -> Array:
    return jax.random.key(seed, impl=KEY_IMPL)


def _stream(run: Run, role: Role) -> Array:
    """The key of a role's stream for a run."""
    return jax.random.fold_in(jax.random.fold_in(_key(run.seed), role), run.stream)


def streams(run: Run) -> Streams:
    """The keys of a run that every step folds its number into."""
    return Streams(_stream(run, Role.BATCH), _stream(run, Role.NOISE), _dataset(run))


def _dataset(run: Run) -> Array:
    """The key of a seed's finite data set, the same for all of its runs."""
    return jax.random.fold_in(_key(run.seed), Role.DATASET)


def _built(optimizer: Optimizer, run: Run) -> optax.GradientTransformation:
    return optimizer.build(run.learning_rate, _own(run, "optimizer"))


def _source(program: Program, run: Run) -> Any:
    """The data source as a run sees it: its floats, and its teacher, that of the seed."""
    data = _bound(program.data, "data", run)
    return data.of_seed(_dataset(run)) if isinstance(data, Teacher) else data


def _bound(value: Any, part: str, run: Run) -> Any:
    return _bind(value, _own(run, part))


def _own(run: Run, part: str) -> dict[str, Array]:
    return {k.partition(".")[2]: v for k, v in run.hyper.items() if k.startswith(f"{part}.")}


def _bind(value: Any, floats: dict[str, Any]) -> Any:
    """A copy of a spec value with its floats put in unchecked: inside a program they are tracers."""
    made = copy.copy(value)
    if isinstance(made, Optimizer):
        made.hyper = {**made.hyper, **floats}
        return made
    for name, new in floats.items():
        object.__setattr__(made, name, new)
    return made


def as_runs(
    configs: list[RunConfig], hypers: list[dict[str, float]], seeds: np.ndarray, streams: np.ndarray
) -> Run:
    """A batch of runs as NumPy arrays with leading axis (R,)."""
    return Run(
        seeds.astype(np.uint32),
        streams.astype(np.uint32),
        np.array([c.learning_rate for c in configs], np.float32),
        {k: np.array([h[k] for h in hypers], np.float32) for k in hypers[0]},
    )
