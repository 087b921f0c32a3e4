"""Noise floor of ‖V‖: with random labels E‖V‖² relaxes on the clock ηt to Nη/(2B), and changes
slowly on η²t/B from there on, for several η, B, N and initialisations.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jthermo as jt
from jthermo.engines import run_state, step_program
from jthermo.paper import curve_statistics
from jthermo.paper.evidence import equals
from jthermo.theory import drift, meanfield

TAU = 2.0
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.0125, 0.025, 0.05),
    batch_size=(1, 2, 4),
    seed=range(256),
    vary={"model.hidden": (10, 30), "model.init": jt.models.INITS},
    num_steps=jt.RescaledSteps(TAU),
    record=jt.Record(
        steps=jt.log_steps(60), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
# The claims that `judge` gives evidence on.
CLAIMS = ("C14",)
SMALL = {"seed": range(64)}
# The initialisation that is judged, and the η at which the mean field is computed.
INIT, ETA = "he", 0.05
# Lines of the three B.
STYLES = ("-", (0, (4, 1)), ":")


def cells(ds, hidden, init=INIT):
    """For every η and B: the steps, and ‖V‖² of each run in the order of the seeds."""
    rows = {}
    of = (ds["model.hidden"].values == hidden) & (ds["model.init"].values == init)
    for eta in np.unique(ds.learning_rate.values):
        for size in np.unique(ds.batch_size.values):
            here = of & (ds.learning_rate.values == eta) & (ds.batch_size.values == size)
            runs = ds.isel(run=here).sortby("seed")
            kept = runs.step.values[0] >= 0
            step, square = runs.step.values[0, kept], runs.weight_norm_V.values[:, kept] ** 2
            rows[float(eta), int(size)] = step, square, tuple(runs.seed.values.tolist())
    return rows


@functools.cache
def predicted(hidden, seeds, temperature):
    """Times ηt up to η²t/B = 2, and the mean-field ‖V‖² there from the inits of these seeds.

    It depends on ηt and η/B = `temperature` alone, up to the factors of discrete time, below 1 %.
    """
    model = jt.models.TwoLayer(inputs=10, hidden=hidden, init=INIT)
    inits = jax.vmap(
        lambda seed: run_state.init(model, jt.sgd(), step_program.Run(seed, 0, ETA, {})).params
    )(jnp.asarray(seeds, jnp.uint32))
    steps = np.unique(np.rint(np.geomspace(0.3, TAU / temperature, 24) / ETA).astype(int))
    options: dict[str, Any] = {"learning_rate": ETA, "batch_size": round(ETA / temperature)}
    # with fewer inputs the slow modes of M are too slow
    curves = meanfield.predict(inits, steps, num_inputs=512, **options)
    return steps * ETA, curves.squared_norm_V


def judge(ds):
    rows = []
    ends: dict[int, dict[tuple[float, int], np.ndarray]] = {}
    for hidden in np.unique(ds["model.hidden"].values).tolist():
        ends[hidden] = {}
        for (eta, size), (_, square, seeds) in cells(ds, hidden).items():
            last = ends[hidden][eta, size] = square[:, -1]
            more: dict[str, Any] = {
                "choice": {"model.hidden": hidden, "η": eta, "B": size},
                "num_seeds": len(last),
            }
            mean = predicted(hidden, seeds, round(eta / size, 12))[1][:, -1]
            root = len(last) ** 0.5
            error = (last - mean).std(ddof=1) / root / mean.mean()
            quantity = "E‖V‖² over its mean field, from the same inits, at η²t/B = 2"
            rows.append(equals("C14", quantity, 1, last.mean() / mean.mean(), error, **more))
            floor = float(drift.noise_floor(hidden, eta, size))
            error = last.std(ddof=1) / root / floor
            quantity = "E‖V‖² over Nη/2B, at η²t/B = 2"
            measured = last.mean() / floor
            rows.append(equals("C14", quantity, 1, measured, error, tolerance=0.1, **more))
        for name, power, claimed in zip("ηB", powers(ends[hidden]).T, (1, -1), strict=True):
            more = {"choice": {"model.hidden": hidden}, "num_seeds": len(last)}
            error, quantity = power.std(), f"power of {name} in E‖V‖², at η²t/B = 2"
            rows.append(equals("C14", quantity, claimed, power[0], error, tolerance=0.1, **more))
    return rows


def powers(ends):
    """The powers of η and B in E‖V‖², by least squares over all cells, for each resampling."""
    design = np.array([[1, np.log(eta), np.log(size)] for eta, size in ends])
    picks = curve_statistics.resamplings(400, len(next(iter(ends.values()))))
    means = np.log(np.stack([square[picks].mean(1) for square in ends.values()]))
    return np.linalg.lstsq(design, means, rcond=None)[0][1:].T


def figure(ds, fits):
    import matplotlib.pyplot as plt

    widths = np.unique(ds["model.hidden"].values).tolist()
    rates, sizes = np.unique(ds.learning_rate.values), np.unique(ds.batch_size.values)
    with jt.figures.style():
        fig, axes = plt.subplots(2, 3, figsize=(jt.figures.PAGE, 4.2))
        for hidden, row in zip(widths, axes, strict=True):
            _draw(row, ds, hidden)
        for ax in axes[-1]:
            ax.set_xlabel(ax.get_title())
        for ax in axes.ravel():
            ax.set_title("")
        for eta, colour in zip(rates, jt.figures.colours(len(rates)), strict=True):
            axes[0, 0].plot([], [], color=colour, label=f"η = {eta:g}")
        for size, style in zip(sizes, STYLES, strict=False):
            axes[0, 0].plot([], [], color="grey", ls=style, label=f"B = {size}")
        # below the curves
        axes[0, 0].set_ylim(bottom=axes[0, 0].get_ylim()[0] / 2)
        axes[0, 0].legend(fontsize=6, ncols=2, loc="lower left", handlelength=2)
        axes[0, 2].legend(fontsize=6)
    return {"noise_floor": fig, "noise_floor_init": _inits(ds, max(widths))}


def _draw(row, ds, hidden):
    """‖V‖ against t, and over its floor against ηt and η²t/B with the mean field."""
    known = cells(ds, hidden)
    rates, sizes = (sorted(set(values)) for values in zip(*known, strict=True))
    for (eta, size), (step, square, seeds) in known.items():
        colour = jt.figures.colours(len(rates))[rates.index(eta)]
        line = {"color": colour, "ls": STYLES[sizes.index(size)], "lw": 1}
        step, norm = step[1:], np.sqrt(square.mean(0)[1:])
        floor = float(drift.noise_floor(hidden, eta, size)) ** 0.5
        row[0].loglog(step, norm, **line)
        row[1].loglog(step * eta, norm / floor, **line)
        row[2].loglog(step * eta**2 / size, norm / floor, **line)
        # cells of equal η/B share one prediction
        if eta == ETA or size == sizes[-1]:
            clock, mean = predicted(hidden, seeds, round(eta / size, 12))
            for ax, unit in ((row[1], 1), (row[2], eta / size)):
                label = "mean field" if eta == ETA and size == 1 else "_"
                jt.figures.theory(
                    clock * unit, np.sqrt(mean.mean(0)) / floor, ax=ax, label=label, lw=0.6
                )
    names = ("t", "ηt", "η²t/B")
    for ax, name in zip(row, names, strict=True):
        ax.set_title(name)
    row[0].set_ylabel(f"‖V‖ (r.m.s.), {hidden} units")
    row[1].set_ylabel("‖V‖/√(Nη/2B)")
    for ax in row[1:]:
        ax.axhline(1, color="grey", lw=0.8, label="Nη/2B")


def _inits(ds, hidden):
    """‖V‖ over its floor against η²t/B for each initialisation."""
    import matplotlib.pyplot as plt

    with jt.figures.style():
        names = list(dict.fromkeys(ds["model.init"].values.tolist()))
        size = (jt.figures.PAGE, 2.2)
        fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
        for ax, init in zip(axes[0], names, strict=True):
            rows = cells(ds, hidden, init)
            for eta, batch in sorted(rows, key=lambda at: at[0] / at[1]):
                step, square, _ = rows[eta, batch]
                ratio = np.sqrt(square.mean(0) / drift.noise_floor(hidden, eta, batch))[1:]
                colour = plt.get_cmap("viridis")(np.log2(0.05 * batch / eta) / 5)
                label = f"η/B = {eta / batch:.2g}" if eta == ETA or batch == 4 else None
                ax.loglog(step[1:] * eta**2 / batch, ratio, color=colour, lw=1, label=label)
            ax.axhline(1, color="grey", lw=0.8)
            ax.set(title=init, xlabel="η²t/B")
        axes[0, 0].set_ylabel("‖V‖/√(Nη/2B)")
        axes[0, -1].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    return fig
