"""Observables against a float64 NumPy implementation, closed form against probe, diverging runs."""

import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from tests import oracles
from tests.chance import far, sigmas

M = 64
EVERY = (
    jt.activation_rate(),
    jt.activation_rate("probe"),
    jt.unit_activation(),
    jt.weight_norm("V"),
    jt.weight_norm("W"),
    jt.loss(),
    jt.mean_squared_residual(),
    jt.kappa(),
)


def params(model, params, probe):
    """All parameters, flattened in the order V, W, b."""
    import jax

    return jax.numpy.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def unpack(flat, model):
    weights, position = {}, 0
    for name in sorted(model.shapes):
        shape = model.shapes[name].shape
        weights[name] = flat[position : position + np.prod(shape)].reshape(shape)
        position += int(np.prod(shape))
    return weights


@pytest.mark.parametrize(
    ("model", "data", "loss"),
    [
        (jt.models.TwoLayer(inputs=3, hidden=5), jt.data.Gaussian(dim=3), "bce"),
        (jt.models.TwoLayer(inputs=3, hidden=5, bias=False), jt.data.Uniform(dim=3), "bce"),
        (jt.models.TwoLayer(inputs=3, hidden=5, init="he"), jt.data.Gaussian(dim=3), "squared"),
    ],
)
def test_observables_equal_their_slow_twins(model, data, loss):
    uniform = isinstance(data, jt.data.Uniform)
    observables = tuple(o for o in EVERY if not (uniform and o == jt.activation_rate("probe")))
    sweep = jt.Sweep(
        model=model,
        data=data,
        learning_rate=0.2,
        batch_size=2,
        seed=(1, 4),
        num_steps=30,
        loss=loss,
        record=jt.Record(steps=(0, 30), observables=(*observables, params), probe_size=M),
    )
    ds = jt.run(sweep, progress=False)
    (config,) = sweep.configs
    for i, k in np.ndindex(2, 2):
        expected = oracles.observables(
            config,
            unpack(ds.params.values[i, k].astype(float), model),
            int(ds.seed[i]),
            int(ds.step[i, k]),
            M,
        )
        if uniform:
            expected["activation_rate_se"] = expected["activation_rate_probe_se"]
        for name in set(ds.data_vars) - {"finite", "params"}:
            np.testing.assert_allclose(
                ds[name].values[i, k], expected[name], rtol=2e-5, atol=1e-6, err_msg=name
            )


def test_probe_and_closed_form_agree_within_their_standard_error_and_a_wrong_form_does_not():
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=10, hidden=10),
        data=jt.data.Gaussian(dim=10),
        learning_rate=0.1,
        seed=range(64),
        num_steps=400,
        record=jt.Record(steps=(400,), observables=(*EVERY[:3], params), probe_size=1024),
    )
    ds = jt.run(sweep, progress=False)
    (config,) = sweep.configs
    z = (
        (ds.activation_rate_probe - ds.activation_rate) / ds.activation_rate_probe_se
    ).values.ravel()
    assert abs(z.mean()) < sigmas(1e-4) / np.sqrt(z.size)
    # Σz² of right errors is this near to the number of runs but for 1e-4 of the keys
    assert 1e-4 < far(z) < 1 - 1e-4
    weights = [unpack(row, config.model) for row in ds.params.values[:, 0]]
    # Φ(b) without ‖W‖
    wrong = np.array(
        [np.mean(np.vectorize(lambda b: 0.5 + b / np.sqrt(2 * np.pi))(w["b"])) for w in weights]
    )
    z = (ds.activation_rate_probe.values[:, 0] - wrong) / ds.activation_rate_probe_se.values[:, 0]
    assert abs(z.mean()) > sigmas(1e-4) / np.sqrt(z.size)


def test_scale_of_the_inputs_enters_the_closed_form():
    record = jt.Record(
        steps=(0,), observables=(jt.activation_rate(), jt.activation_rate("probe")), probe_size=4096
    )
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=2, hidden=6),
        data=jt.data.Gaussian(dim=2, scale=0.2),
        learning_rate=0.1,
        seed=range(4),
        num_steps=1,
        record=record,
    )
    ds = jt.run(sweep, progress=False)
    z = ((ds.activation_rate_probe - ds.activation_rate) / ds.activation_rate_probe_se).values
    assert far(z) > 1e-4
    plain = jt.run(sweep.replace(**{"data.scale": 1.0}), progress=False)
    assert np.abs(plain.activation_rate.values - ds.activation_rate.values).max() > 0.02


def test_a_unit_without_weights_is_on_or_off_by_its_bias():
    from jthermo.observables import unit_rates

    rates = unit_rates(
        {"W": np.zeros((3, 2), np.float32), "b": np.array([-1.0, 0.0, 1.0], np.float32)}
    )
    np.testing.assert_array_equal(rates, [0.0, 0.0, 1.0])


