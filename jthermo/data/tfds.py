"""Downloads image sets through tensorflow-datasets, without TensorFlow.

It provides the downloads, checksums and record files. Its own builders unpack and encode with
TensorFlow. The builders here decode in Python and yield PIL images; they add to every record its
index in the published files, since tensorflow-datasets shuffles the records.
"""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jthermo.data import cifar10_files, fashion_mnist_files
from jthermo.data.image_files import ENVIRONMENT, Splits, missing
from jthermo.errors import InputError, one_line
from jthermo.npz import read_npz

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# Name of each split, and of its images and labels in the arrays.
SPLITS = (("train", "x", "y"), ("test", "x_test", "y_test"))
# Seconds to wait for a connection before the download; tensorflow-datasets retries for minutes.
CONNECT_SECONDS = 0.7


def load(name: str, source: Path | None = None, cache: Path | None = None) -> Splits:
    """Both splits of an image set in their published order: x, y, x_test, y_test.

    Args:
        name: ``"fashion_mnist"`` or ``"cifar10"``.
        source: folder of local files to build from; None downloads them.
        cache: folder of the prepared sets; None takes ``JTHERMO_DATA`` or ``~/.cache/jthermo``.

    Raises:
        InputError: the set isn't prepared yet, and its host can't be reached.
    """
    own = os.environ.get(ENVIRONMENT) or "~/.cache/jthermo"
    folder = cache or Path(os.path.expanduser(own))
    kept = folder / f"{name}.npz"
    if kept.exists() and source is None:
        return _kept(kept)
    builder_of, url = _builder(name)
    if source is None:
        _reach(name, url)
    builder = builder_of(data_dir=str(folder), source=source)
    builder.download_and_prepare(file_format="array_record")
    splits = read(builder)
    if source is None:
        partial = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, allow_pickle=False, **splits)
        partial.replace(kept)
    return splits


def _kept(path: Path) -> Splits:
    """The arrays of a prepared set that an earlier call has kept."""
    try:
        arrays = read_npz(path)
        return {name: arrays[name] for split in SPLITS for name in split[1:]}
    except Exception as error:
        # a damaged archive can raise any error of zipfile or NumPy
        remedy = f"is damaged ({one_line(error)}); remove it to download the set again"
        raise InputError("data file", str(path), remedy) from None


def read(builder: Any) -> Splits:
    """Both splits of a prepared set, sorted into their published order."""
    arrays: Splits = {}
    for split, x, y in SPLITS:
        records = builder.as_data_source(split=split)
        rows = records.__getitems__(range(len(records)))
        order = np.argsort([int(row["index"]) for row in rows])
        arrays[x] = np.stack([rows[i]["image"] for i in order])
        arrays[y] = np.array([rows[i]["label"] for i in order], np.uint8)
    return arrays


def _builder(name: str) -> tuple[Any, str]:
    """The builder's class, and the URL it downloads from."""
    # imported here because tensorflow-datasets is slow to import and nothing else needs it
    import tensorflow_datasets as tfds
    from PIL import Image
    from tensorflow_datasets.image_classification.cifar import Cifar10
    from tensorflow_datasets.image_classification.mnist import FashionMNIST

    class WithoutTensorFlow:
        """The common part of both builders."""

        def __init__(self, *, source: Path | None, **kwargs: Any) -> None:
            self.source = source
            super().__init__(**kwargs)

        def _info(self) -> Any:
            shape = (28, 28, 1) if name == "fashion_mnist" else (32, 32, 3)
            features = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=10),
                "index": np.int32,
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(
            self, downloads: Any
        ) -> dict[str, Iterator[tuple[int, Mapping[str, Any]]]]:
            splits = self._splits(downloads)
            return {split: _examples(splits[x], splits[y], Image) for split, x, y in SPLITS}

        def _splits(self, downloads: Any) -> Splits:
            raise NotImplementedError

    class Fashion(WithoutTensorFlow, FashionMNIST, skip_registration=True):  # type: ignore[call-arg]
        name = "fashion_mnist_in_order"
        # without this, a builder outside tensorflow-datasets verifies no checksum
        url_infos = FashionMNIST.url_infos

        def _splits(self, downloads: Any) -> Splits:
            if self.source is not None:
                return fashion_mnist_files.read_fashion_mnist(self.source, verify=False)
            paths = downloads.download({n: f"{self.URL}{n}.gz" for n in fashion_mnist_files.FILES})
            x, y, x_test, y_test = (
                fashion_mnist_files.read_idx(Path(paths[n]))[0] for n in fashion_mnist_files.FILES
            )
            return {"x": x[..., None], "y": y, "x_test": x_test[..., None], "y_test": y_test}

    class Cifar(WithoutTensorFlow, Cifar10, skip_registration=True):  # type: ignore[call-arg]
        name = "cifar10_in_order"
        url_infos = Cifar10.url_infos

        def _splits(self, downloads: Any) -> Splits:
            if self.source is not None:
                return cifar10_files.read_cifar10(self.source)[0]
            return cifar10_files.read_cifar10(
                Path(downloads.download(CIFAR10_URL)), "cifar-10-binary.tar.gz"
            )[0]

    if name == "fashion_mnist":
        return Fashion, FashionMNIST.URL
    return Cifar, CIFAR10_URL


def _reach(name: str, url: str) -> None:
    """Raise an error if the host, or the proxy in front of it, can't be reached."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    host = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else parts
    port = host.port or (443 if host.scheme == "https" else 80)
    try:
        socket.create_connection((host.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        raise missing(
            name, f"there are no local files, and {host.hostname} can't be reached ({error})"
        ) from None


def _examples(x: np.ndarray, y: np.ndarray, image: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every record with its index in the published files."""
    for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
        squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        yield i, {"image": image.fromarray(squeezed), "label": int(label), "index": i}
