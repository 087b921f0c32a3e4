"""Sensitivity of the exponents in η to what the paper leaves open: init, fresh or finite data, part
of the clock fitted.
"""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(256),
    vary={"model.init": jt.models.INITS, "data.num_samples": (None, 1000, 100)},
    num_steps=jt.RescaledSteps(20.0),
    record=jt.Record(
        steps=jt.log_steps(60), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
SMALL = {"seed": range(32)}
FIT = (
    jt.Claim("C2", "activation_rate", "learning_rate", exponent=2),
    jt.Claim("C4", "weight_norm_V", "learning_rate", exponent=2),
)
# The parts of the clock η²t/B that are fitted.
WINDOWS = {"all": (0, 20), "early": (0, 2), "late": (2, 20)}
NAMES = {"None": "fresh", "1000": "n = 1000", "100": "n = 100"}


def figure(ds, fits):
    import matplotlib.pyplot as plt

    shown = {"activation_rate": "activation rate", "weight_norm_V": "‖V‖"}
    with jt.figures.style():
        fig, axes = plt.subplots(
            2, 3, figsize=(6.8, 4.4), sharex=True, sharey=True, layout="constrained"
        )
        for row, (variable, name) in zip(axes, shown.items(), strict=True):
            for ax, window in zip(row, WINDOWS, strict=True):
                chosen = [
                    c for c in fits[variable, "learning_rate"] if c.choice["window"] == window
                ]
                jt.figures.heatmap(
                    ax, chosen, x="data.num_samples", y="model.init", target=2, names=NAMES
                )
                ax.set_title(f"{name}, {window}: η²t/B in {WINDOWS[window]}")
        fig.suptitle("exponent of η; white: the paper's 2", fontsize=8)
    return {"sensitivity": fig}
