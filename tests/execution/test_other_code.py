"""Results of other code are refused: a sweep is what it computes, not what its classes are called.

One finished folder is opened again after each of many edits of the files that define the sweep.
"""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

import jthermo as jt
from jthermo.engines.fingerprint import fingerprint
from jthermo.errors import InputError
from jthermo.execution import placement
from jthermo.results.sealed_json import sealed
from jthermo.sweep.user_file import import_file

HELPER = """
import jax.numpy as jnp

FACTOR = 1.0


def act(a):
    return jnp.tanh(a)


def half(a):
    return a / 2.0


def host(a):
    return a * FACTOR
"""
MAIN = """
import dataclasses
import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import helper_of_a_net
from helper_of_a_net import half
import jthermo as jt

GAIN = 1.5
MASK = jnp.array([1.0, 0.5, 2.0], np.float32)
WIDTH = 0.3
DECAY = 0.99
LIMIT = 0.1
SHIFT = 1.0
TABLE = {"out": jnp.sin}


def power(a, p):
    return jnp.abs(a) ** p


def make(slope):
    def leaky(a):
        return jnp.where(a > 0, a, slope * a)

    return leaky


square = functools.partial(power, p=2)
leaky = make(0.1)
shifted = lambda a: a + 0.25


def spread(key, shape, dtype=jnp.float32):
    return WIDTH * jax.random.normal(key, shape, dtype)


def passed(a, by=2.0):
    return by * a


@jax.custom_jvp
def straight(a):
    return jnp.round(4.0 * a) / 4.0


@straight.defjvp
def straight_jvp(primals, tangents):
    return straight(*primals), 0.75 * tangents[0]


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.cos(nn.Dense(3, kernel_init=spread)(x))


class Base(nn.Module):
    def twist(self, a):
        return a + a**3


class Net(Base):
    @nn.compact
    def __call__(self, x):
        h = Inner()(half(x * MASK[None]) * GAIN)
        h = self.twist(shifted(leaky(square(helper_of_a_net.act(h)))))
        return straight(TABLE["out"](nn.Dense(1)(passed(h))))


def below(v):
    return v < LIMIT


def small(model, params, probe):
    return below(jnp.abs(params["Dense_0"]["kernel"])).mean()


def called(model, params, probe):
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    out = model.apply(params, probe.x).mean()
    return jax.pure_callback(helper_of_a_net.host, shape, out, vmap_method="sequential")


def rate(count, start):
    return start * DECAY**count


def decaying(learning_rate, momentum=0.5):
    return optax.sgd(lambda count: rate(count, learning_rate), momentum)


def centre(x):
    return x - SHIFT


def arrays():
    return np.load(Path(__file__).with_name("offset.npy"))


@dataclasses.dataclass(frozen=True)
class Own(jt.data.Source):
    dim: int
    shape = property(lambda self: (self.dim,))

    def load(self):
        return type(jt.data.Source.load(self))({"offset": arrays()})

    def abstract(self):
        return {"offset": jax.ShapeDtypeStruct((3,), jnp.float32)}

    def draw(self, key, size):
        x = centre(jax.random.normal(key, (size, self.dim)))
        return x, (x.sum(1) > 0).astype(jnp.int32)


SWEEP = jt.Sweep(
    model=Net(), data=Own(3), learning_rate=(0.1, 0.2), batch_size=(1, 2), num_steps=4,
    optimizer=jt.Optimizer(decaying),
    record=jt.Record(steps=(0, 4), observables=(small, called, jt.loss()), probe_size=8))
"""
# What is edited: the text before and after it, and what the message names.
MAIN_EDITS = {
    "a submodule": ("jnp.cos(nn", "jnp.sin(nn", "step"),
    "a helper function": ("** p", "** p / 2", "step"),
    "a constant": ("GAIN = 1.5", "GAIN = 1.25", "step"),
    "an array": ("[1.0, 0.5, 2.0]", "[1.0, 0.5, 2.5]", "step"),
    "a closure": ("make(0.1)", "make(0.2)", "step"),
    "a functools.partial": ("power, p=2", "power, p=3", "step"),
    "a lambda": ("a + 0.25", "a + 0.5", "step"),
    "a default argument": ("by=2.0", "by=3.0", "step"),
    "an entry of a dict": ('"out": jnp.sin', '"out": jnp.tanh', "step"),
    "a method of a base class": ("a + a**3", "a - a**3", "step"),
    "a derivative": ("0.75 * tangents", "0.5 * tangents", "step"),
    "an initialiser": ("WIDTH = 0.3", "WIDTH = 0.4", "init"),
    "a helper of an observable": ("return v < LIMIT", "return v <= LIMIT", "observable 'small'"),
    "a constant of an observable": ("LIMIT = 0.1", "LIMIT = 0.2", "observable 'small'"),
    "a helper of a schedule": ("DECAY**count", "DECAY ** (2 * count)", "step"),
    "a constant of a schedule": ("DECAY = 0.99", "DECAY = 0.9", "step"),
    "a helper of the data": ("x - SHIFT", "x + SHIFT", "data"),
    "a constant of the data": ("SHIFT = 1.0", "SHIFT = 2.0", "data"),
}
HELPER_EDITS = {
    "a module of helpers": ("jnp.tanh", "jnp.sinh", "step"),
    "a function imported from another file": ("a / 2.0", "a / 4.0", "step"),
    "a function that runs on the host": ("a * FACTOR", "a + FACTOR", "observable 'called'"),
    "a constant used on the host": ("FACTOR = 1.0", "FACTOR = 2.0", "observable 'called'"),
}
# Edits that change no result.
HARMLESS = {
    "a comment": ("GAIN = 1.5", "GAIN = 1.5  # chosen by hand"),
    "layout": ("    return jnp.abs(a) ** p", "\n    return (\n        jnp.abs(a)\n        ** p)"),
    "a docstring": ("def rate(count, start):", 'def rate(count, start):\n    "The rate."'),
    "names": ("def power(a, p):\n    return jnp.abs(a)", "def power(b, p):\n    return jnp.abs(b)"),
    "an unused value": ("    return by * a", "    unused = jnp.exp(a)\n    return by * a"),
    "a print": ("    return x - SHIFT", '    jax.debug.print("{x}", x=x)\n    return x - SHIFT'),
    "another constant nearby": ("WIDTH = 0.3", "WIDTH = 0.3\nHEIGHT = 2.0"),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A function that writes the two files and returns the sweep that they define."""
    monkeypatch.syspath_prepend(str(tmp_path))
    # two edits in one second have the same time stamp, so no bytecode may be cached
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("net_of_a_sweep", "helper_of_a_net")

    def written(main=MAIN, helper=HELPER, offset=(0.0, 1.0, 2.0)):
        for name, text in zip(names, (main, helper), strict=True):
            sys.modules.pop(name, None)
            (tmp_path / f"{name}.py").write_text(text)
        np.save(tmp_path / "offset.npy", np.array(offset, np.float32))
        return import_file(tmp_path / f"{names[0]}.py", names[0], "test").SWEEP

    yield written
    for name in names:
        sys.modules.pop(name, None)


def edited(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_twenty_kinds_of_edits_are_refused_and_comments_are_not(files, tmp_path):
    out = tmp_path / "results"
    sweep = files()
    finished = jt.run(sweep, out, progress=False)
    for kind, (old, new, part) in {**MAIN_EDITS, **HELPER_EDITS}.items():
        texts = (MAIN, HELPER)
        which = int(kind in HELPER_EDITS)
        changed = [edited(t, old, new) if i == which else t for i, t in enumerate(texts)]
        again = files(*changed)
        assert again.id == sweep.id, kind
        with pytest.raises(InputError, match="results of other code") as refused:
            jt.run(again, out, progress=False)
        assert f"{part}" in refused.value.remedy, (kind, refused.value.remedy)
        unnamed = {"init", "step", "data", "'small'", "'called'"} - {part.split()[-1]}
        if part in ("init", "data") or "small" in part:
            assert not any(name in refused.value.remedy for name in unnamed), refused.value.remedy
    with pytest.raises(InputError, match="they were computed, data changed"):
        jt.run(files(offset=(0.0, 1.0, 3.0)), out, progress=False)
    assert len(MAIN_EDITS) + len(HELPER_EDITS) >= 20
    for kind, change in HARMLESS.items():
        again = files(edited(MAIN, *change))
        assert again.id == sweep.id, kind
        assert jt.run(again, out, progress=False).identical(finished), kind
    # a larger sweep of other code does not extend the folder either
    other = files(edited(MAIN, *MAIN_EDITS["a closure"][:2])).replace(seed=(0, 1))
    with pytest.raises(InputError, match=r"computed, step, .* changed"):
        jt.run(other, out, extend=True, progress=False)
    larger = files().replace(seed=(0, 1), batch_size=(1, 2, 4))
    assert jt.run(larger, out, extend=True, progress=False).sizes["run"] == 12


def test_an_unfinished_folder_is_not_finished_by_other_code(files, tmp_path):
    out = tmp_path / "results"
    sweep = files()
    jt.run(sweep, out, shard=(0, 2), progress=False)
    other = files(edited(MAIN, *MAIN_EDITS["a constant of a schedule"][:2]))
    with pytest.raises(InputError, match=r"computed, step changed\. Restore that code"):
        jt.run(other, out, shard=(1, 2), progress=False)
    assert jt.run(files(), out, progress=False).attrs["complete"] == 1


def test_a_helper_redefined_in_the_same_process_is_trained_anew(files, tmp_path):
    sweep = files()
    before = jt.run(sweep, progress=False)
    # as a notebook does when a cell is edited; the classes of the sweep stay as they are
    vars(sys.modules["net_of_a_sweep"]).update(GAIN=1.25, below=lambda v: v < 0.4)
    after = jt.run(sweep, progress=False)
    again = jt.run(files(edited(MAIN, "GAIN = 1.5", "GAIN = 1.25")), progress=False)
    assert (after.loss.values != before.loss.values).any()
    np.testing.assert_array_equal(after.loss, again.loss)
    assert (after.small.values != before.small.values).any()


SMALL = jt.Sweep(
    model=jt.models.TwoLayer(inputs=3, hidden=4),
    data=jt.data.Gaussian(dim=3),
    learning_rate=(0.1, 0.2),
    num_steps=4,
    record=jt.Record(steps=(0, 4), observables=(jt.loss(), jt.activation_rate())),
)


def test_a_folder_of_another_version_says_that_it_cannot_be_compared(tmp_path, capsys):
    out = tmp_path / "o"
    ds = jt.run(SMALL, out, progress=False)
    described = json.loads((out / "sweep.json").read_text())
    del described["sha256"]
    (parts,) = described["code"].values()
    assert parts["jax"] == jax.__version__
    newer, older = json.loads(json.dumps(described)), dict(described)
    (parts,) = newer["code"].values()
    parts |= {"jax": "0.0.1", "step": "another"}
    del older["code"]
    capsys.readouterr()
    for content, words in (
        (newer, "created with JAX 0.0.1, so"),
        (older, "a version of jthermo that did not record its programs"),
    ):
        for name in ("sweep.json", "sweep-copy.json"):
            (out / name).write_bytes(sealed(content))
        assert jt.run(SMALL, out).identical(ds)
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_a_folder_of_todays_main_opens_extends_and_stays_without_digests(tmp_path):
    out = tmp_path / "o"
    ds = jt.run(SMALL, out, progress=False)
    (out / "sweep-copy.json").unlink()
    for name in ("sweep.json", "manifest.json"):
        content = json.loads((out / name).read_text())
        content.pop("sha256")
        content.pop("code", None)
        (out / name).write_text(json.dumps(content, indent=1))
    assert jt.run(SMALL, out, progress=False).identical(ds)
    more = jt.run(SMALL.replace(seed=(0, 1)), out, extend=True, progress=False)
    assert more.sizes["run"] == 4
    assert json.loads((out / "sweep.json").read_text())["code"] == {}


def test_the_fingerprint_knows_no_grid_no_device_and_no_setting_of_jax():
    def of(sweep):
        with placement.pinned():
            return fingerprint(sweep)

    expected = of(SMALL)
    assert len(expected) == 1
    others = {"learning_rate": 0.7, "batch_size": (1, 8), "seed": range(9), "lane_width": 5}
    for name, value in others.items():
        assert of(SMALL.replace(**{name: value})) == expected, name
    with jax.enable_x64(True), jax.threefry_partitionable(False):
        assert of(SMALL) == expected
    assert len(of(SMALL.replace(vary={"model.init": ("torch", "he")}))) == 2


def test_a_lost_description_is_not_replaced_by_that_of_another_sweep(tmp_path):
    out = tmp_path / "o"
    ds = jt.run(SMALL, out, progress=False)
    shutil.copy(out / "sweep.json", tmp_path / "kept.json")
    for name in ("sweep.json", "sweep-copy.json"):
        (out / name).unlink()
    other_records = jt.Record(steps=(0, 4), observables=jt.loss())
    for other in (SMALL.replace(learning_rate=0.3), SMALL.replace(record=other_records)):
        with pytest.raises(InputError, match="holds records of another sweep"):
            jt.run(other, out, progress=False)
    assert jt.run(SMALL, out, progress=False).identical(ds)
