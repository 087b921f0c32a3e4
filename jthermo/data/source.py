"""What a data source is: the class that the sources of ``jt.data`` and a user's own extend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from jthermo.randomness import streams


class Split:
    """The arrays of a data set on the host. Equal only to itself, so that it can stand for its copies on devices.

    Args:
        arrays: x, y and, where there is a test split, x_test and y_test.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)


_NO_ARRAYS = Split({})


class Source:
    """Examples x with labels y. Extend it for data of your own; :meth:`draw`, :attr:`shape` and the fields are enough.

    A source is a frozen dataclass, so that it can be hashed and written into a sweep's JSON. Its float fields are
    traced: they can be swept (``vary={"data.scale": …}``) without another compilation. In ``draw`` they may be JAX
    tracers.

    Attributes:
        shape: shape of one example.
        num_classes: number of classes of the labels; 0 where the labels are real numbers.
        num_targets: number of real labels of an example, None for classes.
        num_samples: n for a finite set of n examples, whose example i is ``draw(key_i, 1)`` with a key of its own;
            None draws fresh examples at each step.
        sampling: how a finite set is visited: ``"replacement"`` or ``"epochs"``.

    >>> import dataclasses, jax, jthermo as jt
    >>> @dataclasses.dataclass(frozen=True)
    ... class Exponential(jt.data.Source):
    ...     dim: int
    ...     rate: float = 1.0
    ...     shape = property(lambda self: (self.dim,))
    ...     def draw(self, key, size):
    ...         key_x, key_y = jax.random.split(key)
    ...         x = jax.random.exponential(key_x, (size, self.dim)) / self.rate
    ...         return x, jax.random.bernoulli(key_y, 0.5, (size,)).astype("int32")
    >>> Exponential(dim=3).draw(jax.random.key(0), 2)[0].shape
    (2, 3)
    """

    num_classes: int = 2
    num_targets: int | None = None
    num_samples: int | None = None
    sampling: str = "replacement"
    # constructor arguments that say where the data lie, not what they are: no part of a sweep's identity
    unidentifying: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        raise NotImplementedError

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` independent examples: x (size, *shape) float32; y (size,) int32 classes or float32 targets."""
        raise NotImplementedError

    def step_labels(self, labels: Array, key: Array) -> Array:
        """The labels of a batch as one step sees them; sources with label noise change them."""
        del key
        return labels

    def of_seed(self, dataset: Array) -> Source:
        """The source as the runs of one seed see it, from the key of the seed's data set."""
        del dataset
        return self

    def load(self) -> Split:
        """The arrays that every device holds one copy of, read once; none for a source that draws its examples."""
        return _NO_ARRAYS

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the arrays of :meth:`load`, without reading them."""
        return {}

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return False

    def size(self, held: Mapping[str, Any]) -> int | None:
        """The number of training examples, None for fresh ones; `held` is what :meth:`load` put on the device."""
        del held
        return self.num_samples

    def rows(
        self, held: Mapping[str, Array], index: Array, dataset: Array, fresh: Array
    ) -> tuple[Array, Array]:
        """Examples of the finite set by index: x (B, *shape) and labels as a step sees them.

        Args:
            held: the arrays on the device.
            index: (B,) int32.
            dataset: the key of the seed's data set.
            fresh: the key of the labels that are drawn anew at this step.
        """
        del held
        x, y = jax.vmap(lambda i: self.draw(streams.example_key(dataset, i), 1))(index)
        return x[:, 0], self.step_labels(y[:, 0], fresh)

    def probe(
        self, held: Mapping[str, Array], key: Array, dataset: Array, size: int, test: bool = False
    ) -> tuple[Array, Array]:
        """`size` examples for a record; `test` takes them from the test split."""
        del held, dataset, test
        return self.draw(key, size)
