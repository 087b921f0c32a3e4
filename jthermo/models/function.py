"""Plain functions as models, also for Equinox, Haiku and other libraries."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jthermo.errors import InputError
from jthermo.models.wrapped import Called, Wrapped, mode
from jthermo.randomness.jax_settings import pinned

# Leaves of a tree by number: those that are numbers in training.
Leaves = dict[str, Array]


class Function(Wrapped):
    """Two functions as a model: ``init(key) -> params`` and ``apply(params, x) -> outputs``.

    The parameters are the float arrays of the tree that `init` returns, which may be a module of
    Equinox. What else it holds, such as a nonlinearity, is fixed. `apply` maps a batch (M, …) to
    outputs (M,), (M, 1) or (M, C). It may have further arguments, which are passed by name:

    - `key`: a random key of the update, None in evaluation
    - `train`, or another of the names of :data:`jthermo.models.wrapped.MODES`: whether this is an
      update
    - `state`: then ``init(key) -> (params, state)``, ``apply(params, x, state) -> (outputs,
      state)``, and the state belongs to the run as the parameters do

    Args:
        init: initial parameters from a key.
        apply: outputs of a batch.
        preactivations: optional, ``(params, x) ->`` dict of arrays by layer name, for observables
            of hidden units; with the further arguments of `apply`.
        **settings: hashable values, passed by name to the functions that have such an argument.
            Each can be an axis, as in ``vary={"model.width": (8, 16)}``.

    Raises:
        InputError: one of them isn't a function with a name, or no function takes a setting.

    >>> def init(key, width):
    ...     return {"w": jax.random.normal(key, (width,))}
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> model = Function(init=init, apply=apply, width=3).for_examples((3,), "float32")
    >>> model.apply(model.init(jax.random.key(0)), jnp.ones((5, 3))).shape
    (5,)
    """

    how_to_show_preactivations = (
        "give jt.models.Function also preactivations=f with f(params, x) -> arrays by layer name"
    )

    def __init__(
        self,
        init: Callable[..., Any],
        apply: Callable[..., Any],
        preactivations: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> None:
        functions = {"init": init, "apply": apply, "preactivations": preactivations}
        given = {name: f for name, f in functions.items() if f is not None}
        for name, function in given.items():
            # a functools.partial has no name, by which a results folder could refer to it
            if not callable(function) or not hasattr(function, "__qualname__"):
                remedy = (
                    "give a function with a name; values for its arguments are further settings"
                )
                raise InputError(f"model.{name}", function, remedy)
        for name, value in settings.items():
            if not any(name in _names(function) for function in given.values()):
                remedy = f"no argument of {', '.join(given)} has this name"
                raise InputError(f"model.{name}", value, remedy)
        self.defaults: dict[str, Any] = {"preactivations": None}
        super().__init__(None, (), {**functions, **settings})

    def start(self, key: Array) -> tuple[Any, Any]:
        """Initial parameters, and the state: that of `apply`, and arrays that aren't floats."""
        made = self.arguments["init"](key, **self._settings("init"))
        params, state = made if self._has_state else (made, {})
        (_, floats, others), (_, *changing) = _taken(params), _taken(state)
        return jax.tree.unflatten(
            jax.tree.structure(params),
            [floats.get(str(i)) for i in range(len(jax.tree.leaves(params)))],
        ), _without_empty({"fixed": others, "floats": changing[0], "others": changing[1]})

    def call(
        self, params: Any, state: Any, x: Array, key: Array | None, train: bool, sow: bool = False
    ) -> Called:
        """Call `apply`, and `preactivations` if wanted."""
        called = functools.partial(self._called, train, sow)
        if not self._has_state:
            return Called(*called(params, state, x, key))
        return Called(*_without_mesh(called, params, state, x, key))

    def _called(
        self, train: bool, sow: bool, params: Any, state: Any, x: Array, key: Array | None
    ) -> tuple[Array, Any, dict[str, Array]]:
        like, state_like = _template(self.value)
        floats = dict(zip(like.floats, jax.tree.leaves(params), strict=True))
        tree = like.filled(floats | state.get("fixed", {}))
        values = state_like.filled(state.get("floats", {}) | state.get("others", {}))
        offered = {"key": key, "state": values}

        def called(name: str) -> Any:
            function = self.arguments[name]
            passed = {k: v for k, v in offered.items() if k in _names(function)}
            return function(tree, x, **passed, **mode(function, train), **self._settings(name))

        outputs = called("apply")
        if self._has_state:
            outputs, values = outputs
            _, changed, others = _taken(values)
            state = state | _without_empty({"floats": changed, "others": others})
        layers = called("preactivations") if sow and self.arguments["preactivations"] else {}
        return outputs, state, layers

    @property
    def is_random(self) -> bool:
        """Whether `apply` takes a key."""
        return "key" in _names(self.arguments["apply"])

    @property
    def title(self) -> str:
        """The function's name."""
        return f"{self.arguments['apply'].__qualname__} (jt.models.Function)"

    @property
    def _has_state(self) -> bool:
        return "state" in _names(self.arguments["apply"])

    def _settings(self, function: str) -> dict[str, Any]:
        names = _names(self.arguments[function])
        return {
            k: v
            for k, v in self.arguments.items()
            if k in names and k not in ("init", "apply", "preactivations")
        }


