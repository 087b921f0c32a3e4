"""Fashion-MNIST and CIFAR-10 as values: which labels, how many examples, in which order; the bytes come when needed."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.data import image_files
from jthermo.data.in_memory import InMemory
from jthermo.data.source import Split


@dataclass(frozen=True)
class _Images(InMemory):
    """What the image sets share.

    Args:
        labels: ``"real"``, ``"random"`` (drawn once for each image, the same for every run of a seed) or
            ``"redrawn"`` (drawn anew each time an image is seen).
        num_classes: 10 for real labels; any number for random ones, 2 for a net with one output.
        num_samples: train on the first n training images; None takes all.
        sampling: ``"replacement"`` or ``"epochs"`` (a fresh order in each pass).
        data_dir: folder of local files; None looks at ``JTHERMO_DATA``, then at the system's, then at the network.
        verify: None, True or False; see :func:`jthermo.data.image_files.load`. Like `data_dir` no part of the identity.
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
            object.__setattr__(self, "data_dir", os.fspath(self.data_dir))
        self._check_fields()

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return (self.side, self.side, len(self.mean))

    def real_labels(self) -> int:
        """Ten classes."""
        return 10

    def load(self) -> Split:
        """The arrays, read once and kept."""
        return _load(self.name, self.data_dir, self.verify, os.environ.get(image_files.ENVIRONMENT))

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the published set."""
        made = {}
        for ending, size in (("", self.train_size), ("_test", self.test_size)):
            made[f"x{ending}"] = jax.ShapeDtypeStruct((size, *self.shape), jnp.uint8)
            made[f"y{ending}"] = jax.ShapeDtypeStruct((size,), jnp.uint8)
        return made

    def standardised(self, x: Array) -> Array:
        """(x/255 − mean)/std by channel, with the usual constants of the training set."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (x.astype(jnp.float32) / 255 - mean) / std


@dataclass(frozen=True)
class FashionMNIST(_Images):
    """Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 60 000 + 10 000 pictures of 28 × 28 × 1 in 10 classes.

    Args:
        labels: ``"real"``, ``"random"`` (once for each image) or ``"redrawn"`` (each time it is seen).
        num_classes: 10 for real labels; any number for random ones.
        num_samples: train on the first n training images; None takes all.
        sampling: ``"replacement"`` or ``"epochs"``.
        data_dir: folder of local files; None looks at ``JTHERMO_DATA``, the system's folder and the network.
        verify: False takes other bytes than the published ones.

    >>> FashionMNIST(labels="random", num_classes=2).shape
    (28, 28, 1)
    """

    name = "fashion_mnist"
    train_size, test_size, side = 60_000, 10_000, 28
    mean, std = (0.2860,), (0.3530,)


@dataclass(frozen=True)
class CIFAR10(_Images):
    """CIFAR-10 (Krizhevsky 2009): 50 000 + 10 000 pictures of 32 × 32 × 3 in 10 classes.

    Args:
        labels: ``"real"``, ``"random"`` (once for each image) or ``"redrawn"`` (each time it is seen).
        num_classes: 10 for real labels; any number for random ones.
        num_samples: train on the first n training images; None takes all.
        sampling: ``"replacement"`` or ``"epochs"``.
        data_dir: folder of local files; None looks at ``JTHERMO_DATA`` and the network.
        verify: True refuses other bytes than the published ones, False says nothing about them.

    >>> CIFAR10().shape
    (32, 32, 3)
    """

    name = "cifar10"
    train_size, test_size, side = 50_000, 10_000, 32
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@functools.lru_cache(maxsize=4)
def _load(name: str, data_dir: str | None, verify: bool | None, environment: str | None) -> Split:
    """Local files first, then tensorflow-datasets; keyed by everything that decides where the bytes come from."""
    del environment
    splits = image_files.load(
        name, data_dir, verify, lambda text: print(f"note: {text}", file=sys.stderr)
    )
    if splits is None:
        # imported here, since tensorflow-datasets is slow to import and not needed for local files
        from jthermo.data import tfds

        splits = tfds.load(name)
    return Split(splits)
