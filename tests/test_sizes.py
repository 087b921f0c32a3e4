"""Small files that announce much: sizes are checked before memory is taken."""

import gzip
import io
import pickle
import re
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

import jthermo as jt
from jthermo import npz
from jthermo.data import cifar10_files, fashion_mnist_files
from jthermo.errors import InputError
from jthermo.results import continuing, reading
from tests.data.test_images import write_idx


@pytest.fixture(autouse=True)
def little_memory():
    """Every test here takes less than 250 MB at any moment."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250e6


def header_of(shape, dtype="<f8"):
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        body, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return body.getvalue()


def archive_of(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            archive.writestr(f"{name}.npy", body)
    return path


@pytest.mark.parametrize("name", ["x", "y"])
def test_an_array_that_is_smaller_than_its_header_says_is_refused(name, tmp_path):
    path = tmp_path / "data.npz"
    whole = {"x": header_of((2, 2)) + bytes(32), "y": header_of((2,), "<i8") + bytes(16)}
    assert jt.data.Arrays(archive_of(path, **whole)).shape == (2,)
    for shape in ((10**13,), (10**7, 10**6), (3, 2), (2, 1), (0,)):
        archive_of(path, **{**whole, name: header_of(shape) + bytes(32)})
        with pytest.raises(InputError, match=rf"{name}.npy is announced as float64 .* 32 bytes"):
            jt.data.Arrays(path)
        with pytest.raises(ValueError, match="is announced as"):
            npz.read_npz(path.read_bytes())


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (8, 99, "compression method is not supported"),
        (6, 1, "encrypted"),
        (4, 124, "zip file version 12.4"),
    ],
)
def test_an_archive_that_numpy_does_not_write_is_refused(at, value, why, tmp_path):
    """`at` is where a flag or the kind of compression is, in the header of every member."""
    path, file = tmp_path / "data.npz", io.BytesIO()
    np.savez(file, x=np.zeros((2, 2)), y=np.zeros(2, int))
    body = bytearray(file.getvalue())
    for start, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        for place in (match.start() for match in re.finditer(re.escape(start), body)):
            body[place + shift + at] = value
    path.write_bytes(body)
    with pytest.raises(InputError, match=why):
        jt.data.Arrays(path)


def test_an_archive_that_expands_too_much_is_refused_and_its_plain_copy_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(npz, "FREE_BYTES", 2**20)
    packed, plain = tmp_path / "packed.npz", tmp_path / "plain.npz"
    arrays = {"x": np.zeros((50_000, 30)), "y": np.zeros(50_000, int)}
    np.savez_compressed(packed, **arrays)
    np.savez(plain, **arrays)
    with pytest.raises(InputError, match=r"announce 12,400,\d+, more than 100 times as many"):
        jt.data.Arrays(packed)
    assert jt.data.Arrays(plain).shape == (30,)
    monkeypatch.setattr(npz, "FREE_BYTES", 2**30)
    assert jt.data.Arrays(packed).shape == (30,)
    # what is not read does not count, and an entry without the suffix does
    with zipfile.ZipFile(plain, "a") as archive:
        archive.writestr("other.npy", header_of((10**13,)))
    assert jt.data.Arrays(plain).shape == (30,)
    with zipfile.ZipFile(plain, "a") as archive:
        archive.writestr("x_test", header_of((10**13,)))
    with pytest.raises(InputError, match="x_test is announced as"):
        jt.data.Arrays(plain)


def test_a_file_of_images_that_unpacks_without_end_is_refused(tmp_path):
    # 400 MB, in a hundred members
    zeros = 100 * gzip.compress(bytes(4_000_000))
    assert len(zeros) < 3e6
    for name in (*fashion_mnist_files.FILES[1:], fashion_mnist_files.FILES[0]):
        write_idx(tmp_path / name, np.zeros((2, 28, 28)[: 3 if "images" in name else 1], np.uint8))
    assert fashion_mnist_files.read_fashion_mnist(tmp_path, verify=False)["x"].shape[0] == 2
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(zeros)
    with pytest.raises(InputError, match="is larger than the 47,040,016 bytes"):
        fashion_mnist_files.read_fashion_mnist(tmp_path, verify=False)


def test_an_archive_of_cifar10_has_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_files, "MOST_ARCHIVE", 2**20)
    monkeypatch.setattr(cifar10_files, "MOST_BATCH", 2**19)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/readme")
        member.size = 2**22
        archive.addfile(member, io.BytesIO(bytes(2**22)))
    with pytest.raises(InputError, match="it unpacks to more than 1,048,576 bytes"):
        cifar10_files.read_cifar10(path)
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(2**19 + 1))
    with pytest.raises(InputError, match="has more than 524,288 bytes"):
        cifar10_files.read_cifar10(tmp_path)


def test_nested_labels_of_a_pickle_are_refused(tmp_path):
    nested = [0, 1]
    for _ in range(30):
        nested = [nested, nested]
    data = np.zeros((2, 3072), np.uint8)
    for labels, fault in ((nested, "nested lists"), ([0, 1], "has no data_batch_2")):
        body = pickle.dumps({b"data": data, b"labels": labels}, protocol=2)
        assert len(body) < 10_000
        (tmp_path / "data_batch_1").write_bytes(body)
        with pytest.raises(InputError, match=fault):
            cifar10_files.read_cifar10(tmp_path)


def description_of(*groups):
    return {
        "sweep": {},
        "id": "1",
        "axes": ["learning_rate", "kind", "seed"],
        "variables": {"loss": ["loss", "1", []]},
        "runs": [
            {"key": key, "at": {"learning_rate": rate, "kind": kind}, "seeds": seeds}
            for key, rate, kind, seeds in groups
        ],
    }


def part_of(runs, records=2):
    number = np.arange(len(runs) * records, dtype=np.float32).reshape(len(runs), records)
    return {
        "key": np.array([key for key, _ in runs]),
        "seed": np.array([seed for _, seed in runs], np.int64),
        "step": np.tile(np.arange(records), (len(runs), 1)),
        "loss": number,
    }


def test_runs_are_found_without_listing_the_seeds_of_a_sweep():
    huge = description_of(
        ("a", 0.1, "he", [[0, 3], [5, 10**12]]), ("b", 0.2, None, [[2, 4], [7, 10**11]])
    )
    runs = [("b", 9), ("a", 2), ("b", 2), ("a", 5), ("a", 10**12 - 1), ("b", 3)]
    ds = reading.assemble(huge, [part_of(runs[:3]), part_of(runs[3:])], [{"attrs": {}}])
    assert ds.seed.values.tolist() == [2, 5, 10**12 - 1, 2, 3, 9]
    assert ds.learning_rate.values.tolist() == [0.1] * 3 + [0.2] * 3
    assert ds.kind.values.tolist() == ["he"] * 3 + ["None"] * 3
    assert ds.loss.values[:, 0].tolist() == [2, 0, 2, 4, 4, 0]
    assert ds.attrs["complete"] == 0
    for unknown in (("a", 3), ("a", -1), ("b", 10**11), ("c", 0)):
        with pytest.raises(InputError, match="is no run of the sweep"):
            reading.assemble(huge, [part_of([unknown])], [])
    small = description_of(("a", 0.1, "he", [[0, 1], [2, 3]]))
    for taken, complete in ((runs[1:2], 0), ([("a", 2), ("a", 0)], 1)):
        assert reading.assemble(small, [part_of(taken)], []).attrs["complete"] == complete


def test_ranges_of_seeds_are_compared_without_listing_them():
    def told(stored, wanted):
        both = [{**description_of(*groups), "law": "1"} for groups in (stored, wanted)]
        keys = [group["key"] for group in both[1]["runs"]]
        return continuing._contained(*both, dict(zip(keys, keys, strict=True)))

    stored = ("a", 0.1, "he", [[0, 3], [5, 10**12]])
    for seeds in ([[0, 10**12]], [[0, 3], [4, 10**12 + 1]]):
        assert told([stored], [("b", 0.2, "he", [[0, 1]]), ("a", 0.1, "he", seeds)])
    for seeds in ([[0, 3], [5, 10**12 - 1]], [[1, 10**13]], [[0, 2], [5, 10**12]], [[9, 11]], []):
        assert not told([stored], [("a", 0.1, "he", seeds)])
    assert not told([stored], [("b", 0.1, "he", [[0, 10**13]])])


def test_records_that_would_be_padded_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(npz, "FREE_BYTES", 2**20)
    sweep = description_of(("a", 0.1, "he", [[0, 2000]]))
    wide, long = part_of([("a", 0)], 2000), part_of([("a", s) for s in range(1, 1000)], 1)
    with pytest.raises(InputError, match="are too unequal to be joined"):
        reading.assemble(sweep, [wide, long], [])
    assert reading.assemble(sweep, [wide], []).sizes["record"] == 2000