class _Tree(NamedTuple):
    """A tree whose leaves are arrays or fixed values.

    Attributes:
        structure: of JAX.
        fixed: the leaves that aren't arrays, by number.
        floats: numbers of the leaves that are float arrays.
    """

    structure: Any
    fixed: dict[str, Any]
    floats: tuple[str, ...]

    def filled(self, arrays: Leaves) -> Any:
        """The tree with these arrays."""
        leaves = self.fixed | arrays
        return self.structure.unflatten([leaves[str(i)] for i in range(len(leaves))])


@functools.lru_cache(maxsize=256)
@pinned()
def _template(model: Function) -> tuple[_Tree, _Tree]:
    """The trees of the parameters and of the state, without their arrays."""
    trees: list[_Tree] = []

    def init(key: Array) -> None:
        made = model.arguments["init"](key, **model._settings("init"))
        for tree in made if model._has_state else (made, {}):
            fixed, floats, _ = _taken(tree)
            trees.append(_Tree(jax.tree.structure(tree), fixed, tuple(floats)))

    jax.eval_shape(init, jax.random.key(0))
    return trees[0], trees[1]


def _taken(tree: Any) -> tuple[dict[str, Any], Leaves, Leaves]:
    """The leaves of a tree by number: fixed values, float arrays, other arrays."""
    fixed: dict[str, Any] = {}
    floats: Leaves = {}
    others: Leaves = {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        if not isinstance(leaf, Array | np.ndarray | np.generic):
            # numbers of a module's fields are settings, as the rate of dropout is
            if isinstance(leaf, float) and not isinstance(path[-1], jax.tree_util.GetAttrKey):
                where = jax.tree_util.keystr(path)
                remedy = "is a number of Python, which isn't trained; use jnp.float32(...)"
                raise InputError(f"model.init(key){where}", leaf, remedy)
            fixed[str(i)] = leaf
        elif jnp.issubdtype(leaf.dtype, jnp.floating):
            floats[str(i)] = jnp.asarray(leaf)
        else:
            others[str(i)] = jnp.asarray(leaf)
    return fixed, floats, others


def _without_mesh(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)``, traced apart from the devices.

    Equinox compares the old and the new value of a state with their shardings, which differ where
    the runs are divided among devices.
    """
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        closed, returned = jax.make_jaxpr(function, return_shape=True)(*shapes)
    values = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(returned), values)


def _without_empty(parts: dict[str, Leaves]) -> dict[str, Leaves]:
    return {name: leaves for name, leaves in parts.items() if leaves}


def _names(function: Any) -> tuple[str, ...]:
    """The names of a function's arguments."""
    return tuple(inspect.signature(function).parameters)
