"""float64 against NumPy loops in float64, and updates whose passes are in bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.data import sampling
from jthermo.engines import run_state, step_program, xla
from jthermo.engines.fingerprint import fingerprint
from jthermo.errors import InputError
from jthermo.models import as_model
from jthermo.models.model import started
from jthermo.observables.cost import primitives
from jthermo.randomness import streams
from jthermo.randomness.jax_settings import pinned, pinned_dtype

NUMBERS = np.random.default_rng(6)
N, DIM, HIDDEN, RATE, MOMENTUM, BATCH = 23, 3, 4, 0.2, 0.9, 4
# digits that float32 drops
X, TARGETS = NUMBERS.normal(size=(N, DIM)), NUMBERS.normal(size=N)
NET = jt.models.MLP(DIM, hidden=(HIDDEN,), activation="tanh")
LINEAR = jt.models.MLP(DIM, hidden=(), bias=False)
RECORDED = (0, 10, 100, 1000)


def weights(model, params, probe):
    """Every parameter, flat."""
    return jax.flatten_util.ravel_pytree(params)[0]


def sweep_of(dtype, model=NET, steps=RECORDED, observables=(weights,), **changes):
    fields = {
        "model": model,
        "data": jt.data.Arrays(X, TARGETS),
        "learning_rate": RATE,
        "batch_size": "full",
        "num_steps": steps[-1],
        "record": jt.Record(steps=steps, observables=observables, probe_size="all"),
    }
    return jt.Sweep(dtype=dtype, **{**fields, **changes})


def gradients(flat):
    """The gradient of ½(f − y)² of the tanh net for each example, (N, P), in float64."""
    b, w, c, v = np.split(flat, np.cumsum([HIDDEN, DIM * HIDDEN, 1]))
    h = np.tanh(X @ w.reshape(DIM, HIDDEN) + b)
    r = h @ v + c - TARGETS
    below = r[:, None] * v * (1 - h**2)
    outer = (X[:, :, None] * below[:, None, :]).reshape(N, -1)
    return np.concatenate([below, outer, r[:, None], r[:, None] * h], 1)


def relative(a, b):
    return abs(np.asarray(a, float) / b - 1).max()


def test_full_batch_and_exact_probes_equal_a_float64_loop_only_in_float64():
    error, measured = {}, {}
    for dtype in ("float32", "float64"):
        ds = jt.run(sweep_of(dtype, observables=(weights, jt.gradient_variance())), progress=False)
        assert ds.weights.dtype == ds.noise_scale.dtype == dtype == ds.attrs["precision"]
        recorded = ds.weights.values[0].astype(float)
        flat, at = recorded[0], []
        for t in range(RECORDED[-1] + 1):
            if t in RECORDED:
                at.append(flat)
            flat = flat - RATE * gradients(flat).mean(0)
        error[dtype] = abs(recorded - at).max()
        trace, signal = (
            np.array([f(gradients(flat)) for flat in at])
            for f in (lambda g: g.var(0).sum(), lambda g: (g.mean(0) ** 2).sum())
        )
        measured[dtype] = max(
            relative(ds.gradient_variance[0], trace / len(flat)),
            relative(ds.noise_scale[0], trace / signal),
        )
    assert error["float64"] < 1e-12
    assert measured["float64"] < 1e-10
    # negative control
    assert error["float32"] > 1e-8
    assert measured["float32"] > 1e-8


def test_sgd_of_a_linear_model_is_its_exact_recursion_only_in_float64():
    def errors(dtype):
        sweep = sweep_of(
            dtype, LINEAR, (0, 200), batch_size=BATCH, optimizer=jt.sgd(momentum=MOMENTUM)
        ).replace(learning_rate=0.02)
        (config,) = sweep.configs
        start, end = jt.run(sweep, progress=False).weights.values[0].astype(float)
        with pinned():
            run = step_program.Run(jnp.uint32(0), jnp.uint32(config.stream), None, {})
            keys = streams.streams(run)
            batches = [
                np.asarray(sampling.with_replacement(streams.batch_key(keys, t), BATCH, N))
                for t in range(201)
            ]

        def after(batches):
            w, v = start, np.zeros(DIM)
            for i in batches:
                v = MOMENTUM * v + X[i].T @ (X[i] @ w - TARGETS[i]) / BATCH
                w = w - 0.02 * v
            return abs(end - w).max()

        return after(batches[:200]), after(batches[1:])

    exact, of_other_batches = errors("float64")
    assert exact < 1e-12
    # negative controls: the batches of other steps, and rounding to float32
    assert of_other_batches > 1e-3
    assert errors("float32")[0] > 1e-8


def test_a_sweep_in_float64_leaves_jax_as_it_was():
    jt.run(sweep_of("float64", LINEAR, (0, 1)), progress=False)
    with pytest.raises(InputError, match="dtype = 'float16': use one of float32, float64, bfloat"):
        sweep_of("float16")
    assert pinned_dtype() == "float32"
    assert jnp.ones(1).dtype == jnp.float32


class Normed(nn.Module):
    """A net with state."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(1)(nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x)))


