"""Moments of per-example gradients over a batch, tr Σ1 among them (public as ``jt.gradients``).

The reference implementation is ``jax.vmap(jax.grad)`` over chunks of examples. If every parameter
belongs to a dense or convolutional layer, ``jthermo.models.per_example`` gives the same sums
from one backward pass over the batch. The memory is that of one chunk and one gradient, independent
of the number of examples.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Real

from jthermo.errors import InputError
from jthermo.models import Model, leaves_by_path, loss_inputs, per_example
from jthermo.update_rule import losses
from jthermo.update_rule.losses import Loss

METHODS = ("auto", "tape", "vmap")
# Examples per chunk; it bounds the memory. Larger chunks were no faster on a CPU.
CHUNK = {"dense": 256, "convolution": 8, "vmap": 16}
Path = tuple[str, ...]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("scatter", "square_mean"),
    meta_fields=("num_samples", "sizes", "whole"),
)
@dataclass(frozen=True)
class GradientMoments:
    """First and second moment of the per-example gradient g over M examples, by parameter group.

    Attributes:
        num_samples: M.
        whole: whether the examples are a whole finite set, so that nothing is estimated.
        sizes: number of parameters of each group, (G,).
        scatter: Σ_i |g_i − ḡ|² with ḡ = (1/M) Σ_i g_i, (G,); never negative.
        square_mean: |ḡ|², (G,).
    """

    num_samples: int
    sizes: tuple[int, ...]
    scatter: Float[Array, "*groups"]
    square_mean: Float[Array, "*groups"]
    whole: bool = False

    @property
    def total(self) -> GradientMoments:
        """The moments of all parameters as one group; its arrays are ()."""
        return GradientMoments(
            self.num_samples,
            (sum(self.sizes),),
            self.scatter.sum(),
            self.square_mean.sum(),
            self.whole,
        )

    @property
    def _divisor(self) -> int:
        """M − 1 for an estimate, M for a whole set."""
        return self.num_samples if self.whole else self.num_samples - 1

    @property
    def mean_square(self) -> Float[Array, "*groups"]:
        """(1/M) Σ_i |g_i|² of each group."""
        return self.square_mean + self.scatter / self.num_samples

    @property
    def trace(self) -> Float[Array, "*groups"]:
        """Tr Σ1 of each group: Σ_i |g_i − ḡ|²/(M − 1), unbiased; over M for a whole set."""
        return self.scatter / self._divisor

    @property
    def variance(self) -> Float[Array, "*groups"]:
        """Tr Σ1 of each group over its number of parameters."""
        # One division: XLA would join two at one number of devices and not at another.
        counts = [float(self._divisor * size) for size in self.sizes]
        return self.scatter / jnp.array(counts).reshape(self.scatter.shape)

    @property
    def signal(self) -> Float[Array, "*groups"]:
        """|G|² of each group, an unbiased estimate of the squared norm of the mean gradient.

        |G|² = |ḡ|² − tr Σ1/M, which may be negative; |ḡ|² itself for a whole set.
        """
        if self.whole:
            return self.square_mean
        return self.square_mean - self.trace / self.num_samples


def moments(
    model: Model,
    params: Any,
    x: Float[Array, "m ..."],
    y: Real[Array, "m ..."],
    loss: Loss,
    *,
    by: str = "layer",
    method: str = "auto",
    whole: bool = False,
) -> GradientMoments:
    """Moments of the per-example gradient ∇L(f(x_i), y_i) over a batch, by groups of parameters.

    Args:
        model: a ``jt.models`` value.
        params: parameters of one network.
        x: inputs, (M, …) with M ≥ 2.
        y: class indices, (M,), or real targets, (M,) or (M, C).
        loss: the name of the loss, a ``jt.losses.Softmax``, or your own function.
        by: ``"layer"`` or ``"parameter"``; see :func:`groups`.
        method: ``"tape"`` uses one backward pass over the batch, ``"vmap"`` one per example.
            ``"auto"`` uses the tape if it covers the model.
        whole: the examples are a whole finite set, whose moments are exact.

    Raises:
        InputError: unknown `method` or `by`, fewer than two examples, or a model that the tape does
            not cover with ``method="tape"``.

    >>> import jax, jthermo as jt
    >>> model = jt.models.MLP(3, hidden=(4,))
    >>> params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (6, 3))
    >>> gradient = moments(model, params, x, jax.numpy.array([0, 1, 0, 1, 1, 0]), "bce")
    >>> gradient.sizes, bool(gradient.total.trace > 0)
    ((16, 5), True)
    """
    if method not in METHODS:
        raise InputError("method", method, f"use one of {', '.join(METHODS)}")
    if x.shape[0] < 2:
        raise InputError("x", x.shape, "give at least two examples, since a variance needs two")
    taped = per_example.covers(model) if method == "auto" else method == "tape"
    if taped and not per_example.covers(model):
        raise InputError(
            "method",
            method,
            f"{model!r} has parameters outside dense and convolutional layers, or a layer that is "
            "called twice; use 'vmap'",
        )
    kind = ("convolution" if per_example.convolves(model) else "dense") if taped else "vmap"
    sums = _tape_sums(model, params, loss) if taped else _vmap_sums(model, params, loss)
    total = _over_chunks(sums, x, y, min(CHUNK[kind], x.shape[0]))
    members = groups(model, by)
    return GradientMoments(
        x.shape[0],
        tuple(sum(_size(model, path) for path in paths) for paths in members.values()),
        jnp.stack([sum(total[p].scatter for p in paths) for paths in members.values()]),
        jnp.stack(
            [sum(jnp.square(total[p].mean).sum() for p in paths) for paths in members.values()]
        ),
        whole,
    )


def groups(model: Model, by: str) -> dict[str, list[Path]]:
    """Paths of a model's parameters by name of their group, ``hidden_2`` before ``hidden_10``.

    Args:
        model: the model.
        by: ``"parameter"`` puts each parameter into its own group, such as ``hidden_0/kernel``.
            ``"layer"`` groups the parameters of one module, such as ``hidden_0``; a parameter
            of the outermost module is its own group.

    Raises:
        InputError: unknown `by`.

    >>> import jthermo as jt
    >>> list(groups(jt.models.MLP(3, hidden=(4,)), "layer"))
    ['hidden_0', 'output']
    """
    if by not in ("layer", "parameter"):
        raise InputError("by", by, "use 'layer' or 'parameter'")
    paths: dict[str, list[Path]] = {}
    for path in sorted(leaves_by_path(model.shapes), key=_natural):
        paths.setdefault("/".join((path[:-1] or path) if by == "layer" else path), []).append(path)
    return paths


class Moments(NamedTuple):
    """ḡ of some examples, and Σ_i |g_i − ḡ|², ()."""

    mean: Array
    scatter: Array


# By path of the parameter.
Sums = dict[Path, Moments]


def _tape_sums(model: Model, params: Any, loss: Loss) -> Callable[[Array, Array, Array], Sums]:
    def sums(x: Array, y: Array, weight: Array) -> Sums:
        tape = per_example.record(model, params, x)
        target = losses.targets(loss, y, model.num_outputs)
        deltas = tape.pull_back(losses.gradient(loss, tape.outputs, target))
        about = per_example.sums_about_first(tape, deltas, weight, model)
        return {path: _moments(*three, weight) for path, three in about.items()}

    return sums


def loss_of_example(model: Model, loss: Loss) -> Callable[[Any, Array, Array], Array]:
    """The loss () of one example as a function of (params, x, y)."""

    def one(params: Any, x: Array, y: Array) -> Array:
        target = losses.targets(loss, y[None], model.num_outputs)
        return losses.value(loss, loss_inputs(model.apply(params, x[None])), target)[0]

    return one


def _vmap_sums(model: Model, params: Any, loss: Loss) -> Callable[[Array, Array, Array], Sums]:
    one = loss_of_example(model, loss)

    def sums(x: Array, y: Array, weight: Array) -> Sums:
        gradients = jax.vmap(jax.grad(one), in_axes=(None, 0, 0))(params, x, y)
        about = {
            path: per_example.about_first(g, weight)
            for path, g in leaves_by_path(gradients).items()
        }
        return {path: _moments(*three, weight) for path, three in about.items()}

    return sums


def _moments(first: Array, total: Array, squares: Array, weight: Array) -> Moments:
    """The moments from g_1, Σ_i (g_i − g_1) and Σ_i |g_i − g_1|²."""
    shift = total / weight.sum()
    # Rounding alone could make it negative: Cauchy–Schwarz.
    scatter = jnp.maximum(squares - weight.sum() * jnp.square(shift).sum(), 0.0)
    return Moments(first + shift, scatter)


def _over_chunks(
    sums: Callable[[Array, Array, Array], Sums], x: Array, y: Array, chunk: int
) -> Sums:
    """Moments of all examples in chunks; the last chunk is padded with examples of weight 0.

    Two sets of examples are joined as in Chan, Golub and LeVeque 1983,
    doi:10.1080/00031305.1983.10483115, without a difference of large numbers.
    """
    count, missing = len(x), -len(x) % chunk
    if count == chunk:
        return sums(x, y, jnp.ones(count, float))
    x, y = (jnp.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)) if missing else a for a in (x, y))
    x, y = (a.reshape(-1, chunk, *a.shape[1:]) for a in (x, y))
    starts = jnp.arange(len(x)) * chunk

    def add(before: Sums, part: Any) -> tuple[Sums, None]:
        start = part[2]
        here = jnp.minimum(count - start, chunk)
        weight = (jnp.arange(chunk) < here).astype(float)
        share = here / (start + here)

        def join(a: Moments, b: Moments) -> Moments:
            gap = b.mean - a.mean
            between = start * share * jnp.square(gap).sum()
            return Moments(a.mean + share * gap, a.scatter + b.scatter + between)

        after = sums(part[0], part[1], weight)
        return {path: join(before[path], after[path]) for path in after}, None

    shapes = jax.eval_shape(sums, x[0], y[0], jnp.ones(chunk, float))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(add, zero, (x, y, starts))[0]


def _size(model: Model, path: Path) -> int:
    return int(leaves_by_path(model.shapes)[path].size)


def _natural(path: Path) -> list[tuple[Any, ...]]:
    """Sorting key that puts ``hidden_2`` before ``hidden_10``."""
    return [
        tuple((int(t), "") if t.isdigit() else (-1, t) for t in re.split(r"(\d+)", p)) for p in path
    ]
