"""Plain float64 NumPy implementations of deep nets, forward and backward, pixel by pixel."""

import numpy as np


def as_float64(params):
    return {
        k: {n: np.asarray(v, np.float64) for n, v in leaf.items()} for k, leaf in params.items()
    }


def order(params):
    """Layer names in the order in which the net calls them."""
    rank = {"conv": 0, "hidden": 1, "output": 2}
    return sorted(params, key=lambda n: (rank[n.partition("_")[0]], int(n.partition("_")[2] or 0)))


def windows(h):
    """The 3 × 3 × C window around every pixel, zero outside the image, as {(i, j): vector}."""
    rows, columns, channels = h.shape
    vectors = {}
    for i in range(rows):
        for j in range(columns):
            window = np.zeros((3, 3, channels))
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if 0 <= i + di < rows and 0 <= j + dj < columns:
                        window[di + 1, dj + 1] = h[i + di, j + dj]
            vectors[i, j] = window.ravel()
    return vectors


def forward(params, x, blocks=()):
    """Outputs (C,), pre-activations by layer, and the tape of the backward pass, of one example."""
    params, h, tape, pre, conv = as_float64(params), np.asarray(x, np.float64), [], {}, 0
    for block in blocks:
        for _ in block:
            name = f"conv_{conv}"
            kernel, bias = params[name]["kernel"], params[name].get("bias", 0.0)
            a = np.zeros((*h.shape[:2], kernel.shape[1]))
            for at, window in windows(h).items():
                a[at] = window @ kernel + bias
            tape.append(("conv", name, h, a))
            pre[name], h, conv = a, np.maximum(a, 0), conv + 1
        rows, columns, channels = h.shape
        pooled, argmax = np.zeros((rows // 2, columns // 2, channels)), {}
        for i, j, c in np.ndindex(pooled.shape):
            block_of = h[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
            argmax[i, j, c] = divmod(int(block_of.argmax()), 2)
            pooled[i, j, c] = block_of.max()
        tape.append(("pool", argmax, h.shape, None))
        h = pooled
    h = h.ravel()
    for name in [n for n in order(params) if not n.startswith("conv")]:
        kernel = params[name]["kernel"]
        a = np.array(
            [sum(h[k] * kernel[k, u] for k in range(len(h))) for u in range(kernel.shape[1])]
        )
        a = a + params[name].get("bias", 0.0)
        tape.append(("dense", name, h, a))
        if name != "output":
            pre[name], h = a, np.maximum(a, 0)
    return a, pre, tape


def gradient(params, x, cotangent, blocks=()):
    """cotangent · ∂f/∂θ for one example, by layer and parameter."""
    params = as_float64(params)
    _, _, tape = forward(params, x, blocks)
    gradients, delta = {}, np.atleast_1d(np.asarray(cotangent, np.float64))
    for kind, name, h, a in reversed(tape):
        if kind == "pool":
            spread = np.zeros(h)
            for (i, j, c), (di, dj) in name.items():
                spread[2 * i + di, 2 * j + dj, c] = delta.reshape(h[0] // 2, h[1] // 2, h[2])[
                    i, j, c
                ]
            delta = spread
            continue
        kernel = params[name]["kernel"]
        if name != "output":
            delta = delta.reshape(a.shape) * (a > 0)
        if kind == "dense":
            g = {"kernel": np.outer(h, delta), "bias": delta.copy()}
            below = kernel @ delta
        else:
            g = {"kernel": np.zeros_like(kernel), "bias": np.zeros(kernel.shape[1])}
            below, (rows, columns, channels) = np.zeros_like(h), h.shape
            for (i, j), window in windows(h).items():
                g["kernel"] += np.outer(window, delta[i, j])
                g["bias"] += delta[i, j]
                back = (kernel @ delta[i, j]).reshape(3, 3, channels)
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        if 0 <= i + di < rows and 0 <= j + dj < columns:
                            below[i + di, j + dj] += back[di + 1, dj + 1]
        gradients[name] = {k: v for k, v in g.items() if k in params[name]}
        delta = below
    return gradients


def residual(outputs, label):
    """p − y for the logistic (one output) or softmax loss."""
    if len(outputs) == 1:
        return 1 / (1 + np.exp(-outputs)) - label
    p = np.exp(outputs - outputs.max())
    p /= p.sum()
    p[label] -= 1
    return p


def sample_gradients(params, x, y, blocks=()):
    """Every per-example gradient of the loss, {layer: {parameter: (M, …)}}."""
    rows = []
    for example, label in zip(np.asarray(x), np.asarray(y), strict=True):
        outputs, _, _ = forward(params, example, blocks)
        rows.append(gradient(params, example, residual(outputs, int(label)), blocks))
    return {
        name: {k: np.stack([r[name][k] for r in rows]) for k in rows[0][name]}
        for name in order(params)
    }


def variance(g):
    """Trace of the sample covariance of (M, …) gradients, with M − 1 in the denominator."""
    return float(g.reshape(len(g), -1).var(axis=0, ddof=1).sum())
