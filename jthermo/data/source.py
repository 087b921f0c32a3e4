"""`Source`, the base class of every data source, your own included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.randomness import streams


class Split:
    """The arrays of a data set on the host.

    It is equal only to itself, so it can be the key under which its copies on devices are cached.

    Args:
        arrays: x and y, and x_test and y_test if there is a test split.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)


_NO_ARRAYS = Split({})


class Source:
    """Examples x with labels y. Extend this class for your own data.

    A subclass needs :meth:`draw`, :attr:`shape` and its own fields. Make it a frozen dataclass, so
    that it can be hashed and written into a sweep's JSON. Float fields are traced: they can be
    swept (``vary={"data.scale": …}``) without another compilation, and in ``draw`` they may be JAX
    tracers.

    Attributes:
        shape: shape of one example.
        num_classes: number of classes of the labels; 0 for real-valued targets.
        num_targets: number of real-valued targets per example; None for class labels.
        num_samples: n for a finite set of n examples, of which example i is ``draw(key_i, 1)`` with
            a key per example; None draws fresh examples at each step.
        sampling: order in which a finite set is used: ``"replacement"`` or ``"epochs"``.
        x_dtype: dtype of x, ``"float32"``, or ``"int32"`` for a net that takes integers. In a sweep
            in float64, float32 stands for it, and the draws of ``jax.random`` are in float64.

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
    x_dtype: str = "float32"
    # Constructor arguments that say where the data are, not what they are; a sweep's id omits them.
    unidentifying: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        raise NotImplementedError

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` independent examples.

        Args:
            key: the JAX key to draw from.
            size: number of examples.

        Returns:
            x (size, *shape) of dtype `x_dtype`, and y: class labels (size,) int32, or real-valued
            targets (size,) or (size, C) float32.
        """
        raise NotImplementedError

    def as_integers(self) -> Source | None:
        """The source with x in int32, for a net that takes only integers; None if x isn't whole."""
        return None

    def in_float64(self) -> Source:
        """The source for a sweep in float64, whose arrays have all digits that the user gave."""
        return self

    def step_labels(self, labels: Array, key: Array) -> Array:
        """The labels of a batch as one step uses them; label noise is added here."""
        del key
        return labels

    def of_seed(self, dataset: Array) -> Source:
        """The source for the runs of one seed, from the key of the seed's data set."""
        del dataset
        return self

    def load(self) -> Split:
        """The arrays to copy to every device, read once; empty if examples are drawn."""
        return _NO_ARRAYS

    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the arrays of :meth:`load`, without reading them."""
        return {}

    @property
    def has_test(self) -> bool:
        """Whether there is a test split."""
        return False

    def size(self, held: Mapping[str, Any]) -> int | None:
        """Number of training examples, None for fresh ones; `held`: the arrays on the device."""
        del held
        return self.num_samples

    def rows(
        self, held: Mapping[str, Array], index: Array, dataset: Array, fresh: Array
    ) -> tuple[Array, Array]:
        """Examples of the finite set by index: x (B, *shape), and labels as a step uses them.

        Args:
            held: the arrays of :meth:`load` on the device.
            index: (B,) int32.
            dataset: the key of the seed's data set.
            fresh: the key of the labels that are redrawn at this step.
        """
        del held
        x, y = jax.vmap(lambda i: self.draw(streams.example_key(dataset, i), 1))(index)
        return x[:, 0], self.step_labels(y[:, 0], fresh)

    def whole(
        self, held: Mapping[str, Array], key: Array, dataset: Array, test: bool = False
    ) -> tuple[Array, Array]:
        """All examples of the finite set with its labels, or of the test split.

        Args:
            held: the arrays of :meth:`load` on the device.
            key: the key of a record, from which redrawn labels are drawn.
            dataset: the key of the seed's data set.
            test: return the test split.
        """
        del held, key, test
        keys = jax.vmap(streams.example_key, (None, 0))(dataset, jnp.arange(self.num_samples))
        x, y = jax.vmap(lambda example: self.draw(example, 1))(keys)
        return x[:, 0], y[:, 0]

    def probe(
        self, held: Mapping[str, Array], key: Array, dataset: Array, size: int, test: bool = False
    ) -> tuple[Array, Array]:
        """`size` examples for a record, from the test split if `test`."""
        del held, dataset, test
        return self.draw(key, size)
