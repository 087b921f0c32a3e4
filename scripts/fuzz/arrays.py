"""Hostile arrays: those of `jt.data.Arrays`, and damaged files of arrays and images."""

import functools
import gzip
import io
import pickle
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import jthermo as jt
from jthermo.data import cifar10_files, fashion_mnist_files
from scripts.fuzz.trial import Outcome, Trial, accepted, run_all
from scripts.fuzz.values import VALUES, value

# Expressions of arrays, good and bad, for n = 6 examples.
ARRAYS = (
    "np.ones((6, 3))", "np.ones((6, 3), np.uint8)", "np.ones((6, 2, 2, 1))", "np.ones(6)",
    "np.ones((6, 0))", "np.ones((0, 3))", "np.ones((5, 3))", "np.full((6, 3), math.nan)",
    "np.full((6, 3), 1e300)", "np.full((6, 3), -math.inf)", "np.ones((6, 3), complex)",
    "np.ones((6, 3), object)", "np.ones((6, 3), bool)", "np.ones((6, 3), 'M8[s]')",
    "np.ones((6, 3), 'S3')", "np.ones((6, 3), np.float16)", "np.ones((6, 3), np.int64)",
    "np.ma.masked_array(np.ones((6, 3)), np.eye(6, 3))", "np.ma.masked_array(np.ones((6, 3)))",
    "[[1, 2, 3]] * 6", "[[1], [1, 2]]", "np.zeros((6, 3), [('a', int)])", "np.zeros(())",
    "np.arange(6)", "np.arange(6) % 2", "np.arange(6) - 1", "np.arange(6) / 7", "np.arange(6.0)",
    "np.arange(6, dtype=np.uint64) + 2**63", "np.arange(6) + 2**31", "np.arange(6) * 10**9",
    "np.arange(6).reshape(6, 1)", "np.arange(6).reshape(6, 1) / 7", "np.ones((6, 3)) / 7",
    "np.arange(6, dtype=np.uint8)", "np.array([True, False] * 3)", "np.array(list('abcdef'))",
    "np.ma.masked_array(np.arange(6) % 2, np.arange(6) == 3)", "np.full(6, math.nan)",
    "np.full(6, 1e39)", "np.arange(5)", "np.broadcast_to(0, 6)", "np.empty((6, 0))",
    "pd.DataFrame(np.ones((6, 3)))", "pd.Series(np.arange(6))", "pd.array([1, 2, None] * 2)",
    "pd.Categorical(list('ababab'))", "[0, 1] * 3", "[0.5, 1] * 3", "['a'] * 6", "range(6)",
    "np.broadcast_to(np.float32(0), (2**33, 3))", "np.broadcast_to(np.int8(0), 2**33)",
    "np.arange(6)[::-1]", "np.ones((6, 3))[:, ::-1]", "np.matrix(np.ones((6, 3)))",
)  # fmt: skip
# Of VALUES only those that are not endless, since an array takes all of an iterable.
OTHERS = tuple(text for text in VALUES if "itertools" not in text and "10**12" not in text)


def in_memory(changes: dict[str, str]) -> None:
    """A source of arrays, with a sweep on it."""
    fields = {"x": "np.ones((6, 3))", "y": "np.arange(6) % 2", **changes}
    use(jt.data.Arrays(**{name: value(text) for name, text in fields.items()}))


def use(data: jt.data.Source) -> None:
    """Draw from a source and write a sweep on it."""
    import jax

    data.draw(jax.random.key(0), 2)
    size = int(np.prod(data.shape))
    outputs = data.num_targets or data.num_classes
    model = jt.models.MLP(size, hidden=(2,), outputs=outputs)
    record = jt.Record(steps=(0,), observables=jt.loss())
    jt.Sweep(model=model, data=data, learning_rate=0.1, num_steps=1, record=record).to_json()


def damaged(body: bytes, rng: random.Random) -> bytes:
    """The bytes of a file after one of several kinds of damage."""
    place = rng.randrange(len(body)) if body else 0
    kinds = (
        lambda: body[:place],
        lambda: body[:place] + bytes([rng.randrange(256)]) + body[place + 1 :],
        lambda: body[: (near := place % 32)] + bytes([rng.randrange(256)]) + body[near + 1 :],
        lambda: body + bytes(rng.randrange(1, 9)),
        lambda: b"",
        lambda: rng.randbytes(50),
        lambda: gzip.compress(body),
        lambda: gzip.compress(body)[:-9],
        lambda: pickle.dumps({"data": 5, "labels": [1.7]}),
    )
    return rng.choice(kinds)()


