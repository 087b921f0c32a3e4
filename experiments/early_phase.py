"""Early phase: how fast the activation rate falls on the clock η²t/B, against s² = E(p−y)², for
several η.
"""

from typing import Any

import numpy as np

import jthermo as jt
from jthermo.paper import curve_statistics
from jthermo.paper.evidence import above, equals
from jthermo.theory import drift

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, init="he"),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.0125, 0.025, 0.05, 0.1),
    seed=range(1024),
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
    """The local slopes for each η."""
    by_rate = {}
    for eta in np.unique(ds.learning_rate.values):
        runs = ds.isel(run=ds.learning_rate.values == eta)
        clock = runs.step.values[0] * eta**2
        last = np.nonzero(runs.step.values[0] >= 0)[0][-1] + 1
        rate, s2 = (runs[v].values[:, :last] for v in ("activation_rate", "mean_squared_residual"))
        by_rate[float(eta)] = curve_statistics.local_slopes(clock[:last], rate, s2, EDGES)
    return by_rate


def judge(ds):
    rows = []
    for eta, s in slopes(ds).items():
        (slope, level), size = s.samples, len(s.samples[0])
        picks = curve_statistics.resamplings(400, size)
        means = np.array(
            [[slope[p][:, [0, -1]].mean(0), level[p][:, [0, -1]].mean(0)] for p in picks]
        )
        ratio = means[:, :, 0] / means[:, :, 1]
        power = np.log(ratio[:, 0]) / np.log(ratio[:, 1])
        ends = [np.quantile(v, [0.025, 0.975]) for v in (ratio[:, 0], power)]
        more: dict[str, Any] = {"choice": {"η": eta}, "num_seeds": size}
        rows += [
            above(
                "C9",
                "early slope over late, η²t/B < 0.05 over 1 … 2",
                1,
                ratio[0, 0],
                *ends[0],
                **more,
            ),
            equals(
                "C9",
                "power of s² in the slope, from early to late",
                1,
                power[0],
                np.ptp(ends[1]) / 3.92,
                **more,
            ),
        ]
    return rows


def figure(ds, fits):
    import matplotlib.pyplot as plt

    with jt.figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(jt.figures.PAGE, 2.4), sharey=True)
        by_rate = slopes(ds)
        colours = jt.figures.colours(len(by_rate))
        for (eta, s), colour in zip(by_rate.items(), colours, strict=True):
            mark = {"color": colour, "marker": "o", "ms": 3, "label": f"η = {eta:g}"}
            left.errorbar(s.middle, -s.slope, s.slope_error, **mark)
            right.errorbar(s.level, -s.slope, s.slope_error, s.level_error, **mark)
        late = -np.diff(drift.valley_rate([0, 1]))[0]
        for ax in (left, right):
            ax.axhline(late, color="black", ls="--", lw=0.8)
            ax.set_yscale("log")
        left.text(0.03, late * 0.97, "label noise, η → 0", va="top", fontsize=6)
        s2 = np.linspace(0.24, 0.32, 50)
        right.plot(s2, late * s2 / 0.25, color="grey", ls=":", lw=1, label="∝ s²")
        left.set(xscale="log", xlabel="η²t/B", ylabel="−d activation rate / d(η²t/B)")
        right.set(xlabel="s² = E(p−y)²")
        right.legend(handlelength=1.5)
    return {"early_phase": fig}