def init(key):
    return {"w": jax.random.normal(key, (DIM,), jnp.float32)}


def apply(params, x):
    return x @ params["w"]


@pytest.mark.parametrize("model", [NET, Normed(), jt.models.Function(init=init, apply=apply)])
def test_parameters_state_and_optimizer_start_in_float64_from_the_same_numbers(model):
    def start(dtype):
        sweep = sweep_of(dtype, model, optimizer=jt.Optimizer(optax.adam))
        (config,) = sweep.configs
        with pinned(dtype):
            program, hyper = step_program.split(config, sweep.record)
            runs = step_program.as_runs([config], [hyper], np.zeros(1), np.zeros(1))
            run = jax.tree.map(lambda a: a[0], runs)
            state = run_state.init(config.model, program.optimizer, run)
        floats = [a for a in jax.tree.leaves((run, state)) if a.dtype.kind == "f"]
        assert {str(a.dtype) for a in floats} == {"float32" if dtype == "bfloat16" else dtype}
        return floats

    for short, long, half in zip(*map(start, ("float32", "float64", "bfloat16")), strict=True):
        np.testing.assert_allclose(long, short, rtol=2e-6, atol=1e-7)
        np.testing.assert_array_equal(half, short)


class Forced(nn.Module):
    """A net whose layers have a dtype of their own, or only the first."""

    only_first: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(4, dtype=jnp.float32)(x)
        return nn.Dense(1, dtype=None if self.only_first else jnp.float32)(h)


@pytest.mark.parametrize(
    ("dtype", "only_first", "words"),
    [
        ("float64", False, "has float32 outputs, but jthermo trains in float64; give the module"),
        ("float64", True, "rounds to float32 inside, but jthermo trains in float64; give the mod"),
        ("bfloat16", True, "has float32 outputs for bfloat16 parameters and examples, since a lay"),
    ],
)
def test_a_net_that_forces_float32_is_refused(dtype, only_first, words):
    with pytest.raises(InputError, match=words):
        sweep_of(dtype, Forced(only_first))
    # negative control: the same net in float32
    sweep_of("float32", Forced(only_first))
    if dtype == "float64":
        teacher = jt.data.Teacher(jt.data.Sphere(dim=DIM, num_samples=5), Forced(only_first))
        with pytest.raises(InputError, match=words):
            sweep_of(dtype, data=teacher)


def test_what_bfloat16_or_one_sweep_cannot_do_is_refused():
    with pytest.raises(InputError, match=r"noise = Drift.*too coarse; use dtype='float32'"):
        sweep_of("bfloat16", LINEAR, noise="drift", batch_size=4)
    with pytest.raises(InputError, match=r"vary = 'dtype': make one sweep per dtype"):
        sweep_of("float32", LINEAR, vary={"dtype": ("float32", "float64")})
    with pytest.raises(InputError, match=r"dtype = \('float32', 'float64'\): use one of"):
        sweep_of(("float32", "float64"), LINEAR)


