"""The fused engine on GPUs: all steps between two records of a lane block in one Pallas kernel, through Triton.

A program of the kernel's grid trains a few runs, which are the last axis of all its arrays: weights (out, in, runs) and
activations (units, runs) are values of its loop over steps, so they are on chip from the first step to the last. Triton
takes powers of two only: units are filled up with ones whose weights are zero and stay zero. Random numbers are made in
place from the counters that ``jax.random`` uses. Checked in interpret mode only; never run on a GPU; nothing claimed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jthermo.data import Gaussian
from jthermo.data.sampling import steps_per_epoch
from jthermo.engines import step_program
from jthermo.engines.fused.supported_nets import Net
from jthermo.randomness import threefry
from jthermo.update_rule import residual_noise

LANES = 32  # runs of a program at most: the threads of a warp
HELD = (
    3 << 14
)  # numbers that a program may hold: three quarters of the registers of a multiprocessor
WARPS = 8
Key = tuple[Array, Array]
Layers = list[tuple[Array, Array | None]]  # weights (out, in, runs) and biases (out, runs)


def lanes(net: Net, batch_size: int) -> int:
    """Runs of a program of the grid, a power of two; 0 where not even one fits."""
    room = [_room(n) for n in net.widths]
    held = sum(m * (n + 1) for n, m in itertools.pairwise(room))
    if batch_size > 1:  # the weights before the step and those after it
        held *= 2
    return min(LANES, _room(HELD // held + 1) // 2) if held <= HELD else 0


def block(
    net: Net,
    program: step_program.Program,
    keys: Sequence[Array],
    traced: Sequence[Array],
    start: Array,
    stop: Array,
    order: Array,
    leaves: Sequence[Array],
) -> list[Array]:
    """The parameters of a block of runs after steps `start` … `stop` − 1; see :func:`jthermo.engines.fused.native.block`."""
    group, runs = lanes(net, program.batch_size), len(leaves[0])
    whole = pl.cdiv(runs, group) * group

    def turned(layer: Array) -> Array:
        """(runs, in, out) as (runs, out, in), and back, where the parameters have the inputs first."""
        return jnp.swapaxes(layer, 1, 2) if net.inputs_first and layer.ndim == 3 else layer

    def inside(leaf: Array, shape: tuple[int, ...]) -> Array:
        """A leaf as the kernel holds it: runs last, filled up with zeros."""
        layer = jnp.moveaxis(turned(leaf).reshape(runs, *shape), 0, -1)
        room = (*map(_room, shape), whole)
        return jnp.pad(layer, [(0, n - m) for n, m in zip(room, layer.shape, strict=True)])

    def outside(array: Array, leaf: Array, shape: tuple[int, ...]) -> Array:
        """The leaf as it came."""
        layer = jnp.moveaxis(array[tuple(map(slice, (*shape, runs)))], -1, 0)
        return turned(layer).reshape(leaf.shape)

    def filled(array: Array) -> Array:
        return jnp.pad(array, [(0, whole - runs), *[(0, 0)] * (array.ndim - 1)])

    def last(array: Array) -> pl.BlockSpec:
        """What a program sees of an array with the runs last."""
        return pl.BlockSpec((*array.shape[:-1], group), lambda i: (*(0,) * (array.ndim - 1), i))

    numbers = [filled(a).T for a in (*keys, *traced, order)]
    held = [inside(leaf, shape) for leaf, shape in zip(leaves, net.shapes, strict=True)]
    given = (jnp.stack([start, stop]), *numbers, *held)
    specs = [pl.BlockSpec((2,), lambda i: (0,)), *map(last, given[1:])]

    def call(*given: Array, interpret: bool) -> list[Array]:
        return pl.pallas_call(
            functools.partial(_steps, net, program),
            out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in held],
            grid=(whole // group,),
            in_specs=specs,
            out_specs=[*map(last, held)],
            input_output_aliases={len(given) - len(held) + i: i for i in range(len(held))},
            compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
            interpret=interpret,
        )(*given)

    made = jax.lax.platform_dependent(
        *given,
        cpu=functools.partial(call, interpret=True),
        default=functools.partial(call, interpret=False),
    )
    return [outside(*each) for each in zip(made, leaves, net.shapes, strict=True)]


def _steps(net: Net, program: step_program.Program, clock: Any, *refs: Any) -> None:
    """The kernel: steps clock[0] … clock[1] − 1 of the runs of one program of the grid."""
    batch_key, noise_key, dataset_key = ((ref[0, :], ref[1, :]) for ref in refs[:3])
    learning_rate, low, high, noise_scale = (ref[...] for ref in refs[3:7])
    order, leaves = refs[7], refs[8:]
    held, made = leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]
    rate = learning_rate / program.batch_size

    def step(t: Array, before: list[Array]) -> list[Array]:
        batch, sign = _fold_in(batch_key, t), _fold_in(noise_key, t)

        def example(b: Array, after: list[Array]) -> list[Array]:
            """The step as far as example b and those before it take it."""
            if program.data.num_samples is None:
                x, y = _drawn(program, batch, b, low, high)
            else:
                row = _fold_in(dataset_key, _index(program, batch, order, t, b))
                x, y = _drawn(program, row, 0, low, high)
            inputs, f = _forward(_layers(net, before), x)
            if isinstance(program.noise, residual_noise.Unbiased):
                residual = noise_scale * (2.0 * _coin(sign, b) - 1.0)
            else:
                residual = program.noise.residual(program.loss, f, y, None)
            gradients = _gradients(_layers(net, before), inputs, rate * residual)
            return [a - g for a, g in zip(after, gradients, strict=True)]

        return jax.lax.fori_loop(0, program.batch_size, example, before)

    trained = jax.lax.fori_loop(clock[0], clock[1], step, [ref[...] for ref in held])
    for ref, value in zip(made, trained, strict=True):
        ref[...] = value


def _layers(net: Net, leaves: Sequence[Array]) -> Layers:
    """Weights (out, in, runs) of each layer and its bias (out, runs), if it has one."""
    each = iter(leaves)
    return [(next(each), next(each) if bias else None) for bias in net.biases]


def _forward(layers: Layers, x: Array) -> tuple[list[Array], Array]:
    """What goes into each layer, (units, runs), and the output (runs,)."""
    inputs = [x]
    for weights, bias in layers:
        a = (weights * inputs[-1][None]).sum(1)
        a = a if bias is None else a + bias
        inputs.append(jnp.where(a <= 0, 0.0, a))  # NaN stays: Triton's maximum would drop it
    return inputs[:-1], jnp.squeeze(a, 0)


def _gradients(layers: Layers, inputs: list[Array], delta: Array) -> list[Array]:
    """Of weights and bias of each layer in turn, where δ (runs,) is dL/df times the step."""
    found: list[Array] = []
    above = delta[None]
    for number in reversed(range(len(layers))):
        (weights, bias), h = layers[number], inputs[number]
        found = [above[:, None] * h[None], *([] if bias is None else [above]), *found]
        if number:
            above = jnp.where(h > 0, (weights * above[:, None]).sum(0), 0.0)
    return found


def _drawn(
    program: step_program.Program, key: Key, number: Any, low: Array, high: Array
) -> tuple[Array, Array]:
    """Example `number` of those that a key draws: x (units, runs), zero where there is no input, and labels (runs,)."""
    dim = program.data.dim
    unit = jax.lax.broadcasted_iota(jnp.int32, (_room(dim), 1), 0)
    key_x, key_y = (_fold_in(key, i) for i in (0, 1))
    u = _uniform(_draw((key_x[0][None], key_x[1][None]), number * dim + unit))
    gaussian = isinstance(program.data, Gaussian)
    x = (
        low * threefry.from_uniform(2.0 * u + threefry.LOWEST)
        if gaussian
        else low + (high - low) * u
    )
    return jnp.where(unit < dim, x, 0.0), _coin(key_y, number)


def _index(program: step_program.Program, key: Key, order: Any, t: Array, b: Array) -> Array:
    """Which row of the finite set example b of step t is, (runs,)."""
    size = program.data.num_samples
    if program.data.sampling == "epochs":
        return order[t % steps_per_epoch(size, program.batch_size) * program.batch_size + b, :]
    upper, lower = (
        _draw(_fold_in(key, i), b) for i in (0, 1)
    )  # as jax.random.randint makes them one number
    n, carry = np.uint32(size), np.uint32(((1 << 16) % size) ** 2 % (1 << 32) % size)
    return (upper % n * carry + lower % n) % n


def _fold_in(key: Key, data: Any) -> Key:
    return threefry.threefry2x32(key, (jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32)))


def _draw(key: Key, count: Any) -> Array:
    """32 random bits, those of ``jax.random.bits`` at `count`."""
    first, second = _fold_in(key, count)
    return first ^ second


def _uniform(bits: Array) -> Array:
    """U[0, 1) from the upper 23 bits."""
    return (
        jax.lax.bitcast_convert_type((bits >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32)
        - 1.0
    )


def _coin(key: Key, count: Any) -> Array:
    """0.0 or 1.0, as ``jax.random.bernoulli`` draws them."""
    return jnp.where(_draw(key, count) < np.uint32(1 << 31), 1.0, 0.0)


def _room(size: int) -> int:
    """The power of two from `size` up."""
    return 1 << (size - 1).bit_length()
