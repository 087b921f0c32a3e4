"""Every variable of every observable of a deep net, by loops over the examples of one probe."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jthermo as jt
from jthermo import observables
from jthermo.theory import hessian
from tests import deep_oracles
from tests.models.test_layer import by_loops

MODEL = jt.models.MLP(3, hidden=(5, 4), outputs=3, init="he")
DATA = jt.data.Gaussian(dim=3)
LAYERS, SIZES = ("hidden_0", "hidden_1", "output"), (20, 24, 15)
M = 11
RECORDED = {
    "accuracy": (jt.accuracy(), jt.accuracy("test")),
    "activation_rate": (jt.activation_rate(), jt.activation_rate("probe")),
    "gradient_variance": (jt.gradient_variance(), jt.gradient_variance("parameter")),
    "hessian_trace": (jt.hessian_trace(),),
    "kappa": (jt.kappa(),),
    "layer_statistics": (jt.layer_statistics(),),
    "loss": (jt.loss(), jt.loss("test")),
    "mean_squared_residual": (jt.mean_squared_residual(),),
    "sparse": (jt.sparse(jt.weight_norm("output/bias"), every=2),),
    # tests/observables/test_curvature.py compares it, and Hutchinson's trace, with the full Hessian
    "top_eigenvalues": (),
    "trace_bound": (jt.trace_bound(),),
    "unit_activation": (jt.unit_activation(),),
    "weight_norm": (jt.weight_norm("hidden_1/kernel"),),
}


def case():
    params = MODEL.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(9), 9))
    params = jax.tree.map(
        lambda v: v + 0.2 * jax.random.normal(next(keys), v.shape) if v.ndim == 1 else v, params
    )
    x = jax.random.normal(jax.random.key(1), (2, M, 3))
    y = jax.random.randint(jax.random.key(2), (2, M), 0, 3)
    probe = jt.observables.Probe(
        x[0], y[0], DATA, "softmax", jnp.float32(0.3), 5, (x[1], y[1]), jax.random.key(3), 4
    )
    return params, probe


def softmax(f):
    return np.exp(f - f.max()) / np.exp(f - f.max()).sum()


def moments(gradients):
    """tr Σ1 and the unbiased |G|² of gradients (M, P), from sums over pairs of examples."""
    trace = deep_oracles.variance(gradients)
    products = gradients @ gradients.T
    return trace, (products.sum() - np.trace(products)) / (M * (M - 1))


def expected(params, probe):
    outputs, pre = [], {"hidden_0": [], "hidden_1": []}
    for row in np.asarray(probe.x):
        f, layers, _ = deep_oracles.forward(params, row)
        outputs.append(f)
        for name, a in layers.items():
            pre[name].append(a)
    rows = {
        prefix: (
            [deep_oracles.forward(params, row)[0] for row in np.asarray(x)],
            np.asarray(y),
        )
        for prefix, (x, y) in {"": (probe.x, probe.y), "test_": probe.test}.items()
    }
    values = {}
    for prefix, (fs, labels) in rows.items():
        pairs = list(zip(fs, labels, strict=True))
        values[f"{prefix}loss"] = np.mean([-np.log(softmax(f)[label]) for f, label in pairs])
        values[f"{prefix}accuracy"] = np.mean([f.argmax() == label for f, label in pairs])
    p = np.array([softmax(f) for f in outputs])
    values["mean_squared_residual"] = np.mean((p - np.eye(3)[np.asarray(probe.y)]) ** 2)
    active = np.concatenate([np.array(a) > 0 for a in pre.values()], axis=1)
    values["unit_activation"] = active.mean(0)
    for name in ("activation_rate", "activation_rate_probe"):
        values[name] = active.mean()
        values[f"{name}_se"] = active.mean(1).std(ddof=1) / np.sqrt(M)
    statistics = np.array([by_loops(np.array(a)) for a in pre.values()]).T
    names = ("activation", "dead", "vanished", "identical", "rank")
    values |= {f"layer_{n}": v for n, v in zip(names, statistics, strict=True)}
    gradients = deep_oracles.sample_gradients(params, probe.x, probe.y)
    parts = {
        f"{layer}/{name}": g.reshape(M, -1)
        for layer in LAYERS
        for name, g in sorted(gradients[layer].items())
    }
    layers = {
        layer: np.concatenate([parts[f"{layer}/{n}"] for n in ("bias", "kernel")], axis=1)
        for layer in LAYERS
    }
    trace, signal = moments(np.concatenate(list(layers.values()), axis=1))
    values["gradient_variance"] = trace / sum(SIZES)
    values["gradient_signal"], values["gradient_snr"] = signal, signal / trace
    values["noise_scale"] = trace / signal if signal > 0 else np.nan
    for by, groups in (("layer", layers), ("parameter", parts)):
        pairs = [moments(g) for g in groups.values()]
        sizes = [g.shape[1] for g in groups.values()]
        values[f"gradient_variance_{by}"] = [
            t / size for (t, _), size in zip(pairs, sizes, strict=True)
        ]
        values[f"gradient_snr_{by}"] = [s / t for t, s in pairs]
    values["hessian_trace"] = np.mean(
        [
            p_y * sum(float((g**2).sum()) for part in back.values() for g in part.values())
            for row, f in zip(np.asarray(probe.x), outputs, strict=True)
            for p_y, back in (
                (3 * q, deep_oracles.gradient(params, row, softmax(f) - np.eye(3)[k]))
                for k, q in enumerate(softmax(f))
            )
        ]
    )
    values["kappa"] = 0.3 * values["hessian_trace"] / 5
    values["trace_bound"] = float(hessian.trace_bound(MODEL, params, probe.x))
    values["trace_bound_ratio"] = values["trace_bound"] / values["hessian_trace"]
    values["weight_norm_hidden_1_kernel"] = np.linalg.norm(params["hidden_1"]["kernel"])
    values["weight_norm_output_bias"] = np.linalg.norm(params["output"]["bias"])
    return values


def test_every_observable_is_in_the_table():
    makers = {
        name
        for name in observables.__all__
        if inspect.isfunction(function := getattr(observables, name)) and name == name.lower()
        and function.__module__.startswith("jthermo.observables")
    }  # fmt: skip
    assert makers - {"as_observable", "unit_rates"} == set(RECORDED)


def test_every_variable_equals_loops_over_the_probe():
    params, probe = case()
    flat = [observable for several in RECORDED.values() for observable in several]

    @jax.jit
    def measure(params):
        return [observable(MODEL, params, probe) for observable in flat]

    twins = expected(params, probe)
    seen = set()
    for observable, values in zip(flat, measure(params), strict=True):
        assert set(values) == set(observable.variables(MODEL, DATA))
        for name in values:
            np.testing.assert_allclose(
                values[name], twins[name], rtol=2e-4, atol=1e-6, err_msg=name
            )
        seen |= set(values)
    assert seen == set(twins)
    # neither estimate is that of a plain mean
    assert twins["gradient_signal"] != pytest.approx(0, abs=1e-3)


def test_variables_of_a_two_layer_net_on_scaled_inputs():
    """Φ(b/(s‖W‖)) with s = 2.5, and a single output with the squared loss against ½."""
    net, data = jt.models.TwoLayer(inputs=3, hidden=4), jt.data.Gaussian(dim=3, scale=2.5)
    params = net.init(jax.random.key(0))
    x = 2.5 * jax.random.normal(jax.random.key(1), (M, 3))
    y = jax.random.randint(jax.random.key(2), (M,), 0, 2)
    probe = jt.observables.Probe(x, y, data, "squared", jnp.float32(0.3), 5)
    width = 2.5 * np.linalg.norm(params["W"], axis=1)
    rates = stats.norm.cdf(np.asarray(params["b"]) / width)
    np.testing.assert_allclose(*jt.unit_activation()(net, params, probe).values(), rates, rtol=1e-5)
    (rate,) = jt.activation_rate()(net, params, probe).values()
    assert float(rate) == pytest.approx(rates.mean(), rel=1e-5)
    # outputs between 0 and ½ count as class 0
    f = np.linspace(-0.2, 1.2, M)
    params = {"W": jnp.eye(4, 3), "b": jnp.zeros(4), "V": jnp.array([1.0, -1.0, 0, 0])}
    x = np.stack([np.maximum(f, 0), np.maximum(-f, 0), 0 * f], axis=1).astype(np.float32)
    for loss, threshold in (("squared", 0.5), ("bce", 0.0)):
        (accuracy,) = jt.accuracy()(net, params, probe._replace(x=x, loss=loss)).values()
        assert float(accuracy) == pytest.approx(np.mean((f > threshold) == np.asarray(y)))
    assert ((f > 0) & (f < 0.5)).any()


def test_a_sparse_observable_is_nan_between_its_records():
    params, probe = case()
    (observable,) = RECORDED["sparse"]
    (skipped,) = observable(MODEL, params, probe._replace(record=5)).values()
    assert np.isnan(skipped)
