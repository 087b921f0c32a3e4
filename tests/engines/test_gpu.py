"""What only a GPU can show: the kernel as compiled, and the determinism table on that device."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.engines.fused import pallas
from jthermo.execution import placement, runner, train_cohort
from jthermo.randomness import threefry
from tests.engines.test_pallas import CASES, STEPS, Trained
from tests.execution.test_placement import MODELS, differing_bits, params

ROOT = Path(__file__).parents[2]
NETS = {name: (model, "xla") for name, model in MODELS.items()} | {
    "pallas": (MODELS["two-layer"], "fused"),
    "pallas, wide": (jt.models.TwoLayer(inputs=16, hidden=40), "fused"),
}
SEEN = (params, jt.loss())
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("there is no GPU here")


def on_cpu():
    return jax.default_device(jax.devices("cpu")[0])


@pytest.mark.parametrize("unrolled", [True, False], ids=["unrolled", "shared"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_agrees_with_its_interpretation_and_with_xla(case, unrolled, monkeypatch):
    monkeypatch.setattr(pallas, "UNROLLED", 128 if unrolled else 0)
    compiled = Trained(case, "pallas").after(0, STEPS)
    with on_cpu():
        others = {"interpreted": Trained(case, "pallas"), "XLA on a CPU": Trained(case, "xla")}
        made = {name: trained.after(0, STEPS) for name, trained in others.items()}
    made["XLA"] = Trained(case, "xla").after(0, STEPS)
    size = np.linalg.norm(compiled, axis=1)
    for name, other in made.items():
        assert (np.linalg.norm(other - compiled, axis=1) < 1e-4 * size).all(), name


def test_random_bits_are_those_of_a_cpu():
    def drawn():
        key = jax.random.fold_in(jax.random.key(7, impl=threefry.IMPL), 3)
        words = tuple(word[None] for word in jax.random.key_data(key))
        return jax.jit(
            lambda: (
                jax.random.bits(key, (999,)),
                threefry.normal(key, (999,)),
                pallas._draw(words, 5),
            )
        )()

    here = drawn()
    with on_cpu():
        there = drawn()
    np.testing.assert_array_equal(here[0], there[0])
    np.testing.assert_allclose(here[1], there[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(here[2], there[2])


@pytest.fixture(scope="module", params=NETS)
def net(request):
    return NETS[request.param]


def sweep_of(net, observables=SEEN, **changes):
    fields = {
        "model": net[0],
        "data": jt.data.Gaussian(dim=16),
        "learning_rate": (0.05, 0.1),
        "batch_size": (2,),
        "seed": range(11),
        "num_steps": jt.RescaledSteps(0.15),
        "record": jt.Record(steps=jt.log_steps(4), observables=observables),
        "lane_width": 4,
    }
    return jt.Sweep(**{**fields, **changes})


def run(net, out=None, placement="sharding", **changes):
    return jt.run(sweep_of(net, **changes), out, engine=net[1], placement=placement, progress=False)


@pytest.fixture(scope="module")
def whole(net):
    if jax.default_backend() != "gpu":
        pytest.skip("there is no GPU here")
    return run(net)


ROWS = {
    "again": {},
    "alone": {"learning_rate": 0.1, "seed": (6,)},
    "in another order": {"learning_rate": (0.1, 0.05), "seed": tuple(reversed(range(11)))},
    "with more beside": {"learning_rate": (0.05, 0.08, 0.1), "seed": range(17)},
    "by pmap": {"placement": "pmap"},
    "with other observables": {"observables": (jt.loss(), jt.kappa(), params)},
}


@pytest.mark.parametrize("row", ROWS)
def test_no_bit_differs(net, whole, row):
    other = run(net, **ROWS[row])
    one, two = (other, whole) if row == "with more beside" else (whole, other)
    assert differing_bits(one, two) == 0


def test_the_control_differs(net, whole):
    assert differing_bits(whole, run(net, common_data=True)) > 1000


def test_in_pieces_no_bit_differs(net, whole, monkeypatch):
    monkeypatch.setattr(
        train_cohort._Pace,
        "until",
        lambda self, now, target: np.minimum(target, now + 7).astype(np.int32),
    )
    assert differing_bits(whole, run(net)) == 0


def stop_after(looks, patch):
    """Make the next run save and stop, as a signal would, when it has looked for one so often."""
    count = itertools.count()

    class Watched:
        signal = property(lambda self: signal.SIGTERM if next(count) >= looks else None)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    patch(runner.stop_signals, "watched", Watched)
    patch(
        train_cohort._Pace,
        "until",
        lambda self, now, target: np.minimum(target, now + 7).astype(np.int32),
    )


def test_stopped_and_resumed_no_bit_differs(net, whole, tmp_path):
    for looks in (6, 5):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(looks, patch.setattr)
            with pytest.raises(jt.Interrupted):
                run(net, tmp_path)
    assert differing_bits(whole, run(net, tmp_path)) == 0


def elsewhere(out, name, *, stop, platform="cpu"):
    """The sweep in a process of its own, on another kind of device; what it said last."""
    code = f"import tests.engines.test_gpu as t; t.there({str(out)!r}, {name!r}, {stop!r})"
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr[-2000:]


def there(out, name, stop):
    """Run in that process."""
    if stop:
        stop_after(6, setattr)
    try:
        print(bool(run(NETS[name], out).attrs["complete"]))
    except jt.Interrupted:
        print("stopped")
    except jt.InputError as error:
        print(error)


@pytest.mark.parametrize("name", ["two-layer", "pallas"])
def test_in_a_process_of_its_own_no_bit_differs(name, tmp_path):
    """Compiled again, without the compilation cache: no timing may choose the arithmetic."""
    whole = run(NETS[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
        code, said = elsewhere(tmp_path, name, stop=False, platform="cuda,cpu")
    assert code == 0, said
    assert differing_bits(whole, jt.open_results(tmp_path)) == 0


def close(a, b):
    """Another kind of device rounds differently; after few steps the numbers are still close."""
    order = [np.lexsort((ds.seed.values, ds.learning_rate.values)) for ds in (a, b)]
    one, two = (ds.params.values[i] for ds, i in zip((a, b), order, strict=True))
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_a_folder_begun_on_a_cpu_is_resumed_here_by_xla(tmp_path):
    code, said = elsewhere(tmp_path, "two-layer", stop=True)
    assert (code, said.split()[-1]) == (0, "stopped"), said
    ds = run(NETS["two-layer"], tmp_path)
    assert ds.attrs["complete"]
    close(ds, run(NETS["two-layer"]))


def test_a_folder_begun_here_is_resumed_on_a_cpu_by_xla(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        stop_after(6, patch.setattr)
        with pytest.raises(jt.Interrupted):
            run(NETS["two-layer"], tmp_path)
    code, said = elsewhere(tmp_path, "two-layer", stop=False)
    assert (code, said.split()[-1]) == (0, "True"), said
    close(jt.open_results(tmp_path), run(NETS["two-layer"]))


def test_a_fused_folder_does_not_change_its_kind_of_device(tmp_path):
    code, said = elsewhere(tmp_path / "cpu", "pallas", stop=True)
    if "cannot be built" not in said:
        assert (code, said.split()[-1]) == (0, "stopped"), said
        with pytest.raises(jt.InputError, match=r"'fused': this folder was created with .* a gpu"):
            run(NETS["pallas"], tmp_path / "cpu")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(6, patch.setattr)
        with pytest.raises(jt.Interrupted):
            run(NETS["pallas"], tmp_path / "gpu")
    code, said = elsewhere(tmp_path / "gpu", "pallas", stop=False)
    assert code == 0
    assert "'pallas': this folder was created with this engine, which cannot be used here" in said


def test_observables_agree_with_a_cpu():
    """Those of a small CNN on pictures of noise, before and after three steps."""
    draw = np.random.default_rng(0)
    pictures = jt.data.Arrays(
        draw.integers(0, 256, (64, 28, 28, 1)).astype(np.uint8), np.arange(64) % 10
    )
    seen = (jt.gradient_variance(), jt.activation_rate(), jt.loss(), jt.kappa(), jt.hessian_trace())
    sweep = jt.Sweep(
        model=jt.models.CNN(channels=((4, 4), (8,)), hidden=(16,), outputs=10),
        data=pictures,
        learning_rate=0.05,
        batch_size=4,
        seed=range(2),
        num_steps=3,
        record=jt.Record(steps=(0, 3), observables=seen, probe_size=32),
        lane_width=2,
    )
    here = jt.run(sweep, engine="xla", progress=False)
    with on_cpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "devices", lambda: tuple(jax.devices("cpu")[:1]))
        there = jt.run(sweep, engine="xla", progress=False)
    for name in here.data_vars:
        if jnp.issubdtype(here[name].dtype, jnp.floating):
            np.testing.assert_allclose(here[name], there[name], rtol=2e-3, atol=1e-4, err_msg=name)
