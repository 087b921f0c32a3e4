"""Statistics of per-example gradients against loops over examples, units and pixels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from jthermo.models import per_example
from jthermo.observables import gradient_moments
from tests import deep_oracles, oracles
from tests.chance import sigmas

SHAPE, BLOCKS, M = (6, 5, 2), ((3, 2), (4,)), 11
NETS = {
    "mlp": (jt.models.MLP(5, hidden=(4, 3)), "bce"),
    "mlp no bias": (jt.models.MLP(5, hidden=(4, 3), bias=False, init="unit"), "bce"),
    "mlp softmax": (jt.models.MLP(5, hidden=(6,), outputs=3), "softmax"),
    "cnn": (jt.models.CNN(SHAPE, BLOCKS, hidden=(9,), outputs=3, init="he"), "softmax"),
    "cnn no bias": (
        jt.models.CNN(SHAPE, BLOCKS, hidden=(), outputs=1, bias=False, init="he"),
        "bce",
    ),
}


class Residual(nn.Module):
    """A user's net with skip connections, strides and a mean over pixels."""

    @nn.compact
    def __call__(self, x):
        h = nn.Conv(4, (3, 3), strides=2)(x)
        h = h + nn.Conv(4, (3, 3))(nn.relu(nn.Conv(4, (3, 3), use_bias=False)(nn.relu(h))))
        h = nn.Dense(3)(nn.relu(h).mean((1, 2)))
        return nn.Dense(3)(h + nn.Dense(3)(nn.relu(h)))


class Shared(nn.Module):
    """A net with a layer that is called twice, or with a parameter outside of layers: no tape."""

    scale: bool = False

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(5)
        h = nn.relu(layer(x) if self.scale else layer(nn.relu(layer(x))))
        return nn.Dense(1)(
            h * self.param("scale", nn.initializers.ones, (1, 5)) if self.scale else h
        )[..., 0]


def case(name, seed=0):
    model, loss = NETS[name]
    x = jax.random.normal(jax.random.key(seed + 10), (M, *model.input_shape))
    y = jax.random.randint(jax.random.key(seed + 20), (M,), 0, max(model.num_outputs, 2))
    return model, loss, jax.jit(model.init)(jax.random.key(seed)), x, y


@functools.cache
def compiled(model, loss, method="auto", by="layer"):
    return jax.jit(
        lambda p, x, y: gradient_moments.moments(model, p, x, y, loss, method=method, by=by)
    )


def twins(model, params, x, y):
    """Variance and squared mean of each layer, by loops."""
    blocks = BLOCKS if isinstance(model, jt.models.CNN) else ()
    gradients = deep_oracles.sample_gradients(params, x, y, blocks)
    flat = {
        name: np.concatenate([g.reshape(M, -1) for g in layer.values()], axis=1)
        for name, layer in gradients.items()
    }
    return {
        name: (deep_oracles.variance(g), float((g.mean(0) ** 2).sum())) for name, g in flat.items()
    }


@pytest.mark.parametrize("method", ["tape", "vmap"])
@pytest.mark.parametrize("name", NETS)
def test_moments_equal_loops_alone_and_vectorised(name, method):
    model, loss, params, x, y = case(name)
    expected = twins(model, params, x, y)
    trace, square = (np.array(column) for column in zip(*expected.values(), strict=True))
    assert list(gradient_moments.groups(model, "layer")) == list(expected)
    assert (trace > 0).all()
    alone = compiled(model, loss, method)(params, x, y)
    np.testing.assert_allclose(alone.trace, trace, rtol=1e-5)
    np.testing.assert_allclose(alone.square_mean, square, rtol=1e-5)
    np.testing.assert_allclose(alone.total.trace, trace.sum(), rtol=1e-5)
    np.testing.assert_allclose(
        alone.total.signal, square.sum() - trace.sum() / M, rtol=1e-4, atol=1e-6
    )
    other = case(name, seed=5)[2]
    stacked = jax.tree.map(lambda a, b: jnp.stack([b, a]), params, other)
    many = jax.jit(jax.vmap(compiled(model, loss, method), (0, None, None)))(stacked, x, y).trace
    np.testing.assert_allclose(many[1], trace, rtol=1e-5)
    np.testing.assert_allclose(
        many[0].sum(), sum(v for v, _ in twins(model, other, x, y).values()), rtol=1e-5
    )


