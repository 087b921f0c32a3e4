"""Equal error: activation rate and ‖V‖ of a larger and a smaller η when their training loss, not
their step, is equal.
"""

import numpy as np

import jthermo as jt
from jthermo.paper import curve_statistics
from jthermo.paper.evidence import below
from jthermo.theory.meanfield import excess_loss

# Without the paired inits, which already start at the lowest loss that random labels allow.
INITS = ("torch", "he", "unit")
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(4096),
    vary={"model.init": INITS},
    num_steps=jt.RescaledSteps(10.0),
    record=jt.Record(
        steps=jt.log_steps(80),
        observables=(jt.activation_rate(), jt.weight_norm("V"), excess_loss),
        probe_size=512,
    ),
)
# The claims that `judge` gives evidence on.
CLAIMS = ("C10",)
SMALL = {"seed": range(1024)}
# Levels of the loss: shares of the way, on a log scale, from the init to the highest plateau.
SHARES = (0.2, 0.5, 0.8, 0.98)
NAMES = {"activation_rate": "activation rate", "weight_norm_V": "‖V‖"}


def by_rate(ds, init):
    """The runs of one init for each η, with the records that they share."""
    rates = {}
    for eta in np.unique(ds.learning_rate.values):
        runs = ds.isel(run=(ds.learning_rate.values == eta) & (ds["model.init"].values == init))
        rates[float(eta)] = runs.isel(record=runs.step.values[0] >= 0)
    return rates


def levels(rates):
    """Losses, in excess of ln 2, that every η passes between its init and its plateau."""
    mean = [r.excess_loss.values.mean(0) for r in rates.values()]
    top, bottom = min(m[0] for m in mean), max(m.min() for m in mean)
    return [float(top * (bottom / top) ** share) for share in SHARES]


def judge(ds):
    rows = []
    for init in INITS:
        rates = by_rate(ds, init)
        small, large = rates[min(rates)], rates[max(rates)]
        picks = curve_statistics.resamplings(300, small.sizes["run"])
        for variable, name in NAMES.items():
            for level in levels(rates):
                values = [
                    curve_statistics.at_level(runs, variable, "excess_loss", level, picks)
                    for runs in (large, small)
                ]
                difference = (values[0] - values[1]) / values[1][0]
                low, high = np.nanquantile(difference, [0.025, 0.975])
                quantity = f"{name}, η = {max(rates):g} over η = {min(rates):g} minus 1"
                more = {
                    "choice": {"init": init, "at loss": f"ln 2 + {level:.2g}"},
                    "num_seeds": len(np.unique(ds.seed.values)),
                }
                rows.append(below("C10", quantity, 0, difference[0], low, high, **more))
    return rows


def figure(ds, fits):
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    with jt.figures.style():
        fig, axes = plt.subplots(2, len(INITS), figsize=(jt.figures.PAGE, 3.8), sharex="col")
        for column, init in zip(axes.T, INITS, strict=True):
            rates = by_rate(ds, init)
            for (eta, runs), colour in zip(
                rates.items(), jt.figures.colours(len(rates)), strict=True
            ):
                excess = np.minimum.accumulate(runs.excess_loss.values.mean(0))
                for ax, variable in zip(column, NAMES, strict=True):
                    value = runs[variable].values
                    error = value.std(0, ddof=1) / np.sqrt(len(value))
                    jt.figures.band(
                        excess, value.mean(0), error, ax=ax, color=colour, label=f"η = {eta:g}"
                    )
            for ax in column:
                for level in levels(rates):
                    ax.axvline(level, color="grey", lw=0.4)
                ax.set_xscale("log")
                ax.xaxis.set_minor_formatter(NullFormatter())
            column[0].set_title(f"init {init}")
            column[1].set_xlabel("loss − ln 2, falling →")
            column[1].invert_xaxis()
        for ax, name in zip(axes[:, 0], NAMES.values(), strict=True):
            ax.set_ylabel(name)
        axes[0, -1].legend()
    return {"equal_error": fig}
