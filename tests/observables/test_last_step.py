"""``probe.update``, ``probe.batch_gradient`` and ``probe.opt_state``: values, and equal bits."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jthermo as jt
from jthermo import observables
from jthermo.engines import choice as engines
from jthermo.engines import step_program
from jthermo.errors import Interrupted
from jthermo.execution import placement, train_cohort
from jthermo.execution.cohorts import cohorts
from jthermo.execution.lane_width import widths
from jthermo.observables.observable import Observable, uses_last_step
from tests.execution.test_resume import stop_after  # noqa: F401

STEPS, RATE, MASS = 9, 0.2, 0.9
X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
DATA = jt.data.Arrays(X, Y)


def flat(tree):
    return ravel_pytree(tree)[0]


def step(model, params, probe):
    """The parameters and the step that led to them."""
    gradient = probe.batch_gradient
    return {"theta": flat(params), "change": flat(probe.update), "gradient": flat(gradient)}


def trace(model, params, probe):
    """The accumulator of momentum."""
    return flat(probe.opt_state[0].trace)


def only_params(model, params, probe):
    return flat(params)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        h = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(1)(nn.Dropout(0.3, deterministic=not train)(nn.relu(h)))


def sweep_of(*recorded, **changes):
    fields = {
        "model": jt.models.TwoLayer(inputs=3, hidden=4),
        "data": DATA,
        "learning_rate": (RATE / 2, RATE),
        "batch_size": 4,
        "seed": range(3),
        "num_steps": STEPS,
        "optimizer": jt.sgd(momentum=MASS),
        "record": jt.Record(steps=jt.every(1), observables=recorded, probe_size=4),
        "lane_width": 2,
    }
    return jt.Sweep(**{**fields, **changes})


def cohort_of(sweep):
    begun = dict.fromkeys(sweep.runs, (0, 0))
    (cohort,) = cohorts(sweep, begun, engine="xla", widths=widths(sweep, "xla"))
    return cohort


def same(one, two):
    """Assert that two results agree in every bit."""
    assert {"theta", "change", "gradient", "trace"} < set(one.data_vars) == set(two.data_vars)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, two[name].values)


@pytest.fixture(scope="module")
def momentum():
    return jt.run(sweep_of(step, trace), progress=False)


def test_momentum_follows_from_the_recorded_gradients(momentum):
    theta, change, gradient = (momentum[n].values for n in ("theta", "change", "gradient"))
    rate = momentum.learning_rate.values[:, None].astype(np.float32)
    assert not change[:, 0].any()
    assert not gradient[:, 0].any()
    accumulated, late = np.zeros_like(theta[:, 0]), np.zeros_like(theta[:, 0])
    for record in range(1, STEPS + 1):
        accumulated = MASS * accumulated + gradient[:, record]
        late = MASS * late + gradient[:, record - 1]
        np.testing.assert_allclose(momentum.trace.values[:, record], accumulated, atol=1e-6)
        np.testing.assert_allclose(change[:, record], -rate * accumulated, atol=1e-7)
        moved = theta[:, record] - theta[:, record - 1]
        np.testing.assert_allclose(change[:, record], moved, atol=2e-7)
    # the negative control: the gradients one step late
    assert np.abs(late - momentum.trace.values[:, -1]).max() > 1e-2


def test_full_batch_gradient_is_that_of_the_parameters_before_the_step():
    model = jt.models.TwoLayer(inputs=3, hidden=4)
    ds = jt.run(sweep_of(step, batch_size="full", seed=0, optimizer=jt.sgd()), progress=False)
    _, unravel = ravel_pytree(model.init(jax.random.key(0)))
    y = Y.astype(np.float32)

    def value(theta):
        outputs = model.apply(unravel(theta), X)
        return (jax.nn.softplus(outputs) - y * outputs).mean()

    for before, gradient in zip(ds.theta.values[1, :-1], ds.gradient.values[1, 1:], strict=True):
        np.testing.assert_allclose(gradient, jax.grad(value)(before), atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": "gaussian"},
        {"noise": jt.noise.SVAG(4), "model": jt.models.TwoLayer(3, 4, parametrization="mup")},
        {
            "data": jt.data.Arrays(X, Y, sampling="epochs"),
            "model": Normalised(),
            "optimizer": jt.Optimizer(optax.noisy_sgd, key=0),
        },
    ],
    ids=["gaussian", "SVAG", "epochs, batch norm, dropout and noisy SGD"],
)
def test_the_update_is_the_difference_of_consecutive_records(changes):
    """So the step is computed again with its own batch, noise and random numbers."""
    ds = jt.run(sweep_of(step, num_steps=7, **changes), progress=False)
    change, moved = ds.change.values[:, 1:], np.diff(ds.theta.values, axis=1)
    np.testing.assert_allclose(change, moved, atol=2e-6 * np.abs(ds.theta.values).max())
    assert np.abs(change[:, 1:] - moved[:, :-1]).max() > 1e-3


def test_the_fused_engine_records_the_last_step_too():
    if reason := engines.refusal():
        pytest.skip(reason)
    data = jt.data.Gaussian(dim=3)
    sweep = sweep_of(step, data=data, optimizer=jt.sgd())
    ds = jt.run(sweep, engine="fused", progress=False)
    assert ds.engine == "fused"
    moved = np.diff(ds.theta.values, axis=1)
    np.testing.assert_allclose(ds.change.values[:, 1:], moved, atol=3e-7)
    other = sweep_of(only_params, data=data, optimizer=jt.sgd())
    theta = jt.run(other, engine="fused", progress=False).only_params
    np.testing.assert_array_equal(theta.values, ds.theta.values)


def test_observables_of_the_last_step_do_not_change_training(momentum):
    ds = jt.run(sweep_of(only_params, optimizer=jt.sgd(momentum=MASS)), progress=False)
    np.testing.assert_array_equal(ds.only_params.values, momentum.theta.values)


def test_grid_and_devices_change_no_bit(momentum, monkeypatch, tmp_path):
    alone = sweep_of(step, trace, learning_rate=RATE, seed=(2,))
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:1]))
    ds = jt.run(alone, tmp_path / "o", progress=False)
    same(momentum.isel(run=[-1]), ds)
    extended = jt.run(sweep_of(step, trace), tmp_path / "o", progress=False, extend=True)
    same(momentum, extended)


def test_a_run_stopped_at_every_check_ends_with_the_same_bits(momentum, tmp_path, stop_after):  # noqa: F811
    """Every step has a record, so each interruption is next to one."""
    out, stops = tmp_path / "o", 0
    while stops < 60:
        stop_after(2)
        try:
            resumed = jt.run(sweep_of(step, trace), out, progress=False)
            break
        except Interrupted:
            stops += 1
    assert STEPS // 2 < stops < 60
    same(momentum, resumed)


def test_nothing_is_saved_between_the_last_step_and_its_record():
    """Resumed there, a run could not compute the step again."""
    sweep = sweep_of(step, record=jt.Record(steps=(0, 4, STEPS), observables=step, probe_size=4))
    cohort = cohort_of(sweep)
    place, saved = placement.Placement("sharding", placement.devices()), []
    train_cohort.train_cohort(
        cohort,
        place,
        _Bar(),
        {},
        {},
        lambda step, rows: saved.append({(int(s), int(r)) for s, r in _progress(rows())}),
        lambda *_: None,
    )
    # a state at a recorded step has its record
    assert {(0, 1), (4, 2), (STEPS, 3), (3, 1), (STEPS - 1, 2)} <= set().union(*saved)
    assert not {(4, 1), (STEPS, 2)} & set().union(*saved)


def test_a_forecast_counts_and_times_the_last_step():
    costs = {}
    for observable in (step, only_params):
        costs |= jt.plan(sweep_of(observable, seed=0), measure=False).record_costs
    assert costs["change"] >= 1 > costs["only_params"]
    assert jt.plan(sweep_of(step, seed=0)).record_seconds > 0


class _Bar:
    diverged: dict = {}  # noqa: RUF012

    def advance(self, *_):
        """Show nothing."""


def _progress(rows):
    return zip(rows["steps"], rows["records"], strict=True)


def in_a_branch(model, params, probe):
    return jax.lax.cond(probe.record > 3, lambda: flat(probe.update).sum(), lambda: 0.0)


def by_item(model, params, probe):
    return flat(probe[-1]).sum()


def passed_on(model, params, probe):
    return probe.update["V"]


def unused(model, params, probe):
    jax.tree.map(lambda p, u: p, params, probe.update)
    return trace(model, params, probe)


class Subclass(Observable):
    def variables(self, model, data):
        return {"own": observables.Variable("")}

    def __call__(self, model, params, probe):
        return {"own": jnp.abs(probe.update["V"]).max()}


@pytest.mark.parametrize(
    ("observable", "reads"),
    [
        (step, True),
        (in_a_branch, True),
        (by_item, True),
        (passed_on, True),
        (jt.sparse(passed_on, every=3), True),
        (Subclass(), True),
        (trace, False),
        (unused, False),
        (jt.sparse(only_params, every=3), False),
    ],
    ids=lambda v: getattr(v, "__name__", type(v).__name__),
)
def test_who_reads_the_last_step_is_traced(observable, reads):
    sweep = sweep_of(observable)
    (program,) = step_program.programs(sweep)
    assert program.last_step is reads
    cohort = cohort_of(sweep)
    ((cost, _),) = cohort.record_costs.values()
    assert (cost >= 1) is reads


def test_no_observable_of_jthermo_reads_it():
    """They are not traced for it, which would cost more than most sweeps."""
    made = [
        getattr(jt, name)
        for name, value in vars(observables).items()
        if inspect.isfunction(value) and hasattr(jt, name) and name not in ("sparse", "weight_norm")
    ]
    assert len(made) == 11
    model, data, settings = jt.models.MLP(3, hidden=(4,)), jt.data.Gaussian(dim=3), (8, "bce")
    for observable in (*(f() for f in made), jt.weight_norm("output/kernel")):
        assert not uses_last_step(observable, jt.sgd(), model, data, *settings)
        assert not observable.reads_last_step(model, data, *settings)


def test_a_probe_without_the_last_step_is_no_zero():
    """An observable that reads it unseen fails instead of recording zeros."""
    probe = observables.Probe(X, Y, DATA, "bce", jnp.float32(0.1), 1)
    for use in (lambda u: u + 1, jnp.square, lambda u: u["V"], lambda u: flat(u)):
        with pytest.raises(TypeError, match="NotMeasured"):
            use(probe.update)
