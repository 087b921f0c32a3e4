"""Optimizers: an optax factory with its hyperparameters as a hashable value, and plain SGD."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jthermo.errors import InputError, finite_number, flag, is_number, one_line
from jthermo.update_rule.random_keys import with_own_keys
from jthermo.update_rule.schedule import stepped_sgd


class Optimizer:
    """An optax optimizer as a hashable value; the learning rate comes from the sweep.

    Args:
        fn: an optax factory, or any function
            ``(learning_rate, **hyper) -> optax.GradientTransformation``.
        **hyper: the other arguments of `fn`. Floats can be swept by name, as in
            ``vary={"optimizer.b1": (0.8, 0.9)}``, without another compilation; other values are
            static.

    An optimizer may keep a random key in its state, as ``optax.noisy_sgd(key=0)`` does; every run
    then starts from a key of its own.

    Raises:
        InputError: `fn` isn't callable, rejects its arguments, or branches on a float; or an
            argument isn't a finite number.

    >>> import optax
    >>> Optimizer(optax.adam, b1=0.8)
    Optimizer(optax:adam, b1=0.8)
    """

    def __init__(self, fn: Callable[..., optax.GradientTransformation], **hyper: Any) -> None:
        # a functools.partial has no name, by which a results folder could refer to it
        if not callable(fn) or not hasattr(fn, "__qualname__"):
            raise InputError(
                "optimizer", fn, "give an optax factory such as optax.adam, or jt.sgd()"
            )
        try:
            _, *others = inspect.signature(fn).parameters.values()
        except (TypeError, ValueError):
            remedy = "takes no learning rate; give a function (learning_rate, **hyper)"
            raise InputError("optimizer", fn, remedy) from None
        self.defaults = {p.name: p.default for p in others if p.default is not p.empty}
        for name, value in hyper.items():
            if isinstance(self.defaults.get(name), bool):
                hyper[name] = flag(f"optimizer.{name}", value)
            elif is_number(value):
                finite_number(f"optimizer.{name}", value)
            elif getattr(value, "ndim", 0):
                remedy = "arrays can't be hyperparameters; create the array inside the function"
                raise InputError(f"optimizer.{name}", value, remedy)
        self.fn, self.hyper = fn, {**self.defaults, **hyper}
        try:
            self.build(0.1)
            jax.eval_shape(self._one_update, 0.1, self._floats)
        except jax.errors.ConcretizationTypeError:
            raise InputError("optimizer", self, self._branches()) from None
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                "optimizer",
                self,
                f"{fn.__name__} rejects these arguments: {one_line(error)[:300]}",
            ) from None

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory and its hyperparameters: the constructor's arguments by name."""
        return {"fn": self.fn, **self.hyper}

    @property
    def _floats(self) -> dict[str, float]:
        return {k: v for k, v in self.hyper.items() if isinstance(v, float)}

    def build(
        self, learning_rate: Any, traced: Mapping[str, Any] | None = None
    ) -> optax.GradientTransformation:
        """The optax transformation; `traced` values replace the float hyperparameters they name."""
        return self.fn(learning_rate, **{**self.hyper, **(traced or {})})

    def state_shapes(self, params: Any) -> Any:
        """Shapes and dtypes of the state in a run, from the shapes of its parameters."""

        def state(learning_rate: Any, traced: Mapping[str, Any], params: Any) -> Any:
            built = self.build(learning_rate, traced)
            return with_own_keys(built, jax.random.key(0)).init(params)

        return jax.eval_shape(state, 0.1, self._floats, params)

    def _branches(self) -> str:
        """What to do about a factory that branches on a number that JAX traces."""
        name = self.fn.__name__
        try:
            jax.eval_shape(lambda rate: self._one_update(rate, {})[1], 0.1)
        except jax.errors.ConcretizationTypeError:
            return (
                f"{name} branches on the learning rate, which is traced by JAX; make the schedule "
                "for a rate of 1 and multiply: optax.sgd(lambda t: learning_rate * schedule(t))"
            )
        return (
            f"{name} branches on a float argument, but these are traced by JAX; "
            "give that argument as an int, which is static, or use jax.numpy.where in the function"
        )

    def _one_update(self, learning_rate: Any, traced: Mapping[str, Any]) -> Any:
        """The update of a single weight, and the state: traced to check that it can be compiled."""
        transformation, weight = self.build(learning_rate, traced), jnp.ones(())
        return transformation.update(weight, transformation.init(weight), weight)

    def __repr__(self) -> str:
        changed = {
            k: v for k, v in self.hyper.items() if k not in self.defaults or v != self.defaults[k]
        }
        name = f"{self.fn.__module__.partition('.')[0]}:{self.fn.__qualname__}"
        return f"Optimizer({', '.join([name, *(f'{k}={v!r}' for k, v in changed.items())])})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optimizer) and (self.fn, self.hyper) == (other.fn, other.hyper)

    def __hash__(self) -> int:
        return hash((self.fn, tuple(sorted(self.hyper))))


