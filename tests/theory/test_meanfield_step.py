"""Single updates of the mean field against the docstring's equations, by loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, linalg, stats

from jthermo.theory import drift, meanfield

DIM, UNITS, INPUTS = 3, 2, 40


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


def over_f(of, q):
    """E of(p) over f ~ N(0, q), p the probability, by the five nodes that predict uses."""
    return WEIGHTS @ of(1 / (1 + np.exp(-np.sqrt(q) * NODES))) / np.sqrt(2 * np.pi)


def test_steps_that_fill_no_whole_update_are_taken_too():
    """At a small η an update is many steps, and records may lie anywhere between."""
    rng = np.random.default_rng(0)
    nets = {
        "W": jnp.asarray(rng.normal(size=(1, UNITS, DIM)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=(1, UNITS)), jnp.float32),
        "V": jnp.asarray(rng.normal(size=(1, UNITS)), jnp.float32),
    }
    longest = int(meanfield.LONGEST / 0.01)
    assert longest > 2
    ends = (longest - 1, 7 * longest + 2)
    apart, dense = (
        meanfield.predict(nets, steps, learning_rate=0.01, num_inputs=INPUTS)
        for steps in ((0, *ends), range(ends[1] + 1))
    )
    # an update of several steps is a coarser one
    for curve, every in zip(apart[1:], dense[1:], strict=True):
        np.testing.assert_allclose(curve, every[:, [0, *ends]], rtol=4e-3, atol=1e-4)
    for end, left_over in zip(ends, (longest - 1, 2), strict=True):
        norm = dense.squared_norm_V[0]
        assert abs(norm[end - left_over] / norm[end] - 1) > 1e-2


def test_five_nodes_are_enough_for_outputs_of_size_one():
    for q in (0.01, 0.3, 1.0):
        exact = integrate.quad(
            lambda f, q=q: stats.norm.pdf(f, scale=np.sqrt(q)) / (4 * np.cosh(f / 2) ** 2), -20, 20
        )[0]
        assert over_f(lambda p: p * (1 - p), q) == pytest.approx(exact, rel=2e-3)


def renewed(R, W, b, m, C, x, temperature, clock):
    """R after its halvings, by the docstring's Lyapunov equations in Kronecker form."""
    A, g, gamma = np.zeros((UNITS, UNITS)), *np.zeros((2, UNITS, UNITS, DIM + 1))
    for row in x:
        a = W @ row + b
        sigma, on = np.maximum(a, 0), (a > 0).astype(float)
        kappa = over_f(lambda p: p * (1 - p), sigma @ (np.outer(m, m) + C) @ sigma)
        A += kappa * np.outer(sigma, sigma) / len(x)
        one = np.einsum("k,p,d->kpd", on, sigma, [*row, 1]) / len(x)
        g, gamma = g + kappa * one, gamma + (2 * (0.5 - kappa) - kappa) * one
    for _ in range(meanfield.HALVINGS):
        both = np.kron(A + R, np.eye(UNITS)) + np.kron(np.eye(UNITS), A + R)
        # ∫ exp(−both t) dt from 0 to `clock`, also where `both` is singular, as with a dead unit
        size = UNITS**2
        joined = np.block([[-both, np.eye(size)], [np.zeros((size, 2 * size))]])
        reached = linalg.expm(clock * joined)[:size, size:]
        new = np.zeros((UNITS, UNITS))
        for k in range(UNITS):
            source = np.einsum("pd,q->pqd", gamma[k], np.eye(UNITS)[k]) * temperature
            source = (source + source.transpose(1, 0, 2)).reshape(size, -1)
            X = (reached @ source).reshape(UNITS, UNITS, -1)
            new[k] += np.einsum("id,ijd->j", g[k], X)
            new += np.einsum("id,jd->ij", g[:, k], X[k])
        R = (R + (new + new.T) / 2) / 2
    return R


