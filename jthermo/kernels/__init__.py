"""The fused engine: all steps between two records in one native kernel, for dense ReLU nets of any depth on CPUs.

:func:`advance` has the arguments and the result of :func:`jthermo.train.advance`, from the same random bits; only
rounding differs. The arithmetic is in ``dense.h``, the call from XLA in ``engine.cc``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jthermo import noise, train
from jthermo.data import Gaussian, Uniform
from jthermo.data.sampling import steps_per_epoch
from jthermo.kernels.library import TARGET, Unavailable, load
from jthermo.models import MLP, TwoLayer

SOURCES = {Gaussian: 0, Uniform: 1}
SAMPLING = {"fresh": 0, "replacement": 1, "epochs": 2}
LOSSES = {"bce": 0, "squared": 1}
NOISES = {noise.Full: 0, noise.Unbiased: 1, noise.LabelAveraged: 2}

__all__ = ["Unavailable", "advance", "load", "refusal"]


def refusal(program: train.Program) -> str | None:
    """What of a program the fused engine lacks; None where it can train it."""
    model, data, optimizer = program.model, program.data, program.optimizer
    dense = isinstance(model, TwoLayer) or (isinstance(model, MLP) and model.arguments["hidden"])
    plain = optimizer.fn is optax.sgd and all(v is None or v is False for v in optimizer.hyper.values())
    for has, what in (
        (dense, f"the model {type(model).__name__}"),
        (type(data) in SOURCES, f"the data {type(data).__name__}"),
        (dense and model.num_outputs == 1, "several outputs"),
        (getattr(data, "num_classes", 2) == 2, "several classes"),
        (getattr(data, "redraw", None) is None, "labels that are redrawn"),
        (program.loss in LOSSES, f"the loss {program.loss}"),
        (type(program.noise) in NOISES, f"the noise {type(program.noise).__name__}"),
        (plain, f"the optimizer {optimizer!r}"),
    ):
        if not has:
            return what
    return None


def advance(
    program: train.Program,
    runs: train.Run,
    state: train.State,
    start: Array,
    stop: Array,
    held: train.HeldArrays,
) -> train.State:
    """Train a block of runs, each with leading axis W, from step `start` to step `stop` on one shared clock."""
    data, batch = program.data, program.batch_size
    keys = jax.vmap(train.streams)(runs)
    zero = jnp.zeros_like(runs.learning_rate)
    low = runs.hyper.get("data.scale", runs.hyper.get("data.low", zero))
    traced = (runs.learning_rate, low, runs.hyper.get("data.high", zero), runs.hyper.get("noise.scale", zero))
    words = [jax.random.key_data(k) for k in (keys.batch, keys.noise, keys.dataset)]
    leaves, tree = jax.tree.flatten(state.params)
    order_of = _by_layer(program.model, state.params)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    call = jax.ffi.ffi_call(
        TARGET,
        [shapes[i] for i in order_of],
        input_output_aliases={10 + i: i for i in range(len(leaves))},
    )
    static = {"widths": _widths(program.model), "options": _options(program)}

    def trained(leaves: list[Array], order: Array, start: Array, stop: Array) -> list[Array]:
        made = call(*words, *traced, start, stop, order, *(leaves[i] for i in order_of), **static)
        return [made[order_of.index(i)] for i in range(len(leaves))]

    if data.num_samples is None or data.sampling != "epochs":
        leaves = trained(leaves, jnp.zeros((len(zero), 0), jnp.int32), start, stop)
    else:
        length = steps_per_epoch(data.num_samples, batch)

        def epoch(carry: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
            t, leaves = carry
            order = jax.vmap(lambda k: train.epoch_order(program, held, k, t))(keys)
            assert order is not None
            end = jnp.minimum(stop, (t // length + 1) * length)
            return end, trained(leaves, order, t, end)

        leaves = jax.lax.while_loop(lambda carry: carry[0] < stop, epoch, (start, leaves))[1]
    return train.State(jax.tree.unflatten(tree, leaves), state.opt_state)


def _by_layer(model: Any, params: Any) -> list[int]:
    """Where the leaves of the parameters come in the kernel's order: weights and bias of each layer in turn."""
    paths = [tuple(k.key for k in path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    if isinstance(model, TwoLayer):
        names: list[tuple[str, ...]] = [("W",), ("b",), ("V",)]
    else:
        names = [(layer, part) for layer in model.layers for part in ("kernel", "bias")]
    return [paths.index(name) for name in names if name in paths]


def _widths(model: Any) -> np.ndarray:
    hidden = model.arguments["hidden"]
    return np.array(
        [model.arguments["inputs"], *(hidden if isinstance(model, MLP) else [hidden]), 1], np.int64
    )


def _options(program: train.Program) -> np.ndarray:
    """The fields of ``Net`` and ``Block`` that are static, in the order in which ``engine.cc`` reads them."""
    model, data, deep = program.model, program.data, isinstance(program.model, MLP)
    bias = model.arguments["bias"]
    sampling = SAMPLING["fresh" if data.num_samples is None else data.sampling]
    kinds = (SOURCES[type(data)], sampling, LOSSES[program.loss], NOISES[type(program.noise)])
    return np.array([bias, bias and deep, program.batch_size, *kinds, data.num_samples or 0, deep], np.int64)
