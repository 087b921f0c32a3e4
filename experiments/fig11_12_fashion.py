"""Figures 11 and 12 with other images: activation rate and ‖V‖ of the net with 300 hidden units on
Fashion-MNIST, at the paper's B = 1000, for several η.
"""

import jthermo as jt
from jthermo.paper.reproduce import load

SWEEP = load("fig11_12").SWEEP.replace(
    model=jt.models.MLP(784, hidden=(300,), outputs=10),
    data=jt.data.FashionMNIST(),
    learning_rate=(0.02, 0.04, 0.08),
    # at B = 1000 the seeds hardly differ
    seed=range(4),
)
# a hundredth of the batch size reaches a hundred times the η²t/B for the same η²t
SMALL = {"batch_size": 10, "seed": range(8), "record.steps": jt.log_steps(24)}
FIT = (jt.Claim("C15", "activation_rate", "learning_rate", exponent=2),)
# Panels by label: real labels, and labels that are drawn anew at each use.
LABELS = ("real", "redrawn")


def figure(ds, fits):
    drawn = {}
    for labels in LABELS:
        runs = ds.isel(run=ds["data.labels"].values == labels)
        drawn[f"fig11_fashion_{labels}"] = jt.figures.clocks(
            runs, "activation_rate", ylabel="activation rate"
        )
    drawn["fig12_fashion"] = jt.figures.clocks(runs, "weight_norm_output_kernel", ylabel="‖V‖")
    drawn["fig11_fashion_collapse"] = jt.figures.collapses(
        fits["activation_rate", "learning_rate"], ylabel="activation rate"
    )
    return drawn
