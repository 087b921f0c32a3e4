"""The XLA engine against float64 NumPy loops, noise controls, and the number of compilations."""

import itertools

import jax
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.engines import batches, step_program
from jthermo.engines import choice as engines
from jthermo.execution import cohorts, placement
from jthermo.randomness import streams
from jthermo.update_rule import losses
from tests import deep_oracles, oracles

STEPS = 12
TWO_LAYER = jt.models.TwoLayer(inputs=4, hidden=6)
NO_BIAS = jt.models.TwoLayer(inputs=4, hidden=6, bias=False, init="unit")
GAUSSIAN, UNIFORM = jt.data.Gaussian(dim=4), jt.data.Uniform(dim=4)
CASES = {
    "plain": {},
    "batch": {"batch_size": 3},
    "no bias, uniform": {"model": NO_BIAS, "data": UNIFORM},
    "unbiased": {"noise": "unbiased", "batch_size": 2},
    "label averaged": {"noise": "label_averaged", "batch_size": 2},
    "squared": {"loss": "squared", "batch_size": 2},
    "finite": {"data": jt.data.Gaussian(dim=4, num_samples=7), "batch_size": 2},
    "redrawn": {"data": jt.data.Gaussian(dim=4, num_samples=7, redraw=0.5), "batch_size": 2},
    "epochs": {"data": jt.data.Gaussian(dim=4, num_samples=7, sampling="epochs"), "batch_size": 2},
    "teacher": {
        "data": jt.data.Teacher(jt.data.Sphere(dim=4, num_samples=7), NO_BIAS, 0.3),
        "batch_size": 2,
    },
    "teacher of fresh x, decayed": {
        "data": jt.data.Teacher(GAUSSIAN, TWO_LAYER, label_noise=0.3),
        "optimizer": jt.sgd(decay_at=5, decay=4.0),
    },
}