def test_wrong_formulas_do_not_agree():
    """ddof = 0, an omitted bias and omitted cross terms differ by far more than the tolerance."""
    model, loss, params, x, y = case("cnn")

    @jax.jit
    def seen(params):
        tape = per_example.record(model, params, x)
        deltas = tape.pull_back(jax.nn.softmax(tape.outputs) - jax.nn.one_hot(y, 3))
        return per_example.squared_norms(tape, deltas, model), tape.layers[1].inputs, deltas[1]

    right, h, delta = seen(params)
    expected = sum(v for v, _ in twins(model, params, x, y).values())
    gradient = compiled(model, loss)(params, x, y)
    biased = float(gradient.mean_square.sum() - gradient.square_mean.sum())
    assert abs(biased / expected - 1) > 1e-2
    # Σ_t |h_t|²|δ_t|², without the cross terms
    independent = (jnp.square(h).sum(-1) * jnp.square(delta).sum(-1)).sum(-1)
    assert np.abs(independent / right["conv_1", "kernel"] - 1).max() > 0.1
    kernels = sum(v for (*_, name), v in right.items() if name == "kernel")
    everything = sum(right.values())
    assert (kernels / everything < 0.99).all()


def test_groups_by_parameter_add_up_to_layers():
    model, loss, params, x, y = case("mlp softmax")
    layers, parameters = (
        gradient_moments.moments(model, params, x, y, loss, by=by) for by in ("layer", "parameter")
    )
    assert list(gradient_moments.groups(model, "parameter")) == [
        f"{layer}/{name}" for layer in ("hidden_0", "output") for name in ("bias", "kernel")
    ]
    np.testing.assert_allclose(parameters.trace.reshape(2, 2).sum(1), layers.trace, rtol=1e-6)
    assert layers.sizes == (36, 21)


def test_groups_are_in_the_order_of_the_layers():
    """``hidden_2`` comes before ``hidden_10``, as in the recorded dim ``layer``."""
    model = jt.models.MLP(2, hidden=(2,) * 12)
    names = [*(f"hidden_{i}" for i in range(12)), "output"]
    assert list(gradient_moments.groups(model, "layer")) == names
    parameters = list(gradient_moments.groups(model, "parameter"))
    assert parameters == [f"{name}/{part}" for name in names for part in ("bias", "kernel")]


@pytest.mark.parametrize(
    ("module", "covered"), [(Residual(), True), (Shared(), False), (Shared(scale=True), False)]
)
def test_a_users_net_takes_the_tape_only_where_it_is_exact(module, covered):
    convolves = isinstance(module, Residual)
    model = jt.models.as_model(module, (6, 6, 2) if convolves else (5,))
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (21, *model.input_shape))
    y, loss = jax.random.randint(jax.random.key(2), (21,), 0, 2), "softmax" if convolves else "bce"
    assert per_example.covers(model) == covered
    auto, reference = (compiled(model, loss, m)(params, x, y) for m in ("auto", "vmap"))
    np.testing.assert_allclose(auto.trace, reference.trace, rtol=1e-5)
    np.testing.assert_allclose(auto.square_mean, reference.square_mean, rtol=1e-5)
    if not covered:
        with pytest.raises(InputError, match="vmap"):
            gradient_moments.moments(model, params, x, y, loss, method="tape")


def test_the_number_of_examples_need_not_fill_the_chunks(monkeypatch):
    model, loss, params, x, y = case("cnn")
    whole = compiled(model, loss, "vmap")(params, x, y).trace
    assert (whole > 0).all()
    for chunk in (3, 11):
        monkeypatch.setitem(gradient_moments.CHUNK, "convolution", chunk)
        compiled.cache_clear()
        np.testing.assert_allclose(compiled(model, loss)(params, x, y).trace, whole, rtol=1e-5)
    fewer = compiled(model, loss)(params, x[:9], y[:9]).trace
    assert np.abs(fewer / whole - 1).max() > 1e-3


