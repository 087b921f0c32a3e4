"""Early phase: how fast the activation rate falls on the clock η²t/B, against s² = E(p−y)², for
several η, with the part of it that averaged labels have too.
"""

from typing import Any

import numpy as np

import jthermo as jt
from jthermo.paper import curve_statistics
from jthermo.paper.evidence import above, equals
from jthermo.theory import drift

FULL, AVERAGED = "full", "label_averaged"
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, init="he"),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.0125, 0.025, 0.05, 0.1),
    seed=range(1024),
    vary={"noise": (FULL, AVERAGED)},
    num_steps=jt.RescaledSteps(2.0),
    record=jt.Record(
        steps=jt.log_steps(80),
        observables=(jt.activation_rate(), jt.mean_squared_residual()),
        probe_size=512,
    ),
)
# The claims that `judge` gives evidence on.
CLAIMS = ("C9",)
SMALL = {"seed": range(256)}
# Edges of the windows of the clock η²t/B in which slopes are measured.
EDGES = np.array([0, 0.05, 0.1, 0.2, 0.5, 1, 2])


def slopes(ds):
    """The local slopes by η and noise; runs in the order of their seeds."""
    found = {}
    for eta in np.unique(ds.learning_rate.values):
        for noise in (FULL, AVERAGED):
            runs = ds.isel(run=(ds.learning_rate.values == eta) & (ds.noise.values == noise))
            clock = runs.step.values[0] * eta**2
            last = np.nonzero(runs.step.values[0] >= 0)[0][-1] + 1
            rate, s2 = (
                runs[v].values[:, :last] for v in ("activation_rate", "mean_squared_residual")
            )
            found[float(eta), noise] = curve_statistics.local_slopes(clock[:last], rate, s2, EDGES)
    return found


def judge(ds):
    rows, found = [], slopes(ds)
    for eta in dict.fromkeys(eta for eta, _ in found):
        slope, level = found[eta, FULL].samples
        # what redrawn labels add to the slope
        noise = slope - found[eta, AVERAGED].samples[0]
        size = len(slope)
        picks = curve_statistics.resamplings(400, size)
        ratio, of_noise, of_level = (
            np.array([np.divide(*samples[p][:, [0, -1]].mean(0)) for p in picks])
            for samples in (slope, noise, level)
        )
        power = np.log(ratio) / np.log(of_level)
        more: dict[str, Any] = {"choice": {"η": eta}, "num_seeds": size}
        rows += [
            above(
                "C9",
                "early slope over late, η²t/B < 0.05 over 1 … 2",
                1,
                ratio[0],
                *np.quantile(ratio, [0.025, 0.975]),
                **more,
            ),
            equals(
                "C9",
                "power of s² in the slope, from early to late",
                1,
                power[0],
                np.ptp(np.quantile(power, [0.025, 0.975])) / 3.92,
                **more,
            ),
            equals(
                "C9",
                "early part of label noise over late, against the ratio of s²",
                of_level[0],
                of_noise[0],
                of_noise.std(),
                **more,
            ),
        ]
    return rows


def figure(ds, fits):
    import matplotlib.pyplot as plt

    with jt.figures.style():
        fig, axes = plt.subplots(1, 3, figsize=(jt.figures.PAGE, 2.4), sharey=True)
        left, middle, right = axes
        found = slopes(ds)
        rates = list(dict.fromkeys(eta for eta, _ in found))
        for eta, colour in zip(rates, jt.figures.colours(len(rates)), strict=True):
            full, averaged = found[eta, FULL], found[eta, AVERAGED]
            mark = {"color": colour, "marker": "o", "ms": 3, "label": f"η = {eta:g}"}
            left.errorbar(full.middle, -full.slope, full.slope_error, **mark)
            middle.errorbar(full.level, -full.slope, full.slope_error, full.level_error, **mark)
            noise = averaged.samples[0] - full.samples[0]
            error = noise.std(0, ddof=1) / np.sqrt(len(noise))
            right.errorbar(full.level, noise.mean(0), error, full.level_error, **mark)
        late = -np.diff(drift.valley_rate([0, 1]))[0]
        s2 = np.linspace(0.24, 0.32, 50)
        for ax, title in (
            (left, "slope"),
            (middle, "slope against s²"),
            (right, "what label noise adds"),
        ):
            ax.axhline(late, color="black", ls="--", lw=0.8)
            ax.set(yscale="log", title=title)
        for ax in (middle, right):
            ax.plot(s2, late * s2 / 0.25, color="grey", ls=":", lw=1, label="∝ s²")
            ax.set(xlabel="s² = E(p−y)²")
        left.text(0.03, late * 0.97, "label noise, η → 0", va="top", fontsize=6)
        left.set(xscale="log", xlabel="η²t/B", ylabel="−d activation rate / d(η²t/B)")
        middle.legend(handlelength=1.5)
    return {"early_phase": fig}