def test_diverging_runs_are_marked_and_no_others_and_the_fit_counts_them():
    tame = jt.Sweep(
        model=jt.models.TwoLayer(inputs=10, hidden=10),
        data=jt.data.Gaussian(dim=10),
        learning_rate=(0.05, 0.1, 0.15),
        seed=range(6),
        num_steps=400,
        record=jt.Record(steps=jt.log_steps(40), observables=EVERY[:4]),
        loss="squared",
    )
    wild = tame.replace(learning_rate=(0.05, 0.1, 0.15, 30.0, 50.0))
    ds = jt.run(wild, progress=False)
    diverged = (~ds.finite).any("record").values
    np.testing.assert_array_equal(diverged, ds.learning_rate.values >= 30)
    assert jt.results.num_diverged(ds) == 12
    lost = ~ds.finite.values
    for name in ("activation_rate", "weight_norm_V", "activation_rate_probe"):
        # not 0.0, which would look like the paper's effect
        assert np.isnan(ds[name].values[lost]).all()
        assert np.isfinite(ds[name].values[~lost]).all()
    assert ds.finite.values[:, 0].all()
    kept = ds.isel(run=ds.learning_rate.values < 30)
    np.testing.assert_array_equal(
        kept.activation_rate.values, jt.run(tame, progress=False).activation_rate.values
    )
    fit = jt.fit_collapse(ds.activation_rate, controls=("learning_rate",))
    assert len(fit.left_out) == 12
    assert "12" in fit.summary()


def test_undefined_observables_are_refused_by_the_sweep():
    base = {"data": jt.data.Uniform(dim=3), "learning_rate": 0.1, "num_steps": 2}
    two_layer = jt.models.TwoLayer(inputs=3, hidden=2, bias=False)
    for observable in (jt.activation_rate("closed_form"), jt.weight_norm("b"), jt.activation_rate):
        with pytest.raises(InputError, match=r"activation_rate|weight_norm"):
            jt.Sweep(model=two_layer, record=jt.Record(steps=(0,), observables=observable), **base)


def spectrum(model, params, probe):
    """Eigenvalues of the second moments of the probe."""
    import jax.numpy as jnp

    return jnp.linalg.eigvalsh(
        probe.x.T @ probe.x / len(probe.x) + jnp.outer(params["b"], params["b"])
    )


def test_linear_algebra_of_a_users_observable_goes_lane_by_lane():
    """Batched LAPACK deadlocks on two CPU devices: it blocks the threads on which it waits."""
    import jax

    def calls(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "eigh":
                yield eqn.invars[0].aval.ndim
            for inner in jax.extend.core.jaxprs_in_params(eqn.params):
                yield from calls(inner)

    model = jt.models.TwoLayer(4, 4)
    observable = jt.observables.as_observable(spectrum)
    x = np.random.default_rng(0).normal(size=(3, M, 4)).astype(np.float32)
    stacked = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))

    def one(measure, params, x):
        probe = jt.observables.Probe(x, None, None, "bce", 0.1, 1)
        return measure(model, params, probe)

    plain = jax.vmap(lambda p, x: one(spectrum, p, x))
    guarded = jax.vmap(lambda p, x: one(observable, p, x)["spectrum"])
    assert list(calls(jax.make_jaxpr(plain)(stacked, x).jaxpr)) == [3]
    assert list(calls(jax.make_jaxpr(guarded)(stacked, x).jaxpr)) == [2]
    np.testing.assert_allclose(guarded(stacked, x), plain(stacked, x), rtol=1e-5)


@pytest.mark.parametrize("parametrization", ["standard", "mup"])
def test_leading_axes_of_length_1_are_part_of_an_example(parametrization):
    """An image with one channel in front, (1, rows, columns), is no batch of images."""
    model = jt.models.MLP(6, hidden=(5,), outputs=3, parametrization=parametrization)
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)

    def recorded(*shape):
        # all examples, so that the records are those of the same probe
        observables = (jt.loss(), jt.accuracy(), jt.mean_squared_residual(), jt.hessian_trace())
        sweep = jt.Sweep(
            model=model,
            data=jt.data.Arrays(x.reshape(9, *shape), np.arange(9) % 3),
            learning_rate=0.1,
            batch_size="full",
            num_steps=5,
            record=jt.Record(steps=(0, 5), observables=observables, probe_size="all"),
        )
        return jt.run(sweep, progress=False)

    flat, image = recorded(6), recorded(1, 2, 3)
    for name in ("loss", "accuracy", "mean_squared_residual", "hessian_trace"):
        np.testing.assert_allclose(image[name], flat[name], rtol=1e-5, err_msg=name)
