"""Determinism without checkpoints: bit-identical results, and a control that must differ."""

import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

import jthermo as jt
from jthermo.engines import choice as engines
from jthermo.execution import placement


class DeepNet(nn.Module):
    """A user's flax net with two hidden layers."""

    @nn.compact
    def __call__(self, x):
        for width in (12, 9):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(1)(x)[..., 0]


class SmallCNN(nn.Module):
    """A convolution over the 16 inputs as a 4 × 4 image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3))(x.reshape(-1, 4, 4, 1)))
        return nn.Dense(1)(x.reshape(x.shape[0], -1))[..., 0]


MODELS = {
    "two-layer": jt.models.TwoLayer(inputs=16, hidden=10),
    "MLP": DeepNet(),
    "CNN": SmallCNN(),
}
NETS = {name: (model, "xla") for name, model in MODELS.items()} | {
    "fused": (MODELS["two-layer"], "fused")
}


def params(model, params, probe):
    """An observable: all parameters as one vector."""
    return jax.numpy.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


@pytest.fixture(scope="module", params=NETS)
def net(request):
    if NETS[request.param][1] == "fused" and (reason := engines.refusal()):
        pytest.skip(reason)
    return NETS[request.param]


@pytest.fixture(scope="module")
def run(net):
    return functools.partial(jt.run, engine=net[1], progress=False)


@pytest.fixture(scope="module")
def sweep(net):
    return jt.Sweep(
        model=net[0],
        data=jt.data.Gaussian(dim=16),
        learning_rate=(0.05, 0.1),
        batch_size=(2,),
        seed=range(11),
        num_steps=jt.RescaledSteps(0.15),
        record=jt.Record(steps=jt.log_steps(4), observables=(params, jt.loss())),
        lane_width=4,
    )


@pytest.fixture(scope="module")
def whole(sweep, run):
    return run(sweep)


def differing_bits(a, b):
    """Number of bits in which a and b differ, over all runs, records and variables of b."""
    count = 0
    for i in range(b.sizes["run"]):
        same = (a.learning_rate.values == b.learning_rate.values[i]) & (
            a.seed.values == b.seed.values[i]
        )
        ((j,),) = np.nonzero(same)
        n = (b.step.values[i] >= 0).sum()
        assert (a.step.values[j, :n] == b.step.values[i, :n]).all()
        for name in ("params", "loss"):
            x, y = (
                np.ascontiguousarray(d[name].values[k, :n]).view(np.uint32)
                for d, k in ((a, j), (b, i))
            )
            count += int(np.bitwise_count(x ^ y).sum())
    return count


def test_a_run_alone_equals_the_run_in_the_grid(sweep, whole, run):
    assert differing_bits(whole, run(sweep.replace(learning_rate=0.1, seed=(6,)))) == 0


def test_the_order_of_the_grid_changes_nothing(sweep, whole, run):
    permuted = sweep.replace(learning_rate=(0.1, 0.05), seed=tuple(reversed(range(11))))
    assert differing_bits(whole, run(permuted)) == 0


def test_more_seeds_and_learning_rates_change_nothing(sweep, whole, run):
    extended = sweep.replace(learning_rate=(0.05, 0.08, 0.1), seed=range(17))
    assert differing_bits(run(extended), whole) == 0


@pytest.mark.parametrize(
    ("kind", "number"), [("sharding", 1), ("sharding", 2), ("pmap", 1), ("pmap", 2)]
)
def test_devices_and_placement_change_nothing(sweep, whole, run, kind, number, monkeypatch):
    assert len(jax.devices()) == 2
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:number]))
    other = run(sweep, placement=kind)
    assert other.attrs["num_devices"] == number
    assert differing_bits(whole, other) == 0
    assert jax.tree.leaves(other.sizes) == jax.tree.leaves(whole.sizes)


def test_points_equal_the_product(sweep, whole, run):
    points = sweep.replace(
        learning_rate=None, points=[{"learning_rate": 0.1}, {"learning_rate": 0.05}]
    )
    assert points == sweep
    assert differing_bits(whole, run(points)) == 0


def test_other_observables_change_nothing(sweep, whole, run):
    """The probe of the observables has its own random stream, so measuring changes no training."""
    more = sweep.replace(
        record=jt.Record(
            steps=sweep.record.steps, observables=(jt.loss(), jt.kappa(), params), probe_size=256
        )
    )
    assert differing_bits(whole, run(more)) == 0


def test_the_users_global_settings_change_nothing(sweep, whole, run):
    with (
        jax.enable_x64(True),
        jax.default_matmul_precision("bfloat16"),
        jax.threefry_partitionable(False),
    ):
        assert differing_bits(whole, run(sweep)) == 0


def test_another_data_stream_changes_bits(sweep, whole, run):
    """The negative control of the tests above."""
    other = run(sweep.replace(common_data=True))
    assert differing_bits(whole, other) > 1000


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_teacher_and_decaying_rate_alone_on_one_device_equal_the_grid_on_two(
    dtype, monkeypatch, tmp_path
):
    model = jt.models.TwoLayer(inputs=3, hidden=5)
    sweep = jt.Sweep(
        model=model,
        data=jt.data.Teacher(jt.data.Sphere(dim=3, num_samples=9), model, label_noise=0.2),
        learning_rate=(0.1, 0.3),
        seed=range(9),
        num_steps=30,
        optimizer=jt.sgd(decay_at=15),
        record=jt.Record(steps=(0, 30), observables=(params, jt.loss())),
        lane_width=4,
        dtype=dtype,
    )
    grid = jt.run(sweep, progress=False)
    assert grid.loss.dtype == ("float64" if dtype == "float64" else "float32")
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:1]))
    out = tmp_path / "o"
    alone = jt.run(sweep.replace(learning_rate=0.3, seed=6), out, progress=False)
    assert differing_bits(grid, alone) == 0
    assert differing_bits(grid, jt.run(sweep, out, extend=True, progress=False)) == 0


def printed(tmp_path, program, **environment):
    """Standard output and error of a program in a fresh process, where JAX has not started."""
    file = tmp_path / "program.py"
    file.write_text(program)
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=kept | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


EVERY = """
import numpy as np
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jthermo as jt
from jthermo.execution import placement

