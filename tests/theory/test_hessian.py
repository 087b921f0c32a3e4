"""Trace, bound and eigenvalues of the Hessian against the full Hessian and NumPy loops."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jthermo as jt
from jthermo.errors import InputError
from jthermo.observables import curvature_estimators
from jthermo.theory import hessian
from jthermo.update_rule import losses
from tests import deep_oracles
from tests.chance import far, sigmas

SHAPE, BLOCKS, M = (4, 5, 1), ((2,), (3,)), 9


class Smooth(nn.Module):
    """A net that is not piecewise linear: its Hessian is not its Gauss–Newton matrix."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(jnp.tanh(nn.Dense(4)(x)))


NETS = {
    "two-layer": jt.models.TwoLayer(3, 5),
    "two-layer no bias": jt.models.TwoLayer(3, 5, bias=False, init="he"),
    "mlp": jt.models.MLP(3, hidden=(5, 4), init="he"),
    "mlp no bias": jt.models.MLP(3, hidden=(5, 4), outputs=3, bias=False, init="he"),
    "mlp softmax": jt.models.MLP(3, hidden=(4, 3, 4), outputs=3),
    "cnn": jt.models.CNN(SHAPE, BLOCKS, hidden=(6,), outputs=3, init="he"),
    "cnn no bias": jt.models.CNN(SHAPE, BLOCKS, hidden=(), outputs=1, bias=False, init="he"),
    "smooth": jt.models.as_model(Smooth(), (3,)),
}
RELU = [name for name in NETS if name != "smooth"]


def case(name, seed=0):
    model = NETS[name]
    x = jax.random.normal(jax.random.key(seed + 10), (M, *model.input_shape))
    y = jax.random.randint(jax.random.key(seed + 20), (M,), 0, max(2, model.num_outputs))
    params = jax.jit(model.init)(jax.random.key(seed))
    # biases that have an effect, also for inits with zero biases
    if model.arguments.get("bias"):
        noise = iter(jax.random.split(jax.random.key(seed + 30), 99))
        params = jax.tree.map(
            lambda v: (
                v + 0.3 * jax.random.normal(next(noise), v.shape)
                if v.ndim == 1 and v.size != 5
                else v
            ),
            params,
        )
    return model, "bce" if model.num_outputs == 1 else "softmax", params, x, y


@functools.cache
def full_hessian(name, seed=0):
    """∂²/∂θ² of the mean loss, in float64."""
    model, loss, params, x, y = case(name, seed)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(np.asarray(v), jnp.float64), params)
        flat, unflatten = ravel_pytree(wide)
        inputs = jnp.asarray(np.asarray(x), jnp.float64)

        def mean_loss(theta):
            target = losses.targets(loss, y, model.num_outputs).astype(jnp.float64)
            return losses.value(loss, model.apply(unflatten(theta), inputs), target).mean()

        return np.asarray(jax.jit(jax.hessian(mean_loss))(flat))


@pytest.mark.parametrize("name", RELU)
def test_the_trace_is_that_of_the_full_hessian(name):
    model, _, params, x, _ = case(name)
    full = full_hessian(name)
    assert full.trace() > 1e-3
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), case(name, 3)[2], params)
    both = np.asarray(jax.jit(jax.vmap(lambda p: hessian.trace(model, p, x)))(stacked))
    assert both[1] == pytest.approx(full.trace(), rel=1e-5)
    assert abs(both[0] / both[1] - 1) > 1e-3


def test_for_a_smooth_net_the_formula_gives_another_number_than_the_hessian():
    model, _, params, x, _ = case("smooth")
    assert abs(float(hessian.trace(model, params, x)) / full_hessian("smooth").trace() - 1) > 1e-2


