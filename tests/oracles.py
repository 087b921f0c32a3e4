"""Plain float64 NumPy implementations of two-layer nets, to compare results with.

They follow the formulas, one run and one example at a time. Random numbers come from ``jax.random``
with its own threefry and the key derivation that ``jthermo/randomness/streams.py`` describes.
"""

import itertools
from types import SimpleNamespace

import jax
import numpy as np
from scipy import stats

# The role numbers of jthermo.randomness.streams, repeated here so that a change there fails a test.
BATCH, NOISE, PROBE, DATASET = 1, 2, 3, 4


def key(seed, *folds):
    folded = jax.random.key(seed, impl="threefry2x32")
    for fold in folds:
        folded = jax.random.fold_in(folded, np.uint32(fold))
    return folded


def examples(draw_key, size, dim, kind="gaussian"):
    x_key, y_key = (jax.random.fold_in(draw_key, i) for i in (0, 1))
    x = np.asarray(
        (jax.random.uniform if kind == "uniform" else jax.random.normal)(x_key, (size, dim)), float
    )
    if kind == "sphere":
        x = np.array([row / np.sqrt(sum(v * v for v in row)) for row in x])
    return x, np.asarray(jax.random.bernoulli(y_key, 0.5, (size,)), np.float64)


def batch(config, seed, t, order=None):
    """x and y of step t of a two-layer run on synthetic data."""
    # the outputs of a teacher, with label noise drawn for this step
    if hasattr(config.data, "label_noise"):
        inputs, teacher = config.data.inputs, config.data.model.init(key(seed, DATASET, 2**32 - 1))
        xs, _ = batch(
            SimpleNamespace(**{**vars(config), "data": inputs, "stream": config.stream}), seed, t
        )
        noise = jax.random.normal(key(seed, BATCH, config.stream, t, 1), (len(xs),))
        ys = [forward({k: np.asarray(v, float) for k, v in teacher.items()}, x)[0] for x in xs]
        return xs, np.array(ys) + config.data.label_noise * np.asarray(noise, float)
    data, kind = config.data, type(config.data).__name__.lower()
    stream = key(seed, BATCH, config.stream)
    if data.num_samples is None:
        return examples(jax.random.fold_in(stream, t), config.batch_size, data.dim, kind)
    if data.sampling == "replacement":
        index = jax.random.randint(
            jax.random.fold_in(stream, t), (config.batch_size,), 0, data.num_samples
        )
    else:
        per_epoch = data.num_samples // config.batch_size
        order = jax.random.permutation(jax.random.fold_in(stream, t // per_epoch), data.num_samples)
        first = (t % per_epoch) * config.batch_size
        index = order[first : first + config.batch_size]
    rows = [examples(key(seed, DATASET, i), 1, data.dim, kind) for i in np.asarray(index)]
    y = np.concatenate([r[1] for r in rows])
    fresh = jax.random.fold_in(jax.random.fold_in(stream, t), 1)
    redrawn = np.asarray(
        jax.random.bernoulli(jax.random.fold_in(fresh, 0), data.redraw or 0.0, y.shape)
    )
    labels = np.asarray(jax.random.bernoulli(jax.random.fold_in(fresh, 1), 0.5, y.shape)).astype(
        y.dtype
    )
    return np.concatenate([r[0] for r in rows]), np.where(redrawn, labels, y)


def forward(params, x):
    """f and the pre-activations for one example, unit by unit."""
    a = [sum(w * v for w, v in zip(row, x, strict=True)) for row in params["W"]]
    if "b" in params:
        a = [ai + bi for ai, bi in zip(a, params["b"], strict=True)]
    return sum(v * max(ai, 0.0) for v, ai in zip(params["V"], a, strict=True)), np.array(a)


def gradient_of_f(params, x):
    """∇f for one example: V_i 1[a_i > 0] x_j, V_i 1[a_i > 0], relu(a_i)."""
    _, a = forward(params, x)
    on = (a > 0).astype(float)
    gradients = {"W": np.outer(params["V"] * on, x), "V": np.maximum(a, 0.0)}
    return gradients | ({"b": params["V"] * on} if "b" in params else {})


def residual(config, f, y, sign):
    """p − y, or the value by which the noise control replaces it."""
    p = 1 / (1 + np.exp(-f)) if config.loss == "bce" else f
    return {"Full": p - y, "Unbiased": 0.5 * sign, "LabelAveraged": p - 0.5}[
        type(config.noise).__name__
    ]


def train(config, params, seed, steps):
    """Parameters after `steps` updates θ ← θ − (η/B) Σ r ∇f."""
    params = {k: np.asarray(v, np.float64) for k, v in params.items()}
    for t in range(steps):
        xs, ys = batch(config, seed, t)
        noise_key = jax.random.fold_in(key(seed, NOISE, config.stream), t)
        signs = np.asarray(jax.random.rademacher(noise_key, (len(xs),)), float)
        total = {k: np.zeros_like(v) for k, v in params.items()}
        for x, y, sign in zip(xs, ys, signs, strict=True):
            r = residual(config, forward(params, x)[0], y, sign)
            for k, g in gradient_of_f(params, x).items():
                total[k] += r * g
        hyper = config.optimizer.hyper
        decayed = hyper.get("decay", 1.0) if t >= hyper.get("decay_at", steps) else 1.0
        params = {
            k: v - config.learning_rate / decayed / len(xs) * total[k] for k, v in params.items()
        }
    return params


def observables(config, params, seed, step, probe_size):
    """The observables of a record, from loops over units and probe examples."""
    params = {k: np.asarray(v, np.float64) for k, v in params.items()}
    kind = type(config.data).__name__.lower()
    xs, ys = examples(key(seed, PROBE, config.stream, step), probe_size, config.data.dim, kind)
    outputs = [forward(params, x) for x in xs]
    f = np.array([o[0] for o in outputs])
    fraction = np.array([np.mean(o[1] > 0) for o in outputs])
    p = 1 / (1 + np.exp(-f)) if config.loss == "bce" else f
    bce = (
        np.array([-(y * np.log(q) + (1 - y) * np.log(1 - q)) for q, y in zip(p, ys, strict=True)])
        if config.loss == "bce"
        else 0
    )
    curvature = p * (1 - p) if config.loss == "bce" else np.ones_like(p)
    square = [sum(float(np.sum(g**2)) for g in gradient_of_f(params, x).values()) for x in xs]
    width = np.sqrt([sum(w * w for w in row) for row in params["W"]])
    exact = [
        stats.norm.cdf(b / w)
        for b, w in zip(params.get("b", np.zeros(len(width))), width, strict=True)
    ]
    return {
        "unit_activation": np.array(exact)
        if kind == "gaussian"
        else np.mean([o[1] > 0 for o in outputs], axis=0),
        "activation_rate": np.mean(exact) if kind == "gaussian" else fraction.mean(),
        "activation_rate_probe": fraction.mean(),
        "activation_rate_probe_se": fraction.std(ddof=1) / np.sqrt(probe_size),
        "weight_norm_V": np.sqrt(sum(v * v for v in params["V"])),
        "weight_norm_W": np.sqrt(sum(w * w for w in itertools.chain(*params["W"]))),
        "loss": bce.mean() if config.loss == "bce" else np.mean(0.5 * (f - ys) ** 2),
        "mean_squared_residual": np.mean((p - ys) ** 2),
        "kappa": config.learning_rate * np.mean(curvature * square) / config.batch_size,
    }