def test_estimates_are_unbiased_and_the_plain_ones_are_not():
    """Over 4000 probes of 4 examples, tr Σ1 and |G|² average to the true values; |ḡ|² does not."""
    model = jt.models.MLP(2, hidden=(3,))
    params, data = model.init(jax.random.key(1)), jt.data.Gaussian(dim=2)

    @jax.jit
    def many(keys, size=4):
        def one(key):
            x, y = data.draw(key, size)
            total_of_probe = gradient_moments.moments(
                model, params, x, y, "bce", method="auto"
            ).total
            return jnp.stack(
                [total_of_probe.trace, total_of_probe.signal, total_of_probe.square_mean]
            )

        return jax.vmap(one)(keys)

    draws = np.asarray(many(jax.random.split(jax.random.key(2), 4000)), float)
    x, y = data.draw(jax.random.key(3), 100_000)
    population = compiled(model, "bce")(params, x, y).total
    error = draws.std(0) / np.sqrt(len(draws))
    truth = np.array([population.trace, population.signal, population.signal], float)
    z = (draws.mean(0) - truth) / error
    assert (np.abs(z[:2]) < sigmas(1e-4, 2)).all()
    assert abs(z[2]) > 20
    biased = draws[:, 0] * 3 / 4
    assert abs(biased.mean() - truth[0]) > 20 * error[0]


@pytest.mark.parametrize("name", ["mlp", "cnn", "two-layer"])
@pytest.mark.parametrize("ratio", [1e-2, 1e-8])
def test_nearly_equal_examples_have_the_right_variance(name, ratio):
    """Sums of squares lose tr Σ1 in the rounding of |G|², and even become negative."""
    if name == "two-layer":
        model, loss = jt.models.TwoLayer(inputs=5, hidden=6), "bce"
        params = model.init(jax.random.key(3))
    else:
        model, loss, params, *_ = case(name)
    rng = np.random.default_rng(0)
    base, noise = rng.normal(size=model.input_shape), rng.normal(size=(300, *model.input_shape))
    label = int(model.num_outputs > 1)
    y = jnp.full(300, label)

    def exact(x):
        """tr Σ1 and |ḡ|² in float64."""
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)

            def value(p, x):
                f = model.apply(p, x[None])[0]
                return jax.nn.softplus(f) if f.ndim == 0 else -jax.nn.log_softmax(f)[label]

            each = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(wide, jnp.asarray(x, jnp.float64))
            flat = np.concatenate(
                [np.asarray(g).reshape(300, -1) for g in jax.tree.leaves(each)], 1
            )
        return flat.var(0, ddof=1).sum(), np.square(flat.mean(0)).sum()

    step = 1e-2
    for _ in range(2):
        trace, square = exact(np.float32(base + step * noise))
        step *= np.sqrt(ratio / (trace / square))
    x = np.float32(base + step * noise)
    trace, square = exact(x)
    assert ratio / 3 < trace / square < 3 * ratio
    found = compiled(model, loss)(params, jnp.asarray(x), y)
    assert float(found.total.trace) == pytest.approx(trace, rel=1e-3)
    assert (found.scatter >= 0).all()
    # The negative control: a difference of sums in float32.
    plain = np.float32(square + trace) - np.float32(square)
    assert ratio > 1e-3 or abs(plain / trace - 1) > 0.1


def test_equal_examples_have_no_variance():
    for name in ("mlp", "cnn"):
        model, loss, params, x, _ = case(name)
        same = jnp.broadcast_to(x[:1], (300, *model.input_shape))
        found = compiled(model, loss)(params, same, jnp.ones(300, int))
        assert (found.scatter >= 0).all()
        assert (found.scatter <= 1e-12 * found.square_mean).all()


