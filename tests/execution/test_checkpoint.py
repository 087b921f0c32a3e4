"""Every digest of a checkpoint is compared: each is made to be the only one that disagrees."""

import hashlib
import shutil

import numpy as np
import pytest

from jthermo.execution import checkpoint
from jthermo.execution.checkpoint import ARCHIVE, DIGEST, META, SEAL, Checkpoints

META_DATA = {"sweep": "abc", "steps": [1, 2]}


def rows(step):
    return {
        "state/000": np.arange(12, dtype=np.float32).reshape(4, 3) + step,
        "seed": np.arange(4, dtype=np.uint32),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints") / "cohort"
    checkpoints = Checkpoints(folder, (0, 1), print)
    for step in (1, 2):
        checkpoints.save(rows(step), META_DATA, wait=True)
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "cohort")
    return tmp_path / "cohort"


def newest(folder):
    return max(p for p in folder.iterdir() if p.name.isdigit()) / "rows"


def resealed(path, arrays):
    """Write other arrays, with a matching digest of the file."""
    np.savez(path / ARCHIVE, **arrays)
    (path / SEAL).write_text(hashlib.sha256((path / ARCHIVE).read_bytes()).hexdigest())


def one_bit(array):
    """A copy that differs in its lowest bit."""
    body = bytearray(np.ascontiguousarray(array).tobytes())
    body[0] ^= 1
    return np.frombuffer(bytes(body), array.dtype).reshape(array.shape)


def metadata(path, arrays):
    body, digest = arrays[META].tolist()
    resealed(path, {**arrays, META: np.array([body.replace("abc", "abd"), digest])})


def digest_of_metadata(path, arrays):
    body, digest = arrays[META].tolist()
    resealed(path, {**arrays, META: np.array([body, digest[::-1]])})


def state(path, arrays):
    resealed(path, {**arrays, "state/000": one_bit(arrays["state/000"])})


def seed(path, arrays):
    resealed(path, {**arrays, "seed": one_bit(arrays["seed"])})


def digest_of_rows(path, arrays):
    resealed(path, {**arrays, DIGEST: one_bit(arrays[DIGEST])})


def exchanged(path, arrays):
    """Two runs exchanged: every row is one that was saved."""
    resealed(path, {**arrays, "seed": arrays["seed"][[1, 0, 2, 3]]})


def another_array(path, arrays):
    resealed(path, {**arrays, "more": np.zeros(4)})


def seal(path, arrays):
    digest = (path / SEAL).read_text()
    (path / SEAL).write_text(("1" if digest[0] == "0" else "0") + digest[1:])


def header(path, arrays):
    """A byte of the archive that is no part of any array: its end has a comment."""
    body = bytearray((path / ARCHIVE).read_bytes())
    body[-2] = 1
    (path / ARCHIVE).write_bytes(bytes(body) + b"x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (metadata, "digest of its metadata"),
        (digest_of_metadata, "digest of its metadata"),
        (state, "digest of 1 of its 4 runs does not match, rows 0"),
        (seed, "digest of 1 of its 4 runs"),
        (digest_of_rows, "digest of 1 of its 4 runs"),
        (exchanged, "digest of 2 of its 4 runs does not match, rows 0, 1"),
        (another_array, "digest of 4 of its 4 runs"),
        (seal, "digest of its file"),
        (header, "digest of its file"),
    ],
)
def test_a_part_that_alone_disagrees_is_noticed(folder, change, message, capsys):
    path = newest(folder)
    with np.load(path / ARCHIVE) as archive:
        arrays = dict(archive)
    # the parts agree with each other
    resealed(path, arrays)
    np.testing.assert_array_equal(checkpoint.verified(path.parent)["seed"], rows(2)["seed"])
    change(path, arrays)
    with pytest.raises(ValueError, match=message):
        checkpoint.verified(path.parent)
    # the one before is used
    np.testing.assert_array_equal(checkpoint.newest(folder)["state/000"], rows(1)["state/000"])
    checkpoints = Checkpoints(folder, (0, 1), print)
    restored = checkpoints.restore()
    checkpoints.close()
    np.testing.assert_array_equal(restored["state/000"], rows(1)["state/000"])
    assert message in capsys.readouterr().out
