"""Optimizers as values: an optax factory and its hyperparameters; every float of them is traced, never recompiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jthermo.errors import InputError, finite_number
from jthermo.update_rule.schedule import stepped_sgd


class Optimizer:
    """An optax optimizer as a hashable value; the learning rate comes from the sweep.

    Args:
        fn: an optax factory, or any function ``(learning_rate, **hyper) -> optax.GradientTransformation``.
        **hyper: its other arguments. Floats can be swept by name (``vary={"optimizer.b1": (0.8, 0.9)}``)
            without a new compilation; other values are static.

    >>> import optax
    >>> Optimizer(optax.adam, b1=0.8)
    Optimizer(optax:adam, b1=0.8)
    """

    def __init__(self, fn: Callable[..., optax.GradientTransformation], **hyper: Any) -> None:
        if not callable(fn):
            raise InputError(
                "optimizer", fn, "give an optax factory such as optax.adam, or jt.sgd()"
            )
        _, *others = inspect.signature(fn).parameters.values()
        self.defaults = {p.name: p.default for p in others if p.default is not p.empty}
        self.fn, self.hyper = fn, {**self.defaults, **hyper}
        try:
            self.build(0.1)
            jax.eval_shape(self._one_update, 0.1, self._floats)
        except jax.errors.ConcretizationTypeError:
            remedy = f"{fn.__name__} branches on a float, but floats are traced; write it as a constant of the function"
            raise InputError("optimizer", self, remedy) from None
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(
                "optimizer", self, f"{fn.__name__} refuses these arguments ({error})"
            ) from None

    @property
    def arguments(self) -> dict[str, Any]:
        """Factory and hyperparameters, as the constructor takes them."""
        return {"fn": self.fn, **self.hyper}

    @property
    def _floats(self) -> dict[str, float]:
        return {k: v for k, v in self.hyper.items() if isinstance(v, float)}

    def build(
        self, learning_rate: Any, traced: Mapping[str, Any] | None = None
    ) -> optax.GradientTransformation:
        """The optax transformation, with `traced` values in place of the floats they name."""
        return self.fn(learning_rate, **{**self.hyper, **(traced or {})})

    def _one_update(self, learning_rate: Any, traced: Mapping[str, Any]) -> Any:
        """An update of one weight, as a program sees it."""
        made, weight = self.build(learning_rate, traced), jnp.ones(())
        return made.update(weight, made.init(weight), weight)[0]

    def __repr__(self) -> str:
        given = {
            k: v for k, v in self.hyper.items() if k not in self.defaults or v != self.defaults[k]
        }
        name = f"{self.fn.__module__.partition('.')[0]}:{self.fn.__qualname__}"
        return f"Optimizer({', '.join([name, *(f'{k}={v!r}' for k, v in given.items())])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optimizer) and (self.fn, self.hyper) == (other.fn, other.hyper)

    def __hash__(self) -> int:
        return hash((self.fn, tuple(sorted(self.hyper))))


def sgd(
    momentum: float | None = None,
    nesterov: bool = False,
    decay_at: float | None = None,
    decay: float = 10.0,
) -> Optimizer:
    """θ ← θ − η ∇L, the paper's optimizer; with momentum m: v ← m v + ∇L, θ ← θ − η v.

    Args:
        momentum: m, None for none.
        nesterov: whether the momentum looks ahead.
        decay_at: number of updates at the full η; all further ones have η/decay. None never decays.
        decay: what η is divided by. Both are axes: ``vary={"optimizer.decay_at": (1e3, 3e3)}``. For any other schedule give
            ``jt.Optimizer`` a function ``(learning_rate, **hyper)`` that hands one to optax.

    Raises:
        InputError: `decay_at` is negative, or 2²⁴ and more, where float32 skips steps; `decay` isn't positive.

    >>> sgd(momentum=0.9)
    Optimizer(optax:sgd, momentum=0.9)
    >>> sgd(decay_at=1000, decay=5)
    Optimizer(jthermo:stepped_sgd, decay_at=1000.0, decay=5.0)
    """
    momentum = None if momentum is None else float(momentum)
    if decay_at is None:
        return Optimizer(optax.sgd, momentum=momentum, nesterov=nesterov)
    at, by = (
        finite_number(f"optimizer.{k}", v) for k, v in (("decay_at", decay_at), ("decay", decay))
    )
    return Optimizer(stepped_sgd, momentum=momentum, nesterov=nesterov, decay_at=at, decay=by)
