"""Modules of flax.linen as models.

A module shows its pre-activations to observables by ``self.sow("preactivations", name, a)``. Under
the name ``"a"``, the layer is called by the module's path instead.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors
from jax import Array

from jthermo.errors import InputError
from jthermo.models.model import named_preactivations
from jthermo.models.wrapped import MODES, Called, Wrapped, mode
from jthermo.randomness.jax_settings import pinned


class Flax(Wrapped):
    """Any flax (linen) module as a model; ``jt.Sweep(model=MyModule(...))`` wraps it automatically.

    Args:
        module: maps a batch ``(M, *input_shape)`` to outputs (M,), (M, 1) or (M, C).
        input_shape: shape of one example.
        input_dtype: dtype of the examples, ``"float32"`` or ``"int32"``.

    >>> Flax(nn.Dense(2), input_shape=(3,)).num_outputs
    2
    """

    def __init__(
        self, module: nn.Module, input_shape: tuple[int, ...], input_dtype: str = "float32"
    ) -> None:
        shape = tuple(input_shape)
        arguments = {"module": module, "input_shape": shape}
        if input_dtype != "float32":
            arguments["input_dtype"] = input_dtype
        super().__init__(module, shape, arguments)
        self.input_dtype = input_dtype

    def start(self, key: Array) -> tuple[Any, Any]:
        """Initial parameters, and the collections of variables that change in training."""
        x = jnp.zeros((1, *self.input_shape), self.x_dtype)
        variables = self.module.init(key, x, **mode(self.module.__call__, train=False))
        state = {name: variables[name] for name in _traits(self.value).collections}
        return variables.get("params", {}), state

    def call(
        self, params: Any, state: Any, x: Array, key: Array | None, train: bool, sow: bool = False
    ) -> Called:
        """Apply the module; every stream of random numbers starts from `key`."""
        changing = [*(state if train else ()), *(["preactivations"] if sow else ())]
        out = self.module.apply(
            {"params": params, **state},
            x,
            rngs=key,
            mutable=changing or False,
            **mode(self.module.__call__, train),
        )
        outputs, changed = out if changing else (out, {})
        return Called(
            outputs, {k: changed.get(k, v) for k, v in state.items()}, named_preactivations(changed)
        )

    @property
    def is_random(self) -> bool:
        """Whether an update draws random numbers, as dropout does."""
        return _traits(self.value).random

    @property
    def title(self) -> str:
        """The module's class."""
        return f"{type(self.module).__name__} (flax.linen)"


class _Traits(NamedTuple):
    """The collections of variables that are a module's state, and whether an update is random."""

    collections: tuple[str, ...]
    random: bool


@functools.lru_cache(maxsize=256)
@pinned()
def _traits(model: Flax) -> _Traits:
    """Found by tracing the module.

    A module that is evaluated without its other collections has no state: what they hold is for
    the reader. Of a module with state, the collections are left out that grow with every call,
    because `sow` fills them.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    module, batch = model.module, model.examples(2)
    evaluation, training = (mode(module.__call__, train) for train in (False, True))

    def init(key: Array) -> Any:
        return module.init(key, jnp.zeros((1, *model.input_shape), model.x_dtype), **evaluation)

    def update(variables: Any, x: Array, key: Array | None) -> Any:
        return module.apply(variables, x, rngs=key, mutable=names, **training)

    variables = jax.eval_shape(init, key)
    params = {"params": variables.get("params", {})}
    names: list[str] = []
    try:
        jax.eval_shape(lambda v, x: module.apply(v, x, **evaluation), params, batch)
    except errors.InvalidRngError:
        _refuse(model)
    except errors.FlaxError:
        names = [name for name in variables if name not in ("params", "preactivations")]
        changed = jax.eval_shape(update, variables, batch, key)[1]
        names = [
            name
            for name in names
            if jax.tree.map(jnp.shape, changed[name]) == jax.tree.map(jnp.shape, variables[name])
        ]
        kept = params | {name: variables[name] for name in names}
        try:
            jax.eval_shape(lambda v, x: module.apply(v, x, **evaluation), kept, batch)
        except (errors.InvalidRngError, errors.ModifyScopeVariableError):
            _refuse(model)
        params = kept
    try:
        jax.eval_shape(lambda v, x: update(v, x, None), params, batch)
    except errors.InvalidRngError:
        return _Traits(tuple(names), True)
    return _Traits(tuple(names), False)


def _refuse(model: Flax) -> NoReturn:
    """Raise an InputError for a module that is the same in evaluation as in training."""
    remedy = (
        "draws random numbers or changes its state in evaluation too; give its __call__ an "
        f"argument {', '.join(list(MODES)[:-1])} or {list(MODES)[-1]} and pass it on"
    )
    raise InputError("model", model.module, remedy)
