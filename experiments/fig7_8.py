"""Figures 7 and 8: the 10-10-1 net without bias on U(0, 1) for several η, on the clocks t, ηt and
η²t.
"""

import jthermo as jt
from jthermo.paper.claims import two_clocks

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, bias=False),
    data=jt.data.Uniform(dim=10),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(4096),
    vary={"model.init": jt.models.INITS},
    num_steps=jt.RescaledSteps(20.0),
    record=jt.Record(
        steps=jt.log_steps(120), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
SMALL = {"seed": range(1024)}
# relaxation of ‖V‖ on ηt, then its noise floor on η²t
FORMS = two_clocks("learning_rate", 1, 2)
FIT = (
    jt.Claim("C1", "activation_rate", "learning_rate", above=1),
    jt.Claim("C2", "activation_rate", "learning_rate", exponent=2),
    jt.Claim("C4", "weight_norm_V", "learning_rate", exponent=2, forms=FORMS),
)


def figure(ds, fits):
    torch = ds.isel(run=ds["model.init"].values == "torch")
    return {
        "fig7": jt.figures.clocks(torch, "activation_rate", ylabel="activation rate"),
        "fig8": jt.figures.clocks(torch, "weight_norm_V", ylabel="‖V‖"),
        "fig7_collapse": jt.figures.collapses(
            fits["activation_rate", "learning_rate"], ylabel="activation rate"
        ),
    }
