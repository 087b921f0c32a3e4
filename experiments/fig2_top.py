"""Figure 2, top: activation rate of the 100-100-1 net with bias for several η, on the clocks t, ηt
and η²t.
"""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=100, hidden=100),
    data=jt.data.Gaussian(dim=100),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(64),
    num_steps=jt.RescaledSteps(8.0),
    record=jt.Record(
        steps=jt.log_steps(120), observables=(jt.activation_rate(), jt.weight_norm("V"), jt.kappa())
    ),
)
SMALL = {"seed": range(16)}
FIT = (
    jt.Claim("C1", "activation_rate", "learning_rate", above=1),
    jt.Claim("C2", "activation_rate", "learning_rate", exponent=2),
    jt.Claim("C4", "weight_norm_V", "learning_rate", exponent=2),
)


def figure(ds, fits):
    return {
        "fig2_top": jt.figures.clocks(ds, "activation_rate", ylabel="activation rate"),
        "fig2_top_norm": jt.figures.clocks(ds, "weight_norm_V", ylabel="‖V‖"),
    }
