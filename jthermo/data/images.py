"""Fashion-MNIST and CIFAR-10 as data sources; the files are read when a run needs them."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.data import image_files
from jthermo.data.in_memory import InMemory
from jthermo.data.source import Split
from jthermo.errors import file_path, flag


@dataclass(frozen=True)
class _Images(InMemory):
    """Base class of the image sets, which document the arguments.

    `data_dir` and `verify` aren't part of a sweep's identity. :func:`jthermo.data.image_files.load`
    explains `verify`.
    """

    labels: str = "real"
    num_classes: int = 10
    num_samples: int | None = None
    sampling: str = "replacement"
    data_dir: str | None = field(default=None, compare=False)
    verify: bool | None = field(default=None, compare=False)

    name: ClassVar[str]
    train_size: ClassVar[int]
    test_size: ClassVar[int]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    side: ClassVar[int]
    unidentifying: ClassVar[tuple[str, ...]] = ("data_dir", "verify")  # type: ignore[misc]

    def __post_init__(self) -> None:
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", str(file_path("data.data_dir", self.data_dir)))
        if self.verify is not None:
            object.__setattr__(self, "verify", flag("data.verify", self.verify))
        self._check_fields()

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return (self.side, self.side, len(self.mean))

    def real_labels(self) -> int:
        """Number of classes of the published labels, 10."""
        return 10

    def load(self) -> Split:
        """The arrays on the host, read once per process."""
        return _load(self.name, self.data_dir, self.verify, os.environ.get(image_files.ENVIRONMENT))

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the published set."""
        arrays = {}
        for ending, size in (("", self.train_size), ("_test", self.test_size)):
            arrays[f"x{ending}"] = jax.ShapeDtypeStruct((size, *self.shape), jnp.uint8)
            arrays[f"y{ending}"] = jax.ShapeDtypeStruct((size,), jnp.uint8)
        return arrays

    def standardised(self, x: Array) -> Array:
        """(x/255 − mean)/std, with mean and std of each channel over the training set."""
        mean, std = (
            jnp.expand_dims(jnp.array(channels, float), tuple(range(x.ndim - 1)))
            for channels in (self.mean, self.std)
        )
        return (x.astype(float) / 255 - mean) / std


@dataclass(frozen=True)
class FashionMNIST(_Images):
    """Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): images of 28 × 28 × 1 in 10 classes.

    60 000 training and 10 000 test images, standardised with the training set's mean and std.

    Args:
        labels: ``"real"`` (the published ones), ``"random"`` (drawn once per image, the same for
            all runs of a seed) or ``"redrawn"`` (drawn at each use).
        num_classes: 10 for real labels; any number for random ones, 2 for a net with one output.
        num_samples: train on the first n training images; None takes all.
        sampling: ``"replacement"`` or ``"epochs"`` (a fresh order in each epoch).
        data_dir: folder of the local files; None tries ``JTHERMO_DATA``, the folder of Debian's
            package, then a download.
        verify: False accepts files whose digest isn't the published one.

    Raises:
        InputError: an argument has the wrong type or range. Missing or damaged files raise when a
            run reads them.

    >>> FashionMNIST(labels="random", num_classes=2).shape
    (28, 28, 1)
    """

    name = "fashion_mnist"
    train_size, test_size, side = 60_000, 10_000, 28
    mean, std = (0.2860,), (0.3530,)


@dataclass(frozen=True)
class CIFAR10(_Images):
    """CIFAR-10 (Krizhevsky 2009): images of 32 × 32 × 3 in 10 classes.

    50 000 training and 10 000 test images, standardised with the training set's mean and std.

    Args:
        labels: ``"real"`` (the published ones), ``"random"`` (drawn once per image, the same for
            all runs of a seed) or ``"redrawn"`` (drawn at each use).
        num_classes: 10 for real labels; any number for random ones, 2 for a net with one output.
        num_samples: train on the first n training images; None takes all.
        sampling: ``"replacement"`` or ``"epochs"`` (a fresh order in each epoch).
        data_dir: folder of the local files; None tries ``JTHERMO_DATA``, then a download.
        verify: for files whose digest can't be checked or isn't the published one: None accepts
            them with a note, True rejects them, False accepts them without a note.

    Raises:
        InputError: an argument has the wrong type or range. Missing or damaged files raise when a
            run reads them.

    >>> CIFAR10().shape
    (32, 32, 3)
    """

    name = "cifar10"
    train_size, test_size, side = 50_000, 10_000, 32
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@functools.lru_cache(maxsize=4)
def _load(name: str, data_dir: str | None, verify: bool | None, environment: str | None) -> Split:
    """The arrays from local files, else from tensorflow-datasets."""
    # `environment` is part of the cache's key, since the files depend on it
    del environment
    splits = image_files.load(
        name, data_dir, verify, lambda text: print(f"note: {text}", file=sys.stderr)
    )
    if splits is None:
        # imported here because it is slow to import and local files don't need it
        from jthermo.data import tfds

        splits = tfds.load(name)
    return Split(splits)