sweep = jt.Sweep(
    model=jt.models.MLP(5, hidden=(6,), outputs=3), data=jt.data.Gaussian(dim=5, num_classes=3),
    learning_rate=0.1, batch_size=2, seed=range(8), num_steps=9, lane_width=2,
    record=jt.Record(steps=(0, 9), probe_size=32, observables=(
        jt.activation_rate(), jt.unit_activation(), jt.layer_statistics(), jt.loss(), jt.accuracy(),
        jt.mean_squared_residual(), jt.gradient_variance(), jt.hessian_trace(), jt.trace_bound(),
        jt.hessian_trace("hutchinson", 3), jt.kappa(), jt.top_eigenvalues(2, 4),
        jt.weight_norm("hidden_0/kernel"))))
on = []
for number in (1, 2, 3, 4):
    placement.devices = lambda: tuple(jax.devices()[:number])
    on.append(jt.run(sweep, engine="xla", progress=False))
    assert on[-1].attrs["num_devices"] == number
for name in on[0].data_vars:
    first, *others = (np.ascontiguousarray(ds[name].values).view(np.uint8) for ds in on)
    print(name, [int((first != other).sum()) for other in others].count(0))
"""


def test_one_to_four_devices_give_the_same_bits_of_every_observable(tmp_path):
    """A device with one block dissolved its loop over blocks, and rounded differently."""
    words, _ = printed(tmp_path, EVERY)
    found = dict(zip(words[::2], words[1::2], strict=True))
    assert len(found) > 25
    assert set(found.values()) == {"3"}, found


OWN = """
import os
os.sched_getaffinity = lambda pid: range(3)
import jax
if "EARLY" in os.environ:
    jax.numpy.ones(3)
import jthermo as jt

def own(model, params, probe):
    return jax.numpy.ones(2) * jax.numpy.linalg.norm(params["W"])

def sweep(**changes):
    return jt.Sweep(
        model=jt.models.TwoLayer(inputs=4, hidden=6), data=jt.data.Gaussian(dim=4), seed=range(3),
        learning_rate=0.1, num_steps=2, record=jt.Record(steps=(0, 2), observables=(own,)))

for engine in ("xla", "auto"):
    ds = jt.run(sweep(), engine=engine)
    print(ds.attrs["engine"], ds.attrs["num_devices"], ds.own.dtype)
"""


def test_a_sweep_asks_for_all_cores_before_an_observable_starts_jax(tmp_path):
    """Also with the user's x64, where shapes were asked in float64."""
    words, said = printed(tmp_path, OWN, JAX_ENABLE_X64="1")
    assert words[:3] == ["xla", "3", "float32"]
    assert words[4] == "3"
    assert "cores" not in said


def test_where_jax_has_started_xla_says_how_to_get_all_cores(tmp_path):
    words, said = printed(tmp_path, OWN, EARLY="1")
    assert (words[1], words[4]) == ("1", "1")
    lines = [line for line in said.splitlines() if "cores" in line]
    # the fused engine trains on all cores, but leaves the user's own observable to XLA
    second = "trains" if words[3] == "xla" else "XLA measures own"
    assert lines == [
        f"{what} on 1 of 3 cores, because JAX was in use before the sweep was built; "
        'for all, first call jax.config.update("jax_num_cpu_devices", 3)'
        for what in ("trains", second)
    ]
