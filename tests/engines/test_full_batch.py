"""Gradient descent on a whole set, and observables on every example of it, against NumPy loops."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.engines import xla
from jthermo.errors import InputError
from jthermo.observables import observable
from jthermo.randomness import streams

NUMBERS = np.random.default_rng(5)
N, DIM, STEPS = 23, 3, 50
X = NUMBERS.normal(size=(N, DIM)).astype(np.float32)
TARGETS, CLASSES = NUMBERS.normal(size=N).astype(np.float32), NUMBERS.integers(0, 2, N)
RATES = (0.05, 0.2)
LINEAR = jt.models.MLP(DIM, hidden=(), outputs=1, bias=False)
NET = jt.models.MLP(DIM, hidden=(4,), outputs=1, activation="tanh")


def weights(model, params, probe):
    """Every parameter, flat."""
    return jax.flatten_util.ravel_pytree(params)[0]


def sweep_of(observables=(weights,), probe_size="all", steps=STEPS, **changes):
    fields = {
        "model": LINEAR,
        "data": jt.data.Arrays(X, TARGETS),
        "learning_rate": RATES,
        "batch_size": "full",
        "seed": (0, 1),
        "num_steps": steps,
        "record": jt.Record(steps=(0, steps), observables=observables, probe_size=probe_size),
    }
    return jt.Sweep(**{**fields, **changes})


def descended(w, rate, steps=STEPS):
    """w after gradient descent of the mean of ½(x·w − y)², in float64."""
    x, y = X.astype(float), TARGETS.astype(float)
    for _ in range(steps):
        w = w - rate * x.T @ (x @ w - y) / N
    return w


@pytest.fixture(params=[4096, 5], ids=["one part", "five parts"])
def part(request, monkeypatch):
    """The number of examples that are computed together."""
    monkeypatch.setattr(xla, "PART", request.param)
    monkeypatch.setattr(observable, "PART", request.param)
    # the programs of the other number are not those of this one
    jax.clear_caches()
    return request.param


def test_gradient_descent_equals_a_float64_loop(part):
    ds = jt.run(sweep_of(), progress=False)
    assert (ds.batch_size == N).all()
    for run in range(4):
        rate, start = float(ds.learning_rate[run]), ds.weights[run, 0].values.astype(float)
        np.testing.assert_allclose(ds.weights[run, 1], descended(start, rate), atol=2e-6)
        # negative control: half as many steps
        assert abs(ds.weights[run, 1] - descended(start, rate, STEPS // 2)).max() > 1e-3


def test_batches_with_replacement_are_not_gradient_descent():
    ds = jt.run(sweep_of(batch_size=N), progress=False)
    start = ds.weights[0, 0].values.astype(float)
    assert abs(ds.weights[0, 1] - descended(start, RATES[0])).max() > 1e-3


@pytest.mark.parametrize("noise", ["full", "unbiased"])
def test_runs_of_a_grid_equal_runs_alone(noise):
    data = jt.data.Gaussian(dim=DIM, num_samples=9, redraw=0.3)
    sweep = sweep_of(data=data, model=NET, noise=noise, lane_width=2)
    grid = jt.run(sweep, progress=False)
    alone = jt.run(sweep.replace(learning_rate=RATES[1], seed=1), progress=False)
    np.testing.assert_array_equal(grid.weights[3], alone.weights[0])


def test_every_observable_of_the_whole_set_is_that_of_its_examples(part):
    """In parts, as in one part, and as a probe of the same examples: sums differ by rounding."""
    kinds = (
        jt.loss(),
        jt.accuracy(),
        jt.accuracy("test"),
        jt.mean_squared_residual(),
        jt.activation_rate("probe"),
        jt.unit_activation(),
        jt.layer_statistics(),
        jt.gradient_variance(),
        jt.top_eigenvalues(),
    )
    data = jt.data.Arrays(X, CLASSES, x_test=X[:7], y_test=CLASSES[:7])
    sweep = sweep_of(kinds, data=data, model=NET, steps=2, seed=0, learning_rate=0.1)
    ds = jt.run(sweep, progress=False)
    x, y = jnp.asarray(X), jnp.asarray(CLASSES, jnp.int32)
    start, settings = (
        NET.init(streams.init_key(np.uint32(0))),
        (data, "bce", jnp.float32(0.1), N, (x[:7], y[:7])),
    )
    for kind in kinds:
        # the moments of a gradient have another denominator
        whole = isinstance(kind, jt.observables.GradientVariance)
        probe = jt.observables.Probe(x, y, *settings, jax.random.key(0), whole=whole)
        measured = jax.jit(lambda params, kind=kind, probe=probe: kind(NET, params, probe))(start)
        for name, value in measured.items():
            expected = 0 if name.endswith("_se") else value
            np.testing.assert_allclose(ds[name][0, 0], expected, rtol=2e-5, atol=1e-6, err_msg=name)
    each = jax.jit(jax.vmap(gradient, (None, 0, 0)))(start, x, y)
    per_example = np.concatenate([leaf.reshape(N, -1) for leaf in jax.tree.leaves(each)], axis=1)
    per_example = per_example.astype(float)
    mean = per_example.mean(0)
    trace = ((per_example - mean) ** 2).sum() / N
    np.testing.assert_allclose(ds.noise_scale[0, 0], trace / (mean**2).sum(), rtol=1e-5)
    # negative control: the estimate from a sample of M has M − 1 in its denominator
    assert abs(ds.noise_scale[0, 0] / (trace * N / (N - 1) / (mean**2).sum()) - 1) > 0.01


def gradient(params, x, y):
    """∇L of one example by automatic differentiation."""

    def loss(params):
        f = NET.apply(params, x[None])[0]
        return jax.nn.softplus(f) - y * f

    return jax.grad(loss)(params)


def test_the_sharpness_of_a_whole_set_is_exact():
    """Of ½(x·w − y)² it is the largest eigenvalue of XᵀX/n, at any w."""
    exact = np.linalg.eigvalsh(X.astype(float).T @ X / N)[-1]
    ds = jt.run(sweep_of((jt.top_eigenvalues(),)), progress=False)
    np.testing.assert_allclose(ds.hessian_eigenvalue, exact, rtol=1e-5)
    # negative control: a probe is a sample with replacement
    sampled = jt.run(sweep_of((jt.top_eigenvalues(),), probe_size=N), progress=False)
    assert (abs(sampled.hessian_eigenvalue / exact - 1) > 0.01).any()


class Normed(nn.Module):
    """A linear model of normalised inputs."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        return nn.Dense(1, use_bias=False)(x)[:, 0]


