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

E‖V‖² is the trace of K = E VVᵀ. One example's gradient moves V and W̃_k = (W_k, b_k) together, so
they become correlated, which is friction for V:

    K  ←  (1 − ηA') K (1 − ηA') + (η²/B) (S − AKA)       A' = A + R
    A'X_k + X_k A' = ε² (γ_k e_kᵀ + e_k γ_kᵀ)            X_k = Cov(W̃_k, VVᵀ),  ε = η/2B
    εR_ij = Σ_k (g_ik · X_i,kj + g_ki · X_k,kj)          symmetrised

with g_kp = E κ σ'_k σ_p x̃ and γ_kp = E (2r − κ) σ'_k σ_p x̃, where x̃ = (x, 1). In a pair of modes
of A' with eigenvalues α and β, X has reached the share 1 − exp(−ηt(α + β)) of this solution. W and
b feel the mean of f V, where noise balances A'K, so they keep M = mmᵀ + C, which has no R.
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
# R is renewed whenever ηt has grown by this factor, from ηt = 1 on. Each time the distance to its
# fixed point is halved so many times.
GROWTH, HALVINGS = 1.3, 4
# Smallest eigenvalue of A' that counts; it keeps the division by a sum of two of them finite.
SMALLEST = 1e-6
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
        covariance: covariance C of V without friction, (N, N).
        second: K = E VVᵀ, (N, N).
    """

    W: Float[Array, "*nets units d"]
    b: Float[Array, "*nets units"]
    mean: Float[Array, "*nets units"]
    covariance: Float[Array, "*nets units units"]
    second: Float[Array, "*nets units units"]


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
    none = jnp.zeros((*V.shape, V.shape[1]), V.dtype)
    state = MeanField(params["W"], params["b"], V, none, V[:, :, None] * V[:, None])
    longest, friction = max(1, int(LONGEST / learning_rate)), none
    advance = functools.partial(
        _advance,
        x=x,
        learning_rate=learning_rate,
        batch_size=batch_size,
        labels=float(noise == "full"),
    )
    renewals = _renewals(learning_rate, steps[-1]) if noise == "full" else set()
    now, rows = 0, []
    for step in sorted(renewals | set(steps)):
        whole, rest = divmod(step - now, longest)
        state = advance(advance(state, friction, whole, longest), friction, min(rest, 1), rest)
        now = step
        if step in steps:
            rows.append(_read(state))
        if step in renewals:
            temperature = learning_rate / (2 * batch_size)
            friction = _renewed(friction, state, x, temperature, learning_rate * step)
    return Prediction(
        np.array(steps), *(np.stack(column, axis=1) for column in zip(*rows, strict=True))
    )


def _renewals(learning_rate: float, last: int) -> set[int]:
    """The steps before the last one at which R is renewed."""
    clock = GROWTH ** np.arange(0, np.log(max(1.0, learning_rate * last)) / np.log(GROWTH))
    return {int(step) for step in np.ceil(clock / learning_rate) if step < last}


@jax.jit
def _advance(
    nets: MeanField,
    friction: Array,
    num: Any,
    stride: Any,
    x: Array,
    learning_rate: Any,
    batch_size: Any,
    labels: Any,
) -> MeanField:
    """Advance every net by `num` updates of `stride` steps each."""

    def update(x: Array, net: MeanField, R: Array) -> MeanField:
        W, b, mean, covariance, second = net
        number, dim = x.shape
        on, sigma, pulled, kappa = _outputs(net, x)
        M = jnp.outer(mean, mean) + covariance
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
        slowed = calm - time * R
        second = slowed @ second @ slowed + noise * (S - A @ second @ A)
        return MeanField(
            W - time * (descent.T @ x) / number + (labels * noise * force_w / w)[:, None] * W,
            b - time * descent.mean(0) + labels * noise * force_b,
            calm @ mean + labels * noise * force_V,
            (moved + moved.T) / 2,
            (second + second.T) / 2,
        )

    return jax.lax.fori_loop(0, num, lambda _, nets: jax.vmap(update)(x, nets, friction), nets)


def _outputs(net: MeanField, x: Array) -> tuple[Array, Array, Array, Array]:
    """σ' and σ of every unit, Mσ, and κ, for each input of one net."""
    a = x @ net.W.T + net.b[None]
    on = (a > 0).astype(a.dtype)
    sigma = a * on
    pulled = sigma @ (jnp.outer(net.mean, net.mean) + net.covariance)
    return on, sigma, pulled, _slope((pulled * sigma).sum(-1))


@jax.jit
def _renewed(friction: Array, nets: MeanField, x: Array, temperature: Any, clock: Any) -> Array:
    """R of every net at ηt = `clock`, from the R before."""

    def renewed(x: Array, net: MeanField, R: Array) -> Array:
        on, sigma, _, kappa = _outputs(net, x)
        number = len(x)
        extended = jnp.concatenate([x, jnp.ones((number, 1), x.dtype)], axis=1)
        A = (sigma * kappa[:, None]).T @ sigma / number

        def moment(weight: Array) -> Array:
            return jnp.einsum("nk,np,nd->kpd", on * weight[:, None], sigma, extended) / number

        g, gamma = moment(kappa), moment(1 - 3 * kappa)  # 2r − κ with r = ½ − κ

        def halved(_: Any, R: Array) -> Array:
            rates, modes = jnp.linalg.eigh(A + R)
            rates = jnp.maximum(rates, SMALLEST)
            total = rates[:, None] + rates[None]
            lag = -jnp.expm1(-clock * total) / total
            source = temperature * jnp.einsum("kpd,pa,kb->kabd", gamma, modes, modes)
            X = (source + source.transpose(0, 2, 1, 3)) * lag[None, :, :, None]
            correlated = jnp.einsum("ipd,pa,iabd->ib", g, modes, X)
            correlated += jnp.einsum("kid,ka,kabd->ib", g, modes, X)
            new = correlated @ modes.T
            return (R + (new + new.T) / 2) / 2

        return jax.lax.fori_loop(0, HALVINGS, halved, R)

    return jax.vmap(renewed)(x, nets, friction)


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
    norm = jnp.trace(nets.second, axis1=-2, axis2=-1)
    return rate, norm, nets.b.mean(-1)
