"""Rules that replace the noise of SGD: covariance of one update against that of SGD itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.engines import fingerprint, run_state, step_program, xla
from jthermo.randomness import streams
from tests.chance import sigmas

DIM, N, B, RATE = 3, 7, 2, 0.25
NUMBERS = np.random.default_rng(1)
# Gradients of different sizes in the three directions: the noise is far from isotropic.
X = (NUMBERS.normal(size=(N, DIM)) * (0.2, 1.0, 3.0)).astype(np.float32)
DATA = jt.data.Arrays(X, NUMBERS.normal(size=N).astype(np.float32))
MODEL = jt.models.MLP(DIM, hidden=(), outputs=1, bias=False)
DRAWS = 100_000


@functools.cache
def updates(noise, steps=1):
    """The updates (draws, 3) of so many steps from the same parameters, in units of −η."""
    sweep = sweep_of(noise=noise)
    (config,) = sweep.configs
    program, _ = step_program.split(config, sweep.record)
    runs = step_program.Run(
        jnp.zeros(DRAWS, jnp.uint32),
        jnp.arange(DRAWS, dtype=jnp.uint32),
        jnp.full(DRAWS, RATE, jnp.float32),
        {},
    )
    held = {k: jnp.asarray(v) for k, v in DATA.load().arrays.items()}
    start = jax.vmap(functools.partial(run_state.init, MODEL, program.optimizer))(runs)
    advance = jax.jit(functools.partial(xla.advance, program))
    end = advance(runs, start, jnp.int32(0), jnp.int32(steps), held)
    before, after = (np.asarray(jax.tree.leaves(s.params)[0], float)[..., 0] for s in (start, end))
    return (before - after) / RATE


def sweep_of(noise, **changes):
    fields = {
        "model": MODEL,
        "data": DATA,
        "noise": noise,
        "learning_rate": RATE,
        "batch_size": B,
        "num_steps": 2,
        "record": jt.Record(steps=(0, 2), observables=jt.loss(), probe_size="all"),
    }
    return jt.Sweep(**{**fields, **changes})


def gradients():
    """The gradient (n, 3) of each example at the start, in float64."""
    w = np.asarray(MODEL.init(streams.init_key(jnp.uint32(0)))["output"]["kernel"], float)[:, 0]
    x, y = X.astype(float), DATA.load().arrays["y"].astype(float)
    return (x @ w - y)[:, None] * x


def deviations(found, mean, covariance):
    """Mean and second moments of the updates less the expected ones, in standard errors."""
    products = np.einsum("ri,rj->rij", found - mean, found - mean).reshape(len(found), -1)
    z = [
        (a.mean(0) - expected) / (a.std(0) / np.sqrt(len(a)))
        for a, expected in ((found, mean), (products, covariance.ravel()))
    ]
    return np.abs(np.concatenate(z)).max()


# The largest of 3 + 9 deviations of a right rule exceeds this once in 10,000 sets of draws.
MOST = sigmas(1e-4, DIM + DIM**2)


@pytest.mark.parametrize("noise", ["full", "gaussian", jt.noise.SVAG(4)], ids=str)
def test_the_covariance_of_an_update_is_that_of_sgd(noise):
    g = gradients()
    covariance = np.cov(g.T, bias=True) / B
    if noise == jt.noise.SVAG(4):
        # a step of η/l has a quarter of the mean, and a quarter of the covariance
        assert deviations(updates(noise), g.mean(0) / 4, covariance / 4) < MOST
    else:
        assert deviations(updates(noise), g.mean(0), covariance) < MOST


def test_isotropic_noise_has_the_trace_alone():
    g = gradients()
    covariance = np.cov(g.T, bias=True) / B
    same = np.trace(covariance) / DIM * np.eye(DIM)
    found = updates("isotropic")
    assert deviations(found, g.mean(0), same) < MOST
    # negative control: the covariance of SGD is rejected by the same test
    assert deviations(found, g.mean(0), covariance) > 5 * MOST


def test_without_noise_an_update_is_the_full_gradient_and_drift_adds_its_mean_effect():
    g, x = gradients(), X.astype(float)
    np.testing.assert_allclose(updates("none"), [g.mean(0)] * DRAWS, rtol=2e-5, atol=1e-6)
    # the Hessian of an example is x xᵀ, so ∇ tr Σ1 = (2/n) Σ x (x·(g − G))
    slope = 2 * (x * (x * (g - g.mean(0))).sum(1, keepdims=True)).mean(0)
    expected = g.mean(0) + RATE / (4 * B) * slope
    np.testing.assert_allclose(updates("drift")[:9], [expected] * 9, rtol=2e-5, atol=1e-5)
    # negative control: the drift without its factor 1/B
    assert not np.allclose(updates("drift")[0], g.mean(0) + RATE / 4 * slope, rtol=1e-2)


def test_svag_with_one_part_is_sgd_to_the_bit():
    one, sgd = sweep_of(jt.noise.SVAG(1)), sweep_of("full")
    assert one.id == sgd.id
    ds = [jt.run(sweep, progress=False).loss for sweep in (one, sgd)]
    np.testing.assert_array_equal(*ds)


def test_the_rivals_are_one_grid_and_each_run_is_that_of_a_sweep_alone():
    """Hidden units and two steps of every rule; each starts from the parameters of its seed."""
    model = jt.models.MLP(DIM, hidden=(4,), outputs=1, activation="tanh")
    rules = ("full", "none", "gaussian", "isotropic", "drift")
    grid = sweep_of("full", model=model, seed=(0, 1), lane_width=2, vary={"noise": rules})
    ds = jt.grid(jt.run(grid, progress=False)).loss.squeeze()
    start = ds.isel(record=0)
    assert (start == start.sel(noise="full")).all()
    for rule in rules:
        alone = jt.run(grid.replace(vary={}, noise=rule, seed=1), progress=False).loss
        np.testing.assert_array_equal(ds.sel(noise=rule, seed=1), alone[0])
    # every rule goes another way
    assert len(set(ds.sel(seed=1).isel(record=1).values.tolist())) == len(rules)


def test_the_drift_and_the_mean_gradient_see_the_same_redrawn_labels(monkeypatch):
    """The products with Hessians are computed in smaller parts than the mean gradient."""
    data = jt.data.Gaussian(dim=DIM, num_samples=9, redraw=0.5)
    sweep = sweep_of("drift", data=data, seed=(0, 1), lane_width=2)
    ends = []
    for part in (64, 4):
        monkeypatch.setattr(xla, "HESSIAN_PART", part)
        jax.clear_caches()
        ends.append(jt.run(sweep, progress=False).loss)
    np.testing.assert_allclose(*ends, rtol=1e-6)


@pytest.mark.parametrize("weight_decay", [None, 0.0])
def test_the_drift_has_the_learning_rate_of_its_step(weight_decay):
    """A rate that has fallen before the first step is that of a sweep with the lower rate."""

    def end(rate, **options):
        sweep = sweep_of("drift", learning_rate=rate, optimizer=jt.sgd(**options), common_data=True)
        return jt.run(sweep, engine="xla", progress=False).loss.values

    fallen = end(4 * RATE, decay_at=0, decay=4, weight_decay=weight_decay)
    np.testing.assert_allclose(fallen, end(RATE), rtol=1e-6)
    assert np.abs(fallen / end(4 * RATE) - 1).max() > 1e-2, "the control"


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({}, False),
        ({"optimizer": jt.sgd(decay_at=1)}, True),
        ({"model": jt.models.TwoLayer(DIM, 4, parametrization="mean_field")}, True),
    ],
)
def test_a_folder_whose_drift_had_another_rate_is_not_continued(
    options, refused, tmp_path, monkeypatch
):
    with monkeypatch.context() as before:
        before.setattr(fingerprint, "learning_rate_at", lambda program, run, t: run.learning_rate)
        jt.run(sweep_of("drift", **options), tmp_path, progress=False)
    more = sweep_of("drift", seed=(0, 1), **options)
    if refused:
        with pytest.raises(jt.InputError, match=r"results of other code: .* step changed"):
            jt.run(more, tmp_path, extend=True, progress=False)
    else:
        assert jt.run(more, tmp_path, extend=True, progress=False).attrs["complete"]
