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

import jax
import numpy as np
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
NO_BIAS = jt.models.MLP(inputs=4, hidden=(6, 5), bias=False)
FUSED = {
    "scaled": {"data": jt.data.Gaussian(dim=4, scale=2.0)},
    "deep": {"model": DEEP},
    "deep, batch": {"model": DEEP, "batch_size": 5, "noise": "unbiased"},
    "deep, no bias": {"model": NO_BIAS, "data": jt.data.Uniform(dim=4, low=-1.0)},
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


@pytest.mark.parametrize("case", ["epochs", "deep, batch"])
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
        ({"optimizer": jt.sgd(momentum=0.0)}, "the optimizer"),
        ({"model": jt.models.MLP(4, hidden=(3,), outputs=2), "loss": "softmax"}, "several outputs"),
        (
            {"data": jt.data.Arrays(np.ones((8, 4), np.float32), np.arange(8) % 2)},
            "the data Arrays",
        ),
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
