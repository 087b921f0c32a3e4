"""Synthetic inputs of the paper, N(0, I) and U(0, 1), with random labels; fresh at each step or a finite set of n."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jthermo import checks, random
from jthermo.data.sampling import SAMPLINGS
from jthermo.errors import InputError


@dataclass(frozen=True)
class _Synthetic:
    """What the synthetic sources share.

    Args:
        dim: d, the dimension of x.
        labels: ``"random"``: uniform over the classes and independent of x.
        num_classes: number of classes; 2 for the paper's {0, 1}.
        num_samples: None draws fresh x and y at each step; n trains on one finite set of n examples with labels
            drawn once, the same for every run of a seed.
        sampling: how a finite set is visited: ``"replacement"`` or ``"epochs"`` (a fresh order in each pass).
    """

    dim: int
    labels: str = "random"
    num_classes: int = 2
    num_samples: int | None = None
    sampling: str = "replacement"

    def __post_init__(self) -> None:
        for name, least in (("dim", 1), ("num_classes", 2), ("num_samples", 1)):
            value = getattr(self, name)
            if value is None and name == "num_samples":
                continue
            object.__setattr__(self, name, checks.whole(f"data.{name}", value, least))
        if self.labels != "random":
            raise InputError("data.labels", self.labels, "synthetic data have 'random' labels only")
        if self.sampling not in SAMPLINGS:
            raise InputError("data.sampling", self.sampling, f"use one of {', '.join(SAMPLINGS)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return (self.dim,)

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        raise NotImplementedError

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` independent examples: x (size, dim) float32 and class labels (size,) int32."""
        key_x, key_y = (jax.random.fold_in(key, i) for i in (0, 1))
        if self.num_classes == 2:
            labels = jax.random.bernoulli(key_y, 0.5, (size,)).astype(jnp.int32)
        else:
            labels = jax.random.randint(key_y, (size,), 0, self.num_classes, jnp.int32)
        return self.inputs(key_x, size), labels


@dataclass(frozen=True)
class Gaussian(_Synthetic):
    """x ~ N(0, scale² I).

    Args:
        dim: d, the dimension of x.
        labels: ``"random"``: uniform over the classes and independent of x.
        num_classes: number of classes; 2 for the paper's {0, 1}.
        num_samples: None draws fresh x and y at each step; n trains on one finite set of n examples.
        sampling: how a finite set is visited: ``"replacement"`` or ``"epochs"``.
        scale: standard deviation of each component.

    >>> Gaussian(dim=10).shape
    (10,)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale", checks.finite("data.scale", self.scale, above=0))

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        return self.scale * random.normal(key, (size, self.dim))


@dataclass(frozen=True)
class Uniform(_Synthetic):
    """x ~ U(low, high) in each component; the paper's second family needs x ≥ 0.

    Args:
        dim: d, the dimension of x.
        labels: ``"random"``: uniform over the classes and independent of x.
        num_classes: number of classes; 2 for the paper's {0, 1}.
        num_samples: None draws fresh x and y at each step; n trains on one finite set of n examples.
        sampling: how a finite set is visited: ``"replacement"`` or ``"epochs"``.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "low", checks.finite("data.low", self.low))
        remedy = f"give a finite number above low = {self.low:g}"
        object.__setattr__(self, "high", checks.finite("data.high", self.high, above=self.low, remedy=remedy))

    def inputs(self, key: Array, size: int) -> Array:
        """`size` independent inputs, (size, dim)."""
        return self.low + (self.high - self.low) * jax.random.uniform(key, (size, self.dim), jnp.float32)
