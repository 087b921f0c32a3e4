"""Regression on the outputs of a teacher network, with or without label noise."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any

from jax import Array

from jthermo.data.source import Source
from jthermo.data.synthetic import Gaussian, Sphere, Uniform
from jthermo.errors import InputError, finite_number
from jthermo.models import Model, as_model, loss_inputs
from jthermo.models.model import started
from jthermo.randomness import streams, threefry


@dataclass(frozen=True)
class Teacher(Source):
    """y = f*(x) + σ ξ: targets from a teacher f*, with label noise ξ ~ N(0, 1) redrawn at each use.

    The teacher's parameters are drawn once for all runs of a seed, as a finite data set is. Records
    use y = f*(x) without noise, so ``jt.loss()`` is the noise-free error. The loss is ½(f − y)².

    Args:
        inputs: the source of x, fresh or a finite set: ``jt.data.Gaussian``, ``Uniform`` or
            ``Sphere``.
        model: f*, a ``jt.models`` value or any flax module; the student needs as many outputs.
        label_noise: σ, the standard deviation of the label noise; sweeping it doesn't recompile.

    Raises:
        InputError: an argument has the wrong type or range, or `model` doesn't accept the inputs.

    Source: label noise as in Blanc et al. 2020, arXiv 1904.09080.

    >>> import jax, jthermo as jt
    >>> net = jt.models.TwoLayer(inputs=2, hidden=3, bias=False)
    >>> data = Teacher(jt.data.Sphere(dim=2, num_samples=15), net)
    >>> [a.shape for a in data.draw(jax.random.key(0), 4)]
    [(4, 2), (4,)]
    """

    inputs: Gaussian | Uniform | Sphere
    model: Any
    label_noise: float = 0.0
    _params: Any = field(default=None, init=False, repr=False, compare=False)

    # the targets are real-valued, not classes
    num_classes = 0

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Gaussian | Uniform | Sphere):
            raise InputError(
                "data.inputs", self.inputs, "give a jt.data.Gaussian, Uniform or Sphere"
            )
        if self.inputs.redraw is not None:
            raise InputError(
                "data.inputs.redraw",
                self.inputs.redraw,
                "the teacher computes the labels, so they aren't redrawn; use label_noise",
            )
        noise = finite_number("data.label_noise", self.label_noise)
        if noise < 0:
            raise InputError("data.label_noise", self.label_noise, "give a number of at least 0")
        # building the teacher here raises the error where the user passed it
        derived = {
            "label_noise": noise,
            "num_targets": self.teacher.num_outputs,
            "num_samples": self.inputs.num_samples,
            "sampling": self.inputs.sampling,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @functools.cached_property
    def teacher(self) -> Model:
        """f* as a :class:`jthermo.models.Model`."""
        return as_model(self.model, self.inputs.shape)

    def in_float64(self) -> Teacher:
        """The same source; a teacher that rounds to float32 is refused."""
        as_model(self.model, self.inputs.shape)
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.inputs.shape

    def of_seed(self, dataset: Array) -> Teacher:
        """The source with the teacher of one seed, from the key of the seed's data set."""
        source = copy.copy(self)
        object.__setattr__(
            source, "_params", started(self.teacher, streams.teacher_key(dataset))[0]
        )
        return source

    def draw(self, key: Array, size: int) -> tuple[Array, Array]:
        """`size` examples without noise: x (size, dim) and y = f*(x), (size,) or (size, C) float32.

        Without a previous :meth:`of_seed`, the teacher's parameters are drawn from `key` as well.
        """
        source = self if self._params is not None else self.of_seed(streams.own_dataset_key(key))
        x = self.inputs.inputs(streams.two_keys(key)[0], size)
        return x, loss_inputs(self.teacher.apply(source._params, x))

    def step_labels(self, labels: Array, key: Array) -> Array:
        """The targets with label noise, y + σ ξ."""
        return labels + self.label_noise * threefry.normal(key, labels.shape)
