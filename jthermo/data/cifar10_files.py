"""Reads the published files of CIFAR-10: the binary or the Python archive, packed or unpacked.

Both contain the same arrays. The Python batches are pickles; only NumPy's array types are loaded
from them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jthermo.errors import InputError

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# By the archive's name: the folder inside it, and the suffix of the batch files.
LAYOUTS = {
    "cifar-10-binary.tar.gz": ("cifar-10-batches-bin", ".bin"),
    "cifar-10-python.tar.gz": ("cifar-10-batches-py", ""),
}
# MD5 digests of the published Python batches.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
# SHA-256 of the published cifar-10-binary.tar.gz.
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
# Bytes of one image, and of one record of a binary batch: a label and an image.
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS
# Most bytes of one batch, and of an archive once it is uncompressed; the published ones have up to
# 31,035,704 and 186,163,200.
MOST_BATCH, MOST_ARCHIVE = 2**25, 2**28


def read_cifar10(path: Path, layout: str | None = None) -> tuple[dict[str, np.ndarray], bool]:
    """Both splits in their published order, and whether the files match the published digests.

    Args:
        path: one of the two archives, or a folder with the six batches.
        layout: the archive's published name, if the file has another one.

    Returns:
        The arrays x (50000, 32, 32, 3) and y of the five training batches, x_test (10000, …) and
        y_test, all uint8; and whether the files are the published ones, by their digest.

    Raises:
        InputError: a file is missing, damaged or unreadable.
    """
    parts, published = {}, True
    for name, body, file in _bodies(path, layout or path.name):
        binary = file.endswith(".bin")
        parts[name] = _from_binary(body, file) if binary else _from_pickle(body, file)
        published &= binary or hashlib.md5(body, usedforsecurity=False).hexdigest() == MD5[name]
    if (layout or path.name) == "cifar-10-binary.tar.gz":
        published = hashlib.sha256(path.read_bytes()).hexdigest() == ARCHIVE_SHA256
    elif (path / "data_batch_1.bin").exists():
        # there is no published digest of the unpacked binary batches
        published = False
    train = [parts[name] for name in BATCHES[:-1]]
    x_test, y_test = parts["test_batch"]
    x, y = (np.concatenate([t[i] for t in train]) for i in (0, 1))
    return {"x": x, "y": y, "x_test": x_test, "y_test": y_test}, published


def _bodies(path: Path, layout: str) -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and path of each of the six batches."""
    try:
        if path.is_dir():
            ending = ".bin" if any((path / f"{name}.bin").exists() for name in BATCHES) else ""
            yield from _all(lambda name: _read(path / name), path, ending)
        else:
            folder, ending = LAYOUTS[layout]
            with gzip.open(path) as file:
                body = file.read(MOST_ARCHIVE + 1)
            if len(body) > MOST_ARCHIVE:
                raise tarfile.ReadError(f"it unpacks to more than {MOST_ARCHIVE:,} bytes")
            with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                members = {
                    Path(member.name).name: _member(archive, member)
                    for member in archive
                    if member.isfile() and Path(member.name).name.removesuffix(ending) in BATCHES
                }
            yield from _all(members.__getitem__, path / folder, ending)
    except PermissionError:
        raise InputError("data_dir", str(path), "can't be read; change its permissions") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(
            "data file", str(path), f"is truncated or damaged ({error}); download it again"
        ) from None


def _all(read: Callable[[str], bytes], path: Path, ending: str) -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and path of each of the six batches, from a function that reads one by name."""
    for name in BATCHES:
        try:
            body = read(name + ending)
        except (KeyError, FileNotFoundError):
            raise InputError(
                "data_dir", str(path), f"has no {name}{ending}; all six batches are needed"
            ) from None
        yield name, body, str(path / f"{name}{ending}")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(MOST_BATCH + 1)
    if len(body) > MOST_BATCH:
        raise OSError(f"{path.name} has more than {MOST_BATCH:,} bytes")
    return body


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _from_binary(body: bytes, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a binary batch, whose records are a label and 3 × 32 × 32 bytes."""
    if not body or len(body) % RECORD:
        raise InputError(
            "data file",
            file,
            f"has {len(body):,} bytes, which isn't a multiple of {RECORD}, so it is truncated; "
            "download it again",
        )
    records = np.frombuffer(body, np.uint8).reshape(-1, RECORD)
    return _images(records[:, 1:]), _labels(records[:, 0], file)


def _from_pickle(body: bytes, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a pickled dict with ``data`` and ``labels``."""
    try:
        batch = _Arrays(io.BytesIO(body), encoding="bytes").load()
        fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        data, labels = np.asarray(fields["data"]), np.asarray(_flat(fields["labels"]))
    except Exception as error:
        # a damaged pickle can raise almost any exception
        raise InputError(
            "data file",
            file,
            f"is damaged or isn't a CIFAR-10 batch ({type(error).__name__}: {error}); "
            "download it again",
        ) from None
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            "data file",
            file,
            f"has {labels.dtype} labels of shape {labels.shape} instead of a list of whole "
            "numbers; download it again",
        )
    if data.dtype != np.uint8 or data.shape != (len(labels), PIXELS):
        raise InputError(
            "data file",
            file,
            f"has {data.dtype} data of shape {data.shape} instead of uint8 "
            f"{(len(labels), PIXELS)} for its {len(labels)} labels; download it again",
        )
    return _images(data), _labels(labels, file)


def _flat(labels: Any) -> Any:
    """The labels, if they are not nested: a small pickle can hold lists of lists without end."""
    if not isinstance(labels, np.ndarray) and any(isinstance(v, list | tuple) for v in labels):
        raise ValueError("its labels are nested lists")
    return labels


class _Arrays(pickle.Unpickler):
    """Loads NumPy arrays only, since a pickle can otherwise call any function."""

    ALLOWED = frozenset(
        {
            *(
                (f"numpy.{core}.multiarray", n)
                for core in ("core", "_core")
                for n in ("_reconstruct", "scalar")
            ),
            *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class or function, if it is on the list."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which isn't a NumPy type")
        return super().find_class(module, name)


def _images(flat: np.ndarray) -> np.ndarray:
    """(N, 3 · 32 · 32) with channels first → (N, 32, 32, 3)."""
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _labels(labels: np.ndarray, file: str) -> np.ndarray:
    """Labels as uint8, checked to be from 0 to 9."""
    if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
        wrong = labels.max() if labels.max() > 9 else labels.min()
        raise InputError("data file", file, f"contains the label {wrong}, but CIFAR-10 has 0 to 9")
    return labels.astype(np.uint8)
