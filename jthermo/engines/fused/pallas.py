"""The fused engine on GPUs: a Pallas kernel that does all steps between two records.

The kernel goes through Pallas' Triton backend. Each program of its grid trains a few runs, and
their weights stay in registers from the first step to the last. The threads of a program share the
units of its runs: weights are (out, in, runs) and activations (units, runs), padded with zeros to
powers of two. In a second layout, see :class:`Shape`, each thread holds whole runs, unrolled over
their units. Random numbers are made in place from the counters that ``jax.random`` uses.

The kernel agrees with XLA in interpret mode on a CPU, and JAX 0.11.2 compiles it for compute
capability 9.0. It has never been run on a GPU. The layouts follow from the registers and
instructions of the compiled code, not from timings.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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

# Most weights of a run, in layers padded to powers of two: three quarters of the 65,536 registers
# of a multiprocessor. For B > 1 a weight counts twice, before the step and after it.
HELD = 3 << 14
# Most parameters of a run for which one thread holds whole runs; 0 disables that layout until a GPU
# has been measured. With 128, the 10-10-1 net takes less than half the instructions, but a minute
# of processor time to compile instead of 2 s: one pass of Triton is quadratic in the kernel's size.
UNROLLED = 0
# Weights per warp in the other layout, counted as for HELD; B > 1 gets half as many. The code that
# JAX 0.11.2 compiles for compute capability 9.0 then spills nothing for 10-10-1 (16 runs on one
# warp) and 10-32-1 (8 runs), and 104 bytes per thread for 100-100-1 (2 runs on eight warps).
PER_WARP = 5000
Key = tuple[Array, Array]
# Weights (out, in, runs) and biases (out, runs) or None. Where unrolled, they are NumPy arrays
# (out, in) and (out,) whose elements are (runs,).
Layers = list[tuple[Any, Any]]


class Shape(NamedTuple):
    """How the runs of a block are laid out on a GPU.

    Attributes:
        runs: runs per program of the grid, a power of two; 0 if not even one fits.
        warps: warps per program.
        unrolled: whether each thread holds whole runs; otherwise threads share the units of a run.
    """

    runs: int
    warps: int
    unrolled: bool


def shape(net: Net, batch_size: int) -> Shape:
    """The layout for a net: the fewest warps that hold at least two runs in their registers."""
    twice = 1 if batch_size == 1 else 2  # the weights before the step and those after it
    if twice * sum(math.prod(leaf) for leaf in net.shapes) <= UNROLLED:
        return Shape(32, 1, True)
    room = [_room(n) for n in net.widths]
    held = twice * sum(m * (n + 1) for n, m in itertools.pairwise(room))
    if held > HELD:
        return Shape(0, 1, False)
    warps = next((w for w in (1, 2, 4) if w * PER_WARP >= 2 * twice * held), 8)
    return Shape(max(1, min(32, _room(warps * PER_WARP // (twice * held) + 1) // 2)), warps, False)


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
    """The parameters of a block of runs after steps `start` … `stop` − 1.

    The arguments are those of :func:`jthermo.engines.fused.native.block`.
    """
    laid, runs = shape(net, program.batch_size), len(leaves[0])
    group, room = laid.runs, (lambda n: n) if laid.unrolled else _room
    whole = pl.cdiv(runs, group) * group

    def turned(layer: Array) -> Array:
        """(runs, in, out) as (runs, out, in), and back, if parameters have the inputs first."""
        return jnp.swapaxes(layer, 1, 2) if net.inputs_first and layer.ndim == 3 else layer

    def inside(leaf: Array, shape: tuple[int, ...]) -> Array:
        """A leaf as the kernel holds it: runs last, filled up with zeros."""
        layer = jnp.moveaxis(turned(leaf).reshape(runs, *shape), 0, -1)
        full = (*map(room, shape), whole)
        return jnp.pad(layer, [(0, n - m) for n, m in zip(full, layer.shape, strict=True)])

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
            functools.partial(_steps, net, program, laid.unrolled),
            out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in held],
            grid=(whole // group,),
            in_specs=specs,
            out_specs=[*map(last, held)],
            input_output_aliases={len(given) - len(held) + i: i for i in range(len(held))},
            compiler_params=triton.CompilerParams(num_warps=laid.warps, num_stages=1),
            interpret=interpret,
        )(*given)

    made = jax.lax.platform_dependent(
        *given,
        cpu=functools.partial(call, interpret=True),
        default=functools.partial(call, interpret=False),
    )
    return [outside(*each) for each in zip(made, leaves, net.shapes, strict=True)]


def _steps(net: Net, program: step_program.Program, unrolled: bool, clock: Any, *refs: Any) -> None:
    """The kernel: steps clock[0] … clock[1] − 1 of the runs of one program of the grid."""
    batch_key, noise_key, dataset_key = ((ref[0, :], ref[1, :]) for ref in refs[:3])
    learning_rate, low, high, noise_scale = (ref[...] for ref in refs[3:7])
    order, leaves = refs[7], refs[8:]
    held, made = leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]
    rate = learning_rate / program.batch_size
    drawn = _drawn_singly if unrolled else _drawn

    def layers(before: list[Array]) -> Layers:
        """Weights and bias of each layer, as the values that a loop carries."""
        each = iter(_gathered(net.shapes, before) if unrolled else before)
        return [(next(each), next(each) if bias else None) for bias in net.biases]

    def step(t: Array, before: list[Array]) -> list[Array]:
        batch, sign = _fold_in(batch_key, t), _fold_in(noise_key, t)

        def example(b: Array, after: list[Array]) -> list[Array]:
            """The step as far as example b and those before it take it."""
            if program.data.num_samples is None:
                x, y = drawn(program, batch, b, low, high)
            else:
                row = _fold_in(dataset_key, _index(program, batch, order, t, b))
                x, y = drawn(program, row, 0, low, high)
            inputs, f = _forward(layers(before), x)
            if isinstance(program.noise, residual_noise.Unbiased):
                residual = noise_scale * (2.0 * _coin(sign, b) - 1.0)
            else:
                residual = program.noise.residual(program.loss, f, y, None)
            gradients = _gradients(layers(before), inputs, rate * residual)
            return [
                a - g
                for a, g in zip(after, _spread(gradients) if unrolled else gradients, strict=True)
            ]

        return jax.lax.fori_loop(0, program.batch_size, example, before)

    # where the values of a loop come from and go to: each element of a leaf, or all of it
    parts = [
        (a, b, (*at, slice(None)) if unrolled else ...)
        for a, b, leaf in zip(held, made, net.shapes, strict=True)
        for at in (np.ndindex(leaf) if unrolled else [()])
    ]
    trained = jax.lax.fori_loop(clock[0], clock[1], step, [a[at] for a, _, at in parts])
    for (_, b, at), value in zip(parts, trained, strict=True):
        b[at] = value


def _gathered(shapes: Sequence[tuple[int, ...]], values: Sequence[Array]) -> list[np.ndarray]:
    """NumPy arrays of these shapes whose elements are the values, (runs,) each.

    NumPy's arithmetic on them is unrolled over their elements.
    """
    made, each = [np.empty(shape, object) for shape in shapes], iter(values)
    for array in made:
        for at in np.ndindex(array.shape):
            array[at] = next(each)
    return made


def _spread(arrays: Sequence[np.ndarray]) -> list[Array]:
    """The elements of such arrays, one after the other."""
    return [value for array in arrays for value in array.ravel().tolist()]


def _forward(layers: Layers, x: Any) -> tuple[list[Any], Array]:
    """What goes into each layer, (units, runs), and the output (runs,)."""
    inputs = [x]
    for weights, bias in layers:
        a = (weights * inputs[-1][None]).sum(1)
        a = a if bias is None else a + bias
        # NaN stays: Triton's maximum would drop it
        inputs.append(_map(lambda a: jnp.where(a <= 0, 0.0, a), a))
    return inputs[:-1], a[0] if isinstance(a, np.ndarray) else jnp.squeeze(a, 0)


def _gradients(layers: Layers, inputs: list[Any], delta: Array) -> list[Any]:
    """Of weights and bias of each layer in turn, where δ (runs,) is dL/df times the step."""
    found: list[Any] = []
    above = _gathered([(1,)], [delta])[0] if isinstance(inputs[0], np.ndarray) else delta[None]
    for number in reversed(range(len(layers))):
        (weights, bias), h = layers[number], inputs[number]
        found = [above[:, None] * h[None], *([] if bias is None else [above]), *found]
        if number:
            above = _map(
                lambda h, g: jnp.where(h > 0, g, 0.0), h, (weights * above[:, None]).sum(0)
            )
    return found


def _map(function: Callable[..., Array], *arrays: Any) -> Any:
    """A function of arrays, elementwise also where the elements are arrays themselves."""
    if isinstance(arrays[0], np.ndarray):
        return np.frompyfunc(function, len(arrays), 1)(*arrays)
    return function(*arrays)


def _drawn(
    program: step_program.Program, key: Key, number: Any, low: Array, high: Array
) -> tuple[Array, Array]:
    """Example `number` of those that a key draws: x (units, runs) and labels (runs,).

    Units in excess of the inputs are zero.
    """
    dim = program.data.dim
    unit = jax.lax.broadcasted_iota(jnp.int32, (_room(dim), 1), 0)
    key_x, key_y = (_fold_in(key, i) for i in (0, 1))
    words, counts = (key_x[0][None], key_x[1][None]), number * dim + unit
    x = _input(program, words, counts, low[None], high[None])
    return jnp.where(unit < dim, x, 0.0), _coin(key_y, number)


def _drawn_singly(
    program: step_program.Program, key: Key, number: Any, low: Array, high: Array
) -> tuple[np.ndarray, Array]:
    """The same where a thread holds a run: x is an array of (runs,)."""
    dim = program.data.dim
    key_x, key_y = (_fold_in(key, i) for i in (0, 1))
    x = [_input(program, key_x, number * dim + unit, low, high) for unit in range(dim)]
    return _gathered([(dim,)], x)[0], _coin(key_y, number)


def _input(program: step_program.Program, key: Key, count: Any, low: Array, high: Array) -> Array:
    """Components of x from the numbers at `count`."""
    u = _uniform(_draw(key, count))
    if isinstance(program.data, Gaussian):
        return low * threefry.from_uniform(2.0 * u + threefry.LOWEST)
    return low + (high - low) * u


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
