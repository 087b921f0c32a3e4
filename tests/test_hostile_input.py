"""Hostile input by a table: each entry is refused in one line that names the field and the remedy.

`python scripts/fuzz` tries thousands more.
"""

import errno
import functools
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from flax import nnx

import jthermo as jt
from jthermo.cli import verbs
from jthermo.data import cifar10_files, fashion_mnist_files
from jthermo.errors import InputError, StorageError, file_path
from jthermo.execution import checkpoint
from jthermo.results import json_schema
from jthermo.results.atomic import write_whole, writing
from jthermo.results.writing import resumable

ROOT = Path(jt.__file__).parents[1]
MODEL = jt.models.TwoLayer(inputs=3, hidden=4)
RECORD = jt.Record(steps=(0, 2), observables=jt.loss(), probe_size=4)


def sweep_of(**changes):
    fields = {"model": MODEL, "data": jt.data.Gaussian(dim=3), "learning_rate": 0.1}
    return jt.Sweep(**{**fields, "num_steps": 4, "record": RECORD, **changes})


def arrays(y=(0, 1, 1, 0), x=None, **options):
    return jt.data.Arrays(np.ones((4, 3)) if x is None else x, np.asarray(y), **options)


class Net(nn.Module):
    dtype: object = jnp.float32
    param_dtype: object = jnp.float32
    columns: int = 1

    @nn.compact
    def __call__(self, x):
        out = nn.Dense(self.columns, dtype=self.dtype, param_dtype=self.param_dtype)(x)
        return out if self.columns < 3 else out[..., None]


def number(key):
    return {"w": jnp.ones(3), "b": 0.5}


def linear(params, x):
    return x @ params["w"] + params["b"]


class Unreadable:
    """A value whose repr fails."""

    def __repr__(self):
        raise RuntimeError("no text")


def results():
    axes = {"learning_rate": ("run", [0.1, 0.2]), "seed": ("run", [0, 0])}
    axes |= {"step": (("run", "record"), [[0, 1], [0, 1]]), "init": ("run", ["he", "he"])}
    values = {"finite": (("run", "record"), np.ones((2, 2), bool))}
    values |= {"loss": (("run", "record"), np.ones((2, 2)))}
    values |= {"rank": (("run", "record", "layer"), np.ones((2, 2, 3)))}
    return xr.Dataset(values, axes)


def fashion(folder, shape=(4, 28, 28), labels=4):
    folder.mkdir()
    for name in fashion_mnist_files.FILES:
        sizes = shape if "images" in name else (labels,)
        header = b"\0\0\x08" + bytes([len(sizes)]) + b"".join(n.to_bytes(4, "big") for n in sizes)
        (folder / name).write_bytes(header + bytes(math.prod(sizes)))
    return jt.data.FashionMNIST(data_dir=folder, verify=False)


def cifar(folder, labels):
    folder.mkdir()
    batch = {"data": np.zeros((1, 3072), np.uint8), "labels": labels}
    for name in cifar10_files.BATCHES:
        (folder / name).write_bytes(pickle.dumps(batch))
    return jt.data.CIFAR10(data_dir=folder, verify=False)


