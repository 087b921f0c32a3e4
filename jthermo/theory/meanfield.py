"""Mean-field curves of the two-layer net from its init alone: activation rate, ‖V‖ and b against t.

The state of a net is W, b, the mean m of V and the covariance C of V, since label noise makes V
fluctuate. For x ~ N(0, I) with random labels, f(x) is then close to N(0, q) with q = σᵀMσ and
M = mmᵀ + C, and per step

    m  ←  (1 − ηA) m + F_V                               A = E κ σσᵀ
    C  ←  (1 − ηA) C (1 − ηA) + (η²/B) (S − AMA)         S = E r σσᵀ
    b  ←  b − η E κ σ' (Mσ) + F_b',   W ← W − η E κ σ' (Mσ) xᵀ + F_W'

with κ = E p(1−p) and r = E(p−y)² = ½ − κ over f ~ N(0, q). F is the label-noise drift of
:mod:`jthermo.theory.drift` at the mean parameters. The primed components omit the contribution of
the noise of V (2 Eσ in F_b), which C already contains. No parameter is fitted.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray, Real

from jthermo.errors import InputError
from jthermo.theory import drift
from jthermo.theory.moments import gaussian

NOISES = ("full", "label_averaged")
# Largest ηt of one update. The fastest mode of V relaxes over ηt ≈ 0.4.
LONGEST = 0.05
# Gauss–Hermite quadrature for N(0, 1) with five nodes: the weight of the middle node, where
# p(1−p) = ¼, and the nodes and weights of the two pairs.
_MIDDLE, _NODES, _WEIGHTS = (
    8 / 15,
    (1.355626179974266, 2.856970013872806),
    (0.222075922005613, 0.011257411327721),
)


class MeanField(NamedTuple):
    """State of one net, or of an ensemble with a leading axis.

    Attributes:
        W: (N, d).
        b: (N,).
        mean: mean m of V, (N,).
        covariance: covariance C of V, (N, N).
    """

    W: Float[Array, "*nets units d"]
    b: Float[Array, "*nets units"]
    mean: Float[Array, "*nets units"]
    covariance: Float[Array, "*nets units units"]


class Prediction(NamedTuple):
    """Mean-field curves at the requested steps, one row per net of the ensemble.

    Attributes:
        step: t, (K,).
        activation_rate: mean over units of Φ(b/w), (nets, K).
        squared_norm_V: E‖V‖², (nets, K).
        mean_bias: mean over units of b, (nets, K).
    """

    step: Int[np.ndarray, " k"]
    activation_rate: Float[np.ndarray, "nets k"]
    squared_norm_V: Float[np.ndarray, "nets k"]
    mean_bias: Float[np.ndarray, "nets k"]


def mean_bias(model: Any, params: Mapping[str, Array], probe: Any) -> Float[Array, ""]:
    """Mean over hidden units of b."""
    return params["b"].mean()


def excess_loss(model: Any, params: Mapping[str, Array], probe: Any) -> Float[Array, ""]:
    """E log cosh(f/2), in nats: logistic loss averaged over random labels, minus its minimum."""
    half = jnp.abs(model.apply(params, probe.x)) / 2
    return (half + jnp.log1p(jnp.exp(-2 * half)) - jnp.log(2.0)).mean()


def predict(
    params: Mapping[str, Float[Array, "nets ..."]],
    steps: Sequence[int] | Real[np.ndarray, " k"],
    *,
    learning_rate: float,
    batch_size: int = 1,
    noise: str = "full",
    num_inputs: int = 256,
    key: PRNGKeyArray | None = None,
) -> Prediction:
    """Mean-field curves of two-layer nets with bias, logistic loss, x ~ N(0, I) and random labels.

    Args:
        params: an ensemble of initial parameters, W (nets, N, d), b (nets, N), V (nets, N).
        steps: increasing steps at which to predict.
        learning_rate: η.
        batch_size: B.
        noise: ``"full"``, or ``"label_averaged"`` for descent without label noise (p − ½ replaces
            p − y).
        num_inputs: number of inputs drawn per net to represent the distribution of x. With too few,
            V decays too slowly.
        key: JAX random key of these inputs; None for a fixed one.

    Returns:
        Curves with one row per net.

    Raises:
        InputError: unknown `noise`, wrong `params`, or steps that do not increase.

    At η² t = 1:

    >>> import jax, jthermo as jt
    >>> model = jt.models.TwoLayer(inputs=10, hidden=10, init="he")
    >>> nets = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 8))
    >>> curves = predict(nets, (0, 400), learning_rate=0.05)
    >>> print(f"{curves.activation_rate[:, 1].mean():.2f}")
    0.47
    """
    if noise not in NOISES:
        raise InputError(
            "noise", noise, f"use one of {', '.join(NOISES)}; without descent V grows without bound"
        )
    if set(params) != {"W", "b", "V"} or params["W"].ndim != 3:
        raise InputError(
            "params", sorted(params), "give arrays W (nets, N, d), b (nets, N) and V (nets, N)"
        )
    steps = [int(s) for s in steps]
    if not steps or steps[0] < 0 or any(b <= a for a, b in itertools.pairwise(steps)):
        raise InputError("steps", steps, "give steps of at least 0 in increasing order")
    nets, _, dim = params["W"].shape
    x = jax.random.normal(
        jax.random.key(0) if key is None else key, (nets, num_inputs, dim), params["W"].dtype
    )
    V = params["V"]
    state = MeanField(params["W"], params["b"], V, jnp.zeros((*V.shape, V.shape[1]), V.dtype))
    longest = max(1, int(LONGEST / learning_rate))
    advance = functools.partial(
        _advance,
        x=x,
        learning_rate=learning_rate,
        batch_size=batch_size,
        labels=float(noise == "full"),
    )
    now, rows = 0, []
    for step in steps:
        whole, rest = divmod(step - now, longest)
        state = advance(advance(state, whole, longest), min(rest, 1), rest)
        now = step
        rows.append(_read(state))
    return Prediction(
        np.array(steps), *(np.stack(column, axis=1) for column in zip(*rows, strict=True))
    )


@jax.jit
def _advance(
    nets: MeanField,
    num: Any,
    stride: Any,
    x: Array,
    learning_rate: Any,
    batch_size: Any,
    labels: Any,
) -> MeanField:
    """Advance every net by `num` updates of `stride` steps each."""

    def update(x: Array, net: MeanField) -> MeanField:
        W, b, mean, covariance = net
        number, dim = x.shape
        a = x @ W.T + b[None]
        on = (a > 0).astype(a.dtype)
        sigma = a * on
        M = jnp.outer(mean, mean) + covariance
        pulled = sigma @ M
        kappa = _slope((pulled * sigma).sum(-1))
        # E(p−y)², without the label noise ¼ if labels are averaged
        residual = 0.25 * labels + (0.25 - kappa)
        A = (sigma * kappa[:, None]).T @ sigma / number
        S = (sigma * residual[:, None]).T @ sigma / number
        descent = kappa[:, None] * on * pulled
        time, noise = learning_rate * stride, learning_rate**2 / batch_size * stride
        w = jnp.linalg.norm(W, axis=1)
        relu = gaussian(b, w=w)
        force_V, force_b = drift.two_layer(mean, b, w=w, dim=dim)
        force_w = drift.two_layer_radial(mean, b, w=w, dim=dim)
        # F_b' and F_w': without the contribution of the noise of V, which C contains
        force_b, force_w = force_b + relu.sigma / 8, force_w + w * relu.active / 8
        calm = jnp.eye(len(w), dtype=M.dtype) - time * A
        moved = calm @ covariance @ calm + noise * (S - A @ M @ A)
        return MeanField(
            W - time * (descent.T @ x) / number + (labels * noise * force_w / w)[:, None] * W,
            b - time * descent.mean(0) + labels * noise * force_b,
            calm @ mean + labels * noise * force_V,
            (moved + moved.T) / 2,
        )

    return jax.lax.fori_loop(0, num, lambda _, nets: jax.vmap(update)(x, nets), nets)


def _slope(q: Array) -> Array:
    """E p(1−p) over f ~ N(0, q)."""
    root = jnp.sqrt(jnp.maximum(q, 0))
    total = jnp.full_like(q, _MIDDLE / 4)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        p = jax.nn.sigmoid(node * root)
        total += 2 * weight * p * (1 - p)
    return total


@jax.jit
def _read(nets: MeanField) -> tuple[Array, Array, Array]:
    """Activation rate, E‖V‖² and mean b of each net."""
    rate = jax.scipy.special.ndtr(nets.b / jnp.linalg.norm(nets.W, axis=-1)).mean(-1)
    norm = jnp.square(nets.mean).sum(-1) + jnp.trace(nets.covariance, axis1=-2, axis2=-1)
    return rate, norm, nets.b.mean(-1)