def params(model, params, probe):
    """Every parameter, flat."""
    return jax.numpy.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def sweep_of(**changes):
    fields = {
        "model": TWO_LAYER,
        "data": GAUSSIAN,
        "learning_rate": (0.1, 0.3),
        "seed": (0, 7),
        "num_steps": STEPS,
        "record": jt.Record(steps=(0, STEPS), observables=(params,)),
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.mark.parametrize("engine", ["xla", "fused"])
@pytest.mark.parametrize("case", CASES)
def test_training_equals_its_slow_twin(case, engine):
    sweep = sweep_of(**CASES[case])
    programs = step_program.programs(sweep)
    if engine == "fused" and (reason := engines.refusal(programs)):
        pytest.skip(reason)
    ds = jt.run(sweep, engine=engine, progress=False)
    for config, (axes, seeds) in sweep.groups.items():
        for seed in seeds:
            run = ds.isel(
                run=(ds.learning_rate.values == axes["learning_rate"]) & (ds.seed.values == seed)
            )
            start, end = run.params.values[0]
            initial = config.model.init(oracles.key(seed, 0))
            np.testing.assert_allclose(
                start,
                np.concatenate([np.ravel(initial[k]) for k in sorted(initial)]),
                rtol=1e-6,
                atol=1e-7,
            )
            expected = oracles.train(config, initial, seed, STEPS)
            flat = np.concatenate([expected[k].ravel() for k in sorted(expected)])
            np.testing.assert_allclose(end, flat, rtol=2e-4, atol=2e-6)
            # the error is far smaller than the displacement
            assert np.abs(end - start).max() > 100 * np.abs(end - flat).max()


@pytest.mark.parametrize("engine", ["xla", "auto"])
def test_momentum_weight_decay_and_swept_hyperparameters_are_those_of_optax(engine):
    sweep = sweep_of(
        learning_rate=0.2,
        seed=3,
        optimizer=jt.sgd(momentum=0.5, weight_decay=0.1),
        vary={"optimizer.momentum": (0.0, 0.5), "optimizer.weight_decay": (0.0, 0.3)},
    )
    ds = jt.run(sweep, engine=engine, progress=False)

    def trained(config, momentum, decay):
        """The last parameters of a loop in float64."""
        weights = {k: np.asarray(v, float) for k, v in config.model.init(oracles.key(3, 0)).items()}
        trace = {k: np.zeros_like(v) for k, v in weights.items()}
        for t in range(STEPS):
            (x,), (y,) = oracles.batch(config, 3, t)
            r = oracles.residual(config, oracles.forward(weights, x)[0], y, 0)
            slope = oracles.gradient_of_f(weights, x)
            trace = {k: momentum * trace[k] + r * slope[k] + decay * weights[k] for k in weights}
            weights = {k: v - 0.2 * trace[k] for k, v in weights.items()}
        return np.concatenate([weights[k].ravel() for k in sorted(weights)])

    for config in sweep.configs:
        momentum, decay = (config.optimizer.hyper[k] for k in ("momentum", "weight_decay"))
        mine = ds["optimizer.momentum"].values == momentum
        (end,) = ds.params.values[mine & (ds["optimizer.weight_decay"].values == decay), 1]
        np.testing.assert_allclose(end, trained(config, momentum, decay), rtol=2e-4, atol=2e-6)
        # the control: other numbers are told apart
        for others in ((0.5 - momentum, decay), (momentum, 0.3 - decay)):
            assert np.abs(end - trained(config, *others)).max() > 1e-3


def test_labels_redrawn_with_probability_0_are_the_fixed_ones_to_the_bit():
    # common_data gives one stream to all p
    fixed = sweep_of(**CASES["finite"], learning_rate=0.3, common_data=True)
    redrawn = jt.run(fixed.replace(vary={"data.redraw": (0.0, 1.0)}), progress=False)
    never, always = (redrawn.params.values[redrawn["data.redraw"].values == p] for p in (0, 1))
    np.testing.assert_array_equal(never, jt.run(fixed, engine="xla", progress=False).params.values)
    assert np.abs(always - never)[:, 1].max() > 1e-2


def scheduled(learning_rate, decay_steps=2 * STEPS):
    """SGD with a cosine schedule of η."""
    return optax.sgd(optax.cosine_decay_schedule(learning_rate, decay_steps))


def test_when_and_by_how_much_the_rate_decays_are_axes_of_one_program():
    never = sweep_of(learning_rate=0.2, seed=3, common_data=True)
    decayed = never.replace(
        optimizer=jt.sgd(decay_at=5, decay=1e9), vary={"optimizer.decay_at": (float(STEPS), 5.0)}
    )
    assert len(step_program.programs(decayed)) == 1
    ds = jt.run(
        decayed.replace(record=jt.Record(steps=(5, STEPS), observables=(params,))), progress=False
    )
    late, early = (ds.params.values[ds["optimizer.decay_at"].values == at][0] for at in (STEPS, 5))
    # a learning rate of 2e-10 changes no parameter
    np.testing.assert_array_equal(early[0], early[1])
    np.testing.assert_array_equal(early[0], late[0])
    plain = jt.run(never, engine="xla", progress=False).params.values[0]
    np.testing.assert_allclose(late[1], plain[1], rtol=1e-6, atol=1e-7)
    assert np.abs(late[1] - late[0]).max() > 1e-3
    for at, by in ((-1.0, 2.0), (2.0**24, 2.0), (1.0, 0.0)):
        with pytest.raises(jt.InputError, match=r"optimizer.decay(_at)? = "):
            decayed.replace(vary={"optimizer.decay_at": (at,), "optimizer.decay": (by,)})


def branching(learning_rate, decay=0.9):
    """An optimizer that tests whether the decay is zero."""
    return optax.sgd(optax.exponential_decay(learning_rate, 1, decay))


def warmed_up(learning_rate):
    """An optimizer whose schedule tests whether its peak is zero."""
    return optax.sgd(optax.warmup_cosine_decay_schedule(0.0, learning_rate, 2, STEPS))


def warmed_up_from_1(learning_rate):
    """The same with the schedule for a rate of 1."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, 2, STEPS)
    return optax.sgd(lambda t: learning_rate * schedule(t))


def test_an_optimizer_that_branches_on_a_traced_number_is_refused_where_it_is_given():
    with pytest.raises(
        jt.InputError, match="branching branches on a float argument, but these are traced"
    ):
        jt.Optimizer(branching)
    remedy = r"warmed_up branches on the learning rate.*a rate of 1"
    with pytest.raises(jt.InputError, match=remedy):
        jt.Optimizer(warmed_up)
    # the remedy of the message
    jt.Optimizer(warmed_up_from_1)


@pytest.mark.parametrize(
    "optimizer", [jt.sgd(momentum=0.9), jt.Optimizer(optax.adam), jt.Optimizer(scheduled)], ids=str
)
def test_deep_nets_take_any_optimizer_of_optax_and_every_rate_is_the_same_program(optimizer):
    """An MLP equals plain optax on the same batches; more learning rates compile nothing."""
    model = jt.models.MLP(4, hidden=(5, 3))
    sweep = sweep_of(
        model=model, learning_rate=(0.02, 0.1), seed=3, batch_size=2, optimizer=optimizer
    )
    compiled = []

    def listen(event, seconds, **_):
        compiled.extend([event] * (event == "/jax/core/compile/backend_compile_duration"))

    ds = jt.run(sweep, progress=False)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jt.run(sweep.replace(learning_rate=(0.01, 0.03, 0.05)), progress=False)
        assert compiled == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    (config,) = (c for c in sweep.configs if c.learning_rate == 0.1)
    weights = model.init(oracles.key(3, 0))
    rule = optimizer.fn(0.1, **optimizer.hyper)
    state = rule.init(weights)
    for t in range(STEPS):
        x, y = oracles.batch(config, 3, t)
        gradients = [
            deep_oracles.gradient(
                weights, xi, deep_oracles.residual(deep_oracles.forward(weights, xi)[0], yi)
            )
            for xi, yi in zip(x, y, strict=True)
        ]
        mean = jax.tree.map(lambda *g: np.mean(g, 0).astype(np.float32), *gradients)
        updates, state = rule.update(mean, state, weights)
        weights = optax.apply_updates(weights, updates)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights)])
    start, end = ds.params.values[ds.learning_rate.values == 0.1][0]
    np.testing.assert_allclose(end, flat, rtol=2e-3, atol=2e-5)
    assert np.abs(end - start).max() > 100 * np.abs(end - flat).max()


def test_runs_of_one_seed_share_their_init_and_not_their_stream():
    ds = jt.run(sweep_of(), progress=False)
    by_seed = {s: ds.isel(run=ds.seed.values == s).params.values for s in (0, 7)}
    assert (by_seed[0][0, 0] == by_seed[0][1, 0]).all()
    assert (by_seed[0][0, 0] != by_seed[7][0, 0]).any()
    streams = {config.stream for config in sweep_of().configs}
    assert len(streams) == 2


def test_common_data_shows_every_rate_the_same_examples():
    shared = sweep_of(common_data=True, learning_rate=(1e-4, 2e-4), batch_size=2)
    own = shared.replace(common_data=False)
    moved = {}
    for name, sweep in (("shared", shared), ("own", own)):
        ds = jt.run(sweep, progress=False)
        ds = ds.isel(run=ds.seed.values == 0).sortby("learning_rate")
        moved[name] = ds.params.values[:, 1] - ds.params.values[:, 0]
    # for η → 0 the displacement is η times a function of the data
    np.testing.assert_allclose(2 * moved["shared"][0], moved["shared"][1], rtol=0.02, atol=2e-6)
    assert np.abs(2 * moved["own"][0] - moved["own"][1]).max() > 1e-4


NUMBERS = np.random.default_rng(0)
SOURCES = {
    "gaussian": GAUSSIAN,
    "uniform": UNIFORM,
    "sphere": jt.data.Sphere(dim=4),
    "replacement": jt.data.Gaussian(dim=4, num_samples=7),
    "redrawn": CASES["redrawn"]["data"],
    "epochs": CASES["epochs"]["data"],
    "arrays": jt.data.Arrays(
        NUMBERS.normal(size=(9, 4)).astype(np.float32), NUMBERS.integers(0, 2, 9)
    ),
    "targets": jt.data.Arrays(
        NUMBERS.normal(size=(9, 4)).astype(np.float32), NUMBERS.normal(size=9), sampling="epochs"
    ),
    "teacher": jt.data.Teacher(GAUSSIAN, TWO_LAYER, label_noise=0.3),
    "deep teacher": jt.data.Teacher(UNIFORM, jt.models.MLP(4, hidden=(6, 5))),
    "teacher, epochs": jt.data.Teacher(
        jt.data.Sphere(dim=4, num_samples=7, sampling="epochs"), NO_BIAS, 0.3
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_no_cutting_of_the_steps_changes_a_bit(source):
    """At B = 1 the first targets of a teacher were rounded differently, once per call."""
    place = placement.Placement("sharding", placement.devices()[:1])
    (cohort,) = cohorts.cohorts(sweep_of(data=SOURCES[source], num_steps=40, lane_width=4))
    call = placement.programs(cohort.program, place)

    def trained(ends):
        with placement.pinned():
            runs = place.put(jax.tree.map(lambda a: a[cohort.blocks], cohort.runs))
            states = placement.initializer(cohort.model, cohort.program.optimizer, place)(runs)
            for start, stop in itertools.pairwise((0, *ends, 40)):
                states = call.advance(runs, states, np.array([start]), np.array([stop]))
            return jax.tree.map(np.asarray, states.params)

    whole, rng = trained(()), np.random.default_rng(0)
    for _ in range(20):
        pieces = trained(1 + np.flatnonzero(rng.integers(0, 2, 39)))
        jax.tree.map(np.testing.assert_array_equal, whole, pieces)


def quartic(outputs, y):
    """A loss of the user's own."""
    return (outputs - y) ** 4


@pytest.mark.parametrize("loss", ["hinge", "exponential", quartic])
def test_training_with_another_loss_follows_its_gradient(loss):
    """Two steps of one run against jax.grad of the mean loss of the same batches."""
    sweep = sweep_of(
        loss=loss,
        learning_rate=0.1,
        seed=3,
        batch_size=4,
        num_steps=2,
        record=jt.Record(steps=(0, 2), observables=(params, jt.loss())),
    )
    (cohort,) = cohorts.cohorts(sweep)
    run = jax.tree.map(lambda a: a.ravel()[0], cohort.runs)
    theta = TWO_LAYER.init(streams.init_key(run.seed))

    def mean(theta, x, y):
        if loss is quartic:
            return quartic(TWO_LAYER.apply(theta, x), y).mean()
        margin = (2 * y - 1) * TWO_LAYER.apply(theta, x)
        each = jax.nn.relu(1 - margin) if loss == "hinge" else jax.numpy.exp(-margin)
        return each.mean()

    for t in range(2):
        batch = batches.draw_batch(cohort.program, {}, run, streams.streams(run), None, t)
        gradient = jax.grad(mean)(theta, *batch)
        theta = jax.tree.map(lambda p, g: p - 0.1 * g, theta, gradient)
    trained = jt.run(sweep, progress=False)
    expected = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(theta)])
    np.testing.assert_allclose(trained.params[0, 1], expected, rtol=1e-5, atol=1e-6)
    assert trained.loss[0, 1] > 0
    # the kernel of the paper's nets has other losses, and says so
    with pytest.raises(jt.InputError, match=f"does not support the loss {losses.name(loss)}"):
        jt.run(sweep, engine="fused", progress=False)


