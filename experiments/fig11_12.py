"""Figures 11 and 12: activation rate and ‖V‖ of a net with 300 hidden units on CIFAR-10 for
several η.
"""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.MLP(3072, hidden=(300,), outputs=10),
    data=jt.data.CIFAR10(),
    learning_rate=(0.01, 0.02, 0.04),
    batch_size=1000,
    seed=range(16),
    vary={"data.labels": ("real", "random", "redrawn")},
    num_steps=jt.RescaledSteps(0.8, batch_size_power=0.0),
    record=jt.Record(
        steps=jt.log_steps(60),
        observables=(
            jt.activation_rate(),
            jt.weight_norm("output/kernel"),
            jt.loss(),
            jt.accuracy(),
            jt.accuracy("test"),
        ),
    ),
)
SMALL = {
    # a hundredth of the paper's batch size reaches the same η²t/B with a hundredth of the work
    "batch_size": 10,
    "seed": range(8),
    "num_steps": jt.RescaledSteps(0.1, batch_size_power=0.0),
    "record.steps": jt.log_steps(24),
}
FIT = (
    jt.Claim("C8", "activation_rate", "learning_rate", exponent=2),
    jt.Claim("C4", "weight_norm_output_kernel", "learning_rate", exponent=2),
)


def figure(ds, fits):
    real = ds.isel(run=ds["data.labels"].values == "real")
    return {
        "fig11": jt.figures.clocks(real, "activation_rate", ylabel="activation rate"),
        "fig12": jt.figures.clocks(real, "weight_norm_output_kernel", ylabel="‖V‖"),
        "fig11_collapse": jt.figures.collapses(
            fits["activation_rate", "learning_rate"], ylabel="activation rate"
        ),
    }
