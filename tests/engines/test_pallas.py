"""The fused kernel for GPUs in interpret mode: XLA's random bits and steps, its own determinism.

No test here needs or uses a GPU: the kernel is lowered for one, and interpreted on the CPU.
"""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.cli import doctor
from jthermo.data import sampling
from jthermo.engines import choice as engines
from jthermo.engines import run_state, step_program
from jthermo.engines.fused import pallas
from jthermo.engines.fused.supported_nets import net_of
from jthermo.execution import cohorts, placement
from jthermo.randomness import streams
from tests.engines.test_xla import NO_BIAS, TWO_LAYER, UNIFORM, sweep_of

STEPS = 200
FINITE = jt.data.Gaussian(dim=4, scale=2.0, num_samples=7)
RATES = {"learning_rate": (0.02, 0.05)}
CASES = {
    "plain": {"model": TWO_LAYER},
    "uniform": {"model": NO_BIAS, "data": UNIFORM, "batch_size": 3, "noise": "label_averaged"},
    "finite": {
        "model": jt.models.MLP(4, hidden=(6, 5)),
        "data": FINITE,
        "noise": "unbiased",
        **RATES,
    },
    "epochs": {
        "data": replace(FINITE, sampling="epochs"),
        "loss": "squared",
        "batch_size": 2,
        **RATES,
    },
}


class Trained:
    """A case by one engine, at the level of a block of forty runs."""

    def __init__(self, case, engine):
        (cohort,) = cohorts.cohorts(sweep_of(**CASES[case]), engine=engine)
        program = replace(cohort.program, observables=(), probe_size=0)
        self.update = jax.jit(functools.partial(engines.advance(program), program))
        self.runs = jax.tree.map(lambda a: np.resize(a, 40), cohort.runs)
        first = jax.vmap(functools.partial(run_state.init, cohort.model, cohort.program.optimizer))
        rng = np.random.default_rng(0)
        self.state = jax.tree.map(
            lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32),
            jax.eval_shape(first, self.runs),
        )

    def after(self, *clock, lanes=slice(None), **changes):
        """Parameters of some runs, flat (runs, …), after training from each time to the next."""
        runs, state = jax.tree.map(lambda a: a[lanes], (self.runs._replace(**changes), self.state))
        with placement.pinned():
            for start, stop in itertools.pairwise(clock):
                state = self.update(runs, state, jnp.int32(start), jnp.int32(stop), {})
        return np.concatenate(
            [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(state.params)], 1
        )


@pytest.fixture(scope="module", params=CASES)
def fused(request):
    trained = Trained(request.param, "pallas")
    trained.case, trained.whole = request.param, trained.after(0, STEPS)
    return trained


def test_engines_agree_after_200_steps(fused):
    expected = Trained(fused.case, "xla").after(0, STEPS)
    size = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(fused.whole - expected, axis=1) < 1e-4 * size).all()
    # the control: the same weights with the examples of another seed, and of another stream
    for name in ("seed", "stream"):
        other = fused.after(0, STEPS, **{name: getattr(fused.runs, name) + 1})
        assert np.median(np.linalg.norm(other - expected, axis=1) / size) > 3e-3


@pytest.mark.parametrize("case", ["plain", "epochs"])
def test_a_thread_per_run_trains_alike(case, monkeypatch):
    expected = Trained(case, "xla").after(0, 20)
    monkeypatch.setattr(pallas, "UNROLLED", 128)
    made = Trained(case, "pallas").after(0, 20)
    assert pallas.shape(net_of(sweep_of(**CASES[case]).model), 1).unrolled
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


def test_neither_pieces_nor_the_runs_beside_change_a_bit(fused):
    np.testing.assert_array_equal(fused.after(0, 1, 38, STEPS), fused.whole)
    turned = np.roll(np.arange(40), 7)
    np.testing.assert_array_equal(fused.after(0, STEPS, lanes=turned), fused.whole[turned])
    if fused.case == "plain":
        np.testing.assert_array_equal(
            fused.after(0, STEPS, lanes=slice(37, 38)), fused.whole[37:38]
        )
    assert (fused.after(1, STEPS + 1) != fused.whole).any(
        1
    ).mean() > 0.9  # the control: other steps