def update(W, b, m, C, K, R, x, eta, size, labels):
    """One step of the equations in the module's docstring, example by example."""
    M = np.outer(m, m) + C
    A, S = np.zeros((UNITS, UNITS)), np.zeros((UNITS, UNITS))
    falls_b, falls_W = np.zeros(UNITS), np.zeros((UNITS, DIM))
    for row in x:
        a = W @ row + b
        sigma, on = np.maximum(a, 0), (a > 0).astype(float)
        q = sigma @ M @ sigma
        # E p(1−p), and E(p−y)² over random labels y; with averaged labels ½ replaces y
        kappa = over_f(lambda p: p * (1 - p), q)
        target = (lambda p: ((p - 1) ** 2 + p**2) / 2) if labels else (lambda p: (p - 0.5) ** 2)
        A += kappa * np.outer(sigma, sigma) / len(x)
        S += over_f(target, q) * np.outer(sigma, sigma) / len(x)
        falls_b += kappa * on * (M @ sigma) / len(x)
        falls_W += np.outer(kappa * on * (M @ sigma), row) / len(x)
    w = np.linalg.norm(W, axis=1)
    options = {"w": w, "dim": DIM, "learning_rate": eta, "batch_size": size}
    force_V, force_b = (np.asarray(f, float) for f in drift.two_layer(m, b, **options))
    force_w = np.asarray(drift.two_layer_radial(m, b, **options), float)
    # without the contribution of the noise of V, −(η²/16B) 2 Eσ and its counterpart for w
    u = b / w
    rate, height = stats.norm.cdf(u), stats.norm.pdf(u)
    force_b = force_b + eta**2 / size / 8 * w * (u * rate + height)
    force_w = force_w + eta**2 / size / 8 * w * rate
    calm = np.eye(UNITS) - eta * A
    noise = eta**2 / size * (S - A @ M @ A)
    return (
        W - eta * falls_W + labels * (force_w / w)[:, None] * W,
        b - eta * falls_b + labels * force_b,
        calm @ m + labels * force_V,
        calm @ C @ calm + noise,
        (calm - eta * R) @ K @ (calm - eta * R) + eta**2 / size * (S - A @ K @ A),
        R,
    )


@pytest.mark.parametrize("noise", ["full", "label_averaged"])
@pytest.mark.parametrize(("eta", "size", "first"), [(0.9, 2, 2), (0.5, 1, 2), (0.4, 1, 3)])
def test_updates_follow_the_equations(noise, eta, size, first):
    """Three steps at a large η, where every term counts and an update is one step.

    R is renewed at ηt ≥ 1, before the third update or after it.
    """
    rng = np.random.default_rng(0)
    nets = {
        "W": rng.normal(size=(2, UNITS, DIM)),
        "b": rng.normal(size=(2, UNITS)),
        "V": 2 * rng.normal(size=(2, UNITS)),
    }
    key = jax.random.key(5)
    with jax.enable_x64():
        params = {name: jnp.asarray(value) for name, value in nets.items()}
        x = np.asarray(jax.random.normal(key, (2, INPUTS, DIM), jnp.float64))
        curves = meanfield.predict(
            params, (0, 1, 3), learning_rate=eta, batch_size=size, noise=noise,
            num_inputs=INPUTS, key=key,
        )  # fmt: skip
    for net in range(2):
        V, none = nets["V"][net], np.zeros((UNITS, UNITS))
        states = [(nets["W"][net], nets["b"][net], V, none, np.outer(V, V), none)]
        with jax.enable_x64():
            for step in range(3):
                *state, K, R = states[-1]
                if noise == "full" and step == first:
                    R = renewed(R, *state, x[net], eta / 2 / size, eta * step)
                states.append(update(*state, K, R, x[net], eta, size, noise == "full"))
        for column, step in enumerate((0, 1, 3)):
            W, b, _, _, K, _ = states[step]
            rate = stats.norm.cdf(b / np.linalg.norm(W, axis=1)).mean()
            assert curves.activation_rate[net, column] == pytest.approx(rate, rel=1e-6)
            assert curves.squared_norm_V[net, column] == pytest.approx(K.trace(), rel=1e-6)
            assert curves.mean_bias[net, column] == pytest.approx(b.mean(), rel=1e-6)