def test_the_pass_of_an_update_is_in_bfloat16_and_nothing_else():
    def products(dtype):
        """The dtypes of the operands of all matrix products of an update."""
        (config,) = sweep_of(dtype).configs
        with pinned(dtype):
            program, hyper = step_program.split(config, sweep_of(dtype).record)
            runs = step_program.as_runs([config], [hyper], np.zeros(1), np.zeros(1))
            run = jax.tree.map(lambda a: a[0], runs)
            state = run_state.init(config.model, program.optimizer, run)
            held = jax.tree.map(jnp.asarray, config.data.load().arrays)

            def step(run, state):
                keys = streams.streams(run)
                return xla._set_step(program, held, run, keys, state, jnp.int32(0))

            closed, after = jax.make_jaxpr(step, return_shape=True)(run, state)
        assert {str(a.dtype) for a in jax.tree.leaves(after)} == {"float32"}
        assert "dot_general" in primitives(closed.jaxpr)
        return {
            line.partition(":")[2].partition("[")[0]
            for line in str(closed.jaxpr).splitlines()
            if "dot_general" in line
        }

    assert products("bfloat16") == {"bf16"}
    # negative control
    assert products("float32") == {"f32"}


def test_bfloat16_descends_with_rounded_examples_and_float32_parameters():
    rounded = np.asarray(jnp.asarray(X, jnp.bfloat16), float)

    def run(dtype, x=X):
        data = jt.data.Arrays(x, TARGETS)
        sweep = sweep_of(dtype, LINEAR, (0, 300), (weights, jt.loss()), data=data)
        return jt.run(sweep.replace(learning_rate=0.01), progress=False)

    low, full = run("bfloat16"), run("float32")
    assert low.weights.dtype == low.loss.dtype == np.float32
    assert low.attrs["precision"].startswith("passes of updates in bfloat16")
    assert low.loss.attrs["long_name"].endswith("of the net in float32")
    least = 0.5 * np.mean((X @ np.linalg.lstsq(X, TARGETS, rcond=None)[0] - TARGETS) ** 2)
    assert low.loss.values[0, 1] - least < 0.1 * (low.loss.values[0, 0] - least)
    np.testing.assert_allclose(low.loss, full.loss, rtol=0.01)
    end = low.weights.values[0, 1]
    assert (np.asarray(jnp.asarray(end, jnp.bfloat16), np.float32) != end).all()
    np.testing.assert_array_equal(run("bfloat16", rounded).weights.values[0, 1], end)
    # negative control: updates in float32 see the other digits of x
    moved = abs(run("float32", rounded).weights.values[0, 1] - full.weights.values[0, 1])
    assert moved.max() > 1e-5


def test_arrays_keep_the_digits_that_float32_drops():
    nearby = jt.data.Arrays(X + 1e-12, TARGETS)
    for dtype, equal in (("float32", True), ("float64", False)):
        one, two = sweep_of(dtype, LINEAR), sweep_of(dtype, LINEAR, data=nearby)
        assert (one == two) == equal
        assert jt.Sweep.from_json(one.to_json()) == one
        assert jt.Sweep.from_json(two.to_json()) == two
    (config,) = sweep_of("float64", LINEAR).configs
    np.testing.assert_array_equal(config.data.load().arrays["x"], X)
    # arrays without such digits are held once
    short = jt.data.Arrays(X.astype(np.float32), TARGETS.astype(np.float32))
    assert short.in_float64().load() is short.load()
    assert short.in_float64() == short


def test_a_dtype_has_programs_of_its_own_and_float32_those_of_before():
    def digests(dtype):
        sweep = sweep_of(dtype, LINEAR, observables=(jt.loss(),))
        with pinned(dtype):
            (parts,) = fingerprint(sweep).values()
        return parts

    short, long, half = (digests(d) for d in ("float32", "float64", "bfloat16"))
    assert all(short[part] != long[part] for part in short if part != "jax")
    assert [part for part in short if short[part] != half[part]] == ["step"]


