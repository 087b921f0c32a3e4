"""Figures 11 and 12 with other images: activation rate and ‖V‖ of the net with 300 hidden units on
Fashion-MNIST, at the paper's B = 1000, for several η.
"""

import functools

import jthermo as jt
from jthermo.paper.reproduce import load

SWEEP = load("fig11_12").SWEEP.replace(
    model=jt.models.MLP(784, hidden=(300,), outputs=10),
    data=jt.data.FashionMNIST(),
    learning_rate=(0.02, 0.04, 0.08),
    # with 4 seeds the clocks of kept random labels cannot be told apart
    seed=range(16),
)
# a hundredth of the batch size reaches a hundred times the η²t/B for the same η²t
SMALL = {"batch_size": 10, "seed": range(8), "record.steps": jt.log_steps(24)}
FIT = (jt.Claim("C15", "activation_rate", "learning_rate", exponent=2),)


def figure(ds, fits):
    real, redrawn = (
        ds.isel(run=ds["data.labels"].values == labels) for labels in ("real", "redrawn")
    )
    rate = functools.partial(
        jt.figures.clocks, variable="activation_rate", ylabel="activation rate"
    )
    return {
        "fig11_fashion_real": rate(real),
        "fig11_fashion_redrawn": rate(redrawn),
        "fig12_fashion": jt.figures.clocks(redrawn, "weight_norm_output_kernel", ylabel="‖V‖"),
        "fig11_fashion_collapse": jt.figures.collapses(
            fits["activation_rate", "learning_rate"], ylabel="activation rate"
        ),
    }
