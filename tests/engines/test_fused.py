"""The fused engine: same random bits and law as XLA, its own determinism, and its absence.

Its plain NumPy implementation is in ``test_xla.py``. Its rows of the determinism contract are in
``execution/test_placement.py``, with those of the XLA engine.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import jthermo as jt
from jthermo.engines import choice as engines
from jthermo.engines import fused, step_program
from jthermo.engines.fused import build, native
from jthermo.execution import placement, train_cohort
from tests.chance import apart
from tests.engines.test_xla import CASES, params, sweep_of
from tests.execution.test_placement import differing_bits

without = engines.refusal()
pytestmark = pytest.mark.skipif(without is not None, reason=str(without))
STEPS = 200
DEEP = jt.models.MLP(inputs=4, hidden=(6, 5, 3))
GAUSSIAN = ("plain", "squared", "epochs")
NO_BIAS = jt.models.MLP(inputs=4, hidden=(6, 5), bias=False)
CLASSES = {
    "model": jt.models.MLP(4, hidden=(6, 5), outputs=3),
    "data": jt.data.Gaussian(dim=4, num_classes=3),
    "loss": "softmax",
}
X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
BYTES, LABELS = (4 * np.abs(X)).astype(np.uint8), np.arange(9) % 3
CLASSES_OF_SET = jt.data.Gaussian(dim=4, num_classes=3, num_samples=9)
FUSED = {
    "scaled": {"data": jt.data.Gaussian(dim=4, scale=2.0)},
    "deep": {"model": DEEP},
    "deep, batch": {"model": DEEP, "batch_size": 5, "noise": "unbiased"},
    "deep, no bias": {"model": NO_BIAS, "data": jt.data.Uniform(dim=4, low=-1.0)},
    "momentum": {"optimizer": jt.sgd(momentum=0.8)},
    "momentum 1": {"optimizer": jt.Optimizer(optax.sgd, momentum=1), "noise": "unbiased"},
    "deep, batch, nesterov": {
        "model": DEEP,
        "batch_size": 5,
        "optimizer": jt.sgd(momentum=0.8, nesterov=True),
    },
    "weight decay": {"optimizer": jt.sgd(weight_decay=0.2)},
    "deep, batch, weight decay": {
        "model": DEEP,
        "batch_size": 5,
        "optimizer": jt.sgd(momentum=0.8, nesterov=True, weight_decay=0.02),
    },
    "classes": {**CLASSES, "batch_size": 5},
    "classes, unbiased": {**CLASSES, "noise": "unbiased", "optimizer": jt.sgd(momentum=0.8)},
    "classes, averaged": {**CLASSES, "noise": "label_averaged"},
    "classes of a set": {**CLASSES, "data": CLASSES_OF_SET, "loss": "squared"},
    "epochs of one example": {"data": jt.data.Gaussian(dim=4, num_samples=1, sampling="epochs")},
    "arrays": {"data": jt.data.Arrays(X, LABELS % 2)},
    "arrays, epochs, random labels": {
        "data": jt.data.Arrays(X, LABELS % 2, labels="random", sampling="epochs"),
        "batch_size": 2,
    },
    "arrays of bytes, classes": {
        **CLASSES,
        "data": jt.data.Arrays(BYTES, LABELS, num_samples=7),
        "batch_size": 5,
    },
    "arrays of targets": {"data": jt.data.Arrays(X, np.sin(X[:, 0])), "batch_size": 2},
}


def longer(case, **changes):
    record = jt.Record(steps=(0, STEPS), observables=(params, jt.loss()))
    fields = {
        "num_steps": STEPS,
        "record": record,
        "learning_rate": (0.05, 0.1),
        **(CASES | FUSED)[case],
    }
    return sweep_of(**fields).replace(**changes)


def ends(sweep, engine):
    ds = jt.run(sweep, engine=engine, progress=False)
    assert ds.attrs["engine"] == engine
    return ds


@pytest.mark.parametrize("case", FUSED)
def test_engines_agree_after_200_steps(case):
    fused, xla = (ends(longer(case), engine).params.values for engine in ("fused", "xla"))
    assert np.linalg.norm(fused[:, 1] - xla[:, 1]) < 1e-4 * np.linalg.norm(xla[:, 1])
    assert (fused[:, 0] == xla[:, 0]).all()
    # the control: the tolerance is not loose
    other = ends(longer(case, seed=(1, 8)), "fused").params.values
    assert np.linalg.norm(other[:, 1] - xla[:, 1]) > 0.1 * np.linalg.norm(xla[:, 1])


@pytest.mark.parametrize(
    "case",
    [
        "epochs",
        "deep, batch, nesterov",
        "classes, unbiased",
        "weight decay",
        "arrays, epochs, random labels",
    ],
)
def test_nothing_about_the_grid_changes_a_bit(case, monkeypatch):
    sweep = longer(case, seed=range(20))
    whole = ends(sweep, "fused")
    assert differing_bits(whole, ends(sweep.replace(learning_rate=0.1, seed=(7,)), "fused")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            train_cohort._Pace,
            "until",
            lambda self, now, target: np.minimum(target, now + 37).astype(np.int32),
        )
        assert differing_bits(whole, ends(sweep, "fused")) == 0
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:1]))
    assert differing_bits(whole, ends(sweep, "fused")) == 0
    assert differing_bits(whole, ends(sweep.replace(common_data=True), "fused")) > 1000


@pytest.mark.parametrize("case", ["epochs", "deep, batch"])
def test_threads_of_one_device_change_no_bit(case, monkeypatch):
    sweep = longer(case, seed=range(40), lane_width=12)
    whole = ends(sweep, "fused")
    monkeypatch.setattr(native, "num_cores", lambda: len(jax.devices()))
    assert native.threads() == 1, "as many devices as cores: no thread more"
    monkeypatch.setattr(placement, "devices", lambda: tuple(jax.devices()[:1]))
    for count in (2, 5, 64):
        cores = count * len(jax.devices())
        monkeypatch.setattr(native, "num_cores", lambda cores=cores: cores)
        assert native.threads() == count
        placement._advance.cache_clear()
        assert engines.together("fused")
        assert differing_bits(whole, ends(sweep, "fused")) == 0
    placement._advance.cache_clear()


def test_the_width_of_a_block_changes_no_bit_of_the_training():
    narrow, wide = (
        ends(longer("plain", seed=range(20), lane_width=w), "fused").params.values for w in (3, 32)
    )
    np.testing.assert_array_equal(narrow, wide)


OF_PROBE = (
    jt.loss(), jt.accuracy(), jt.mean_squared_residual(), jt.hessian_trace(), jt.kappa(),
    jt.activation_rate(),
)  # fmt: skip
RECORDED = {
    "plain": (*OF_PROBE, jt.activation_rate("probe"), jt.weight_norm("W"), jt.weight_norm("V")),
    "squared": OF_PROBE,
    "no bias, uniform": OF_PROBE,
    "epochs": OF_PROBE,
    "deep": (*OF_PROBE, jt.weight_norm("hidden_1/kernel"), jt.weight_norm("output/bias")),
    "deep, no bias": OF_PROBE,
    "classes": OF_PROBE,
    "classes of a set": OF_PROBE,
    "arrays": OF_PROBE,
    "arrays, epochs, random labels": OF_PROBE,
    "arrays of bytes, classes": OF_PROBE,
    "arrays of targets": tuple(o for o in OF_PROBE if o != jt.accuracy()),
}


def recorded(case, steps=(0, 1, 2, 3, 6, 10, 11, STEPS - 1, STEPS), probe_size=50, **changes):
    """A sweep of which the kernel takes all records, also those at the steps of a new epoch."""
    record = jt.Record(steps=steps, observables=RECORDED[case], probe_size=probe_size)
    return longer(case, record=record, num_steps=steps[-1], **changes)


def floats(ds):
    """The values of every recorded variable by name."""
    return {name: v.values for name, v in ds.data_vars.items() if v.dtype == np.float32}


def unequal(a, b):
    """The variables in which the runs of b differ by a bit from the same runs of a."""
    runs = list(zip(a.learning_rate.values, a.seed.values, strict=True))
    at = [runs.index(run) for run in zip(b.learning_rate.values, b.seed.values, strict=True)]
    other = floats(b)
    return {n for n, v in floats(a).items() if v[at].tobytes() != other[n].tobytes()}


@pytest.mark.parametrize("case", RECORDED)
def test_the_kernel_measures_what_xla_measures(case):
    steps = (0, 1, 2, 3, 6, 10, 11)
    sweep = recorded(case, steps)
    assert not engines.left_to_xla(step_program.programs(sweep), "fused")
    fused, xla = (floats(ends(sweep, engine)) for engine in ("fused", "xla"))
    assert fused.keys() == xla.keys()
    for name, value in fused.items():
        np.testing.assert_allclose(value, xla[name], rtol=1e-5, atol=2e-6, err_msg=name)
    # the control: another probe is told apart by every variable that has one
    other = floats(ends(recorded(case, steps, probe_size=51), "fused"))
    exact = {"weight_norm_W", "weight_norm_V", "weight_norm_hidden_1_kernel"}
    exact |= {"weight_norm_output_bias"} | ({"activation_rate"} if case in GAUSSIAN else set())
    for name in fused.keys() - exact:
        assert np.abs(other[name] - fused[name]).max() > 1e-3 * np.abs(fused[name]).max(), name


def test_a_small_loss_of_classes_is_not_lost_in_the_rounding_of_the_outputs():
    """The output of the right class is 20, the others are 5, so the loss is log(1 + 2 e⁻¹⁵)."""
    net, labels = jt.models.MLP(3, hidden=(3,), outputs=3), np.arange(6) % 3
    start = jax.tree.map(np.zeros_like, net.init(jax.random.key(0)))
    start["hidden_0"]["kernel"] = np.eye(3, dtype=np.float32)
    start["output"]["kernel"] = 15 * np.eye(3, dtype=np.float32)
    start["output"]["bias"] = np.full(3, 5, np.float32)
    record = jt.Record(steps=(0,), observables=(jt.loss(), jt.accuracy()), probe_size=6)
    data = jt.data.Arrays(np.eye(3)[labels], labels)
    sweep = sweep_of(model=net, data=data, start=start, record=record, num_steps=1)
    for engine in ("fused", "xla"):
        np.testing.assert_allclose(ends(sweep, engine).loss, np.log1p(2 * np.exp(-15)), rtol=0.2)


@pytest.mark.parametrize("case", ["epochs", "deep", "arrays", "classes"])
def test_nothing_about_the_grid_changes_a_bit_of_the_kernels_records(case, monkeypatch, tmp_path):
    sweep = recorded(case, seed=range(20))
    whole = ends(sweep, "fused")
    assert not unequal(whole, ends(sweep.replace(learning_rate=0.1, seed=(7,)), "fused"))
    fewer = replace(sweep.record, observables=(params, jt.loss(), jt.kappa()))
    assert not unequal(
        ends(sweep.replace(record=fewer), "fused")[["loss", "kappa"]], whole[["loss", "kappa"]]
    )
    for limit in (1, 37):
        with monkeypatch.context() as patch:
            patch.setattr(
                train_cohort._Pace,
                "until",
                lambda self, now, target, n=limit: np.minimum(target, now + n).astype(np.int32),
            )
            assert not unequal(whole, ends(sweep, "fused"))
    assert not unequal(whole, ends(sweep.replace(lane_width=3), "fused"))
    for kind, number in (("pmap", 2), ("sharding", 1)):
        monkeypatch.setattr(placement, "devices", lambda n=number: tuple(jax.devices()[:n]))
        assert not unequal(whole, jt.run(sweep, engine="fused", placement=kind, progress=False))
    monkeypatch.setattr(native, "num_cores", lambda: 5 * len(jax.devices()))
    placement._advance.cache_clear()
    assert not unequal(whole, ends(sweep, "fused"))
    placement._advance.cache_clear()
    # a grid that began with fewer runs, which have been trained
    jt.run(sweep.replace(seed=range(7)), tmp_path, engine="fused", progress=False)
    assert not unequal(whole, jt.run(sweep, tmp_path, extend=True, progress=False))
    # the control
    assert len(unequal(whole, ends(sweep.replace(common_data=True), "fused"))) >= 5


def test_records_share_calls_and_callbacks_see_each_of_them(monkeypatch):
    sweep = longer(
        "plain", record=jt.Record(steps=jt.log_steps(40), observables=jt.loss()), num_steps=2_000
    )
    calls, programs = [], placement.programs

    def counted(*args):
        made = programs(*args)

        def advance(*args):
            calls.append(1)
            return made.advance(*args)

        return made._replace(advance=advance)

    def updates(engine):
        seen = []
        jt.run(sweep, engine=engine, progress=False, callbacks=[seen.append])
        return [(u.run_steps, [(g.step, g.num_runs, g.finite) for g in u.groups]) for u in seen]

    with monkeypatch.context() as patch:
        patch.setattr(placement, "programs", counted)
        fused = updates("fused")
        assert len(calls) < len(fused) / 2
    assert fused == updates("xla")


def test_a_sparse_observable_leaves_the_other_records_to_the_kernel():
    own = jt.sparse(params, every=3)
    steps = (0, 1, 2, 3, 4, 5, 6, STEPS)
    sweep = longer("plain", record=jt.Record(steps=steps, observables=(own, jt.loss())))
    assert jt.plan(sweep, engine="fused").left_to_xla == ("params",)
    assert "not by the fused engine: params" in str(jt.plan(sweep, engine="fused"))
    sparse, xla = ends(sweep, "fused"), ends(sweep, "xla")
    np.testing.assert_array_equal(np.isnan(sparse.params.values), np.isnan(xla.params.values))
    dense = longer("plain", record=jt.Record(steps=steps, observables=(params, jt.loss())))
    assert not unequal(ends(dense, "fused")[["loss"]], sparse[["loss"]])


def test_a_folder_of_another_version_of_the_engine_opens_but_is_not_continued(tmp_path):
    sweep, wider = longer("plain"), longer("plain", seed=range(8))
    jt.run(sweep, tmp_path, engine="fused", progress=False)
    for file in (tmp_path / "sweep.json", tmp_path / "manifest.json"):
        described = json.loads(file.read_text())
        assert described.get("attrs", described).pop("engine_version") == 2
        described.pop("sha256", None)
        file.write_text(json.dumps(described))
    assert jt.run(sweep, tmp_path, progress=False).attrs["complete"]
    for lost in (False, True):
        if lost:
            (tmp_path / "sweep.json").unlink()
            (tmp_path / "sweep-copy.json").unlink()
        with pytest.raises(jt.InputError, match="engine 'fused' changed its rounding"):
            jt.run(wider, tmp_path, extend=True, progress=False)


@pytest.mark.parametrize("case", ["plain", "no bias, uniform", "unbiased", "deep"])
def test_recorded_means_agree(case):
    """Over many steps rounding may part the runs: what is left in common is the law."""
    steps = 20_000
    record = jt.Record(
        steps=(100, 1_000, steps), observables=(jt.activation_rate(), jt.mean_squared_residual())
    )
    sweep = longer(case, num_steps=steps, record=record, learning_rate=0.03, seed=range(64))
    xla = ends(sweep.replace(seed=range(64, 128)), "xla")

    def recorded(ds):
        """Both variables at all records, (seeds, 6)."""
        names = ("activation_rate", "mean_squared_residual")
        return np.concatenate([ds[name].values for name in names], axis=1)

    # other seeds: equal laws fail with probability 1e-3
    assert apart(recorded(ends(sweep, "fused")), recorded(xla)) > 1e-3
    other = ends(sweep.replace(learning_rate=0.18), "fused")
    assert apart(recorded(other), recorded(xla)) < 1e-6


def test_a_diverged_run_is_not_finite():
    record = jt.Record(steps=(STEPS,), observables=jt.loss())
    sweep = longer("squared", learning_rate=(0.05, 50.0), record=record)
    ds = ends(sweep, "fused").isel(record=0)
    assert (ds.finite.values == (ds.learning_rate.values < 1)).all()


@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({"data": jt.data.Gaussian(dim=4, num_samples=9, redraw=0.1)}, "labels that are redrawn"),
        ({"optimizer": jt.sgd(decay_at=3)}, "the optimizer"),
        ({"optimizer": jt.sgd(decay_at=3, weight_decay=0.1)}, "the optimizer"),
        ({"optimizer": jt.Optimizer(optax.sgd, accumulator_dtype="bfloat16")}, "the optimizer"),
        (
            {"model": jt.models.MLP(4, hidden=(3,), outputs=2), "loss": jt.losses.Softmax(0.1)},
            "the loss softmax",
        ),
        ({"data": jt.data.Arrays(X, LABELS % 2, labels="redrawn")}, "labels that are redrawn"),
        ({"data": jt.data.Arrays(BYTES, LABELS % 2, integer=True)}, "data with integer=True"),
        (
            {"model": jt.models.MLP(4, (3,), outputs=2), "data": jt.data.Arrays(X, X[:, :2])},
            "targets of several numbers",
        ),
        ({"data": jt.data.Sphere(dim=4)}, "the data Sphere"),
        ({"dtype": "float64"}, "dtype='float64'"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16'"),
    ],
)
def test_what_the_fused_engine_lacks_is_said(changes, lacks):
    sweep, said = longer("plain", **changes), []
    programs = step_program.programs(sweep)
    with pytest.raises(jt.InputError, match=f"fused engine does not support {lacks}.*engine='xla'"):
        engines.settle("fused", None, programs, said.append)
    assert not said
    assert engines.settle("auto", None, programs, said.append) == "xla"
    assert len(said) == 1
    assert said[0].startswith(f"engine: xla, because the fused engine does not support {lacks}")


def test_a_folder_keeps_its_engine(tmp_path, monkeypatch):
    sweep, wider = longer("plain"), longer("plain", seed=range(3))
    out = tmp_path / "fused"
    jt.run(sweep.replace(seed=(0,)), out, engine="fused", progress=False)
    with pytest.raises(jt.InputError, match="created with engine 'fused'"):
        jt.run(wider, out, engine="xla", extend=True, progress=False)
    monkeypatch.setattr(fused, "load", unavailable)
    with pytest.raises(
        jt.InputError, match=r"created with this engine, which cannot be used here: .* no compiler"
    ):
        jt.run(wider, out, extend=True, progress=False)
    monkeypatch.undo()
    assert jt.run(wider, out, extend=True, progress=False).attrs["engine"] == "fused"
    # written before there were engines
    old = tmp_path / "old"
    jt.run(sweep.replace(seed=(0,)), old, engine="xla", progress=False)
    described = json.loads((old / "sweep.json").read_text())
    assert described.pop("engine") == "xla"
    (old / "sweep.json").write_text(json.dumps(described))
    assert jt.run(wider, old, extend=True, progress=False).attrs["engine"] == "xla"


@pytest.mark.parametrize("missing", ["compiler", "kernels"])
def test_without_compiler_or_kernels_xla_trains(missing, monkeypatch, capsys):
    if missing == "compiler":
        monkeypatch.setattr(fused, "load", unavailable)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert jt.run(longer("plain")).attrs["engine"] == "xla"
    said = capsys.readouterr().err
    assert said.count("engine: xla, because") == 1
    with pytest.raises(jt.InputError, match="engine='xla'"):
        jt.run(longer("plain"), engine="fused", progress=False)


def test_the_library_is_built_once_and_what_hinders_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JTHERMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.Unavailable, match="no C\\+\\+ compiler"):
        build._built()
    fake = tmp_path / "c++"
    fake.write_text(
        '#!/bin/sh\necho "$@" >> "$0.log"\n[ "$1" = --version ] || { echo broken >&2; exit 1; }\n'
    )
    fake.chmod(0o755)
    with pytest.raises(build.Unavailable, match="broken"):
        build._built()
    fake.write_text(
        '#!/bin/sh\nfor word; do last=$word; done\n[ "$1" = --version ] || echo made > "$last"\n'
    )
    made = build._built()
    assert made.read_text() == "made\n"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ]\n')
    assert build._built() == made


LIBRARY = """
extern "C" int jthermo_advance() { return 0; }
// pages beyond the end of a truncated file
extern "C" const char pad[1 << 20] = {1};
"""
LOAD = """
import sys
from pathlib import Path
from jthermo.engines.fused import build
build.HERE, build.SOURCES = Path(sys.argv[1]), ("tiny.cc",)
print(build.load())
"""


def test_a_cached_library_that_others_may_have_changed_is_built_again(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("JTHERMO_CACHE", str(cache))
    (tmp_path / "tiny.cc").write_text(LIBRARY)
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "SOURCES", ("tiny.cc",))
    myself = os.geteuid
    # a compiler sets the permissions that the umask allows
    before = os.umask(0)
    try:
        path = build._built()
    finally:
        os.umask(before)
    body, made = path.read_bytes(), path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o755
    assert build._built() == path
    assert path.stat().st_ino == made

    def truncate():
        path.write_bytes(body[:5000])

    def flip():
        path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    def plant():
        """A library of another user in a folder that everybody may write to."""
        if myself() == 0:
            os.chown(path, 12345, 12345)
        else:
            monkeypatch.setattr(build.os, "geteuid", lambda: 12345)

    def link():
        path.rename(tmp_path / "elsewhere.so")
        path.symlink_to(tmp_path / "elsewhere.so")

    def pipe():
        path.unlink()
        os.mkfifo(path)

    for damage in (truncate, flip, lambda: path.chmod(0o775), lambda: path.chmod(0o757), link,
                   pipe, plant):  # fmt: skip
        damage()
        with pytest.raises(build.Unavailable):
            build._opened(path)
        monkeypatch.setattr(build.os, "geteuid", myself)
        assert build._built() == path
        assert path.read_bytes() == body
        os.close(build._opened(path))
    truncate()
    # loaded as it is, it ends the process with SIGBUS
    control = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(path)!r})"]
    assert subprocess.run(control, check=False, capture_output=True).returncode == -signal.SIGBUS
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{path}\n"


def unavailable():
    raise fused.Unavailable("there is no compiler")
