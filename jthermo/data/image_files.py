"""Finds and reads the local files of an image set.

They are in ``data_dir=`` of the source, or else in the folder that the environment variable
``JTHERMO_DATA`` names: directly, or in a subfolder with a usual name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jthermo.data import cifar10_files, fashion_mnist_files
from jthermo.errors import InputError, MissingData

ENVIRONMENT = "JTHERMO_DATA"
# Where Debian's package dataset-fashion-mnist puts the files.
SYSTEM = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}
Splits = dict[str, np.ndarray]

# Subfolders of the named folder in which the files are looked for, in this order.
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
# Two ways to get the files, for the message that they are missing; _NETWORK is the third.
_HOW = {
    "fashion_mnist": (
        "install Debian's package (apt-get install dataset-fashion-mnist)",
        f"put the four files {', '.join(f'{n}.gz' for n in fashion_mnist_files.FILES)} into a "
        f"folder and name that folder in {ENVIRONMENT}, data_dir or --set data.data_dir=FOLDER",
    ),
    "cifar10": (
        "download cifar-10-binary.tar.gz or cifar-10-python.tar.gz from "
        "https://www.cs.toronto.edu/~kriz/cifar.html and name its folder as in (2)",
        f"name the folder with the archive or its unpacked batches in {ENVIRONMENT}, data_dir or "
        "--set data.data_dir=FOLDER",
    ),
}
_NETWORK = "run once with network access: tensorflow-datasets downloads it, and a copy is kept"


def find(name: str, data_dir: str | None) -> Path | None:
    """The folder or archive with the local files of an image set; None if there is none.

    Args:
        name: ``"fashion_mnist"`` or ``"cifar10"``.
        data_dir: the only folder to search; None searches ``JTHERMO_DATA``, then the system's.

    Raises:
        InputError: `data_dir` or ``JTHERMO_DATA`` isn't a readable folder, or `data_dir` contains
            none of the files.
    """
    folder = os.environ.get(ENVIRONMENT) if data_dir is None else data_dir
    if folder:
        field = ENVIRONMENT if data_dir is None else "data_dir"
        # os.path, since Path.expanduser raises without a home directory
        place = _search(name, Path(os.path.expanduser(folder)), field)
        if place is not None:
            return place
        if data_dir is not None:
            raise missing(name, f"data_dir = {folder!r} contains none of its files")
    system = SYSTEM.get(name)
    return _search(name, system, "data_dir") if system is not None and system.is_dir() else None


def missing(name: str, why: str) -> MissingData:
    """The error that an image set is missing, with the ways to get it."""
    install, point = _HOW[name]
    return MissingData(
        "data",
        name,
        f"{why}. There are three ways to get it: (1) {install}; (2) {point}; (3) {_NETWORK}",
    )


def load(
    name: str, data_dir: str | None, verify: bool | None, say: Callable[[str], None]
) -> Splits | None:
    """Both splits of an image set, x, y, x_test and y_test, uint8; None without local files.

    Args:
        name: ``"fashion_mnist"`` or ``"cifar10"``.
        data_dir: see :func:`find`.
        verify: True rejects files whose digest isn't the published one; False accepts them. None
            rejects them for Fashion-MNIST and reports them for CIFAR-10, since only some of its
            files have a published digest.
        say: called once with a message if such files are used.

    Raises:
        InputError: the files are damaged or rejected, or `data_dir` contains none.
    """
    path = find(name, data_dir)
    if path is None:
        return None
    if name == "fashion_mnist":
        return fashion_mnist_files.read_fashion_mnist(path, verify is not False)
    splits, published = cifar10_files.read_cifar10(path)
    if not published and verify is not False:
        if verify:
            raise InputError(
                "data file",
                str(path),
                "can't be verified as the published CIFAR-10 by its digest; download one of the "
                "two archives again, or set verify=False to use it as it is",
            )
        say(
            f"{path} can't be verified as the published CIFAR-10 by its digest; its format is "
            f"right, and its {len(splits['x']):,} training images are used "
            "(verify=False hides this note)"
        )
    return splits


def _search(name: str, folder: Path, field: str) -> Path | None:
    """The files of an image set in `folder` or a usual subfolder; `field` says who named it."""
    try:
        if folder.is_file() and folder.name in cifar10_files.LAYOUTS and name == "cifar10":
            return folder
        if not folder.is_dir():
            raise InputError(
                field, str(folder), "isn't a folder; give the folder with the data files"
            )
        for below in _NESTED[name]:
            place = folder / below
            if not place.is_dir():
                continue
            names = {p.name for p in place.iterdir()}
            for file in _FILES[name]:
                if file in names:
                    return (
                        place / file
                        if (place / file).is_dir() or file.endswith(".tar.gz")
                        else place
                    )
    except PermissionError:
        raise InputError(field, str(folder), "can't be read; change its permissions") from None
    except OSError as error:
        raise InputError(field, str(folder), f"can't be read ({error.strerror})") from None
    return None
