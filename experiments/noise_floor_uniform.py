"""Noise floor of ‖V‖ for x ~ U(0, 1) without bias: most modes of M = E σσᵀ relax more slowly than
the run lasts, so ‖V‖ stays above its floor.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jthermo as jt
from jthermo.engines import run_state, step_program
from jthermo.paper.evidence import above
from jthermo.theory import drift

TAU = 2.0
SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=10, hidden=10, bias=False),
    data=jt.data.Uniform(dim=10),
    learning_rate=(0.0125, 0.025, 0.05),
    batch_size=(1, 2, 4),
    seed=range(256),
    vary={"model.init": jt.models.INITS},
    num_steps=jt.RescaledSteps(TAU),
    record=jt.Record(
        steps=jt.log_steps(60), observables=(jt.activation_rate(), jt.weight_norm("V"))
    ),
)
# The claims that `judge` gives evidence on.
CLAIMS = ("C14",)
SMALL = {"seed": range(64)}
# The initialisation that is judged.
INIT = "he"


def modes(init, seeds):
    """Eigenvalues m of M for each seed's init, and the square of V along each mode, (seeds, N)."""
    model = jt.models.TwoLayer(inputs=10, hidden=10, bias=False, init=init)
    inits = jax.vmap(
        lambda seed: run_state.init(model, jt.sgd(), step_program.Run(seed, 0, 0.05, {})).params
    )(jnp.asarray(seeds, jnp.uint32))
    x = np.random.default_rng(0).random((4000, 10))
    sigma = np.maximum(np.einsum("nd,skd->snk", x, np.asarray(inits["W"])), 0)
    m, vectors = np.linalg.eigh(np.einsum("snk,snl->skl", sigma, sigma) / len(x))
    return m.clip(0), np.einsum("ska,sk->sa", vectors, np.asarray(inits["V"])) ** 2


def still(m, square, clock, temperature):
    """E‖V‖² at ηt = `clock` if W stayed at its init: each mode relaxes to η/2B at rate m/4."""
    left = np.exp(-m[..., None] * clock / 2)
    return (square[..., None] * left + temperature / 2 * (1 - left)).sum(1).mean(0)


def cells(ds, init):
    """For every η and B: the steps, and ‖V‖² of each run in the order of the seeds."""
    for eta in np.unique(ds.learning_rate.values):
        for size in np.unique(ds.batch_size.values):
            here = (ds.learning_rate.values == eta) & (ds.batch_size.values == size)
            runs = ds.isel(run=here & (ds["model.init"].values == init)).sortby("seed")
            kept = runs.step.values[0] >= 0
            square = runs.weight_norm_V.values[:, kept] ** 2
            yield float(eta), int(size), runs.step.values[0, kept], square


def judge(ds):
    rows = []
    for eta, size, _, square in cells(ds, INIT):
        last, floor = square[:, -1], float(drift.noise_floor(10, eta, size))
        mean, half = last.mean() / floor, 1.96 * last.std(ddof=1) / len(last) ** 0.5 / floor
        more: dict[str, Any] = {"choice": {"η": eta, "B": size}, "num_seeds": len(last)}
        quantity = "E‖V‖² over Nη/2B with slow modes, x ~ U(0, 1) and no bias, at η²t/B = 2"
        rows.append(above("C14", quantity, 1, mean, mean - half, mean + half, **more))
    return rows


def figure(ds, fits):
    import matplotlib.pyplot as plt

    seeds = np.unique(ds.seed.values)
    with jt.figures.style():
        fig, axes = plt.subplots(1, 3, figsize=(jt.figures.PAGE, 2.4))
        m, square_V = modes(INIT, seeds)
        known = list(cells(ds, INIT))
        ratios = sorted({size / eta for eta, size, _, _ in known})
        for eta, size, step, square in known:
            colour = jt.figures.colours(len(ratios))[ratios.index(size / eta)]
            floor = float(drift.noise_floor(10, eta, size))
            clock, norm = step[1:] * eta, np.sqrt(square.mean(0)[1:] / floor)
            label = f"η/B = {eta / size:.2g}" if eta == 0.05 else "_"
            axes[0].loglog(clock, norm, color=colour, lw=1, label=label)
            axes[1].loglog(clock * eta / size, norm, color=colour, lw=1)
            if eta == 0.05:
                line = np.sqrt(still(m, square_V, clock, eta / size) / floor)
                jt.figures.theory(clock, line, ax=axes[0], label="_", lw=0.6)
        for ax in axes[:2]:
            ax.axhline(1, color="grey", lw=0.8)
        for init in dict.fromkeys(ds["model.init"].values.tolist()):
            rates = np.median(modes(init, seeds)[0], axis=0)[::-1]
            axes[2].semilogy(np.arange(1, 11), rates.clip(1e-5), "o-", lw=0.8, label=init)
        longest = max(eta * step[-1] for eta, _, step, _ in known)
        axes[2].axhline(4 / longest, color="grey", ls=":", label="relaxes in the longest run")
        axes[0].set(xlabel="ηt", ylabel="‖V‖/√(Nη/2B)")
        axes[1].set(xlabel="η²t/B")
        axes[2].set(xlabel="mode", ylabel="m, median over seeds", ylim=(1e-5, 10))
        jt.figures.theory([], [], ax=axes[0], label="W at its init")
        for ax in axes[::2]:
            ax.legend(fontsize=6)
    return {"noise_floor_uniform": fig}