def test_a_full_batch_of_a_net_with_batch_normalisation(tmp_path, monkeypatch):
    """One update by flax alone; in parts, each part would have its own mean and variance."""
    sweep = sweep_of((weights,), model=Normed(), steps=1, learning_rate=0.1, seed=0)
    ds = jt.run(sweep, tmp_path / "o", progress=False)
    model = sweep.configs[0].model
    start, state = jax.jit(model.start)(streams.init_key(np.uint32(0)))

    def loss(params):
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        f, new = Normed().apply(variables, X, train=True, mutable=["batch_stats"])
        return ((f - TARGETS) ** 2).mean() / 2, new

    gradient, new = jax.grad(loss, has_aux=True)(start)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start, gradient)
    got, averages = jt.open_params(tmp_path / "o", 0, state=True)
    for one, two in ((got, expected), (averages, new)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)
    assert (abs(ds.weights[0, 1] - ds.weights[0, 0]) > 1e-3).any()
    monkeypatch.setattr(xla, "PART", 5)
    message = r"batch_size = 'full': a step of Normed .* on 23 examples goes in parts of 5"
    with pytest.raises(InputError, match=message):
        jt.run(sweep.replace(seed=1), progress=False)
    with pytest.raises(InputError, match=r"noise = NoNoise\(\): a step of Normed .* in parts of 5"):
        jt.run(sweep.replace(batch_size=2, noise="none"), progress=False)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("batch_size = 'full': needs a finite set", {"data": jt.data.Gaussian(dim=DIM)}),
        (
            "record.probe_size = 'all': needs a finite set",
            {"data": jt.data.Gaussian(dim=DIM), "batch_size": 1},
        ),
        ("batch_size = 'full': is 23 here, which is named too", {"batch_size": (1, N, "full")}),
        ("batch_size = 'half': give a whole number", {"batch_size": "half"}),
        ("record.probe_size = 'half': give a number", {"probe_size": "half"}),
    ],
)
def test_a_set_that_is_not_finite_is_refused(message, changes):
    with pytest.raises(InputError, match=message):
        sweep_of(**changes)


def test_a_full_batch_is_written_and_read_back():
    sweep = sweep_of(batch_size=(1, "full"))
    again = jt.Sweep.from_json(sweep.to_json())
    assert (again, again.to_json()) == (sweep, sweep.to_json())
    assert sorted({config.batch_size for config in sweep.configs}) == [1, N]
    assert sweep.id != sweep_of(batch_size=(1, N)).id
    with pytest.raises(InputError, match="does not support batch_size='full'"):
        jt.run(
            sweep_of(
                data=jt.data.Gaussian(dim=DIM, num_samples=5), model=jt.models.TwoLayer(DIM, 4)
            ),
            engine="fused",
        )
