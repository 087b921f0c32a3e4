"""Mechanism: full SGD beside its two controls, three theories of what moves b, and the mean field
with nothing fitted.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jthermo as jt
from jthermo.engines import run_state, step_program
from jthermo.figures.colours import CATEGORIES
from jthermo.paper.evidence import equals
from jthermo.theory import drift, flow, meanfield

NOISES = {"full": "full SGD", "label_averaged": "label-averaged", "unbiased": "unbiased walk"}
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, init="he"),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(1024),
    vary={"noise": tuple(NOISES)},
    num_steps=jt.RescaledSteps(20.0),
    record=jt.Record(
        steps=jt.log_steps(80),
        observables=(jt.activation_rate(), jt.weight_norm("V"), meanfield.mean_bias),
    ),
)
# The claims that `judge` gives evidence on.
CLAIMS = ("C11",)
SMALL = {"seed": range(256)}
# The learning rate that is drawn, and the number of its nets that start the mean-field predictions.
ETA, NETS = 0.05, 64
# E‖W‖ of a unit for the He init and d = 10 inputs: √2·(1 − 1/(4d)).
WIDTH = 2**0.5 * (1 - 1 / 40)
COLOURS = dict(zip(NOISES, CATEGORIES, strict=False))


def slopes():
    """Slope of b on the clock η²t/B at the init (V² = 1/N), according to three theories."""
    V = 10**-0.5
    return {
        "thermophoresis of (V, b)": float(flow.unit(V, 0.0, w=WIDTH)[1]),
        "Itô flow of all parameters": float(flow.unit(V, 0.0, w=WIDTH, dim=10)[1]),
        "label-noise drift": float(drift.two_layer(V, 0.0, w=WIDTH, dim=10)[1]),
    }


def pick(ds, noise, eta=ETA):
    """The runs with one noise and one η, with the records that they share."""
    runs = ds.isel(run=(ds.noise.values == noise) & (ds.learning_rate.values == eta))
    return runs.isel(record=runs.step.values[0] >= 0)


def predicted(runs, noise, eta=ETA):
    """Mean-field curves that start from the inits of the first NETS runs."""
    seeds = jnp.asarray(np.sort(runs.seed.values)[:NETS], jnp.uint32)
    inits = jax.vmap(
        lambda seed: (
            run_state.init(SWEEP.model, jt.sgd(), step_program.Run(seed, 0, eta, {})).params
        )
    )(seeds)
    return meanfield.predict(inits, runs.step.values[0], learning_rate=eta, noise=noise)


def at(runs, variable, tau, eta=ETA):
    """The value of each run at η²t/B = τ."""
    clock = runs.step.values[0] * eta**2
    return np.array([np.interp(tau, clock, row) for row in runs[variable].values])


def judge(ds):
    rows = []
    claimed = slopes()["thermophoresis of (V, b)"]
    for noise in NOISES:
        shift = at(pick(ds, noise), "mean_bias", 1.0)
        more: dict[str, Any] = {"choice": {"noise": noise}, "num_seeds": len(shift)}
        error = shift.std(ddof=1) / np.sqrt(len(shift))
        quantity = "shift of b by thermophoresis, of (V, b) at η²t/B = 1"
        rows.append(equals("C11", quantity, claimed, shift.mean(), error, **more))
    return rows


def figure(ds, fits):
    import matplotlib.pyplot as plt

    shown = {
        "mean_bias": "mean b",
        "activation_rate": "activation rate",
        "weight_norm_V": "‖V‖ (r.m.s.)",
    }
    with jt.figures.style():
        fig, axes = plt.subplots(1, 3, figsize=(jt.figures.PAGE, 2.5))
        for noise, name in NOISES.items():
            runs = pick(ds, noise)
            tau = runs.step.values[0] * ETA**2
            curves = predicted(runs, noise) if noise in meanfield.NOISES else None
            for ax, variable in zip(axes, shown, strict=True):
                value = runs[variable].values
                mean = np.sqrt((value**2).mean(0)) if variable == "weight_norm_V" else value.mean(0)
                ax.plot(tau, mean, color=COLOURS[noise], label=name)
                if curves is not None:
                    if variable == "weight_norm_V":
                        line = np.sqrt(curves.squared_norm_V.mean(0))
                    else:
                        line = getattr(curves, variable).mean(0)
                    jt.figures.theory(tau, line, ax=ax, label="_")
        early = np.linspace(0, 1.5, 20)
        for (name, slope), style in zip(slopes().items(), (":", "-.", (0, (4, 1))), strict=True):
            axes[0].plot(early, slope * early, color="grey", ls=style, lw=1, label=name)
        axes[1].plot(tau, drift.valley_rate(tau), color="grey", lw=0.9, ls=":")
        for ax, label in zip(axes, shown.values(), strict=True):
            ax.set(xlabel="η²t/B", ylabel=label)
        axes[0].set(xlim=(0, 3), ylim=(-0.34, 0.02))
        axes[1].set(xlim=(0, 20))
        axes[2].set(xlim=(0.02, 20), xscale="log", yscale="log")
        axes[0].legend(handlelength=1.8, fontsize=6, loc="lower left")
        jt.figures.theory([], [], ax=axes[1], label="mean field")
        axes[1].plot([], [], color="grey", ls=":", lw=0.9, label="mean field, η → 0")
        axes[1].legend(
            *(part[-2:] for part in axes[1].get_legend_handles_labels()), handlelength=1.8
        )
    return {"mechanism": fig, "mechanism_clocks": _clocks(ds)}


def _clocks(ds):
    """Full SGD collapses on η²t, label-averaged SGD on ηt: a figure of both on both clocks."""
    import matplotlib.pyplot as plt

    with jt.figures.style():
        fig, axes = plt.subplots(2, 2, figsize=(5.0, 3.8), sharey="row")
        for row, noise in zip(axes, ("full", "label_averaged"), strict=True):
            runs = ds.isel(run=ds.noise.values == noise)
            for ax, power in zip(row, (1, 2), strict=True):
                jt.figures.curves(runs, "activation_rate", power=power, ax=ax)
            row[0].set_ylabel(f"activation rate,\n{NOISES[noise]}")
            row[1].set_ylabel("")
        for ax in axes.flat[1:]:
            ax.get_legend().remove()
    return fig
