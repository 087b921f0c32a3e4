"""Figure 2, bottom: gradient variance of the 6-layer CNN on Fashion-MNIST for several η, with real
and random labels.
"""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.CNN(input_shape=(28, 28, 1), outputs=10),
    data=jt.data.FashionMNIST(),
    learning_rate=(0.0125, 0.025, 0.05, 0.1),
    batch_size=32,
    seed=range(4),
    vary={"data.labels": ("real", "random")},
    num_steps=jt.RescaledSteps(5.0, batch_size_power=0.0, at_most=32_000),
    record=jt.Record(
        steps=jt.log_steps(60),
        observables=(
            jt.gradient_variance(),
            jt.activation_rate(),
            jt.loss(),
            jt.accuracy(),
            jt.loss("test"),
            jt.accuracy("test"),
        ),
    ),
)
SMALL = {
    "learning_rate": (0.05, 0.1, 0.2),
    "seed": range(8),
    "num_steps": jt.RescaledSteps(1.0, batch_size_power=0.0),
    "record.steps": jt.log_steps(24),
    "record.probe_size": 64,
}
FIT = (jt.Claim("C7", "gradient_variance", "learning_rate", exponent=2),)


def figure(ds, fits):
    clocks = {
        f"fig2_bottom_{labels}": jt.figures.clocks(
            ds.isel(run=ds["data.labels"].values == labels),
            "gradient_variance",
            ylabel="gradient variance tr Σ₁/P",
        )
        for labels in ("real", "random")
    }
    fitted = fits["gradient_variance", "learning_rate"]
    collapse = jt.figures.collapses(fitted, ylabel="gradient variance tr Σ₁/P", share=False)
    return {**clocks, "fig2_bottom_collapse": collapse}