def _packed(values: object) -> np.ndarray:
    """Values as an array, also a ragged list."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.asarray(values, object)


def npz(folder: Path, seed: int) -> None:
    """An .npz file that is damaged, or has other arrays."""
    rng, body = random.Random(seed), io.BytesIO()
    names = {"x": "np.ones((6, 3))", "y": "np.arange(6) % 2"}
    if rng.random() < 0.5:
        names[rng.choice(("x", "y", "x_test", "y_test", "z"))] = rng.choice(ARRAYS[:40])
    np.savez(body, **{name: _packed(value(text)) for name, text in names.items()})
    path = folder / f"{seed}.npz"
    path.write_bytes(damaged(body.getvalue(), rng) if rng.random() < 0.7 else body.getvalue())
    use(jt.data.Arrays(path))


def fashion_file(rng: random.Random, name: str, good: bool) -> bytes:
    """An IDX file, perhaps of other shapes."""
    shape = (6, 28, 28) if "images" in name else (6,)
    if not good:
        shape = rng.choice(((6, 5, 5), (6,), (6, 28, 28), (0, 28, 28), (5, 28, 28), (0,), (6, 1)))
    header = b"\0\0\x08" + bytes([len(shape)]) + b"".join(struct.pack(">I", n) for n in shape)
    return header + bytes(int(np.prod(shape)))


def fashion(folder: Path, seed: int) -> None:
    """The four files of Fashion-MNIST, one of them damaged or of another shape."""
    rng, place = random.Random(seed), folder / str(seed)
    place.mkdir()
    wrong = rng.choice(fashion_mnist_files.FILES)
    for name in fashion_mnist_files.FILES:
        body = fashion_file(rng, name, good=name != wrong)
        if name == wrong and rng.random() < 0.5:
            body = damaged(fashion_file(rng, name, good=True), rng)
        (place / name).write_bytes(body)
    data = jt.data.FashionMNIST(data_dir=place, verify=False)
    if data.load().arrays["x"].shape[1:] != data.shape:
        raise AssertionError("the images have another shape than the source says")


def cifar(folder: Path, seed: int) -> None:
    """The six batches of CIFAR-10, one of them with other arrays or damaged."""
    rng, place = random.Random(seed), folder / str(seed)
    place.mkdir()
    wrong, labels = rng.choice(cifar10_files.BATCHES), rng.choice(
        ([1], [1.7], [10], [-1], ["a"], 5, None, [[1]], [2**70], [True], [], np.array([1.0]))
    )  # fmt: skip
    data = rng.choice((np.zeros((1, 3072), np.uint8), np.zeros((1, 3072)), 5, np.zeros(3)))
    for name in cifar10_files.BATCHES:
        good = {"data": np.zeros((1, 3072), np.uint8), "labels": [3]}
        body = pickle.dumps({"data": data, "labels": labels} if name == wrong else good)
        if name == wrong and rng.random() < 0.4:
            body = damaged(pickle.dumps(good), rng)
        (place / name).write_bytes(body)
    source = jt.data.CIFAR10(data_dir=place, verify=False)
    if source.load().arrays["y"].dtype != np.uint8:
        raise AssertionError("the labels are not whole numbers")


def run(count: int, seed: int) -> list[Outcome]:
    """Try `count` hostile arrays."""
    rng, folder = random.Random(seed), Path(tempfile.mkdtemp(prefix="fuzz-"))
    trials = [Trial("Arrays(x, y)", functools.partial(accepted, in_memory, {}))]
    files: tuple[Callable[[Path, int], None], ...] = (npz, fashion, cifar)
    names = ("x", "y", "x_test", "y_test", "labels", "num_classes", "num_samples", "sampling")
    while len(trials) < count:
        if rng.random() < 0.4:
            make, number = rng.choice(files), seed * 10**6 + len(trials)
            text = f"{make.__name__} {number}"
            trials.append(Trial(text, functools.partial(make, folder, number)))
            continue
        changes = {}
        for name in rng.sample((*names, "sha256"), rng.choice((1, 2, 3))):
            pool = ARRAYS if name[0] in "xy" and rng.random() < 0.8 else OTHERS
            changes[name] = rng.choice(pool)
        text = f"Arrays({', '.join(f'{k}={v}' for k, v in changes.items())})"
        trials.append(Trial(text, functools.partial(in_memory, changes)))
    try:
        return run_all(trials[:count])
    finally:
        shutil.rmtree(folder)