MASKED = np.ma.masked_array([0, 1, 1, 0], [False, True, False, False])
# By name: a call, which gets an empty folder, and the words of its message in this order.
REFUSED = {
    "label 2³¹": (lambda _: arrays([0, 1, 0, 2**31]), "data.y = 2147483648: would make"),
    "label uint64": (lambda _: arrays(np.array([0, 1, 0, 2**63], np.uint64)), "would make 9,223,"),
    "label 10⁹": (
        lambda _: arrays([0, 1, 0, 10**9]),
        "would make 1,000,000,001 classes, the limit is 100,000; number the classes",
    ),
    "masked labels": (
        lambda _: jt.data.Arrays(np.ones((4, 3)), MASKED),
        "has masked entries, which would be used as data; remove those",
    ),
    "masked x": (lambda _: arrays(x=np.ma.masked_array(np.ones((4, 3)), np.eye(4, 3))), "masked"),
    "ragged x": (lambda _: arrays(x=[[1.0], [1.0, 2.0]]), "data.x = 'list': isn't an array"),
    "x beyond float32": (lambda _: arrays(x=np.full((4, 3), 1e300)), "infinite in float32"),
    "random classes": (
        lambda _: arrays(labels="random", num_classes=10**9),
        "data.num_classes = 1000000000: give a whole number from 2 to 100000",
    ),
    "image classes": (lambda _: jt.data.CIFAR10(labels="random", num_classes=2**40), "from 2 to"),
    "verify": (lambda _: jt.data.CIFAR10(verify="no"), "data.verify = 'no': use True or False"),
    "data_dir": (lambda _: jt.data.CIFAR10(data_dir=5), "data.data_dir = 5: give the path"),
    "5 × 5 images": (
        lambda folder: fashion(folder / "f", (4, 5, 5)).load(),
        "has the shape 4×5×5, but train-images-idx3-ubyte has n×28×28",
    ),
    "no images": (lambda folder: fashion(folder / "f", (0, 28, 28), 0).load(), "shape 0×28×28"),
    "CIFAR label 1.7": (
        lambda folder: cifar(folder / "c", [1.7]).load(),
        "has float64 labels of shape (1,) instead of a list of whole numbers",
    ),
    "common_data": (lambda _: sweep_of(common_data="no"), "common_data = 'no': use True or False"),
    "η too small": (
        lambda _: sweep_of(learning_rate=1e-320),
        "learning_rate = 1e-320: becomes zero in float32; give a magnitude from 1.2e-38",
    ),
    "η too large": (lambda _: sweep_of(learning_rate=1e300), "becomes infinite in float32"),
    "η of 400 digits": (lambda _: sweep_of(learning_rate=10**400), "give a positive finite"),
    "η of 5000 digits": (lambda _: sweep_of(learning_rate=10**5000), "learning_rate = a int:"),
    "hidden 2³²": (
        lambda _: jt.models.TwoLayer(3, 2**32),
        "model.hidden = 4294967296: give a whole number from 1 to 2147483647",
    ),
    "hidden bytes": (lambda _: jt.models.MLP(3, hidden=b"x"), "model.hidden = b'x': give a tuple"),
    "hidden endless": (lambda _: jt.models.MLP(3, hidden=itertools.count(1)), "has too many val"),
    "parameters": (
        lambda _: sweep_of(model=jt.models.TwoLayer(3, 2**31 - 1)),
        "has 10,737,418,235 parameters, more than 2,147,483,647; give a smaller net",
    ),
    "dim 2³²": (lambda _: jt.data.Gaussian(dim=2**32), "data.dim = 4294967296: give"),
    "batch 2³²": (lambda _: sweep_of(batch_size=2**32), "batch_size = 4294967296: give"),
    "samples 2³²": (lambda _: jt.data.Sphere(2, num_samples=2**32), "data.num_samples = 42949"),
    "probe 2³²": (lambda _: jt.Record((0,), jt.loss(), probe_size=2**32), "record.probe_size ="),
    "width 2³²": (lambda _: sweep_of(lane_width=2**32), "lane_width = 4294967296: give"),
    "records": (
        lambda _: sweep_of(num_steps=2**31 - 1, record=jt.Record(jt.every(1), jt.loss())),
        "every = 1: gives 2,147,483,648 records of 2,147,483,647 steps, more than 1,000,000",
    ),
    "steps endless": (lambda _: jt.Record(range(10**12), jt.loss()), "has 1,000,000,000,000 val"),
    "clock": (
        lambda _: sweep_of(num_steps=jt.RescaledSteps(1.0, learning_rate_power=999.0)),
        "gives inf steps",
    ),
    "momentum": (lambda _: jt.sgd(momentum=math.nan), "optimizer.momentum = nan: give a finite"),
    "b1": (lambda _: jt.Optimizer(optax.adam, b1=math.inf), "optimizer.b1 = inf: give a finite"),
    "momentum in vary": (
        lambda _: sweep_of(vary={"optimizer.momentum": (0.0, math.nan)}),
        "vary['optimizer.momentum'] = nan: isn't a number",
    ),
    "nesterov": (lambda _: jt.sgd(nesterov="no"), "optimizer.nesterov = 'no': use True or False"),
    "nesterov alone": (lambda _: jt.sgd(nesterov=True), "True: has no effect without momentum"),
    "grid of a variable": (
        lambda _: jt.grid(xr.DataArray(np.zeros((2, 3)), dims=("run", "record"))),
        "ds = 'DataArray': give the whole dataset that jt.run or jt.open_results returned",
    ),
    "export of a variable": (
        lambda tmp: jt.export(xr.DataArray([1.0], dims="run"), tmp / "a.csv"),
        "ds = 'DataArray': give the whole dataset",
    ),
    "panel of a variable": (
        lambda _: jt.figures.curves(xr.DataArray([1.0], dims="run"), "loss"),
        "ds = 'DataArray': give the whole dataset",
    ),
    "page of a folder": (
        lambda tmp: jt.explore(str(tmp), tmp / "a.html"),
        "data = 'str': give the dataset that jt.open_results returns",
    ),
    "figure without a name": (
        lambda tmp: jt.figures.save(object(), tmp),
        "made = 'object': give figures by name",
    ),
    "axis of weight decay": (
        lambda _: sweep_of(vary={"optimizer.weight_decay": (0.0, 0.1)}),
        "Give the sweep optimizer=jt.sgd(weight_decay=...) first",
    ),
    "nesterov of adam": (
        lambda _: jt.Optimizer(optax.adam, nesterov="no"),
        "optimizer.nesterov = 'no': use True or False",
    ),
    "decay": (lambda _: jt.sgd(decay="ten"), "optimizer.decay = 'ten': give a positive finite"),
    "engine of a plan": (
        lambda _: jt.plan(sweep_of(), measure=False, engine=5),
        "engine = 5: use one of auto, xla, fused",
    ),
    "partial": (lambda _: jt.Optimizer(functools.partial(optax.sgd)), "give an optax factory"),
    "nnx instance": (
        lambda _: jt.models.NNX(nnx.Linear(2, 1, rngs=nnx.Rngs(0))),
        "give a class of flax.nnx, as in jt.models.NNX(Net, 8)",
    ),
    "nnx arguments": (
        lambda _: jt.models.NNX(nnx.Linear, 2),
        "missing a required argument: 'out_features'; give the arguments of the class",
    ),
    "nnx class as model": (
        lambda _: sweep_of(model=nnx.Linear),
        "jt.models.NNX(Net, ...) takes a flax.nnx class",
    ),
    "partial init": (
        lambda _: jt.models.Function(init=functools.partial(abs), apply=abs),
        "model.init = functools.partial(<built-in function abs>): give a function with a name",
    ),
    "number as parameter": (
        lambda _: sweep_of(model=jt.models.Function(init=number, apply=linear)),
        "model = Function(init=",
    ),
    "unknown setting": (
        lambda _: jt.models.Function(init=number, apply=linear, depth=2),
        "model.depth = 2: no argument of init, apply has this name",
    ),
    "noise": (lambda _: sweep_of(noise=[]), "noise = []: use one of full, unbiased"),
    "init": (lambda _: jt.models.TwoLayer(3, 4, init=np.ones(2)), "model.init = array([1., 1.]):"),
    "split": (lambda _: jt.loss(split=[]), "split = []: use one of probe, test"),
    "parameter": (lambda _: jt.weight_norm(["V"]), "weight_norm = ['V']: give the name"),
    "vary": (lambda _: sweep_of(vary=None), "vary = None: give a dict of values by name"),
    "vary data": (lambda _: sweep_of(vary={"data": (5,)}), "data = 5: give a source"),
    "vary optimizer": (lambda _: sweep_of(vary={"optimizer": ("x",)}), "give a jt.Optimizer"),
    "points": (
        lambda _: sweep_of(points=range(10**12)),
        "points = range(0, 1000000000000): has 1,000,000,000,000 values, more than max_runs = 100,",
    ),
    "seed endless": (lambda _: sweep_of(seed=range(10**20)), "has too many values, more than max"),
    "seed generator": (lambda _: sweep_of(seed=itertools.count()), "more than max_runs = 100,000"),
    "max_runs": (lambda _: sweep_of(max_runs=10**12), "max_runs = 1000000000000: give a whole"),
    "epochs": (
        lambda _: sweep_of(data=arrays(sampling="epochs"), batch_size=8),
        "batch_size = 8: an epoch has only 4 examples; give a smaller batch or sampling=",
    ),
    "epochs of fewer images": (
        lambda folder: jt.run(
            sweep_of(
                model=jt.models.MLP(784, (2,), outputs=10),
                data=fashion(folder / "f").__class__(
                    data_dir=folder / "f", verify=False, sampling="epochs"
                ),
                batch_size=8,
            ),
            progress=False,
        ),
        "batch_size = 8: an epoch has only 4 examples",
    ),
    "bfloat16 parameters": (
        lambda _: sweep_of(model=Net(param_dtype=jnp.bfloat16)),
        "has bfloat16 parameters ['Dense_0']['bias'], but jthermo trains in float32; give the",
    ),
    "bfloat16 outputs": (lambda _: sweep_of(model=Net(dtype=jnp.bfloat16)), "has bfloat16 outputs"),
    "outputs": (
        lambda _: sweep_of(model=Net(columns=3)),
        "returns the shape (2, 3, 1) for 2 examples of shape (3,); return (M,), (M, 1) or (M, C)",
    ),
    "array in curves": (
        lambda _: jt.figures.curves(results(), "rank", index=3),
        "index = 3: give a whole number from 0 to 2",
    ),
    "index in curves": (
        lambda _: jt.figures.curves(results(), "rank", index=(0, 0)),
        "index = (0, 0): rank has 1 dims of its own; give one number for each of layer",
    ),
    "index of a number": (
        lambda _: jt.figures.curves(results(), "loss", index=0),
        "index = 0: loss has 0 dims of its own; omit it",
    ),
    "scale of curves": (
        lambda _: jt.figures.curves(results(), "loss", xscale="logit"),
        "xscale = 'logit': use one of log, linear",
    ),
    "column of panels": (
        lambda _: jt.figures.clocks(results(), "loss", col="momentum"),
        "col = 'momentum': is not a swept axis; choose one of",
    ),
    "many columns": (
        lambda _: jt.figures.clocks(results(), "loss", col="learning_rate", powers=(0,) * 12),
        "has 2 values, for which a figure has no room; select at most 1",
    ),
    "unknown in curves": (lambda _: jt.figures.curves(results(), "x"), "is not in the results"),
    "text in curves": (lambda _: jt.figures.curves(results(), "loss", by="init"), "no numbers"),
    "no panel": (lambda _: jt.figures.clocks(results(), "loss", powers=()), "powers = ():"),
    "out of 300 letters": (
        lambda _: jt.run(sweep_of(), "a" * 300),
        "is too long; give names of at most 255 bytes",
    ),
    "out": (lambda _: jt.run(sweep_of(), 5), "out = 5: give the path of a file or folder"),
    "folder of 300 letters": (lambda _: jt.open_results("a" * 300), "is too long"),
    "folder with NUL": (lambda _: jt.open_results("a\0"), "give the path"),
    "repr": (lambda _: sweep_of(model=Unreadable()), "model = a Unreadable: give a jt.models"),
    "lines": (lambda _: sweep_of(loss="a\nb"), r"loss = 'a\nb': use one of"),
    "JSON": (lambda _: jt.Sweep.from_json("{"), "isn't the JSON of a sweep (JSONDecodeError"),
    "JSON of a list": (lambda _: jt.Sweep.from_json("[]"), "isn't the JSON of a sweep"),
    "JSON without keys": (lambda _: jt.Sweep.from_json("{}"), "isn't the JSON of a sweep"),
    "JSON type": (lambda _: jt.Sweep.from_json('{"model": {"type": 5}}'), "isn't the JSON of a"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_input_is_refused_in_one_line(case, tmp_path):
    call, words = REFUSED[case]
    with pytest.raises(InputError) as caught:
        call(tmp_path)
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    assert len(text) < 900


# Neighbours of the entries above that are valid.
ACCEPTED = {
    "label 99,999": lambda _: arrays([0, 1, 0, 99_999]),
    "labels uint64": lambda _: arrays(np.array([0, 1, 0, 2], np.uint64)),
    "an empty mask": lambda _: jt.data.Arrays(
        np.ones((4, 3)), np.ma.masked_array([0, 1, 1, 0], np.zeros(4, bool))
    ),
    "lists": lambda _: jt.data.Arrays([[1.0, 2.0]] * 2, [0, 1]),
    "images": lambda folder: fashion(folder / "f").load(),
    "CIFAR labels": lambda folder: cifar(folder / "c", [1]).load(),
    "common_data": lambda _: sweep_of(common_data=np.bool_(True)),
    "η": lambda _: sweep_of(learning_rate=(1.2e-38, 3.4e38, np.float32(0.1), jnp.float32(0.2))),
    "η of an array": lambda _: sweep_of(learning_rate=jnp.array([0.5, 0.25])),
    "seeds": lambda _: sweep_of(seed=(2**32 - 1, np.uint64(3), 4.0)),
    "a set of seeds": lambda _: sweep_of(seed={3, 1}),
    "a generator of seeds": lambda _: sweep_of(seed=(s for s in range(3))),
    "widths": lambda _: jt.models.MLP(3, hidden=np.array([4, 5])),
    "momentum": lambda _: sweep_of(optimizer=jt.sgd(momentum=0, nesterov=np.bool_(True))),
    "adam": lambda _: sweep_of(optimizer=jt.Optimizer(optax.adam, b1=0.5)),
    "vary None": lambda _: sweep_of(vary={"optimizer.momentum": (None, 0.5)}),
    "points": lambda _: sweep_of(learning_rate=None, points=({"learning_rate": 0.3},)),
    "replacement": lambda _: sweep_of(data=arrays(), batch_size=8),
    "one epoch": lambda _: sweep_of(data=arrays(sampling="epochs"), batch_size=4),
    "a module": lambda _: sweep_of(model=Net()),
    "records": lambda _: sweep_of(num_steps=999_999, record=jt.Record(jt.every(1), jt.loss())),
    "curves": lambda _: jt.figures.curves(results(), "loss"),
    "an element": lambda _: jt.figures.curves(results().isel(layer=0), "rank"),
    "a name of 255 letters": lambda _: file_path("out", "a" * 255),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_valid_neighbours_are_accepted(case, tmp_path):
    ACCEPTED[case](tmp_path)


OWN = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=3, hidden=4), data=jt.data.Gaussian(dim=3),
    learning_rate=(0.1, 0.2, 0.4), seed=range(4), num_steps=jt.RescaledSteps(4.0),
    record=jt.Record(steps=jt.log_steps(20), observables=jt.activation_rate()))
"""


def call(capsys, *args):
    """Exit code and error text of a command."""
    code = 0
    try:
        verbs.main([str(a) for a in args])
    except SystemExit as stop:
        code = stop.code or 0
    return code, capsys.readouterr().err


FILES = {
    "exits": ("import sys\n\nsys.exit(3)\n", "fails at line 3: SystemExit: 3; correct the file"),
    "lines": ("raise ValueError('a\\nb')\n", "fails at line 1: ValueError: a b; correct"),
    "syntax": ("x = (\n", "fails at line 1: SyntaxError"),
    "nul": ("x = '\0'\n", "fails"),
    "latin": (b"x = '\xff'\n", "fails"),
}
COMMANDS = {
    "seeds": (["plan", "own.py", "--seed", "0:1000000000000"], "seed = '0:1000000000000': give n"),
    "many seeds": (["plan", "own.py", "--seed", "0:9999999", "0:9999999"], "the limit is 10,0"),
    "seeds backwards": (["plan", "own.py", "--seed", "3:0"], "FIRST:END with FIRST < END"),
    "nested": (["plan", "own.py", "--set", f"loss={'[' * 99_999}"], "loss = '[[["),
    "target of 300 letters": (["run", "a" * 300], "experiment = 'aaa"),
    "out of 300 letters": (["run", "own.py", "--out", "a" * 300], "out = 'aaa"),
    "out is a file": (["run", "own.py", "--out", "own.py"], "is a file; give a folder"),
    "out in a file": (["run", "own.py", "--out", "own.py/x"], "(Not a directory)"),
    "out is a device": (["run", "own.py", "--out", "/dev/full"], "is a file; give a folder"),
    "export to a device": (["export", "o", "--to", "csv", "--out", "/dev/full"], "regular file"),
    "export to a folder": (["export", "o", "--to", "csv", "--out", "o"], "regular file"),
    "controls": (["fit", "o", "--controls", "step"], "controls = 'step': is no swept axis; choose"),
    "page": (["claims", "--results", "r", "--into", "absent.md"], "page = 'absent.md': cannot be"),
    "page without an end": (
        ["claims", "--results", "r", "--into", "/dev/full"],
        "page = '/dev/full': isn't a file; give a Markdown page",
    ),
    "folder": (["run", "folder.py"], "give a Python file"),
    "job file": (["launch", "slurm", "own.py"], "own.slurm.sh: Is a directory"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder `o` with its sweep file, and `r` with claims.json."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "own.py").write_text(OWN)
    for name in ("folder.py", "own.slurm.sh", "r"):
        (place / name).mkdir()
    (place / "r" / "claims.json").write_bytes((ROOT / "results" / "claims.json").read_bytes())
    verbs.main(["run", str(place / "own.py"), "--out", str(place / "o"), "--quiet"])
    return place


@pytest.mark.parametrize("case", [*FILES, *COMMANDS])
def test_hostile_command_lines_are_one_line_and_exit_code_2(case, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    if case in FILES:
        body, words = FILES[case]
        Path(f"{case}_file.py").write_bytes(body if isinstance(body, bytes) else body.encode())
        command = ["run", f"{case}_file.py"]
    else:
        command, words = COMMANDS[case]
    code, err = call(capsys, *command)
    assert (code, err.count("\n")) == (2, 1)
    assert words in err


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((n, 2) for n in (errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)),
        *((n, 75) for n in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE)),
    ],
)
def test_exit_code_75_only_where_the_same_command_can_succeed_later(
    number, code, folder, capsys, monkeypatch
):
    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.chdir(folder)
    monkeypatch.setattr("jthermo.results.tables.write_whole", failing)
    assert call(capsys, "export", "o", "--to", "csv")[0] == code
    monkeypatch.setattr(checkpoint.np, "savez", failing)
    with pytest.raises(InputError) as caught:
        jt.run(sweep_of(), folder / f"run-{number}", progress=False)
    assert isinstance(caught.value, StorageError) == (code == 75)


def test_a_file_never_replaces_a_device_or_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (Path("/dev/null"), tmp_path / "folder"):
        with pytest.raises(InputError, match="is not a regular file"):
            write_whole(path, b"x")
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").read_text() == "new"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError), writing(tmp_path / "loop"):
        (tmp_path / "loop" / "x").mkdir(parents=True)


def changed(path, *keys, to=None):
    """Remove a key of a JSON file, or give it another value; return the old text."""
    text = path.read_text()
    plain = inner = json.loads(text)
    for key in keys[:-1]:
        inner = inner[key]
    if to is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    # an edit by hand removes the digest; with it, any change is refused
    for sealed in (plain, *plain.values()):
        if isinstance(sealed, dict):
            sealed.pop("sha256", None)
    path.write_text(json.dumps(plain))
    return text


JSON = {
    "no id": ("sweep.json", ("id",), None, "id is missing, so it was altered; restore"),
    "axes": ("sweep.json", ("axes",), "seed", "axes is 'seed' instead of a list"),
    "seeds": ("sweep.json", ("runs", 0, "seeds", 0), [0], "runs[0].seeds[0] is [0] instead of a"),
    "at": ("sweep.json", ("runs", 0, "at"), 5, "runs[0].at is 5 instead of an object"),
    "axis": (
        "sweep.json",
        ("runs", 0, "at", "batch_size"),
        None,
        "its records do not fit",
    ),
    "key": ("sweep.json", ("runs", 0, "key"), "x", "its records do not fit to its sweep.json"),
    "label": ("sweep.json", ("variables", "finite", 1), None, "variables.finite is ["),
    "parts": ("manifest.json", ("parts",), None, "parts is missing"),
    "digest": ("manifest.json", ("parts",), {"x.npz": 5}, "parts.x.npz is 5 instead of str"),
    "seconds": ("manifest.json", ("attrs", "wall_seconds"), "long", "is 'long' instead of float"),
}


@pytest.mark.parametrize("case", JSON)
def test_missing_and_mistyped_keys_of_a_folder_are_named(case, folder):
    file, keys, to, words = JSON[case]
    before = changed(folder / "o" / file, *keys, to=to)
    try:
        with pytest.raises(InputError) as caught:
            jt.open_results(folder / "o")
    finally:
        (folder / "o" / file).write_text(before)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert jt.open_results(folder / "o").attrs["complete"]


def test_missing_and_mistyped_keys_of_claims_json_are_named(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    path = folder / "r" / "claims.json"
    assert call(capsys, "claims", "--results", "r")[0] == 0
    row = ("C2", "experiments", "fig3_4", "rows", 0)
    for keys, to, words in (
        ((*row, "verdict"), None, "C2.experiments.fig3_4.rows[0].verdict is missing"),
        ((*row, "low"), "x", "rows[0].low is 'x' instead of float or int or NoneType"),
        (("C2", "experiments"), [], "C2.experiments is [] instead of an object"),
        (("C2", "text"), None, "C2.text is missing"),
    ):
        before = changed(path, *keys, to=to)
        for command in (["claims", "--results", "r"], ["report", "--results", "r", "--published"]):
            code, err = call(capsys, *command)
            assert (code, err.count("\n")) == (2, 1)
            assert words in err
        path.write_text(before)


@pytest.mark.parametrize("body", [None, b"", b"{", b"\xff{}", b"[" * 100_000, b"5"])
def test_unreadable_json_is_named(body, folder):
    path = folder / "o" / "manifest.json"
    before = path.read_bytes()
    path.unlink()
    path.mkdir() if body is None else path.write_bytes(body)
    try:
        for read in (jt.open_results, jt.status):
            with pytest.raises(InputError, match=r"manifest\.json"):
                read(folder / "o")
    finally:
        path.rmdir() if body is None else path.unlink()
        path.write_bytes(before)
    assert resumable(folder / "o").num_runs == 12


def test_a_schema_names_the_first_difference():
    schema = {"a": int, "b?": [(str, float | None)], "*": object}
    assert json_schema.mismatch({"a": 1, "b": [["x", None]], "c": []}, schema) is None
    assert json_schema.mismatch({"a": True}, schema) == "a is True instead of int"
    assert (
        json_schema.mismatch({"a": 1, "b": [["x"]]}, schema)
        == "b[0] is ['x'] instead of a list of 2"
    )
    assert json_schema.mismatch([], schema) == "it is [] instead of an object"


ALL_VERBS = """
import os, pwd, sys

def absent(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

# a container whose user has no entry in /etc/passwd
pwd.getpwuid = absent
from jthermo.cli import main
for words in (
    ["run", "own.py", "--out", "new"], ["resume", "new", "--quiet"], ["status", "new"],
    ["plan", "own.py", "--no-measure"], ["fit", "o"], ["plot", "o"], ["explore", "o"],
    ["export", "o", "--to", "csv"], ["launch", "slurm", "own.py", "--print"], ["list"],
    ["claims", "--results", "r"], ["report", "--results", "r"], ["doctor", "--results", "r"],
):
    try:
        main(words)
    except SystemExit as stop:
        print("ENDED", words[0], stop.code, file=sys.stderr)
"""
# The tests raise on rank promotion, which an experiment's own module uses.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "JAX_NUMPY_RANK_PROMOTION"}


def test_every_verb_works_without_home_and_utf_8_and_with_a_notebooks_backend(folder):
    environment = {
        **{k: v for k, v in ENVIRONMENT.items() if k not in ("HOME", "XDG_CACHE_HOME", "LANG")},
        "PYTHONPATH": str(ROOT),
        # a terminal that knows only ASCII
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    done = subprocess.run(
        [sys.executable, "-c", ALL_VERBS],
        capture_output=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    out, err = done.stdout.decode("ascii"), done.stderr.decode()
    assert done.returncode == 0, err
    ended = [line for line in err.splitlines() if line.startswith("ENDED")]
    # doctor may have something to say about this machine
    assert ended in ([], ["ENDED doctor 1"]), err
    assert r"\u03b7" in out


def test_an_output_that_is_full_is_exit_code_2():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jthermo", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert (done.returncode, done.stderr) == (2, "error: output: No space left on device\n")


def test_the_fuzzer_finds_no_offender():
    done = subprocess.run(
        [sys.executable, "scripts/fuzz", "--count", "100", "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "command lines" in done.stdout


def test_the_fuzzer_names_an_offender_of_each_kind():
    code = """
import time
from jthermo.errors import InputError
from scripts.fuzz.trial import Trial, run_all
def refuse(text):
    raise InputError("x", 1, text)
held = []
calls = (lambda: 1, lambda: refuse("no"), lambda: 1 / 0, lambda: time.sleep(60),
         lambda: held.append(bytearray(1 << 30)), lambda: __import__("os").abort(), lambda: 2)
kinds = [o.kind for o in run_all([Trial("t", call) for call in calls], 2.0, 1 << 28)]
print(kinds)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    kinds = ["accepted", "refused", "traceback", "hang", "memory", "crash", "accepted"]
    assert done.stdout.strip() == str(kinds)
