"""Teacher and student: a large learning rate that decays late leaves a ReLU net with a Jacobian of
lower rank and sparser features.

The two-layer nets are those of Andriushchenko et al. 2023 (arXiv 2210.05337): 15 points on the
circle, 3 teacher and 20 student units, no bias, B = 1, 14,125 steps, their decays, initialisation
and thresholds, and twice their learning rates, since their loss is (f − y)² and ours half of it.
There are two differences: we train many seeds, each with its own teacher, data set and
initialisation, and measure the features on fresh x instead of the training set.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import normal, zeros

import jthermo as jt

STEPS = 14_125
# For each arm the learning rate, the share of the run after which it decays, and the factor.
ARMS = {
    "η = 0.13": (0.26, 1.0, 1.0),
    "0.455, falls at 10 %": (0.91, 0.1, 2.0),
    "… at 30 %": (0.91, 0.3, 4.0),
    "… at 50 %": (0.91, 0.5, 5.0),
}
POINTS = [
    {"learning_rate": eta, "optimizer.decay_at": at * STEPS // 1, "optimizer.decay": by}
    for eta, at, by in ARMS.values()
]


# The code of an observable or module, its docstring included, enters the id of the sweep: keep it.
class Teacher(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.param("w", normal(1.0), (x.shape[-1], 3))
        return nn.relu(x @ (w / jnp.linalg.norm(w, axis=0))) @ jnp.sign(
            self.param("v", normal(1.0), (3,))
        )


class Student(nn.Module):
    @nn.compact
    def __call__(self, x):
        a = nn.Dense(20, use_bias=False, kernel_init=normal(0.5))(x)
        self.sow("preactivations", "hidden", a)
        return nn.Dense(1, use_bias=False, kernel_init=zeros)(nn.relu(a))


def jacobian_rank(model, params, probe):
    """Singular values of ∂f/∂θ at 60 inputs above 10⁻⁴ of the largest."""
    x = probe.x[:60]
    rows = jax.tree.leaves(jax.vmap(jax.grad(model.apply), (None, 0))(params, x))
    found = jnp.linalg.svd(
        jnp.concatenate([r.reshape(len(x), -1) for r in rows], 1), compute_uv=False
    )
    return (found > 1e-4 * found[0]).sum()


def feature_sparsity(model, params, probe):
    """Share of active (unit, x) among all of them, of units that correlate above 0.99 only one \
counted.\
"""
    (a,) = model.preactivations(params, probe.x).values()
    h = nn.relu(a) / jnp.maximum(jnp.linalg.norm(nn.relu(a), axis=1, keepdims=True), 1e-30)
    z = h - h.mean(0)
    z = z / jnp.maximum(jnp.linalg.norm(z, axis=0), 1e-30)
    again = jnp.triu(jnp.abs(z.T @ z) > 0.99, 1).any(1)
    return ((h > 0) & ~again).mean()


SWEEP = jt.Sweep(
    model=Student(),
    data=jt.data.Teacher(jt.data.Sphere(dim=2, num_samples=15), Teacher()),
    points=POINTS,
    seed=range(256),
    num_steps=STEPS,
    common_data=True,
    optimizer=jt.sgd(decay_at=STEPS),
    record=jt.Record(steps=jt.every(250), observables=(jt.loss(), jacobian_rank, feature_sparsity)),
)
SMALL = {"seed": range(96)}
# It tests no claim of the paper.
FIT = ()


def figure(ds, fits):
    import matplotlib.pyplot as plt

    diverged = ds.seed.values[~ds.finite.values.all(1)]
    # keep the seeds that diverge at no learning rate
    ds = ds.isel(run=~np.isin(ds.seed.values, diverged))
    with jt.figures.style():
        fig, axes = plt.subplots(1, 3, figsize=(jt.figures.PAGE, 2.2))
        for name, point, colour in zip(
            ARMS, POINTS, ("black", *jt.figures.colours(3)), strict=True
        ):
            runs = ds.isel(run=ds["optimizer.decay_at"].values == point["optimizer.decay_at"])
            axes[0].plot(runs.step.values[0], runs.loss.median("run"), color=colour, label=name)
            for ax, variable in zip(axes[1:], ("jacobian_rank", "feature_sparsity"), strict=True):
                jt.figures.band(*jt.figures.mean_curve(runs, variable), ax=ax, color=colour)
        labels = (
            f"error, median of {runs.sizes['run']} seeds",
            "rank of ∂f/∂θ",
            "feature sparsity",
        )
        for ax, label in zip(axes, labels, strict=True):
            ax.set(xlabel="t", ylabel=label, xticks=(0, 5000, 10_000))
        axes[0].set(yscale="log")
        axes[0].legend(loc="upper right")
    return {"teacher_student": fig}
