"""The local files of an image set: where they are looked for, and how they are read.

One place says where: ``data_dir=`` of the source, or the environment variable ``JTHERMO_DATA``. Each may be the folder
of the files itself or one that holds it under its usual name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jthermo.data import cifar10_files, fashion_mnist_files
from jthermo.errors import InputError, MissingData

ENVIRONMENT = "JTHERMO_DATA"
# Debian's package dataset-fashion-mnist
SYSTEM = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
Splits = dict[str, np.ndarray]

# usual names of the folder, below the one that was named
_NESTED = {
    "fashion_mnist": ("", "fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    "cifar10": ("", "cifar10", "cifar-10"),
}
_FILES = {
    "fashion_mnist": (
        *fashion_mnist_files.FILES,
        *(f"{name}.gz" for name in fashion_mnist_files.FILES),
    ),
    "cifar10": (
        *cifar10_files.LAYOUTS,
        *(folder for folder, _ in cifar10_files.LAYOUTS.values()),
        *cifar10_files.BATCHES,
        *(f"{name}.bin" for name in cifar10_files.BATCHES),
    ),
}
_HOW = {
    "fashion_mnist": (
        "install Debian's package (apt-get install dataset-fashion-mnist)",
        f"put the four files {', '.join(f'{n}.gz' for n in fashion_mnist_files.FILES)} into a folder and name it by {ENVIRONMENT}, "
        "data_dir or --set data.data_dir=FOLDER",
    ),
    "cifar10": (
        "download cifar-10-binary.tar.gz or cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
        f"name the folder that holds the archive, or its unpacked batches, by {ENVIRONMENT}, data_dir or "
        "--set data.data_dir=FOLDER",
    ),
}
_NETWORK = "run once with a network: tensorflow-datasets then downloads it, and it is kept"


def find(name: str, data_dir: str | None) -> Path | None:
    """The local files of an image set: a folder, or an archive; None where there are none.

    Args:
        name: ``"fashion_mnist"`` or ``"cifar10"``.
        data_dir: where to look, and nowhere else; None looks at ``JTHERMO_DATA`` and the system's folder.

    Raises:
        InputError: `data_dir` or ``JTHERMO_DATA`` names no readable folder, or `data_dir` holds no such files.
    """
    given = os.environ.get(ENVIRONMENT) if data_dir is None else data_dir
    if given:
        field = ENVIRONMENT if data_dir is None else "data_dir"
        found = _search(name, Path(given).expanduser(), field)
        if found is not None:
            return found
        if data_dir is not None:
            raise missing(name, f"data_dir = {given!r} holds none of its files")
    system = SYSTEM.get(name)
    return _search(name, system, "data_dir") if system is not None and system.is_dir() else None


def missing(name: str, why: str) -> MissingData:
    """The error that says how an image set can be had."""
    here, there = _HOW[name]
    return MissingData(
        "data",
        name,
        f"{why}. There are three ways to get it: (1) {here}; (2) {there}; (3) {_NETWORK}",
    )


def load(
    name: str, data_dir: str | None, verify: bool | None, say: Callable[[str], None]
) -> Splits | None:
    """Both splits of an image set as bytes, x, y, x_test and y_test; None where there are no local files.

    Args:
        name: ``"fashion_mnist"`` or ``"cifar10"``.
        data_dir: see :func:`find`.
        verify: True refuses other bytes than the published ones, False takes them as they are; None refuses them for
            Fashion-MNIST, whose content has one digest in every packing, and says so for CIFAR-10.
        say: told once where the data came from other bytes than the published ones.

    Raises:
        InputError: the files are damaged, or `data_dir` holds none.
    """
    path = find(name, data_dir)
    if path is None:
        return None
    if name == "fashion_mnist":
        return fashion_mnist_files.read_fashion_mnist(path, verify is not False)
    splits, published = cifar10_files.read_cifar10(path)
    if not published and verify is not False:
        text = f"{path} is not the published CIFAR-10, or can't be told from it by a digest"
        if verify:
            raise InputError("data file", str(path), f"{text}; get it again, or use verify=False")
        say(f"{text}; it has the right format and is used as it is ({len(splits['x']):,} images)")
    return splits


def _search(name: str, folder: Path, field: str) -> Path | None:
    try:
        if folder.is_file() and folder.name in cifar10_files.LAYOUTS and name == "cifar10":
            return folder
        if not folder.is_dir():
            raise InputError(
                field, str(folder), "is no folder; name the one that holds the data files"
            )
        for below in _NESTED[name]:
            place = folder / below
            if not place.is_dir():
                continue
            there = {p.name for p in place.iterdir()}
            for file in _FILES[name]:
                if file in there:
                    return (
                        place / file
                        if (place / file).is_dir() or file.endswith(".tar.gz")
                        else place
                    )
    except PermissionError:
        raise InputError(field, str(folder), "can't be read; change its permissions") from None
    return None