@pytest.mark.parametrize("name", [n for n in RELU if not n.startswith("two")])
def test_the_trace_is_the_sum_over_classes_of_squared_gradients(name):
    model, _, params, x, _ = case(name, seed=1)
    blocks, total = BLOCKS if "cnn" in name else (), 0.0
    for example in np.asarray(x):
        f, _, _ = deep_oracles.forward(params, example, blocks)
        if len(f) == 1:
            p = 1 / (1 + np.exp(-f))
            cases = [(p[0], p - 1), (1 - p[0], p)]
        else:
            p = np.exp(f - f.max()) / np.exp(f - f.max()).sum()
            cases = [(p[k], p - np.eye(len(p))[k]) for k in range(len(p))]
        for weight, cotangent in cases:
            gradient = deep_oracles.gradient(params, example, cotangent, blocks)
            total += weight * sum(
                float((g**2).sum()) for layer in gradient.values() for g in layer.values()
            )
    assert float(hessian.trace(model, params, x)) == pytest.approx(total / M, rel=1e-5)


def test_squared_error_and_any_number_of_examples():
    model, _, params, _, _ = case("mlp no bias")
    x = jax.random.normal(jax.random.key(1), (530, 3))
    trace = hessian.trace(model, params, x, loss="squared")
    pieces = [
        float(hessian.trace(model, params, part, loss="squared")) for part in (x[:265], x[265:])
    ]
    assert float(trace) == pytest.approx(np.mean(pieces), rel=1e-5)
    jacobians = jax.vmap(jax.jacobian(model.apply), (None, 0))(params, x)
    assert float(trace) == pytest.approx(
        sum(float((g**2).sum()) for g in jax.tree.leaves(jacobians)) / 530, rel=1e-5
    )


def layers_of(model, params):
    if isinstance(model, jt.models.TwoLayer):
        return [(params["W"], params.get("b")), (params["V"][None], None)]
    return [(params[n]["kernel"].T, params[n].get("bias")) for n in deep_oracles.order(params)]


def bound_twin(model, params, x, drop=None):
    """A.5 term by term for one example, from explicit masked matrices."""
    layers = [
        (np.asarray(w, float), None if b is None else np.asarray(b, float))
        for w, b in layers_of(model, params)
    ]
    h, masks = np.asarray(x, float), [np.eye(len(np.asarray(x)))]
    for w, b in layers:
        a = w @ h + (0 if b is None else b)
        masks.append(np.diag((a > 0).astype(float)))
        h = np.maximum(a, 0)
    if len(a) == 1:
        p = 1 / (1 + np.exp(-a[0]))
        last = half = p * (1 - p)
    else:
        p = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
        last, half = 1 - (p**2).sum(), 0.5
    reach, into = float(np.asarray(x, float) @ np.asarray(x, float)), []
    for (w, b), mask in zip(layers, masks[1:], strict=True):
        into.append(reach + (b is not None))
        grown = np.linalg.norm(mask @ w)
        reach = (np.sqrt(reach) * grown + (0 if b is None else np.linalg.norm(mask @ b))) ** 2
    n = len(layers)
    total = 0.0 if drop == "last" else last * into[-1]
    for layer in range(n - 1):
        product = np.prod(
            [np.linalg.norm(layers[m][0] @ masks[m]) ** 2 for m in range(layer + 1, n)]
        )
        total += half * into[layer] * product
    return total


@pytest.mark.parametrize("name", [n for n in RELU if "cnn" not in n])
def test_the_bound_equals_its_terms_and_holds_and_without_one_of_them_it_fails(name):
    model, _, _, x, _ = case(name)
    of = jax.jit(
        jax.vmap(
            lambda p, x: (hessian.trace_bound(model, p, x), hessian.trace(model, p, x)), (0, None)
        )
    )
    # 400 nets of each of the five kinds
    many = jax.vmap(model.init)(jax.random.split(jax.random.key(7), 400))
    scale = 3 * jax.random.uniform(jax.random.key(8), (400,))
    many = jax.tree.map(lambda v: v * scale.reshape(-1, *(1,) * (v.ndim - 1)), many)
    bound, trace = (np.asarray(v) for v in of(many, x))
    assert (bound >= trace * (1 - 1e-5)).all()
    assert (trace > 0).sum() > 330
    params = jax.tree.map(lambda v: v[3], many)
    expected = np.mean([bound_twin(model, params, row) for row in np.asarray(x)])
    assert bound[3] == pytest.approx(expected, rel=1e-5)
    # shallow enough for its terms to be needed
    if name.startswith("two"):
        fewer = [
            np.mean(
                [
                    bound_twin(model, jax.tree.map(lambda v, i=i: v[i], many), row, drop="last")
                    for row in np.asarray(x)
                ]
            )
            for i in range(60)
        ]
        assert (np.array(fewer) < trace[:60]).any()


