"""Digests of data are compared: arrays with those of their sweep, files with the published ones."""

import hashlib

import numpy as np
import pytest

import jthermo as jt
from jthermo.data import cifar10_files
from jthermo.errors import InputError
from tests.data.test_images import write_cifar

X, Y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) % 2


def test_arrays_must_have_the_digest_that_is_given():
    right = jt.data.Arrays(X, Y).sha256
    assert jt.data.Arrays(X, Y, sha256=right).sha256 == right
    for x, y in ((X + np.float32(1e-6) * (X == 5), Y), (X, 1 - Y), (X[::-1], Y[::-1])):
        with pytest.raises(InputError, match=f"instead of {right[:16]}"):
            jt.data.Arrays(x, y, sha256=right)


def test_arrays_are_found_by_their_digest_also_with_whole_numbers_as_targets():
    data = jt.data.Arrays(X, Y[:, None].astype(float))
    again = jt.data.Arrays(**data.arguments)
    assert again == data
    assert again.num_targets == 1
    assert again.load().arrays["y"] is data.load().arrays["y"]


def test_a_file_whose_arrays_were_replaced_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    data = jt.data.Arrays(path)
    np.savez(path, x=X, y=1 - Y)
    with pytest.raises(InputError, match="arrays that the sweep was created with"):
        jt.data.Arrays(**data.arguments)


@pytest.mark.parametrize("packed", [True, False])
def test_cifar_is_published_only_if_every_batch_is(tmp_path, monkeypatch, packed):
    write_cifar(tmp_path, "py", packed)
    path = tmp_path / ("cifar-10-python.tar.gz" if packed else "cifar-10-batches-py")
    bodies = {name: body for name, body, _ in cifar10_files._bodies(path, path.name)}
    digests = {
        name: hashlib.md5(body, usedforsecurity=False).hexdigest() for name, body in bodies.items()
    }
    monkeypatch.setattr(cifar10_files, "MD5", digests)
    assert cifar10_files.read_cifar10(path)[1] is True
    for name in (cifar10_files.BATCHES[0], cifar10_files.BATCHES[-1]):
        monkeypatch.setattr(cifar10_files, "MD5", {**digests, name: "0" * 32})
        assert cifar10_files.read_cifar10(path)[1] is False