@pytest.mark.parametrize("fused", ["epochs"], indirect=True)
def test_a_diverged_run_is_not_finite_and_stays_alone(fused):
    """Of the squared loss; the residual of the others is bounded."""
    rates = fused.runs.learning_rate.copy()
    rates[3] = 50.0
    made = fused.after(0, STEPS, learning_rate=rates)
    assert (np.isfinite(made).all(1) == (rates < 1)).all()
    np.testing.assert_array_equal(np.delete(made, 3, 0), np.delete(fused.whole, 3, 0))


def test_random_bits_are_those_of_jax_random():
    sizes, number, step = (7, 70_000), 40, jnp.int32(9)
    data = [jt.data.Uniform(dim=5, low=-1.0, high=2.0), jt.data.Gaussian(dim=5, scale=2.0)]
    model = jt.models.TwoLayer(inputs=5, hidden=1)
    of = [step_program.programs(sweep_of(model=model, data=d))[0] for d in data]
    sets = [step_program.programs(sweep_of(data=replace(FINITE, num_samples=n)))[0] for n in sizes]

    @jax.jit
    def both(key, lows, high):
        """Of each: the examples and rows as the kernel draws them, and as the XLA engine does."""
        words = tuple(word[None] for word in jax.random.key_data(key))
        each = jnp.arange(number)
        mine = [
            jax.vmap(lambda b, p=p, low=low: pallas._drawn(p, words, b, low, high))(each)
            for p, low in zip(of, lows, strict=True)
        ]
        at = pallas._fold_in(words, step)
        rows = [
            jax.vmap(lambda b, p=p: pallas._index(p, at, None, step, b))(each)[:, 0] for p in sets
        ]
        theirs = [
            sampling.with_replacement(jax.random.fold_in(key, step), number, n) for n in sizes
        ]
        return mine, [d.draw(key, number) for d in data], rows, theirs

    with placement.pinned():
        key = jax.random.key(3, impl=streams.KEY_IMPL)
        mine, theirs, rows, indices = both(
            key, [jnp.full(1, -1.0), jnp.full(1, 2.0)], jnp.full(1, 2.0)
        )
    for (x, y), (its_x, its_y), rtol in zip(mine, theirs, (0, 1e-6), strict=True):
        np.testing.assert_allclose(x[:, :5, 0], its_x, rtol=rtol)
        assert not x[:, 5:].any()
        np.testing.assert_array_equal(y[:, 0], its_y)
        assert (x[1:, :5, 0] != its_x[:-1]).all()
    np.testing.assert_array_equal(rows, indices)
    assert (rows[-1][1:] != indices[-1][:-1]).all()


def lowered(trained):
    """What a CUDA device would be given."""
    with placement.pinned():
        traced = trained.update.trace(
            trained.runs, trained.state, jnp.int32(0), jnp.int32(STEPS), {}
        )
        try:
            return traced.lower(lowering_platforms=("cuda",)).as_text()
        except RuntimeError as error:
            # Some versions of jaxlib need the CUDA plugin to lower; JAX 0.11 needs a GPU.
            needs = ("compilation handler", "No supported GPU devices")
            if not any(words in str(error) for words in needs):
                raise
            pytest.skip(str(error))


def test_it_is_lowered_for_cuda(fused):
    assert lowered(fused).count("triton") == 1


def test_what_triton_does_not_take_is_not_lowered(monkeypatch):
    """The control of the test above: units that are not filled up to powers of two."""
    monkeypatch.setattr(pallas, "_room", lambda size: size)
    with pytest.raises(Exception, match="power of 2"):
        lowered(Trained("uniform", "pallas"))