def test_label_smoothing_is_an_axis_of_one_program():
    sweep = sweep_of(
        model=jt.models.MLP(4, hidden=(5,), outputs=3),
        data=jt.data.Gaussian(dim=4, num_classes=3),
        vary={"loss.label_smoothing": (0.0, 0.1, 0.4)},
        learning_rate=0.3,
        batch_size=2,
    )
    assert len(step_program.programs(sweep)) == 1
    mixed = jt.run(sweep, progress=False).params
    for alpha in (0.1, 0.4):
        alone = sweep.replace(vary={}, loss=jt.losses.Softmax(alpha))
        same = mixed.where(mixed["loss.label_smoothing"] == alpha, drop=True)
        np.testing.assert_array_equal(jt.run(alone, progress=False).params, same)
    assert not np.allclose(mixed[0, -1], mixed[-1, -1])


def test_each_program_compiles_once():
    """One init, update and record per cohort; traced numbers such as η recompile nothing."""
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    first = sweep_of(
        model=jt.models.TwoLayer(inputs=4, hidden=9),
        batch_size=(1, 2),
        noise=jt.noise.Unbiased(0.5),
        optimizer=jt.sgd(momentum=0.1),
        vary={"noise.scale": (0.3, 0.5), "model.init": ("torch", "he")},
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jt.run(first, progress=False)
        # one init per scheme, one update and one record per B
        assert len(compiled) == 2 + 2 + 2
        jt.run(
            first.replace(learning_rate=(0.01, 0.02), seed=(5, 6), optimizer=jt.sgd(momentum=0.2)),
            progress=False,
        )
        assert len(compiled) == 6
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
