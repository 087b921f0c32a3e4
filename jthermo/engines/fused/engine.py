"""What the fused engine supports (nets, data, loss, noise, optimizer), and its update of a block.

:func:`advance` has the arguments and the result of :func:`jthermo.engines.xla.advance` and uses the
same random numbers; only rounding differs. The kernel is ``native`` (C++) on CPUs and ``pallas`` on
GPUs. The native one also takes the records, see :func:`train`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jthermo.data import Arrays
from jthermo.data.sampling import steps_per_epoch
from jthermo.engines import batches, run_state, step_program
from jthermo.engines.fused import native
from jthermo.engines.fused.build import Unavailable, load
from jthermo.engines.fused.native import LOSSES, NOISES, SOURCES
from jthermo.engines.fused.statistics import measured, statistics
from jthermo.engines.fused.supported_nets import by_layer, net_of
from jthermo.models.built_in import BuiltIn
from jthermo.randomness import streams
from jthermo.update_rule import losses
from jthermo.update_rule.optimizer import weight_decay_sgd

__all__ = ["Unavailable", "advance", "load", "measured", "refusal", "train"]


def refusal(program: step_program.Program, engine: str) -> str | None:
    """What a program needs and the kernel does not support; None if the kernel can train it."""
    model, data, optimizer = program.model, program.data, program.optimizer
    net = net_of(model)
    native_only = engine == "fused"
    plain = {"momentum", "nesterov", "weight_decay"} if native_only else set()
    sgd = optimizer.fn in (optax.sgd, weight_decay_sgd) and all(
        value is None or value is False
        for name, value in optimizer.hyper.items()
        if name not in plain
    )
    fits = net is None or engine == "fused" or _kernel(engine).shape(net, program.batch_size).runs
    for has, what in (
        (program.dtype == "float32", f"dtype={program.dtype!r}"),
        (net is not None, f"the model {_named(model)}"),
        (not program.full_batch, "batch_size='full'"),
        (
            type(data) in SOURCES and (native_only or not isinstance(data, Arrays)),
            f"the data {type(data).__name__}",
        ),
        (not getattr(data, "integer", False), "data with integer=True"),
        ((data.num_targets or 1) == 1, "targets of several numbers"),
        (model.num_outputs == 1 or native_only, "several outputs"),
        (getattr(data, "num_classes", 2) == 2 or native_only, "several classes"),
        (
            getattr(data, "redraw", None) is None and getattr(data, "labels", None) != "redrawn",
            "labels that are redrawn",
        ),
        (program.loss in LOSSES, f"the loss {losses.name(program.loss)}"),
        (type(program.noise) in NOISES, f"the noise {type(program.noise).__name__}"),
        (sgd, f"the optimizer {optimizer!r}"),
        (fits, "a net whose weights exceed a GPU's on-chip memory"),
    ):
        if not has:
            return what
    return None


def _named(model: Any) -> str:
    """The model's class, and the options that the kernel does not have."""
    if not isinstance(model, BuiltIn):
        return model.title
    plain = {"activation": "relu", "parametrization": "standard"}
    other = [f"{k}={v!r}" for k, v in model.arguments.items() if plain.get(k, v) != v]
    return type(model).__name__ + (f" with {', '.join(other)}" if other else "")


def advance(
    program: step_program.Program,
    runs: step_program.Run,
    state: run_state.State,
    start: Array,
    stop: Array,
    held: step_program.HeldArrays,
) -> run_state.State:
    """Train a block of runs (leading axis W) from step `start` to step `stop`."""
    return _train(program, runs, state, start, stop, None, held)[0]


def train(
    program: step_program.Program,
    runs: step_program.Run,
    state: run_state.State,
    start: Array,
    stop: Array,
    marks: Array,
    held: step_program.HeldArrays,
) -> tuple[run_state.State, dict[str, Array]]:
    """Train a block of runs with the native kernel, and record it on the way.

    Args:
        program: the static program; :func:`measured` lists which of its observables are recorded.
        runs: the runs, with leading axis W.
        state: their states, with leading axis W.
        start: number of steps already trained.
        stop: number of steps at the end.
        marks: (S,) the ascending steps from `start` to `stop` that are recorded; −1 for none.
        held: arrays of a data set in memory.

    Returns:
        The states, and (W, S) by variable; NaN, and ``finite`` False, where there is no mark.
    """
    state, recorded = _train(program, runs, state, start, stop, marks, held)
    assert recorded is not None
    values = dict(zip(statistics(program), jnp.moveaxis(recorded, -1, 0), strict=True))
    return state, values | {"finite": values["finite"] == 1}


