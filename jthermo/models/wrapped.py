"""Base class of the adapters of other libraries: one protocol, of which the rest follows."""

from __future__ import annotations

import abc
import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.models.model import Model, loss_inputs, started
from jthermo.randomness.jax_settings import cached_per_dtype

# Arguments by which nets are told whether they train, with their value in training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
}


class Called(NamedTuple):
    """What a call of a net returns.

    Attributes:
        outputs: as the net returns them for a batch.
        state: the new state.
        preactivations: by layer name; empty unless asked for.
    """

    outputs: Array
    state: Any
    preactivations: Mapping[str, Array]


class Wrapped(Model, abc.ABC):
    """A net of another library.

    A subclass has :meth:`start`, :meth:`call` and, if the net draws random numbers in an update,
    `is_random`. Without :meth:`with_state`, the model is evaluated in the state of a new net.
    """

    input_shape: tuple[int, ...] = ()
    _state: Any = None
    _value: Any = None

    @abc.abstractmethod
    def start(self, key: Array) -> tuple[Any, Any]:
        """Initial parameters and the initial state."""

    @abc.abstractmethod
    def call(
        self, params: Any, state: Any, x: Array, key: Array | None, train: bool, sow: bool = False
    ) -> Called:
        """Call the net on a batch.

        Args:
            params: parameters of one network.
            state: its state.
            x: (M, …) examples.
            key: for the random numbers of an update; None in evaluation.
            train: whether this is an update.
            sow: whether pre-activations are wanted.
        """

    def for_examples(self, shape: tuple[int, ...], dtype: str) -> Self:
        """The model for examples of this shape and dtype."""
        model = copy.copy(self)
        model.input_shape, model.input_dtype = tuple(shape), dtype
        return model

    def init(self, key: Array) -> Any:
        """Initial parameters (a pytree of float32) from a key; empty for a fixed function."""
        return self.start(key)[0]

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs in evaluation mode.

        Those of a batch have the net's own shape, (M,), (M, 1) or (M, C); those of one example are
        a number () or (C,).
        """
        single = x.ndim == len(self.input_shape)
        called = self.call(params, self._current(), x[None] if single else x, None, False)
        outputs = jnp.asarray(called.outputs)
        return loss_inputs(outputs)[0] if single else outputs

    def forward(self, params: Any, state: Any, x: Array, key: Array | None) -> tuple[Array, Any]:
        """Outputs of a batch in training mode, and the new state."""
        called = self.call(params, state, x, key, True)
        return jnp.asarray(called.outputs), called.state

    def preactivations(self, params: Any, x: Array) -> dict[str, Array]:
        """Pre-activations of a batch `x` by layer name, in evaluation mode."""
        return dict(self.call(params, self._current(), x, None, False, sow=True).preactivations)

    def with_state(self, state: Any) -> Model:
        """The model whose `apply` and `preactivations` use this state."""
        if not jax.tree.leaves(state):
            return self
        model = copy.copy(self)
        model._state, model._value = state, self.value
        return model

    @property
    def value(self) -> Model:
        """The model without the state of :meth:`with_state`, which may be traced."""
        return self if self._value is None else self._value

    def _current(self) -> Any:
        return _new_state(self) if self._value is None else self._state

    # A model with a state is equal only to itself: its state may belong to a trace.
    def __eq__(self, other: object) -> bool:
        if self._value is not None or (isinstance(other, Wrapped) and other._value is not None):
            return self is other
        return super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__() if self._value is None else id(self)


def mode(function: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The arguments of a function that say whether the net trains, with their values.

    >>> mode(lambda x, deterministic: x, train=True)
    {'deterministic': False}
    """
    named = inspect.signature(function).parameters
    return {name: value is train for name, value in MODES.items() if name in named}


@cached_per_dtype
def _new_state(model: Wrapped) -> Any:
    """The state of a new net, as numbers."""
    if not jax.tree.leaves(model.state_shapes):
        return model.state_shapes
    # a trace may be under way
    with jax.ensure_compile_time_eval():
        return jax.jit(lambda key: started(model, key)[1])(jax.random.key(0))