def test_memory_does_not_grow_with_the_probe():
    model = jt.models.MLP(20, hidden=(30, 30))
    params = jax.eval_shape(model.init, jax.random.key(0))

    def temporary(size, of):
        x = jax.ShapeDtypeStruct((size, 20), jnp.float32)
        y = jax.ShapeDtypeStruct((size,), jnp.int32)
        return jax.jit(of).lower(params, x, y).compile().memory_analysis().temp_size_in_bytes

    def chunked(p, x, y):
        return gradient_moments.moments(model, p, x, y, "bce").total.trace

    def whole(p, x, y):
        tape = per_example.record(model, p, x)
        return sum(
            v.sum()
            for v in per_example.squared_norms(tape, tape.pull_back(tape.outputs), model).values()
        )

    assert temporary(8192, chunked) < 1.1 * temporary(1024, chunked)
    assert temporary(8192, whole) > 4 * temporary(1024, whole)


def test_a_convolutional_net_needs_more_memory_only_for_the_probe_itself():
    model = jt.models.CNN((8, 8, 1), ((4,), (8,)), hidden=(6,))
    params = jax.eval_shape(model.init, jax.random.key(0))

    def temporary(size):
        x = jax.ShapeDtypeStruct((size, 8, 8, 1), jnp.float32)
        y = jax.ShapeDtypeStruct((size,), jnp.int32)
        program = compiled(model, "softmax").lower(params, x, y).compile()
        return program.memory_analysis().temp_size_in_bytes

    small, large = temporary(64), temporary(1024)
    # a copy of x, arranged in chunks
    pixels = (1024 - 64) * 64 * 4
    assert large - small <= 1.1 * pixels
    # memory proportional to the activations would be far larger
    assert pixels < 1024 / 64 * small / 4


def flat(model, params, probe):
    """Every parameter, flat."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def test_recorded_in_a_sweep_it_equals_the_loops_and_leaves_the_training_alone():
    model = jt.models.MLP(3, hidden=(4, 3))
    record = jt.Record(steps=(0, 6), observables=(jt.gradient_variance(), flat), probe_size=M)
    sweep = jt.Sweep(
        model=model,
        data=jt.data.Gaussian(dim=3),
        learning_rate=(0.1, 0.2),
        seed=(0, 3),
        num_steps=6,
        record=record,
    )
    ds = jt.run(sweep, progress=False)
    without = sweep.replace(record=jt.Record(steps=(0, 6), observables=(flat,), probe_size=2))
    np.testing.assert_array_equal(ds.flat.values, jt.run(without, progress=False).flat.values)
    assert ds.gradient_variance_layer.dims == ("run", "record", "layer")
    assert "hidden_0, hidden_1, output" in ds.gradient_variance_layer.attrs["long_name"]
    for i, k in np.ndindex(4, 2):
        (config,) = (c for c in sweep.configs if c.learning_rate == ds.learning_rate.values[i])
        weights, position = {}, 0
        for name in sorted(model.shapes):
            for part in ("bias", "kernel"):
                shape = model.shapes[name][part].shape
                weights.setdefault(name, {})[part] = ds.flat.values[
                    i, k, position : position + np.prod(shape)
                ].reshape(shape)
                position += int(np.prod(shape))
        key = oracles.key(int(ds.seed[i]), oracles.PROBE, config.stream, int(ds.step[i, k]))
        x, y = oracles.examples(key, M, 3)
        trace, square = (
            np.array(c) for c in zip(*twins(model, weights, x, y.astype(int)).values(), strict=True)
        )
        total, signal = trace.sum(), square.sum() - trace.sum() / M
        row = ds.isel(run=i, record=k)
        assert float(row.gradient_variance) == pytest.approx(total / position, rel=2e-5)
        np.testing.assert_allclose(row.gradient_variance_layer, trace / [16, 15, 4], rtol=2e-5)
        assert float(row.gradient_snr) == pytest.approx(signal / total, rel=1e-3, abs=1e-6)
        # no longer the squared mean, which is never negative
        assert float(row.gradient_signal) == pytest.approx(signal, rel=1e-3, abs=1e-6)
        snr = (square - trace / M) / trace
        np.testing.assert_allclose(row.gradient_snr_layer, snr, rtol=1e-3, atol=1e-5)
        assert np.isnan(row.noise_scale) == (signal <= 0)
        if signal > 0:
            assert float(row.noise_scale) == pytest.approx(total / signal, rel=1e-3)