def test_a_net_outside_the_hypotheses_breaks_the_bound():
    """The bound for nets without bias must fail on a net with large biases."""
    with_bias, without = NETS["two-layer"], NETS["two-layer no bias"]
    params, x = (
        case("two-layer")[2] | {"b": jnp.full(5, 30.0), "V": jnp.full(5, 0.01)},
        case("two-layer")[3],
    )
    trace = hessian.trace(with_bias, params, x)
    assert hessian.trace_bound(without, {k: params[k] for k in ("W", "V")}, x) < 0.5 * trace
    assert hessian.trace_bound(with_bias, params, x) > trace


def test_layer_factors_are_the_masked_weights():
    model, _, params, x, _ = case("mlp softmax")
    below, above = hessian.layer_factors(model, params, x)
    layers, h = layers_of(model, params), np.asarray(x, float)
    for layer, ((w, b), (onward, _)) in enumerate(itertools.pairwise(layers)):
        a = h @ np.asarray(w, float).T + np.asarray(b, float)
        rate, h = (a > 0).mean(0), np.maximum(a, 0)
        expected = rate @ (np.asarray(w) ** 2).sum(1), rate @ (np.asarray(onward) ** 2).sum(0)
        np.testing.assert_allclose([below[layer], above[layer]], expected, rtol=1e-5)
    assert below.shape == above.shape == (3,)


def test_a_smaller_activation_rate_gives_a_smaller_bound():
    """Claim C13: with the weights kept, switching units off can only lower the bound."""
    model, _, params, x, _ = case("two-layer")
    lowered = [
        float(hessian.trace_bound(model, {**params, "b": params["b"] - shift}, x))
        for shift in (0.0, 0.5, 1.0, 9.0)
    ]
    assert lowered == sorted(lowered, reverse=True)
    assert lowered[-1] < 0.7 * lowered[0]


@pytest.mark.parametrize("name", ["mlp", "smooth", "cnn"])
def test_hutchinson_agrees_within_its_error_and_lanczos_with_the_spectrum(name):
    model, loss, params, x, y = case(name)
    full = full_hessian(name)
    value, error = jax.jit(
        lambda k: curvature_estimators.hutchinson(model, params, x, y, loss, k, 400)
    )(jax.random.key(2))
    # 400 vectors: the error is known to 4 %, so this fails for 1e-4 of the keys
    assert abs(float(value) - full.trace()) < sigmas(1e-4) * float(error)
    # the variance of one vᵀHv
    off_diagonal = 2 * ((full**2).sum() - (np.diag(full) ** 2).sum())
    assert float(error) == pytest.approx(np.sqrt(off_diagonal / 400), rel=0.2)
    assert abs(2 * float(value) - full.trace()) > sigmas(1e-4) * float(error)
    top = jax.jit(
        lambda k: curvature_estimators.top_eigenvalues(model, params, x, y, loss, k, 3, 40)
    )(jax.random.key(3))
    exact = np.linalg.eigvalsh(full)[::-1][:3]
    np.testing.assert_allclose(top, exact, rtol=1e-3)
    few = float(
        curvature_estimators.top_eigenvalues(model, params, x, y, loss, jax.random.key(3), 1, 2)[0]
    )
    assert few < exact[0] * (1 - 1e-3)


def spectrum(kind, size, rng):
    """Eigenvalues of a random matrix of a kind, the largest in modulus about 1."""
    tail = np.zeros(size - 5)
    return {
        "zero": np.zeros(size),
        "dead": np.append(np.zeros(size - 1), 0.25),
        "low rank": np.append(rng.uniform(-1, 1, 5), tail),
        "negative": np.append(-rng.uniform(0, 1, 5), tail),
        "repeated": np.append(np.full(3, 7.48), rng.uniform(-1, 1.5, size - 3)),
        "repeated, low rank": np.append([3.0, 3.0, 3.0, 1.0, 1.0], tail),
        "all equal": np.full(size, 2.0),
    }[kind]


