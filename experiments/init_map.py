"""Initialisation scale: exponents of η and misfits over the gains of both layers, for nets whose
units are paired (f = 0 at the start) or not.
"""

import numpy as np

import jthermo as jt

# Hidden weights have the standard deviation √2·gain/√d, output weights gain/√N: He has gains of 1,
# "unit" has 0.71 and 3.16.
HE = 2**0.5
WEIGHT, OUTPUT = (0.25, 0.5, 1.0, 1.5, 2.0), (0.1, 0.3, 1.0, 2.0, 10**0.5)
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, init=jt.models.Init()),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(256),
    vary={
        "model.init.weight_gain": tuple(HE * gain for gain in WEIGHT),
        "model.init.output_gain": OUTPUT,
        "model.init.paired": (False, True),
    },
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
# The part of the clock η²t/B that is fitted.
WINDOWS = {"all": (0, 20)}
X, Y = "model.init.output_gain", "model.init.weight_gain"
NAMES = {str(HE * gain): f"{gain:g}" for gain in WEIGHT} | {str(g): f"{g:.2g}" for g in OUTPUT}
SHOWN = {"activation_rate": "activation rate", "weight_norm_V": "‖V‖"}


def figure(ds, fits):
    return {"init_map": _exponents(fits), "init_map_misfit": _misfits(fits)}


def _panels():
    """For each panel: its row, column, the variable, and whether units are paired."""
    return [(i, j, v, p) for i, p in enumerate((False, True)) for j, v in enumerate(SHOWN)]


def _of(fits, variable, paired):
    chosen = fits[variable, "learning_rate"]
    return [c for c in chosen if c.choice["model.init.paired"] == paired]


def _label(ax, variable, paired):
    ax.set_title(f"{SHOWN[variable]}, {'paired' if paired else 'independent'} units")
    ax.set(xlabel="gain of the output weights", ylabel="gain of the hidden weights")


def _exponents(fits):
    """The exponent of η of each net with its interval; white is the paper's 2."""
    import matplotlib.pyplot as plt

    with jt.figures.style():
        fig, axes = plt.subplots(2, 2, figsize=(jt.figures.PAGE, 6))
        for row, column, variable, paired in _panels():
            ax = axes[row, column]
            jt.figures.heatmap(ax, _of(fits, variable, paired), x=X, y=Y, target=2, names=NAMES)
            _label(ax, variable, paired)
        fig.suptitle("exponent of η; white: the paper's 2", fontsize=8)
    return fig


def _misfits(fits):
    """The misfit of each fit in per cent."""
    import matplotlib.pyplot as plt

    with jt.figures.style():
        fig, axes = plt.subplots(2, 2, figsize=(jt.figures.PAGE, 5))
        for row, column, variable, paired in _panels():
            ax, chosen = axes[row, column], _of(fits, variable, paired)
            columns, rows = (list(dict.fromkeys(c.choice[name] for c in chosen)) for name in (X, Y))
            misfit = np.full((len(rows), len(columns)), np.nan)
            for c in chosen:
                place = rows.index(c.choice[Y]), columns.index(c.choice[X])
                misfit[place] = 100 * c.fit.misfit
                kind = {"ha": "center", "va": "center", "fontsize": 6}
                dark = misfit[place] > 6
                ax.text(place[1] + 0.5, place[0] + 0.5, f"{misfit[place]:.1f}", **kind,
                        color="white" if dark else "black")  # fmt: skip
            ax.pcolormesh(misfit, cmap="Purples", vmin=0, vmax=10, edgecolor="white", zorder=0)
            ax.set_xticks(np.arange(len(columns)) + 0.5, [NAMES[str(c)] for c in columns])
            ax.set_yticks(np.arange(len(rows)) + 0.5, [NAMES[str(r)] for r in rows])
            ax.set_ylim(len(rows), 0)
            ax.tick_params(which="both", length=0)
            ax.spines[:].set_visible(False)
            _label(ax, variable, paired)
        fig.suptitle("misfit in per cent of the range", fontsize=8)
    return fig
