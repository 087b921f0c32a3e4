"""The fused engine on CPUs: the C++ kernel of ``dense.h``, called from XLA through ``ffi.cc``."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import Array

from jthermo.data import Arrays, Gaussian, Uniform
from jthermo.engines import step_program
from jthermo.engines.fused.build import TARGET
from jthermo.engines.fused.statistics import statistics
from jthermo.engines.fused.supported_nets import Net
from jthermo.randomness.jax_settings import num_cores
from jthermo.update_rule import losses, residual_noise

SOURCES = {Gaussian: 0, Uniform: 1, Arrays: 2}
SAMPLING = {"fresh": 0, "replacement": 1, "epochs": 2}
LOSSES = {"bce": 0, "squared": 1, "softmax": 2}
NOISES = {residual_noise.Full: 0, residual_noise.Unbiased: 1, residual_noise.LabelAveraged: 2}


def block(
    net: Net,
    program: step_program.Program,
    keys: Sequence[Array],
    traced: Sequence[Array],
    start: Array,
    stop: Array,
    order: Array,
    leaves: Sequence[Array],
    marks: Array,
    examples: Sequence[Array],
) -> tuple[list[Array], Array]:
    """The parameters of a block of runs after steps `start` … `stop` − 1, and its records.

    Under vmap over blocks, one call trains all blocks, with their runs spread over threads.

    Args:
        net: the layers.
        program: what the runs share.
        keys: of batches, noise, data set and probes, (runs, 2) uint32 each.
        traced: η, the scale or lower end of the inputs, their upper end, the scale of the noise,
            the momentum, the weight decay; (runs,) each.
        start: () int32.
        stop: () int32.
        order: (runs, n) int32, the order of the examples in this epoch; unused without epochs.
        leaves: (runs, …) weights and bias of each layer in turn; with momentum then the velocity of
            each.
        marks: (records,) int32, the ascending steps from `start` to `stop` at which the runs are
            recorded; −1 for none.
        examples: (n, …) float32 or uint8, the examples in memory, and (n,) their int32 labels or
            float32 targets; all blocks share them. Unused for data that are drawn.

    Returns:
        The leaves, and (runs, records, variables) with the statistics of the program in turn; NaN
        where there is no mark.
    """
    measured = np.array(list(statistics(program).values()), np.int64)
    shape = (len(leaves[0]), len(marks), len(measured))
    call = jax.ffi.ffi_call(
        TARGET,
        [
            *(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves),
            jax.ShapeDtypeStruct(shape, np.float32),
        ],
        input_output_aliases={16 + i: i for i in range(len(leaves))},
        # the examples have no axis of blocks; all others depend on the runs or the steps
        vmap_method="expand_dims",
    )
    *trained, recorded = call(
        *keys,
        *traced,
        start,
        stop,
        marks,
        order,
        *examples,
        *leaves,
        widths=np.array(net.widths, np.int64),
        options=_options(net, program),
        statistics=measured,
    )
    return trained, recorded


def _options(net: Net, program: step_program.Program) -> np.ndarray:
    """The static numbers of a call, in the order in which ``ffi.cc`` reads them."""
    data = program.data
    size = data.size(data.abstract())
    sampling = SAMPLING["fresh" if size is None else data.sampling]
    kinds = (
        SOURCES[type(data)],
        sampling,
        LOSSES[losses.name(program.loss)],
        NOISES[type(program.noise)],
    )
    first, *_, last = net.biases
    numbers = (first, last, program.batch_size, *kinds, size or 0, net.inputs_first)
    hyper = program.optimizer.hyper
    momentum = (hyper["momentum"] is not None, hyper["nesterov"])
    random_labels = getattr(data, "labels", "random") == "random"
    others = (data.num_classes, "weight_decay" in hyper, random_labels)
    return np.array((*numbers, threads(), program.probe_size, *momentum, *others), np.int64)


def threads() -> int:
    """Number of threads of one device: more than 1 if there are fewer devices than cores."""
    return max(1, num_cores() // jax.local_device_count())
