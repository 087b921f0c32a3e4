"""Nets with batch normalisation, dropout and noisy optimizers: updates by hand, and equal bits."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jthermo as jt
from jthermo.engines import run_state, step_program, xla
from jthermo.engines.batches import draw_batch
from jthermo.errors import Interrupted
from jthermo.execution import placement
from jthermo.models import loss_inputs
from jthermo.observables import gradient_moments
from jthermo.randomness import streams
from tests.execution.test_placement import differing_bits, params
from tests.execution.test_resume import stop_after  # noqa: F401

RATE, STEPS, SIDE = 0.4, 8, 4


class LinenCNN(nn.Module):
    """A convolution, batch normalisation and dropout on images of 4 × 4 pixels."""

    rate: float = RATE

    @nn.compact
    def __call__(self, x, train: bool):
        h = nn.Conv(3, (3, 3))(x.reshape(-1, SIDE, SIDE, 1))
        h = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.8)(h))
        h = nn.Dropout(self.rate, deterministic=not train)(h.reshape(x.shape[0], -1))
        return nn.Dense(1)(h)


class NnxMLP(nnx.Module):
    def __init__(self, width, *, rngs):
        self.hidden = nnx.Linear(SIDE**2, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.8, rngs=rngs)
        self.dropout = nnx.Dropout(RATE, rngs=rngs)
        self.output = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.output(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


class EquinoxMLP(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    output: eqx.nn.Linear

    def __init__(self, key):
        self.hidden = eqx.nn.Linear(SIDE**2, 6, key=jax.random.fold_in(key, 0))
        self.norm = eqx.nn.BatchNorm(6, "batch", mode="ema", momentum=0.8)
        self.dropout = eqx.nn.Dropout(RATE)
        self.output = eqx.nn.Linear(6, 1, key=jax.random.fold_in(key, 1))

    def __call__(self, x, state, key, inference):
        h, state = self.norm(self.hidden(x), state, inference=inference)
        h = self.dropout(jax.nn.relu(h), key=key, inference=inference)
        return self.output(h), state


def equinox_init(key):
    return eqx.nn.make_with_state(EquinoxMLP)(key)


def equinox_apply(net, x, state, key, inference):
    keys = None if key is None else jax.random.split(key, len(x))
    each = jax.vmap(
        lambda x, key: net(x, state, key, inference),
        axis_name="batch",
        in_axes=(0, None if key is None else 0),
        out_axes=(0, None),
    )
    return each(x, keys)


NOISY = jt.Optimizer(optax.noisy_sgd, eta=1e-4, key=0)
NETS = {
    "linen": (LinenCNN(), jt.sgd(momentum=0.9)),
    "nnx": (jt.models.NNX(NnxMLP, 6), NOISY),
    "equinox": (jt.models.Function(init=equinox_init, apply=equinox_apply), jt.sgd()),
}


def sweep_of(name, **changes):
    model, optimizer = NETS[name]
    fields = {
        "model": model,
        "optimizer": optimizer,
        "data": jt.data.Gaussian(dim=SIDE**2),
        "learning_rate": (0.05, 0.1),
        "batch_size": 4,
        "seed": range(3),
        "num_steps": STEPS,
        "record": jt.Record(steps=(0, 3, STEPS), observables=(params, jt.loss()), probe_size=16),
        "lane_width": 2,
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.fixture(scope="module", params=NETS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def whole(name, tmp_path_factory):
    """A finished folder and its records."""
    out = tmp_path_factory.mktemp("stateful") / name
    return out, jt.run(sweep_of(name), out, progress=False)


def test_grid_devices_and_extension_change_no_bit(name, whole, monkeypatch, tmp_path):
    _, ds = whole
    assert np.isfinite(ds.loss.values).all()
    alone = sweep_of(name, learning_rate=0.1, seed=(2,))
    assert differing_bits(ds, jt.run(alone, tmp_path / "o", progress=False)) == 0
    # XLA compiles its x / sqrt(v) differently for one device than for two
    number = 2 if name == "equinox" else 1
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:number]))
    extended = jt.run(sweep_of(name), tmp_path / "o", progress=False, extend=True)
    assert extended.attrs["num_devices"] == number
    assert differing_bits(ds, extended) == 0
    # the negative control: another stream of random numbers
    assert differing_bits(ds, jt.run(sweep_of(name, common_data=True), progress=False)) > 1000


def test_pmap_changes_no_bit_of_records_and_states(name, whole, tmp_path):
    reference, ds = whole
    out = tmp_path / "o"
    assert len(jax.devices()) == 2
    pmap = jt.run(sweep_of(name), out, placement="pmap", progress=False)
    assert pmap.attrs["placement"] == "pmap"
    assert differing_bits(ds, pmap) == 0
    one, two = (jt.open_params(folder, range(6), state=True) for folder in (reference, out))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, two))


def test_a_run_stopped_at_every_check_ends_with_the_same_bits(name, whole, tmp_path, stop_after):  # noqa: F811
    reference, ds = whole
    out, stops = tmp_path / "o", 0
    while stops < 30:
        stop_after(2)
        try:
            resumed = jt.run(sweep_of(name), out, progress=False)
            break
        except Interrupted:
            stops += 1
    assert 3 < stops < 30
    assert differing_bits(ds, resumed) == 0
    for run in (0, 5):
        one, two = (jt.open_params(folder, run, state=True) for folder in (reference, out))
        assert jax.tree.leaves(one[1])
        assert jax.tree.all(jax.tree.map(np.array_equal, one, two))


def test_the_state_of_a_finished_run_is_that_of_its_records(name, whole):
    out, ds = whole
    model = sweep_of(name).configs[0].model
    trained, state = jt.open_params(out, 4, state=True)
    assert jax.tree.structure(state) == jax.tree.structure(model.state_shapes)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(state), jax.tree.leaves(model.start(jax.random.key(0))[1]), strict=True
        )
    ]
    assert sum(moved) >= 2
    np.testing.assert_array_equal(
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(trained)]),
        ds.params.values[4, -1],
    )
    assert ds.loss.long_name.endswith("over the probe, of the net in evaluation mode")


def by_hand(variables, x, y, key, rate, momentum, velocity):
    """One update of LinenCNN by flax and optax alone."""

    def loss(params):
        outputs, changed = LinenCNN().apply(
            {**variables, "params": params}, x, train=True, rngs={"dropout": key},
            mutable=["batch_stats"],
        )  # fmt: skip
        values = optax.sigmoid_binary_cross_entropy(outputs[:, 0], y.astype(jnp.float32))
        return values.mean(), changed

    gradient, changed = jax.grad(loss, has_aux=True)(variables["params"])
    velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
    new = jax.tree.map(lambda p, v: p - rate * v, variables["params"], velocity)
    return {"params": new, **changed}, velocity


def test_updates_are_those_of_a_loop_written_by_hand():
    sweep = sweep_of("linen", learning_rate=0.1, seed=0)
    (config,) = sweep.configs
    program, hyper = step_program.split(config, sweep.record)
    seed, stream = np.array([0]), np.array([config.stream])
    runs = step_program.as_runs([config], [hyper], seed, stream)
    run = jax.tree.map(lambda a: a[0], runs)
    state = run_state.init(config.model, program.optimizer, run)
    keys = streams.streams(run)
    batches = [draw_batch(program, {}, run, keys, None, jnp.int32(t)) for t in range(STEPS)]
    after = jax.jit(lambda r, s: xla.advance(program, r, s, jnp.int32(0), jnp.int32(STEPS), {}))(
        runs, jax.tree.map(lambda a: a[None], state)
    )
    results = {}
    for dropout in (streams.model_key, lambda run, t: streams.model_key(run, t + 1)):
        variables = {"params": state.params, **state.model_state}
        velocity = jax.tree.map(jnp.zeros_like, state.params)
        for t, (x, y) in enumerate(batches):
            key = dropout(run, jnp.int32(t))
            variables, velocity = by_hand(variables, x, y, key, 0.1, 0.9, velocity)
        results[dropout] = variables
    right, wrong = results.values()
    got = {"params": after.params, **after.model_state}
    close = {
        name: jax.tree.all(
            jax.tree.map(lambda a, b: np.allclose(a[0], b, rtol=1e-4, atol=1e-5), got, other)
        )
        for name, other in (("right", right), ("wrong", wrong))
    }
    assert close == {"right": True, "wrong": False}
    moments_in_evaluation_mode(config.model, right, *batches[0])


def moments_in_evaluation_mode(model, variables, x, y):
    """Per-example gradients use the running averages and no dropout."""
    state = {"batch_stats": variables["batch_stats"]}

    def loss(params, x, y):
        outputs = LinenCNN().apply({"params": params, **state}, x[None], train=False)[0, 0]
        return optax.sigmoid_binary_cross_entropy(outputs, y.astype(jnp.float32))

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(variables["params"], x, y)
    flat = np.concatenate([g.reshape(len(x), -1) for g in jax.tree.leaves(gradients)], axis=1)
    expected = np.var(flat, axis=0, ddof=1).sum()
    bound = model.with_state(state)
    got = gradient_moments.moments(bound, variables["params"], x, y, "bce").total.trace
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    # of a net that was not trained, the averages differ
    other = gradient_moments.moments(model, variables["params"], x, y, "bce").total.trace
    assert not np.allclose(other, expected, rtol=1e-2)
    assert loss_inputs(bound.apply(variables["params"], x)).shape == (len(x),)


class Always(nn.Module):
    """Dropout that can't be turned off."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.Dropout(0.5, deterministic=False)(x))


class Norm(nn.Module):
    """Batch normalisation that can't be turned off."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.BatchNorm(use_running_average=False)(x))


@pytest.mark.parametrize("model", [Always(), Norm()])
def test_a_net_without_evaluation_mode_is_refused_by_name(model):
    with pytest.raises(jt.InputError, match="in evaluation too; give its __call__ an argument tra"):
        sweep_of("linen", model=model)


def test_auto_says_in_one_line_why_a_sweep_is_not_fused(capsys):
    sweep = sweep_of("nnx", num_steps=1, record=jt.Record(steps=(1,), observables=jt.loss()))
    jt.run(sweep)
    said = [line for line in capsys.readouterr().err.splitlines() if "engine" in line]
    assert said == [
        "engine: xla, because the fused engine does not support the model NnxMLP (flax.nnx)"
    ]
