"""Label redraw: the more often the labels of a finite data set are replaced by new random ones, the
lower the activation rate falls.

The label noise is that of Cornacchia et al. 2021 (arXiv 2111.02154): each time an example is used,
its label is redrawn with probability p.
"""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=50),
    # x ≥ 0, because x ~ N(0, I) would keep the activation rate of a net without bias at ½
    data=jt.data.Uniform(dim=10, num_samples=20),
    learning_rate=0.05,
    seed=range(256),
    vary={"data.redraw": (0.0, 0.1, 0.3, 1.0), "model.bias": (True, False)},
    num_steps=jt.RescaledSteps(40.0),
    record=jt.Record(
        steps=jt.log_steps(60), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
SMALL = {"seed": range(32)}
# It tests no claim of the paper.
FIT = ()


def figure(ds, fits):
    ylabel = "fraction of active units"
    by = {"by": "data.redraw", "powers": (0,), "col": "model.bias"}
    fig = jt.figures.clocks(ds, "activation_rate", ylabel=ylabel, **by)
    fig.axes[0].set_ylim(bottom=0)
    return {"label_redraw": fig}
