"""Quartic well: label noise makes units of a linear student vanish, or become alike.

A linear unit with equal input and output weight θ that is trained on μx + σξ follows the quartic
well dθ = (μθ − θ³)dt + ζθ dW of Chen et al. 2023 (arXiv 2306.04251, Sec. 4), with ζ = σ√η and t in
units of 1/η. μ = 1.5, t ≤ 25 and ζ ≤ 3 are their values. Their linear student has a unit for each
singular mode. Ours has one for each of 20 inputs, with μ evenly spaced up to 1.5; a second student
has 20 units that each see all of 5 inputs. η, x ~ N(0, 1), the initial θ ~ N(0, 1), and the
thresholds 10⁻³ and 0.999 are our choices.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import normal

import jthermo as jt

ETA, MU, TIME, UNITS = 0.01, 1.5, 25.0, 20
# The values of ζ.
NOISE = np.linspace(0, 3, 25)


# The code of an observable or module, its docstring included, enters the id of the sweep: keep it.
class Teacher(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ jnp.linspace(MU, 0, x.shape[-1], endpoint=False)


class Student(nn.Module):
    # True: each unit sees all inputs; False: each unit has its own input
    mixed: bool = False

    @nn.compact
    def __call__(self, x):
        d = x.shape[-1]
        w = self.param(
            "w", normal((UNITS if self.mixed else 1) ** -0.5), (UNITS, d) if self.mixed else (d, 1)
        )
        v = self.param("v", lambda key, w: w[:, 0], w)
        return (x @ w.T if self.mixed else x * w[:, 0]) @ v


def vanished(model, params, probe):
    """Fraction of units all of whose weights are below 10⁻³."""
    return (jnp.maximum(jnp.abs(params["w"]).max(1), jnp.abs(params["v"])) < 1e-3).mean()


def alike(model, params, probe):
    """Fraction of units whose input weights have a cosine above 0.999 in size with \
an earlier unit's.\
"""
    w = params["w"] / jnp.abs(params["w"]).max(1, keepdims=True)
    w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
    return jnp.triu(jnp.abs(w @ w.T) > 0.999, 1).any(0).mean()


SWEEP = jt.Sweep(
    model=Student(),
    data=jt.data.Teacher(jt.data.Gaussian(dim=1), Teacher()),
    points=[
        {"model.mixed": mixed, "data.inputs.dim": d}
        for mixed, d in ((False, 1), (False, UNITS), (True, 5))
    ],
    learning_rate=ETA,
    seed=range(1024),
    vary={"data.label_noise": (NOISE / ETA**0.5).tolist()},
    num_steps=int(TIME / ETA),
    record=jt.Record(steps=jt.every(250), observables=(vanished, alike)),
)
SMALL = {"seed": range(64)}
# It tests no claim of the paper.
FIT = ()


def figure(ds, fits):
    import matplotlib.pyplot as plt

    # mean over the finite runs of each ζ
    def mean(variable, dim, record):
        runs = ds.isel(run=ds["data.inputs.dim"].values == dim, record=record)
        return runs[variable].groupby("data.label_noise").mean()

    with jt.figures.style():
        fig, axes = plt.subplots(1, 3, figsize=(jt.figures.PAGE, 2.2), sharey=True)
        for ax, dim, title in zip(
            axes, (1, UNITS), ("one unit", f"{UNITS} units, one input each"), strict=False
        ):
            for record, colour in zip((2, 5, -1), jt.figures.colours(3), strict=True):
                label = f"ηt = {ds.step.values[0, record] * ETA:g}"
                ax.plot(
                    NOISE,
                    mean("vanished", dim, record),
                    color=colour,
                    label=label if dim == 1 else "_",
                )
            ax.set(title=title, xlabel="ζ = σ√η")
        axes[0].axvline((2 * MU) ** 0.5, color="black", ls="--", lw=0.9, label="ζ² = 2μ")
        jt.figures.theory(
            NOISE, np.minimum(NOISE**2 / (2 * MU), 1), ax=axes[1], label="units of 2μ < ζ²"
        )
        axes[2].plot(NOISE, mean("alike", 5, -1), label="alike")
        axes[2].plot(NOISE, mean("vanished", 5, -1), label="vanished")
        axes[2].plot(NOISE, 1 - mean("finite", 5, -1), "k:", label="runs diverged")
        axes[2].set(title=f"{UNITS} units, 5 inputs, ηt = {TIME:g}", xlabel="ζ = σ√η")
        axes[0].set_ylabel("fraction of vanished units")
        axes[2].set_ylabel("fraction")
        for ax in axes:
            ax.legend()
    return {"quartic_well": fig}