def test_a_plan_counts_the_bytes_of_float64():
    short, long = (
        jt.plan(sweep_of(d, LINEAR, observables=(weights,)), measure=False)
        for d in ("float32", "float64")
    )
    assert long.state_bytes == 2 * short.state_bytes
    # 12 bytes of weights, 8 of the step and 1 of `finite` per record
    assert long.disk_bytes * (12 + 9) == short.disk_bytes * (24 + 9)


def test_the_start_of_a_flax_net_is_that_of_float32_to_the_last_digit():
    model = as_model(nn.Dense(1), (DIM,))
    key = streams.init_key(jnp.uint32(3))
    with pinned("float64"):
        long, _ = started(model, key)
    short = model.init(key)
    jax.tree.map(np.testing.assert_array_equal, long, short)
    assert long["kernel"].dtype == np.float64


OBSERVABLES = (
    jt.layer_statistics(),
    jt.unit_activation(),
    jt.activation_rate("probe"),
    jt.loss(),
    jt.accuracy(),
    jt.mean_squared_residual(),
    jt.gradient_variance(),
    jt.kappa(),
    jt.hessian_trace("hutchinson", 2),
    jt.top_eigenvalues(2, 4),
    jt.sparse(jt.trace_bound(), every=2),
)
RELU = jt.models.MLP(DIM, hidden=(HIDDEN,))
SEVERAL = jt.models.MLP(
    DIM, hidden=(HIDDEN,), outputs=2, init=jt.models.Init(), parametrization="mup"
)
FINITE = jt.data.Gaussian(dim=DIM, num_samples=9, redraw=0.2)
TRACED = {
    "observables": {"model": RELU, "observables": OBSERVABLES, "data": FINITE},
    "softmax, sphere, Adam": {
        "model": SEVERAL,
        "loss": jt.losses.Softmax(0.1),
        "data": jt.data.Sphere(dim=DIM),
        "optimizer": jt.Optimizer(optax.adam),
    },
    "unbiased, uniform": {"model": SEVERAL, "noise": "unbiased", "data": jt.data.Uniform(dim=DIM)},
    "SVAG, decay": {"noise": jt.noise.SVAG(3), "optimizer": jt.sgd(decay_at=3, momentum=0.5)},
    "isotropic, margin": {"noise": "isotropic", "loss": "hinge", "data": FINITE},
    "drift": {"noise": "drift", "data": FINITE},
    "teacher": {"data": jt.data.Teacher(jt.data.Sphere(dim=DIM), RELU, label_noise=0.1)},
    "images": {
        "model": jt.models.MLP(784, hidden=(HIDDEN,), outputs=10),
        "data": jt.data.FashionMNIST(),
    },
}


@pytest.mark.parametrize("case", TRACED)
def test_nothing_is_rounded_to_float32_on_the_way(case):
    """The traced program of a start, two steps and a record has no number in float32."""
    fields = {"data": jt.data.Gaussian(dim=DIM), "observables": (jt.loss(),), **TRACED[case]}
    observables = fields.pop("observables")
    size = "all" if fields["data"] is FINITE and len(observables) > 1 else 8

    def text(dtype):
        record = jt.Record(steps=(0, 2), observables=observables, probe_size=size)
        sweep = sweep_of(dtype, steps=(2,), **{"batch_size": 2, **fields, "record": record})
        (config,) = sweep.configs
        with pinned(dtype):
            program, hyper = step_program.split(config, sweep.record)
            runs = step_program.as_runs([config], [hyper], np.zeros(1), np.zeros(1))
            model = step_program.starting_model(config.model)

            def whole(runs, held):
                start = jax.vmap(lambda run: run_state.init(model, program.optimizer, run))(runs)
                end = xla.advance(program, runs, start, jnp.int32(0), jnp.int32(2), held)
                record = jax.vmap(
                    lambda run, state: xla.observe(
                        program, run, state, (), jnp.int32(2), jnp.int32(0), held
                    )
                )
                return record(runs, end)

            return str(jax.make_jaxpr(whole)(runs, program.data.abstract()))

    assert "f32[" not in text("float64")
    # negative control
    assert "f32[" in text("float32")
    assert "f64[" not in text("float32")
