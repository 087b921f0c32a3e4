"""The base class of sources that keep all examples in device memory and select them by index.

The label of an example is its own (``"real"``: a class, or real-valued targets for regression),
drawn once (``"random"``: a function of the key of the seed's data set and the example's index, so
no table of labels is needed), or drawn at each use (``"redrawn"``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.data.sampling import MOST_CLASSES, SAMPLINGS
from jthermo.data.source import Source
from jthermo.errors import InputError, one_of, whole_number
from jthermo.randomness import streams

LABELS = ("real", "random", "redrawn")


class InMemory(Source):
    """Base class of sources with all examples in memory; subclasses have `load` and `labels`."""

    labels: str

    def real_labels(self) -> int:
        """Number of classes of the data set's own labels."""
        raise NotImplementedError

    def standardised(self, x: Array) -> Array:
        """Examples as the network receives them."""
        return x.astype(float)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return "x_test" in self.abstract()

    def size(self, held: Mapping[str, Any]) -> int:
        """n, the number of training examples in use."""
        available = held["x"].shape[0]
        if self.num_samples is not None and self.num_samples > available:
            raise InputError(
                "data.num_samples",
                self.num_samples,
                f"there are only {available:,} training examples; give at most that many",
            )
        return self.num_samples or available

    def rows(
        self,
        held: Mapping[str, Array],
        index: Array,
        dataset: Array,
        fresh: Array,
        test: bool = False,
    ) -> tuple[Array, Array]:
        """Examples by index: x (B, …), and labels (B,) int32 or real-valued targets.

        Args:
            held: the arrays on the device.
            index: (B,) indices into the split.
            dataset: the key of the seed's data set, from which random labels are drawn.
            fresh: the key of this use, from which redrawn labels are drawn.
            test: use the test split.
        """
        x, y = (held["x_test"], held["y_test"]) if test else (held["x"], held["y"])
        if self.labels == "real":
            labels = y[index].astype(float if self.num_targets else jnp.int32)
        elif self.labels == "redrawn":
            labels = jax.random.randint(fresh, index.shape, 0, self.num_classes, jnp.int32)
        else:
            place = index.astype(jnp.uint32) + jnp.uint32(streams.TEST_SPLIT if test else 0)
            keys = jax.vmap(lambda i: streams.example_key(dataset, i))(place)
            labels = jax.vmap(lambda k: jax.random.randint(k, (), 0, self.num_classes, jnp.int32))(
                keys
            )
        return self.standardised(x[index]), labels

    def probe(
        self, held: Mapping[str, Array], key: Array, dataset: Array, size: int, test: bool = False
    ) -> tuple[Array, Array]:
        """`size` examples drawn with replacement from the training or test split, for a record."""
        key_index, key_fresh = streams.two_keys(key)
        number = held["x_test"].shape[0] if test else self.size(held)
        index = jax.random.randint(key_index, (size,), 0, number, jnp.int32)
        return self.rows(held, index, dataset, key_fresh, test)

    def whole(
        self, held: Mapping[str, Array], key: Array, dataset: Array, test: bool = False
    ) -> tuple[Array, Array]:
        """All examples of the training or test split; see :meth:`Source.whole`."""
        number = held["x_test"].shape[0] if test else self.size(held)
        return self.rows(held, jnp.arange(number), dataset, key, test)

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` training examples drawn with replacement from the arrays on the host."""
        arrays: Any = self.load().arrays
        return self.probe(arrays, key, streams.own_dataset_key(key), size)

    def _check_fields(self) -> None:
        """Check labels, sampling, num_classes and num_samples."""
        one_of("data.labels", self.labels, LABELS)
        one_of("data.sampling", self.sampling, SAMPLINGS)
        if self.num_targets and (self.labels != "real" or self.num_classes):
            name = "labels" if self.labels != "real" else "num_classes"
            remedy = (
                "applies only to class labels, but y has real-valued targets; omit it, or give "
                "integer labels"
            )
            raise InputError(f"data.{name}", getattr(self, name), remedy)
        # object.__setattr__, since the image sets are frozen dataclasses
        if self.num_samples is not None:
            number = whole_number("data.num_samples", self.num_samples)
            object.__setattr__(self, "num_samples", number)
        least = 0 if self.num_targets else 2
        number = whole_number("data.num_classes", self.num_classes, least, MOST_CLASSES)
        object.__setattr__(self, "num_classes", number)
        if self.labels == "real" and self.num_classes != self.real_labels():
            raise InputError(
                "data.num_classes",
                self.num_classes,
                f"the data set's own labels have {self.real_labels()} classes; give that number, "
                "or labels='random'",
            )
