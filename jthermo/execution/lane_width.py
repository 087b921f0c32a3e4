"""W, the number of runs that are vectorised together: the rule and its measurements."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jthermo.engines import step_program
from jthermo.models import CNN, Model
from jthermo.observables.cost import largest, primitives
from jthermo.sweep.sweep import Sweep

# parameters × batch size up to which a step is dominated by its overhead: more lanes hide it
SMALL = 4096
# threads that a multiprocessor of a GPU keeps at once, and the multiprocessors of an NVIDIA H100, for plans without a GPU
THREADS, MULTIPROCESSORS = 2048, 132
# fewest and most lanes of a block by XLA on a GPU
GPU_LANES = (4, 4096)
# of the Pallas kernel per block: a part of a GPU, since all blocks are one launch and the last of each clock is not full
PROGRAMS = 32


def widths(sweep: Sweep, engine: str) -> dict[str, int]:
    """W of every configuration, by its key, as the sweep begins on this machine."""
    programs = {
        sweep.key_of(c): step_program.split(c, sweep.record, engine)[0] for c in sweep.groups
    }
    return {key: _width(sweep, program) for key, program in programs.items()}


def _width(sweep: Sweep, program: step_program.Program, platform: str | None = None) -> int:
    return sweep.lane_width or lane_width(program, platform or jax.default_backend())


def lane_width(program: step_program.Program, platform: str) -> int:
    """W by rule: on a CPU 32 lanes hide the overhead of a small net's step; of larger nets a block stays in a core's cache.

    On a GPU by XLA a block has as many lanes as give every thread one number of the widest array of a step, a power of two
    from 4 to 4096: a step costs several launches however narrow it is, and past that width time grows with the lanes. The
    Pallas kernel takes 32 of its programs. Neither has been measured on a GPU. Another accelerator takes 256.
    A processor's time per run-step by XLA at B = 1, of the 10-10-1 net: 272 ns for W = 8, 213 for 16, 190 for 32, 176 for
    64, which leaves a core without work up to 64 runs; of the 10-316-1 net 2.4 µs for 8 to 32; of the 100-100-1 net 2.5
    for 4, 3.6 for 16; of the 6-layer net of 50,601 parameters 21 for 4, 31 for 8, 36 for 16, 42 for 32, and at B = 16 103,
    116, 128 for 4, 8, 16. The fused kernel takes 16 at once. A net
    with convolutions takes one, since a single run fills the cache: see :func:`convolution_rule`.
    """
    size = sum(math.prod(v.shape) for v in jax.tree.leaves(program.model.shapes))
    small = size * program.batch_size <= SMALL
    if platform == "gpu":
        return _gpu_lanes(program)
    if platform != "cpu":
        return 256
    if convolution_rule(program.model):
        return 1
    if small:
        return 32
    return 16 if size <= SMALL or program.engine == "fused" else 4


def _gpu_lanes(program: step_program.Program) -> int:
    """W on a GPU; see :func:`lane_width`."""
    if program.engine == "pallas":
        from jthermo.engines.fused import pallas
        from jthermo.engines.fused.supported_nets import net_of

        net = net_of(program.model)
        assert net is not None
        return PROGRAMS * pallas.shape(net, program.batch_size).runs
    count = MULTIPROCESSORS
    if jax.default_backend() == "gpu":
        count = getattr(jax.devices()[0], "core_count", MULTIPROCESSORS)
    lanes = count * THREADS / _widest(program.model, program.batch_size)
    fewest, most = GPU_LANES
    return min(most, max(fewest, 1 << max(0, round(math.log2(lanes)))))


@functools.lru_cache(maxsize=256)
def _widest(model: Model, batch_size: int) -> int:
    """Elements of the largest array of a model's forward pass, or of its parameters."""
    x = jax.ShapeDtypeStruct((batch_size, *model.input_shape), jnp.float32)
    forward = jax.make_jaxpr(model.apply)(model.shapes, x).jaxpr
    return max(largest(forward), *(math.prod(v.shape) for v in jax.tree.leaves(model.shapes)))


@functools.lru_cache(maxsize=256)
def convolution_rule(model: Model) -> str | None:
    """How the lanes of a net with convolutions are vectorised, in words; None for other nets.

    Measured once, a processor's time per run-step of the 6-layer CNN: with patches and matrix products ("im2col") 0.80 ms
    for W = 1 and 1.30 for W = 4 at B = 1, 7.9 and 11.5 ms at B = 8; with XLA's convolution, which several lanes turn into
    a grouped one, 9.0 ms for W = 1 and 10.8 for W = 4 at B = 1. So :class:`jthermo.models.CNN` takes patches; a user's
    flax ``Conv`` is what it is. One lane also needs a quarter of the memory of four, and no block is left half empty.
    """
    if isinstance(model, CNN):
        return "im2col and matrix products, on a CPU one run at a time: ten times as fast as XLA's convolution in a loop"
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.float32)
    forward = jax.make_jaxpr(model.apply)(model.shapes, x).jaxpr
    if "conv_general_dilated" in primitives(forward):
        return "XLA's convolution as the flax module has it, on a CPU one run at a time; jt.models.CNN is faster there"
    return None
