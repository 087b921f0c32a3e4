"""Figures 5 and 6: activation rate and ‖V‖ of the 10-10-1 net with bias for several B, on the
clocks t and t/B.
"""

import jthermo as jt
from jthermo.paper.claims import two_clocks

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10),
    data=jt.data.Gaussian(dim=10),
    learning_rate=0.05,
    batch_size=(1, 2, 3),
    seed=range(4096),
    vary={"model.init": jt.models.INITS},
    num_steps=jt.RescaledSteps(20.0),
    record=jt.Record(
        steps=jt.log_steps(120), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
SMALL = {"seed": range(1024)}
# relaxation of ‖V‖ on t, then its noise floor on t/B
FORMS = two_clocks("batch_size", 0, -1)
FIT = (
    jt.Claim("C3", "activation_rate", "batch_size", exponent=-1),
    jt.Claim("C5", "weight_norm_V", "batch_size", exponent=-1, forms=FORMS),
)


def figure(ds, fits):
    torch = ds.isel(run=ds["model.init"].values == "torch")
    clocks = {"by": "batch_size", "powers": (0, -1)}
    return {
        "fig5": jt.figures.clocks(torch, "activation_rate", ylabel="activation rate", **clocks),
        "fig6": jt.figures.clocks(torch, "weight_norm_V", ylabel="‖V‖", **clocks),
        "fig5_collapse": jt.figures.collapses(
            fits["activation_rate", "batch_size"], ylabel="activation rate"
        ),
    }