def _train(
    program: step_program.Program,
    runs: step_program.Run,
    state: run_state.State,
    start: Array,
    stop: Array,
    marks: Array | None,
    held: step_program.HeldArrays,
) -> tuple[run_state.State, Array | None]:
    """The states at step `stop`, and the records at the marks if there are any."""
    data, batch = program.data, program.batch_size
    keys = jax.vmap(streams.streams)(runs)
    # from the runs, so that it has their axes under vmap
    zero = 0 * runs.learning_rate
    low = runs.hyper.get("data.scale", runs.hyper.get("data.low", zero))
    traced: tuple[Array, ...] = (
        runs.learning_rate,
        low,
        runs.hyper.get("data.high", zero),
        runs.hyper.get("noise.scale", zero),
    )
    words = [jax.random.key_data(k) for k in (keys.batch, keys.noise, keys.dataset)]
    if marks is not None:
        words.append(jax.random.key_data(jax.vmap(streams.probe_stream)(runs)))
        for name in ("momentum", "weight_decay"):
            # a whole number is static
            static = zero + (program.optimizer.hyper.get(name) or 0.0)
            traced = (*traced, runs.hyper.get(f"optimizer.{name}", static))
    # with momentum, the optimizer's state is a velocity for each of the parameters
    leaves, tree = jax.tree.flatten((state.params, state.opt_state))
    order_of, net = by_layer(program.model, state.params), net_of(program.model)
    assert net is not None
    if len(leaves) > len(order_of):
        order_of += [len(order_of) + i for i in order_of]
    examples = (held["x"], held["y"]) if held else (jnp.zeros(1), jnp.zeros(1))
    block = functools.partial(_kernel(program.engine).block, net, program, words, traced)

    def trained(
        leaves: list[Array], order: Array, start: Array, stop: Array, marks: Array | None
    ) -> tuple[list[Array], Array | None]:
        inside, recorded = [leaves[i] for i in order_of], None
        if marks is None:
            layers = block(start, stop, order, inside)
        else:
            layers, recorded = block(start, stop, order, inside, marks, examples)
        return [layers[order_of.index(i)] for i in range(len(leaves))], recorded

    no_order, size = zero.astype(jnp.int32)[:, None], data.size(held)
    if size is None or data.sampling != "epochs":
        leaves, recorded = trained(leaves, no_order, start, stop, marks)
    else:
        length = steps_per_epoch(size, batch)

        def part(carry: Any, order: Array, end: Array, last: Array) -> Any:
            """Train to step `end` and take the records before step `last`."""
            t, leaves, before = carry
            due = None if marks is None else jnp.where((marks >= t) & (marks < last), marks, -1)
            leaves, recorded = trained(leaves, order, t, end, due)
            merged = jax.tree.map(lambda r, b: jnp.where(jnp.isnan(r), b, r), recorded, before)
            return end, leaves, merged

        def epoch(carry: Any) -> Any:
            t = carry[0]
            order = jax.vmap(lambda k: batches.epoch_order(program, held, k, t))(keys)
            assert order is not None
            # that of a single example depends on no key, so it would have no axis of blocks
            order = order + no_order
            end = jnp.minimum(stop, (t // length + 1) * length)
            return part(carry, order, end, end)

        blank = None
        if marks is not None:
            blank = jnp.full((len(zero), len(marks), len(statistics(program))), jnp.nan)
        carry = jax.lax.while_loop(lambda c: c[0] < stop, epoch, (start, leaves, blank))
        if marks is not None:
            # those at the last step, which no epoch has taken
            carry = part(carry, no_order, stop, stop + 1)
        _, leaves, recorded = carry
    params, opt_state = jax.tree.unflatten(tree, leaves)
    return state._replace(params=params, opt_state=opt_state), recorded


def _kernel(engine: str) -> Any:
    """The module of a kernel, by the engine's name in the results; Pallas is imported on use."""
    if engine == "fused":
        return native
    from jthermo.engines.fused import pallas

    return pallas
