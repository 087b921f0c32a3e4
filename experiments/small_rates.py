"""Why the exponents of η lie below 2: the activation rate on smaller and smaller η, where they
reach it, early and late, from f ≠ 0 and from f = 0.
"""

import jthermo as jt
from jthermo.paper.claims import fit_choices

# The scales of `torch` and `unit`. Paired units with opposite output weights start with f = 0.
SCALES = {
    "torch": {"weight_gain": 3**-0.5, "output_gain": 3**-0.5, "bias_std": 30**-0.5},
    "unit": {"weight_gain": 1.0, "output_gain": 10**0.5, "bias_std": 0.0},
}
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, init=jt.models.Init()),
    data=jt.data.Gaussian(dim=10),
    learning_rate=tuple(0.1 / 2**k for k in range(8)),
    seed=range(1024),
    vary={"model.init.paired": (False, True)},
    points=[{f"model.init.{k}": v for k, v in scale.items()} for scale in SCALES.values()],
    num_steps=jt.RescaledSteps(20.0),
    record=jt.Record(steps=jt.log_steps(120), observables=jt.activation_rate()),
)
SMALL = {"seed": range(96)}
# It tests no claim of the paper.
FIT = ()
# Parts of the clock η²t by the title of their panel.
PARTS = {"η²t ≤ 20": (1e-9, 20), "η²t ≤ 0.3": (1e-9, 0.3), "1.5 ≤ η²t ≤ 6": (1.5, 6)}


def exponents(ds, part):
    """By scale and pairing: the middle ones of three neighbouring η, and the exponents there."""
    rates = sorted(set(ds.learning_rate.values.tolist()))
    found: dict[tuple[str, bool], list] = {}
    for three in zip(rates, rates[1:], rates[2:], strict=False):
        runs = ds.isel(run=ds.learning_rate.isin(three).values)
        window = (*part, {"learning_rate": 2})
        for choice, _, fit in fit_choices(
            runs, "activation_rate", ("learning_rate",), clock_window=window
        ):
            scale = "unit" if choice["model.init.bias_std"] == 0 else "torch"
            line = found.setdefault((scale, choice["model.init.paired"]), [])
            line.append((three[1], fit.exponents["learning_rate"]))
    return found


def figure(ds, fits):
    import matplotlib.pyplot as plt

    with jt.figures.style():
        fig, axes = plt.subplots(1, 3, figsize=(6.8, 2.4), sharey=True, layout="constrained")
        for ax, (title, part) in zip(axes, PARTS.items(), strict=True):
            for (scale, paired), line in exponents(ds, part).items():
                rates = [rate for rate, _ in line]
                values = [e.value for _, e in line]
                sides = [[e.value - e.low for _, e in line], [e.high - e.value for _, e in line]]
                look = {"ls": "--" if paired else "-", "color": "C0" if scale == "torch" else "C1"}
                label = f"{scale}, f = 0" if paired else scale
                ax.errorbar(rates, values, sides, marker="o", ms=3, label=label, **look)
            ax.axhline(2, color="0.5", lw=0.8)
            ax.set(xscale="log", xlabel="middle η of three, in 10⁻³", title=title)
            ax.set_xticks(rates, [f"{1000 * rate:.3g}" for rate in rates])
            ax.minorticks_off()
        axes[0].set_ylabel("exponent of η")
        axes[0].legend()
    return {"small_rates": fig}