def sgd(
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float | None = None,
    decay_at: float | None = None,
    decay: float = 10.0,
) -> Optimizer:
    """θ ← θ − η ∇L, the paper's optimizer; with momentum m: v ← m v + ∇L, θ ← θ − η v.

    With weight decay λ, ∇L + λθ takes the place of ∇L, as in PyTorch's SGD. The numbers can be
    swept: ``vary={"optimizer.decay_at": (1e3, 3e3)}``. For another schedule, give ``jt.Optimizer``
    a function ``(learning_rate, **hyper)`` that returns an optax optimizer with that schedule.

    Args:
        momentum: m; None for plain SGD.
        nesterov: use Nesterov's momentum.
        weight_decay: λ ≥ 0, for all parameters; None for none.
        decay_at: number of updates with the full η; all later ones have η/decay. None: no decay.
        decay: the divisor of η after `decay_at` updates.

    Returns:
        The optimizer, for ``jt.Sweep(optimizer=…)``.

    Raises:
        InputError: `momentum` isn't a finite number, or is missing beside `nesterov`;
            `weight_decay` is negative; `decay_at` is negative or at least 2²⁴, where float32 no
            longer counts single steps; or `decay` isn't positive.

    >>> sgd(momentum=0.9)
    Optimizer(optax:sgd, momentum=0.9)
    >>> sgd(decay_at=1000, decay=5)
    Optimizer(jthermo:stepped_sgd, decay_at=1000.0, decay=5.0)
    """
    momentum = None if momentum is None else finite_number("optimizer.momentum", momentum)
    nesterov = flag("optimizer.nesterov", nesterov)
    if nesterov and momentum is None:
        remedy = "has no effect without momentum; give one too, such as momentum=0.9"
        raise InputError("optimizer.nesterov", nesterov, remedy)
    by = finite_number("optimizer.decay", decay, above=0)
    at = None if decay_at is None else finite_number("optimizer.decay_at", decay_at)
    plain: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov}
    if at is not None:
        plain |= {"decay_at": at, "decay": by}
    if weight_decay is not None:
        weight_decay = finite_number("optimizer.weight_decay", weight_decay)
        return Optimizer(weight_decay_sgd, weight_decay=weight_decay, **plain)
    return Optimizer(optax.sgd if at is None else stepped_sgd, **plain)


def weight_decay_sgd(
    learning_rate: Any,
    weight_decay: float = 0.0,
    momentum: float | None = None,
    nesterov: bool = False,
    decay_at: float | None = None,
    decay: float | None = None,
) -> optax.GradientTransformation:
    """SGD on ∇L + λθ, with the other options of :func:`jthermo.sgd`."""
    # inside a compiled step it is a tracer
    if is_number(weight_decay) and weight_decay < 0:
        raise InputError("optimizer.weight_decay", weight_decay, "give a number ≥ 0")
    if decay_at is None:
        descent = optax.sgd(learning_rate, momentum, nesterov)
    else:
        by = 10.0 if decay is None else decay
        descent = stepped_sgd(learning_rate, momentum, nesterov, decay_at, by)
    return optax.chain(optax.add_decayed_weights(weight_decay), descent)
