"""Activations, gains and parametrizations of the built-in nets against plain NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.engines import run_state, step_program, xla
from jthermo.execution import cohorts
from jthermo.models.activations import ACTIVATIONS
from jthermo.observables import Probe
from tests import oracles

erf = np.vectorize(math.erf)
PLAIN = {
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
    "gelu": lambda a: a * (1 + erf(a / np.sqrt(2))) / 2,
    "erf": lambda a: erf(a / np.sqrt(2)),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "softplus": lambda a: np.log1p(np.exp(a)),
    "identity": lambda a: a,
}
X = np.random.default_rng(0).normal(size=(6, 4))
GAINS = {"weight_gain": 1.4, "bias_std": 0.3, "output_gain": 0.5}


def two_layer(params, x, phi, m=1.0, m_b=1.0, m_v=1.0):
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    return m_v * phi(m * x @ p["W"].T + m_b * p["b"]) @ p["V"]


def mlp(params, x, phi, factors):
    h, names = x, ("hidden_0", "hidden_1", "output")
    for name, (m, m_b) in zip(names, factors, strict=True):
        kernel, bias = (np.asarray(params[name][k], np.float64) for k in ("kernel", "bias"))
        a = m * h @ kernel + m_b * bias
        h = phi(a)
    return a[:, 0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_is_its_formula_and_no_other(name):
    net = jt.models.TwoLayer(4, 5, activation=name)
    params = net.init(jax.random.key(0))
    got = np.asarray(net.apply(params, jnp.asarray(X, jnp.float32)))
    for other, phi in PLAIN.items():
        assert np.allclose(got, two_layer(params, X, phi), atol=1e-5) == (other == name)
    deep = jt.models.MLP(4, (5, 6), activation=name)
    params = deep.init(jax.random.key(0))
    got = np.asarray(deep.apply(params, jnp.asarray(X, jnp.float32)))
    np.testing.assert_allclose(got, mlp(params, X, PLAIN[name], [(1, 1)] * 3), atol=1e-5)


def test_a_convolutional_net_has_the_activation_too():
    shape = {"input_shape": (4, 4, 1), "channels": ((2,),), "hidden": (3,), "outputs": 2}
    relu, tanh = (jt.models.CNN(**shape, activation=name) for name in ("relu", "tanh"))
    params, x = relu.init(jax.random.key(0)), jnp.asarray(X[:1].repeat(4, 0)[..., None])
    hidden = tanh.preactivations(params, x[None])["hidden_0"]
    out = jnp.tanh(hidden) @ params["output"]["kernel"] + params["output"]["bias"][None]
    np.testing.assert_allclose(tanh.apply(params, x[None]), out, rtol=1e-5)
    assert not np.allclose(relu.apply(params, x[None]), out)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_gains_are_the_standard_deviations(distribution):
    init = jt.models.Init(**GAINS, distribution=distribution)
    net = jt.models.TwoLayer(inputs=50, hidden=20, init=init)
    draws = jax.vmap(net.init)(jax.random.split(jax.random.key(1), 400))
    for name, std in (("W", 1.4 / 50**0.5), ("b", 0.3), ("V", 0.5 / 20**0.5)):
        values = np.asarray(draws[name], float).ravel()
        # five standard errors of a normal's standard deviation: one false alarm in 10⁶
        assert np.std(values) == pytest.approx(std, rel=5 / np.sqrt(2 * values.size))
        assert (np.abs(values).max() <= std * 3**0.5 * (1 + 1e-6)) == (distribution == "uniform")


@pytest.mark.parametrize("net", [
    jt.models.TwoLayer(4, 6, init=jt.models.Init(**GAINS, paired=True)),
    jt.models.MLP(4, (5, 6), outputs=1, init=jt.models.Init(weight_gain=1.4, paired=True)),
])  # fmt: skip
def test_a_paired_net_starts_at_zero_and_an_unpaired_one_does_not(net):
    alone = type(net)(**{**net.arguments, "init": jt.models.Init(**GAINS)})
    for model, zero in ((net, True), (alone, False)):
        out = model.apply(model.init(jax.random.key(2)), jnp.asarray(X, jnp.float32))
        assert np.allclose(out, 0, atol=1e-6) == zero


def sweep(**changes):
    return jt.Sweep(
        model=jt.models.TwoLayer(4, 6, init=jt.models.Init(paired=True)),
        data=jt.data.Gaussian(dim=4), learning_rate=0.1, seed=range(2), num_steps=20,
        record=jt.Record(steps=(0, 20), observables=jt.weight_norm("V")),
    ).replace(**changes)  # fmt: skip


def test_gains_are_an_axis_of_one_compiled_program_with_the_runs_of_single_sweeps(tmp_path):
    gains = (0.1, 0.5, 1.0, 2.0, 10.0)
    grid = sweep(vary={"model.init.output_gain": gains})
    (cohort,) = cohorts.cohorts(grid)
    assert cohort.num_runs == 10
    ds = jt.run(grid, tmp_path / "grid")
    for gain in (0.1, 2.0):
        one = jt.run(sweep(**{"model.init.output_gain": gain}), tmp_path / str(gain))
        rows = ds["model.init.output_gain"].values == gain
        np.testing.assert_array_equal(ds.weight_norm_V.values[rows], one.weight_norm_V.values)
    start = ds.weight_norm_V.values[:, 0].reshape(5, 2) / np.array(gains)[:, None]
    np.testing.assert_allclose(start, start[:1].repeat(5, 0), rtol=1e-6)
    assert jt.Sweep.from_json(grid.to_json()) == grid


def first_step(model):
    """Parameters before and after the first step at η = .1, and its examples."""
    spec = sweep(model=model, batch_size=4, **{"record.observables": jt.loss()})
    (config,) = spec.configs
    program, hyper = step_program.split(config, spec.record)
    runs = step_program.as_runs([config], [hyper], np.zeros(1), np.array([config.stream]))
    state = run_state.init(model, program.optimizer, jax.tree.map(lambda a: a[0], runs))
    block = jax.tree.map(lambda a: jnp.asarray(a)[None], state)
    after = xla.advance(program, runs, block, jnp.int32(0), jnp.int32(1), {})
    x, y = (jnp.asarray(v, jnp.float32) for v in oracles.batch(config, 0, 0))
    return state.params, jax.tree.map(lambda a: a[0], after.params), x, y


def loss(outputs, y):
    return jnp.logaddexp(0, (1 - 2 * y) * outputs).mean()


# Of a net with 4 inputs and hidden widths 8 and 16: (m, m_b) of each layer.
FACTORS = {
    "standard": [(1, 1), (1, 1), (1, 1)],
    "ntk": [(1 / 2, 1), (8**-0.5, 1), (1 / 4, 1)],
    "mup": [(8**0.5, 8**0.5), (1, 4), (1 / 4, 1)],
}


@pytest.mark.parametrize("name", FACTORS)
def test_parametrizations_are_factors_that_keep_the_start_but_for_mups_output(name):
    net = jt.models.MLP(4, (8, 16), init=jt.models.Init(**GAINS), parametrization=name)
    params, x = net.init(jax.random.key(0)), jnp.asarray(X, jnp.float32)
    got = np.asarray(net.apply(params, x))
    np.testing.assert_allclose(got, mlp(params, X, PLAIN["relu"], FACTORS[name]), atol=1e-5)
    standard = jt.models.MLP(4, (8, 16), init=jt.models.Init(**GAINS))
    kernels = [p["output"]["kernel"] for p in (params, standard.init(jax.random.key(0)))]
    ratio = {"standard": 1, "ntk": 4, "mup": 1}[name]
    np.testing.assert_allclose(kernels[0], ratio * kernels[1], rtol=1e-5)


def test_mup_is_the_standard_net_with_a_learning_rate_per_layer():
    """For SGD: η·fan_out for input weights and biases, η/fan_in for outputs (Yang & Hu 2021)."""
    init = jt.models.Init(**GAINS)
    before, after, x, y = first_step(jt.models.MLP(4, (8, 16), init=init, parametrization="mup"))
    rates = {"hidden_0": (8, 8), "hidden_1": (1, 16), "output": (1 / 16, 1)}
    effective, moved = (
        {
            name: {"kernel": m * tree[name]["kernel"], "bias": m_b * tree[name]["bias"]}
            for name, (m, m_b) in zip(rates, FACTORS["mup"], strict=True)
        }
        for tree in (before, after)
    )
    standard = jt.models.MLP(4, (8, 16))
    gradient = jax.grad(lambda p: loss(standard.apply(p, x), y))(effective)
    for name, factors in rates.items():
        for part, factor in zip(("kernel", "bias"), factors, strict=True):
            step = moved[name][part] - effective[name][part]
            # tolerance: the step is a difference of float32 weights
            expected = -0.1 * factor * gradient[name][part]
            np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-6)


def test_a_mean_field_net_is_a_mean_over_units_whose_learning_rate_is_eta_times_their_number():
    init = jt.models.Init(**GAINS)
    net = jt.models.TwoLayer(4, 6, init=init, parametrization="mean_field")
    before, after, x, y = first_step(net)
    want = two_layer(before, X, PLAIN["relu"], m_v=1 / 6)
    np.testing.assert_allclose(net.apply(before, jnp.asarray(X, jnp.float32)), want, atol=1e-6)

    def mean(p):
        return jax.nn.relu(x @ p["W"].T + p["b"][None]) @ p["V"] / 6

    gradient = jax.grad(lambda p: loss(mean(p), y))(before)
    for name in before:
        step = after[name] - before[name]
        np.testing.assert_allclose(step, -0.1 * 6 * gradient[name], rtol=1e-3, atol=1e-6)
    standard = jt.models.TwoLayer(4, 6, init=init).init(jax.random.key(0))
    again = net.init(jax.random.key(0))
    np.testing.assert_allclose(again["V"], 6**0.5 * standard["V"], rtol=1e-6)


def test_kappa_and_the_drift_of_the_noise_have_the_learning_rate_of_a_mean_field_net():
    """They are those of the same net as a function of its own, whose learning rate is η·width."""
    net = jt.models.TwoLayer(4, 6, parametrization="mean_field")
    plain = jt.models.Function(init=net.init, apply=net.apply)

    def recorded(model, rate):
        sweep = jt.Sweep(
            model=model,
            data=jt.data.Gaussian(dim=4, num_samples=5),
            learning_rate=rate,
            noise="drift",
            num_steps=8,
            record=jt.Record(steps=(0, 8), observables=(jt.kappa(), jt.weight_norm("V"))),
            common_data=True,
        )
        return jt.run(sweep, progress=False)

    mean_field, same, other = recorded(net, 0.3), recorded(plain, 1.8), recorded(plain, 0.3)
    for name in ("kappa", "weight_norm_V"):
        np.testing.assert_allclose(mean_field[name], same[name], rtol=1e-5, err_msg=name)
        assert np.abs(other[name] / same[name] - 1).max() > 1e-3, "the control"


def test_auto_names_the_option_that_the_fused_engine_does_not_have(tmp_path, capfd):
    """With the plain net as negative control."""
    for options, line in (
        ({"activation": "tanh"}, "with activation='tanh'"),
        ({"parametrization": "ntk"}, "with parametrization='ntk'"),
        ({}, None),
    ):
        spec = sweep(model=jt.models.TwoLayer(4, 6, **options))
        ds = jt.run(spec, tmp_path / str(line), engine="auto")
        said = "".join(capfd.readouterr())
        assert (line in said) if line else ("engine: xla" not in said)
        assert (ds.attrs["engine"] == "xla") == bool(line)


@pytest.mark.parametrize(("options", "field"), [
    ({"activation": "sine"}, "model.activation"),
    ({"activation": ["relu"]}, "model.activation"),
    ({"parametrization": "NTK"}, "model.parametrization"),
    ({"init": "xavier"}, "model.init"),
])  # fmt: skip
def test_unknown_options_are_refused_by_field(options, field):
    for net in (jt.models.TwoLayer, jt.models.MLP):
        with pytest.raises(jt.InputError, match=f"^{field}"):
            net(4, 6 if net is jt.models.TwoLayer else (6,), **options)


def test_values_of_an_init_are_refused_by_field_and_deep_mean_field_nets_too():
    for values in ({"weight_gain": -1.0}, {"bias_std": math.nan}, {"output_gain": "2"}):
        with pytest.raises(jt.InputError, match=f"^model.init.{next(iter(values))}"):
            jt.models.Init(**values)
    with pytest.raises(jt.InputError, match="needs one hidden layer, not 2"):
        jt.models.MLP(4, (8, 8), parametrization="mean_field")
    jt.models.MLP(4, (8,), parametrization="mean_field")


@pytest.mark.parametrize("options", [{"activation": "tanh"}, {"parametrization": "mup"}])
def test_per_example_gradients_are_those_of_vmap(options):
    net = jt.models.MLP(4, (5, 6), init=jt.models.Init(**GAINS), **options)
    params, x = net.init(jax.random.key(3)), jnp.asarray(X, jnp.float32)
    y = jnp.arange(6) % 2

    def one(x, y):
        return jax.grad(lambda p: loss(net.apply(p, x[None]), y[None].astype(jnp.float32)))(params)

    each = jax.vmap(one)(x, y)
    flat = np.concatenate([np.asarray(v).reshape(6, -1) for v in jax.tree.leaves(each)], 1)
    want = ((flat - flat.mean(0)) ** 2).sum() / 5 / flat.shape[1]
    data, rate = jt.data.Gaussian(dim=4), jnp.float32(0.1)
    probe = Probe(x, y, data, "bce", rate, 1, None, jax.random.key(0), jnp.int32(0))
    got = jt.gradient_variance()(net, params, probe)
    assert float(got["gradient_variance"]) == pytest.approx(want, rel=1e-4)


def test_what_holds_for_relu_nets_alone_refuses_the_others():
    for options, refused in (({"activation": "tanh"}, True), ({}, False)):
        model = jt.models.MLP(4, (6,), **options)
        if refused:
            with pytest.raises(jt.InputError, match="chain of dense ReLU layers"):
                sweep(model=model, **{"record.observables": jt.trace_bound()})
        else:
            sweep(model=model, **{"record.observables": jt.trace_bound()})
    gaussian = {"record.observables": jt.activation_rate("closed_form")}
    with pytest.raises(jt.InputError, match="closed form"):
        sweep(model=jt.models.TwoLayer(4, 6, parametrization="ntk"), **gaussian)
    sweep(model=jt.models.TwoLayer(4, 6, activation="tanh"), **gaussian)