def test_top_eigenvalues_of_500_random_spectra():
    from jthermo.observables.curvature_estimators import block_lanczos

    kinds = ("zero", "dead", "low rank", "negative", "repeated", "repeated, low rank", "all equal")
    rng, sizes = np.random.default_rng(0), {1: 12, 3: 41, 4: 65}

    @functools.partial(jax.jit, static_argnums=2)
    def largest(matrix, key, number):
        return block_lanczos(lambda v: matrix @ v, len(matrix), key, number, 20)

    for i in range(504):
        kind, number = kinds[i % 7], (1, 3, 4)[i // 7 % 3]
        size, scale = sizes[number], 10 ** rng.uniform(-4, 4)
        basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
        values = scale * spectrum(kind, size, rng)
        matrix = np.float32((basis * values) @ basis.T)
        found = largest((matrix + matrix.T) / 2, jax.random.key(i), number)
        exact = np.sort(values)[::-1][:number]
        np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-5 * np.abs(values).max())


def test_top_eigenvalues_of_a_net_with_dead_units():
    """Only the output's bias has a gradient: H = p(1−p) e eᵀ, with any key."""
    model = jt.models.MLP(4, hidden=(5,))
    params = model.init(jax.random.key(0))
    params["hidden_0"] = {"kernel": params["hidden_0"]["kernel"], "bias": jnp.full(5, -100.0)}
    params["output"] = {"kernel": params["output"]["kernel"], "bias": jnp.zeros(1)}
    x, y = jax.random.normal(jax.random.key(1), (20, 4)), jnp.arange(20) % 2
    top = jax.jit(
        jax.vmap(lambda k: curvature_estimators.top_eigenvalues(model, params, x, y, "bce", k, 2))
    )(jax.random.split(jax.random.key(2), 24))
    np.testing.assert_allclose(top, [[0.25, 0.0]] * 24, rtol=1e-4, atol=1e-6)


def test_curvature_is_recorded_in_a_sweep():
    observables = (
        jt.hessian_trace(), jt.hessian_trace("hutchinson", num_probes=200), jt.trace_bound(),
        jt.top_eigenvalues(2), jt.kappa(),
    )  # fmt: skip
    sweep = jt.Sweep(
        model=NETS["mlp"], data=jt.data.Gaussian(dim=3), learning_rate=(0.1, 0.2), batch_size=2,
        seed=range(3), num_steps=30,
        record=jt.Record(steps=(0, 30), observables=observables, probe_size=40),
    )  # fmt: skip
    ds = jt.run(sweep, progress=False)
    z = (ds.hessian_trace_hutchinson - ds.hessian_trace) / ds.hessian_trace_hutchinson_se
    # 12 estimates with keys of their own: neither too far nor too near for 1e-4 of the seeds
    assert 1e-4 < far(z) < 1 - 1e-4
    np.testing.assert_allclose(ds.trace_bound / ds.hessian_trace, ds.trace_bound_ratio, rtol=1e-5)
    assert (ds.trace_bound_ratio.values > 1).all()
    assert ds.hessian_eigenvalue.dims == ("run", "record", "eigenvalue")
    assert (ds.hessian_eigenvalue.values[..., 0] >= ds.hessian_eigenvalue.values[..., 1]).all()
    np.testing.assert_allclose(ds.kappa, ds.learning_rate / 2 * ds.hessian_trace, rtol=1e-5)


def test_invalid_arguments_are_refused():
    cnn = jt.models.CNN(SHAPE, BLOCKS)
    with pytest.raises(InputError, match="chain of dense ReLU layers"):
        hessian.trace_bound(cnn, {}, jnp.ones((1, *SHAPE)))
    with pytest.raises(InputError, match="chain of dense ReLU layers"):
        jt.trace_bound().check(cnn, None, "softmax")
    for wrong in (
        lambda: jt.hessian_trace("guess"), lambda: jt.hessian_trace("hutchinson", 1),
        lambda: jt.top_eigenvalues(0), lambda: jt.top_eigenvalues(9, num_matvecs=4),
    ):  # fmt: skip
        with pytest.raises(InputError):
            wrong()
