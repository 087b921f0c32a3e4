"""Synthetic sources: Gaussian, uniform or spherical inputs with random labels."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.data.sampling import MOST_CLASSES, SAMPLINGS
from jthermo.data.source import Source
from jthermo.errors import MOST_WHOLE, InputError, finite_number, one_of, whole_number
from jthermo.randomness import streams, threefry


@dataclass(frozen=True)
class _Synthetic(Source):
    """Base class of the synthetic sources, which document the arguments."""

    dim: int
    labels: str = "random"
    num_classes: int = 2
    num_samples: int | None = None
    sampling: str = "replacement"
    redraw: float | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("dim", 1, MOST_WHOLE),
            ("num_classes", 2, MOST_CLASSES),
            ("num_samples", 1, MOST_WHOLE),
        ):
            value = getattr(self, name)
            if value is None and name == "num_samples":
                continue
            object.__setattr__(self, name, whole_number(f"data.{name}", value, least, most))
        if not isinstance(self.labels, str) or self.labels != "random":
            raise InputError("data.labels", self.labels, "synthetic data need labels='random'")
        one_of("data.sampling", self.sampling, SAMPLINGS)
        if self.redraw is None:
            return
        object.__setattr__(self, "redraw", finite_number("data.redraw", self.redraw))
        if not 0 <= self.redraw <= 1:
            raise InputError("data.redraw", self.redraw, "give a probability from 0 to 1")
        if self.redraw and self.num_samples is None:
            raise InputError(
                "data.redraw",
                self.redraw,
                "needs a finite set of examples, since fresh ones always have new labels; "
                "give num_samples, or omit redraw",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return (self.dim,)

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        raise NotImplementedError

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` independent examples: x (size, dim) float32, and class labels (size,) int32."""
        key_x, key_y = streams.two_keys(key)
        return self.inputs(key_x, size), self._random_labels(key_y, size)

    def step_labels(self, labels: Array, key: Array) -> Array:
        """Labels (B,) of a finite set, each of them redrawn with probability `redraw`."""
        if self.redraw is None:
            return labels
        key_redrawn, key_y = streams.two_keys(key)
        redrawn = jax.random.bernoulli(key_redrawn, self.redraw, labels.shape)
        return jnp.where(redrawn, self._random_labels(key_y, labels.shape[0]), labels)

    def _random_labels(self, key: Array, size: int) -> Array:
        if self.num_classes == 2:
            return jax.random.bernoulli(key, 0.5, (size,)).astype(jnp.int32)
        return jax.random.randint(key, (size,), 0, self.num_classes, jnp.int32)


@dataclass(frozen=True)
class Gaussian(_Synthetic):
    """x ~ N(0, scale² I).

    Args:
        dim: d, the dimension of x.
        labels: ``"random"``: uniform over the classes and independent of x.
        num_classes: number of classes; 2 for the paper's {0, 1}.
        num_samples: n for a finite set of n examples with labels drawn once, the same for all runs
            of a seed; None draws fresh examples at each step.
        sampling: order in which a finite set is used: ``"replacement"`` or ``"epochs"`` (a fresh
            order in each epoch).
        redraw: probability that a label of a finite set is redrawn at each use; None: never.
        scale: standard deviation of each component.

    Raises:
        InputError: an argument has the wrong type or range.

    >>> Gaussian(dim=10).shape
    (10,)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", finite_number("data.scale", self.scale, above=0))

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        return self.scale * threefry.normal(key, (size, self.dim))


@dataclass(frozen=True)
class Uniform(_Synthetic):
    """x ~ U(low, high) in each component; the paper's second family of nets needs x ≥ 0.

    Args:
        dim: d, the dimension of x.
        labels: ``"random"``: uniform over the classes and independent of x.
        num_classes: number of classes; 2 for the paper's {0, 1}.
        num_samples: n for a finite set of n examples with labels drawn once, the same for all runs
            of a seed; None draws fresh examples at each step.
        sampling: order in which a finite set is used: ``"replacement"`` or ``"epochs"`` (a fresh
            order in each epoch).
        redraw: probability that a label of a finite set is redrawn at each use; None: never.
        low: lower end of the interval.
        high: upper end of the interval.

    Raises:
        InputError: an argument has the wrong type or range, or `high` isn't above `low`.

    >>> Uniform(dim=10).high
    1.0
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "low", finite_number("data.low", self.low))
        remedy = f"give a finite number above low = {self.low:g}"
        object.__setattr__(
            self, "high", finite_number("data.high", self.high, above=self.low, remedy=remedy)
        )

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        return self.low + (self.high - self.low) * jax.random.uniform(key, (size, self.dim), float)


@dataclass(frozen=True)
class Sphere(_Synthetic):
    """x uniform on the sphere |x| = radius.

    Args:
        dim: d, the dimension of x.
        labels: ``"random"``: uniform over the classes and independent of x.
        num_classes: number of classes; 2 for the paper's {0, 1}.
        num_samples: n for a finite set of n examples with labels drawn once, the same for all runs
            of a seed; None draws fresh examples at each step.
        sampling: order in which a finite set is used: ``"replacement"`` or ``"epochs"`` (a fresh
            order in each epoch).
        redraw: probability that a label of a finite set is redrawn at each use; None: never.
        radius: length of every x.

    Raises:
        InputError: an argument has the wrong type or range.

    >>> Sphere(dim=3).radius
    1.0
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "radius", finite_number("data.radius", self.radius, above=0))

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        x = threefry.normal(key, (size, self.dim))
        return self.radius * x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
