"""Hessian trace, its bound by activation rate and weight norm (A.5) and their ratio over training,
for several η.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import jthermo as jt
from jthermo.paper import curve_statistics
from jthermo.paper.evidence import above, below
from jthermo.theory import hessian


# The code of an observable or module, its docstring included, enters the id of the sweep: keep it.
def factors(model, params, probe):
    """Σ_i rate_i |W_i|² and Σ_i rate_i V_i²: activation rate times weight norm, \
incoming and outgoing.\
"""
    return jnp.concatenate(hessian.layer_factors(model, params, probe.x))


SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10),
    data=jt.data.Gaussian(dim=10),
    learning_rate=(0.025, 0.05, 0.1),
    seed=range(512),
    num_steps=jt.RescaledSteps(20.0),
    record=jt.Record(
        steps=jt.log_steps(60),
        observables=(jt.activation_rate(), jt.hessian_trace(), jt.trace_bound(), factors),
        probe_size=512,
    ),
)
# The claims that `judge` gives evidence on.
CLAIMS = ("C13",)
SMALL = {"seed": range(128)}
# Numbers of weight layers of the nets, 10 units wide, whose bound is compared at the init.
DEPTHS = (2, 3, 4, 5)


def looseness(layers):
    """Bound divided by trace for 64 untrained nets, each on its own inputs, (64,)."""
    model = jt.models.MLP(10, hidden=(10,) * (layers - 1), init="he")

    def ratio(key):
        params, x = model.init(key), jax.random.normal(jax.random.fold_in(key, 1), (128, 10))
        return hessian.trace_bound(model, params, x) / hessian.trace(model, params, x)

    return np.asarray(jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(0), 64)))


def judge(ds):
    ratio = ds.trace_bound_ratio.values
    # the bound must hold for every record, so the interval is the full range
    name = "bound over trace, median [least, greatest] of all records"
    rows = [above("C13", name, 1, np.nanmedian(ratio), np.nanmin(ratio), np.nanmax(ratio))]
    for eta in np.unique(ds.learning_rate.values):
        runs = ds.isel(run=ds.learning_rate.values == eta)
        bound, last_factors = runs.trace_bound.values, runs.factors.values[:, -1]
        picks = curve_statistics.resamplings(400, len(bound))
        measured = {
            "bound at the end, over its start": bound[picks, -1].mean(1) / bound[picks, 0].mean(1)
        }
        for name, factor in zip(("Σ rate · |W|²", "Σ rate · V²"), last_factors.T, strict=True):
            rank = [stats.spearmanr(bound[p, -1], factor[p]).statistic for p in picks]
            measured[f"rank correlation of bound and {name}, over seeds"] = np.array(rank)
        for name, value in measured.items():
            test, limit = (below, 1) if "end" in name else (above, 0)
            span = np.quantile(value, [0.025, 0.975])
            choice, seeds = {"η": float(eta)}, len(bound)
            rows.append(test("C13", name, limit, value[0], *span, choice=choice, num_seeds=seeds))
    return rows


def figure(ds, fits):
    import matplotlib.pyplot as plt

    into, out = np.moveaxis(ds.factors.values / ds.factors.values[:, 0].mean(0), -1, 0)
    rate = ds.activation_rate / ds.activation_rate.isel(record=0).mean()
    ds = ds.assign(
        into=(("run", "record"), into), out=(("run", "record"), out), activation_rate=rate
    )
    panels = {
        "trace of the Hessian": {"bound": "trace_bound", "trace": "hessian_trace"},
        "bound / trace": {"": "trace_bound_ratio"},
        "factors of the bound, over their start": {
            "Σ rate · |W|²": "into",
            "Σ rate · V²": "out",
            "activation rate": "activation_rate",
        },
    }
    with jt.figures.style():
        fig, axes = plt.subplots(2, 2, figsize=(jt.figures.PAGE, 4.6))
        for ax, (title, shown) in zip(axes.flat, panels.items(), strict=False):
            for (name, variable), style in zip(shown.items(), ("-", "--", ":"), strict=False):
                lines = jt.figures.curves(ds, variable, power=2, ax=ax).lines
                plt.setp(lines[-len(np.unique(ds.learning_rate)) :], linestyle=style)
                if name:
                    ax.plot([], [], color="black", ls=style, label=name)
            ax.set(title=title, yscale="log", ylabel="")
            ax.legend(
                handles=[
                    line for line in ax.lines if bool(line.get_xdata().size) == (len(shown) == 1)
                ]
            )
        spread = np.quantile([looseness(layers) for layers in DEPTHS], [0.5, 0.05, 0.95], axis=1)
        error = np.abs(spread[1:] - spread[0])
        axes[1, 1].errorbar(DEPTHS, spread[0], error, fmt="o-", ms=3, color="black")
        axes[1, 1].set(
            title="bound / trace at the init",
            yscale="log",
            xticks=DEPTHS,
            xlabel="layers of weights",
        )
        axes[1, 1].tick_params(axis="x", which="minor", bottom=False)
    return {"hessian_bound": fig}
