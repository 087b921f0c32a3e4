"""Sets of examples that are held whole, once per device, and gathered by index: what a step sees of them.

The label of an example is its own (``"real"``: a class, or real numbers for regression), one drawn for it once
(``"random"``, a function of the seed's data set and the example's index, so that no table of labels is kept), or one
drawn anew each time (``"redrawn"``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.data.sampling import SAMPLINGS
from jthermo.data.source import Source
from jthermo.errors import InputError
from jthermo.randomness import streams

LABELS = ("real", "random", "redrawn")


class InMemory(Source):
    """Base of the sources that hold their examples in memory; subclasses load the arrays and have `labels`."""

    labels: str

    def real_labels(self) -> int:
        """Number of classes of the real labels."""
        raise NotImplementedError

    def standardised(self, x: Array) -> Array:
        """Examples as the net sees them, float32."""
        return x.astype(jnp.float32)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return "x_test" in self.abstract()

    def size(self, held: Mapping[str, Any]) -> int:
        """n, the number of training examples in use."""
        there = held["x"].shape[0]
        if self.num_samples is not None and self.num_samples > there:
            raise InputError(
                "data.num_samples", self.num_samples, f"there are {there:,} training examples"
            )
        return self.num_samples or there

    def rows(
        self,
        held: Mapping[str, Array],
        index: Array,
        dataset: Array,
        fresh: Array,
        test: bool = False,
    ) -> tuple[Array, Array]:
        """Examples by index: x (B, …) float32 and labels (B,) int32, or real targets as they are held.

        Args:
            held: the arrays.
            index: (B,) places in the split.
            dataset: the key of the seed's data set, which random labels belong to.
            fresh: the key of this draw, which redrawn labels belong to.
            test: take the test split.
        """
        x, y = (held["x_test"], held["y_test"]) if test else (held["x"], held["y"])
        if self.labels == "real":
            labels = y[index] if self.num_targets else y[index].astype(jnp.int32)
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
        """`size` examples drawn with replacement, for a probe."""
        key_index, key_fresh = streams.two_keys(key)
        number = held["x_test"].shape[0] if test else self.size(held)
        index = jax.random.randint(key_index, (size,), 0, number, jnp.int32)
        return self.rows(held, index, dataset, key_fresh, test)

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` training examples drawn with replacement, from the host's arrays."""
        arrays: Any = self.load().arrays
        return self.probe(arrays, key, streams.own_dataset_key(key), size)

    def _check_fields(self) -> None:
        if self.labels not in LABELS:
            raise InputError("data.labels", self.labels, f"use one of {', '.join(LABELS)}")
        if self.sampling not in SAMPLINGS:
            raise InputError("data.sampling", self.sampling, f"use one of {', '.join(SAMPLINGS)}")
        if self.num_targets and (self.labels != "real" or self.num_classes):
            named = "labels" if self.labels != "real" else "num_classes"
            remedy = "is for classes, but y holds real numbers; leave it out, or give whole labels"
            raise InputError(f"data.{named}", getattr(self, named), remedy)
        for name, least in (("num_classes", 0 if self.num_targets else 2), ("num_samples", 1)):
            value = getattr(self, name)
            if value is None and name == "num_samples":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"data.{name}", value, f"give a whole number of at least {least}")
        if self.labels == "real" and self.num_classes != self.real_labels():
            raise InputError(
                "data.num_classes",
                self.num_classes,
                f"real labels have {self.real_labels()} classes",
            )
