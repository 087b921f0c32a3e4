"""Reads the published files of Fashion-MNIST: four IDX files, gzipped or not, and their digests."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from jthermo.errors import InputError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# SHA-256 of the uncompressed files; the gzipped files differ between distributions.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Shape of an image.
IMAGE = (28, 28)
# Bytes of the largest file: a header of four numbers and 60,000 images of 28 × 28 bytes.
MOST_BYTES = 16 + 60_000 * 28 * 28
# The code of the element type, unsigned byte, in an IDX header.
UBYTE = 0x08


def read_idx(path: Path) -> tuple[np.ndarray, str]:
    """The array of an IDX file of bytes, gzipped or not, and its SHA-256 once uncompressed.

    Raises:
        InputError: the file is truncated, isn't an IDX file of bytes, or can't be read.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            body = file.read(MOST_BYTES + 1)
    except PermissionError:
        raise InputError("data file", str(path), "can't be read; change its permissions") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            "data file", str(path), f"is truncated or damaged ({error}); download it again"
        ) from None
    if len(body) > MOST_BYTES:
        raise InputError(
            "data file",
            str(path),
            f"is larger than the {MOST_BYTES:,} bytes of the largest file of Fashion-MNIST; "
            "download it again, or give other images as jt.data.Arrays",
        )
    if len(body) < 4 or body[:2] != b"\0\0" or body[2] != UBYTE or not 1 <= body[3] <= 4:
        magic = body[:4].hex() or "nothing"
        raise InputError(
            "data file",
            str(path),
            f"starts with {magic}, so it isn't an IDX file of bytes; download it again",
        )
    header = 4 + 4 * body[3]
    shape = [int.from_bytes(body[4 + 4 * i : 8 + 4 * i], "big") for i in range(body[3])]
    if len(body) != header + math.prod(shape):
        size = "×".join(map(str, shape))
        raise InputError(
            "data file",
            str(path),
            f"contains {len(body) - header:,} bytes of data, but its header announces {size}; "
            "download it again",
        )
    return np.frombuffer(body, np.uint8, offset=header).reshape(shape), hashlib.sha256(
        body
    ).hexdigest()


def read_fashion_mnist(folder: Path, verify: bool = True) -> dict[str, np.ndarray]:
    """Both splits in their published order.

    Args:
        folder: contains the four files.
        verify: reject files whose digest differs from the published one.

    Returns:
        x (60000, 28, 28, 1) and y of the training split, x_test (10000, …) and y_test, all uint8.

    Raises:
        InputError: a file is missing, damaged or unreadable, or isn't the published one.
    """
    paths = {
        name: next((p for p in (folder / f"{name}.gz", folder / name) if p.exists()), None)
        for name in FILES
    }
    if absent := [name for name, path in paths.items() if path is None]:
        raise InputError(
            "data_dir", str(folder), f"has no {absent[0]}.gz; all four files are needed"
        )
    arrays = []
    for name, path in paths.items():
        assert path is not None
        array, sha256 = read_idx(path)
        expected: tuple[int, ...] = IMAGE if "images" in name else ()
        if array.shape[1:] != expected or not array.size:
            sizes, wanted = ("×".join(map(str, s)) for s in (array.shape, ("n", *expected)))
            raise InputError(
                "data file",
                str(path),
                f"has the shape {sizes}, but {name} has {wanted}; download it again",
            )
        if not expected and array.max() > 9:
            raise InputError(
                "data file",
                str(path),
                f"contains the label {array.max()}, but Fashion-MNIST has 0 to 9; "
                "download it again",
            )
        if verify and sha256 != SHA256[name]:
            raise InputError(
                "data file",
                str(path),
                f"is not the published Fashion-MNIST (SHA-256 {sha256[:16]}…); download it again, "
                "or set verify=False to use it as it is",
            )
        arrays.append(array)
    x, y, x_test, y_test = arrays
    for images, labels, name in ((x, y, FILES[0]), (x_test, y_test, FILES[2])):
        if len(images) != len(labels):
            raise InputError(
                "data_dir",
                str(folder),
                f"{name} has {len(images)} images for {len(labels)} labels; download both again",
            )
    return {"x": x[..., None], "y": y, "x_test": x_test[..., None], "y_test": y_test}