@pytest.fixture
def gpu(monkeypatch):
    """A machine that JAX takes for one with a GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def test_fused_on_a_gpu_is_this_kernel_and_only_where_it_is_asked_for(gpu, tmp_path):
    sweep, said = sweep_of(lane_width=64), []
    assert engines.settle("auto", None, step_program.programs(sweep), said.append) == "xla"
    (line,) = said
    assert (
        line
        == "engine: xla, because the fused engine is untested on GPUs; engine='fused' selects it"
    )
    jt.run(sweep.replace(seed=(0,)), tmp_path, engine="fused", progress=False)
    for engine in ("auto", "fused"):  # a folder keeps the engine that was asked for
        ds = jt.run(sweep, tmp_path, engine=engine, extend=True, progress=False)
        assert ds.attrs["engine"] == "pallas"
    xla = jt.run(sweep, engine="xla", progress=False).params.values
    np.testing.assert_allclose(ds.params.values, xla, rtol=1e-4, atol=1e-6)
    assert (ds.params.values[:, 1] != xla[:, 1]).any()


def test_a_folder_does_not_move_to_the_other_kernel(gpu, monkeypatch):
    programs = step_program.programs(sweep_of())
    for wanted in ("auto", "fused"):
        assert engines.settle(wanted, "pallas", programs, None) == "pallas"
        with pytest.raises(jt.InputError, match=r"'fused': this folder was created with .* a gpu"):
            engines.settle(wanted, "fused", programs, None)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(
        jt.InputError, match=r"'pallas': this folder was created with .* a cpu|cannot be built"
    ):
        engines.settle("auto", "pallas", programs, None)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(
        jt.InputError, match="runs on CPUs and GPUs, not on a tpu; use engine='xla'"
    ):
        engines.settle("fused", None, programs, None)


def test_what_it_lacks_is_said_and_doctor_shows_it(gpu):
    wide = sweep_of(model=jt.models.MLP(100), data=jt.data.Gaussian(dim=100))
    with pytest.raises(
        jt.InputError,
        match=r"does not support a net whose weights exceed .* memory; use engine='xla'",
    ):
        engines.settle("fused", None, step_program.programs(wide), None)
    several = {"model": jt.models.MLP(4, hidden=(3,), outputs=2), "loss": "softmax"}
    for changes, lacks in (
        ({"optimizer": jt.sgd(momentum=0.5)}, "the optimizer"),
        ({"optimizer": jt.sgd(weight_decay=0.5)}, "the optimizer"),
        ({"data": jt.data.Arrays(np.eye(4), np.arange(4) % 2)}, "the data Arrays"),
        (several, "several outputs"),
    ):
        with pytest.raises(jt.InputError, match=f"does not support {lacks}"):
            engines.settle("fused", None, step_program.programs(sweep_of(**changes)), None)
    fits = sweep_of(
        model=jt.models.TwoLayer(100, 100), data=jt.data.Gaussian(dim=100), batch_size=32
    )
    assert engines.settle("fused", None, step_program.programs(fits), None) == "pallas"
    (text,) = (check.text for check in doctor.doctor() if check.name == "engine")
    assert "in interpret mode only" in text


@pytest.mark.parametrize(
    ("units", "batch", "laid"),
    [
        (10, 1, pallas.Shape(16, 1, False)),
        (
            10,
            32,
            pallas.Shape(4, 1, False),
        ),  # twice the weights: those before the step and those after
        (32, 1, pallas.Shape(4, 1, False)),
        (100, 1, pallas.Shape(2, 8, False)),
        (128, 32, pallas.Shape(1, 8, False)),
        (256, 1, pallas.Shape(0, 1, False)),
    ],
)
def test_a_program_holds_what_fits_into_registers(units, batch, laid):
    net = net_of(jt.models.TwoLayer(units, units))
    assert pallas.shape(net, batch) == laid


def test_lanes_follow_from_the_widest_array_on_a_gpu():
    nets = {
        n: {"model": jt.models.TwoLayer(n, n), "data": jt.data.Gaussian(dim=n)} for n in (10, 100)
    }
    pictures = {
        "model": jt.models.CNN(),
        "data": jt.data.Arrays(np.ones((10, 28, 28, 1), np.float32), np.arange(10)),
        "batch_size": 32,
    }
    for changes, engine, width in (
        (nets[10], "xla", 2048),
        (nets[100], "xla", 32),
        (pictures, "xla", 4),
        (nets[10], "pallas", 512),
        (nets[100], "pallas", 64),
    ):
        (cohort,) = cohorts.cohorts(sweep_of(**changes), platform="gpu", engine=engine)
        assert cohort.width == width
