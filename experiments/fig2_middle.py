"""Figure 2, middle: gradient variance of the 6-layer fully connected net for several η, on the
clocks t, ηt and η²t.
"""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.MLP(100),
    data=jt.data.Gaussian(dim=100),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(64),
    num_steps=jt.RescaledSteps(10.0),
    record=jt.Record(
        steps=jt.log_steps(80),
        observables=(jt.gradient_variance(), jt.activation_rate(), jt.loss()),
    ),
)
SMALL = {"seed": range(32)}
FIT = (jt.Claim("C6", "gradient_variance", "learning_rate", exponent=2),)


def figure(ds, fits):
    return {
        "fig2_middle": jt.figures.clocks(
            ds, "gradient_variance", ylabel="gradient variance tr Σ₁/P"
        ),
        "fig2_middle_collapse": jt.figures.collapses(
            fits["gradient_variance", "learning_rate"], ylabel="gradient variance tr Σ₁/P"
        ),
    }
