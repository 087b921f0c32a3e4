"""W, the number of runs that are vectorised together: the rule and the measurements behind it."""

from __future__ import annotations

import functools
import math

import jax

from jthermo.engines import step_program
from jthermo.models import CNN, Model
from jthermo.observables.cost import largest, primitives
from jthermo.sweep.sweep import Sweep

# Bound on parameters × batch size of a small net, whose step is mostly overhead that more lanes
# hide. It separates the 10-316-1 net from the 100-100-1 net of the timings in lane_width.
SMALL = 4096
# Threads that a multiprocessor of an NVIDIA GPU keeps resident, and the number of multiprocessors
# of an H100, which is assumed in a plan for GPUs made on a machine without one.
THREADS, MULTIPROCESSORS = 2048, 132
# Fewest and most lanes of a block with XLA on a GPU.
GPU_LANES = (4, 4096)
# Programs of the Pallas kernel per block. One launch trains all blocks, so a block need not fill
# the GPU, and a small one leaves few lanes unused if a sweep has many step counts with few seeds.
PROGRAMS = 32


def widths(sweep: Sweep, engine: str) -> dict[str, int]:
    """W of every configuration by its key, for a sweep that begins on this machine."""
    programs = {
        sweep.key_of(c): step_program.split(c, sweep.record, engine)[0] for c in sweep.groups
    }
    return {key: width_of(sweep, program) for key, program in programs.items()}


def width_of(sweep: Sweep, program: step_program.Program, platform: str | None = None) -> int:
    """The sweep's `lane_width` if it sets one, else W by the rule."""
    return sweep.lane_width or lane_width(program, platform or jax.default_backend())


def lane_width(program: step_program.Program, platform: str) -> int:
    """W by rule.

    On a CPU, 32 lanes hide the overhead of a small net's step, 4 keep a block of a larger net in a
    core's cache, and the fused kernel handles 16 at once. A net with convolutions gets one lane,
    since a single run fills the cache; see :func:`convolution_rule`.

    On a GPU with XLA, the lanes are as many as give each thread of the device one number of the
    widest array of a step: a power of two from 4 to 4096. A narrower step would cost the same
    kernel launches. With the Pallas kernel a block holds the runs of 32 of its programs. Both rules
    are estimates: no GPU has been measured. Any other accelerator gets 256 lanes.

    Time of one core per run-step, XLA engine, in ns for the first row and µs for the others:

    ===========================  ====  =====  =====  ======  ======  ======
    net                             B  W = 4  W = 8  W = 16  W = 32  W = 64
    ===========================  ====  =====  =====  ======  ======  ======
    10-10-1 (ns)                    1    –      272     213     190     176
    10-316-1                        1    –      2.4     2.4     2.4    –
    100-100-1                       1    2.5   –        3.6    –       –
    6 layers, 50,601 parameters     1     21     31      36      42    –
    6 layers, 50,601 parameters    16    103    116     128    –       –
    ===========================  ====  =====  =====  ======  ======  ======

    W = 64 is faster still for the 10-10-1 net, but leaves the second core idle up to 64 runs.
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
    """Number of elements of the largest array of a forward pass, parameters included."""
    forward = jax.make_jaxpr(model.apply)(model.shapes, model.examples(batch_size)).jaxpr
    return max(largest(forward), *(math.prod(v.shape) for v in jax.tree.leaves(model.shapes)))


@functools.lru_cache(maxsize=256)
def convolution_rule(model: Model) -> str | None:
    """How the convolutions of a net are computed, as a sentence for the user; None without any.

    Time of one core per run-step of the 6-layer CNN, measured once: patches and matrix products
    ("im2col") take 0.80 ms for W = 1 and 1.30 ms for W = 4 at B = 1, 7.9 ms and 11.5 ms at B = 8.
    XLA's convolution, which becomes a grouped one with several lanes, takes 9.0 ms for W = 1 and
    10.8 ms for W = 4 at B = 1. So :class:`jthermo.models.CNN` uses patches; a flax ``Conv`` of the
    user is left as it is. One lane also needs a quarter of the memory of four, and leaves no block
    half empty.
    """
    if isinstance(model, CNN):
        return (
            "im2col and matrix products; on a CPU one run at a time, "
            "ten times as fast as a loop over XLA's convolution"
        )
    forward = jax.make_jaxpr(model.apply)(model.shapes, model.examples(2)).jaxpr
    if "conv_general_dilated" in primitives(forward):
        return (
            "XLA's convolution, as written in the flax module; on a CPU one run at a time. "
            "jt.models.CNN is faster there"
        )
    return None
