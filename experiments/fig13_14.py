"""Figures 13 and 14: activation rate and ‖V‖ of a net with 300 hidden units on CIFAR-10 for
several B.
"""

import functools

import jthermo as jt
from jthermo.paper.reproduce import load

SWEEP = load("fig11_12").SWEEP.replace(
    learning_rate=0.02, batch_size=(250, 500, 1000, 2000), num_steps=2000
)
SMALL = {
    "batch_size": (5, 10, 20),
    "seed": range(8),
    "num_steps": 500,
    "record.steps": jt.log_steps(24),
}
FIT = (
    jt.Claim("C8", "activation_rate", "batch_size", exponent=-1),
    jt.Claim("C5", "weight_norm_output_kernel", "batch_size", exponent=-1),
)


def drawn(ds, fits, labels, suffix=""):
    """The figures of the runs with these labels; the suffix follows the number of the figure."""
    runs = ds.isel(run=ds["data.labels"].values == labels)
    clocks = functools.partial(jt.figures.clocks, runs, by="batch_size", powers=(0, -1))
    return {
        f"fig13{suffix}": clocks("activation_rate", ylabel="activation rate"),
        f"fig14{suffix}": clocks("weight_norm_output_kernel", ylabel="‖V‖"),
        f"fig13{suffix}_collapse": jt.figures.collapses(
            fits["activation_rate", "batch_size"], ylabel="activation rate"
        ),
    }


def figure(ds, fits):
    return drawn(ds, fits, "real")
