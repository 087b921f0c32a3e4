"""Classes of flax.nnx as models.

A module shows its pre-activations to observables by ``self.sow(nnx.Intermediate, name, a)``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array

from jthermo.errors import InputError, one_line
from jthermo.models.wrapped import Called, Wrapped, mode
from jthermo.randomness.jax_settings import pinned

PLAIN = bool | int | float | str | tuple
# Variables of a net by their path, such as ("hidden", "kernel").
Paths = dict[tuple[Any, ...], Any]


class NNX(Wrapped):
    """A class of flax.nnx as a model: a net is ``Net(*args, **kwargs, rngs=nnx.Rngs(key))``.

    Its ``nnx.Param`` are the parameters, nested dicts by attribute. All other variables, such as
    ``nnx.BatchStat``, are the state of a run. An update calls the net after ``net.train()``, and
    observables after ``net.eval()``.

    Args:
        Net: the class, a subclass of ``nnx.Module``. It maps a batch (M, …) to outputs (M,), (M, 1)
            or (M, C).
        *args: arguments of the class, hashable; each can be an axis by its name, as in
            ``vary={"model.width": (8, 16)}``.
        **kwargs: the same by name.

    Raises:
        InputError: `Net` isn't a class that takes `rngs`, or it doesn't take these arguments.

    >>> from flax import nnx
    >>> model = NNX(nnx.Linear, 3, out_features=2).for_examples((3,), "float32")
    >>> params = model.init(jax.random.key(0))
    >>> params["kernel"].shape, model.apply(params, jnp.ones((5, 3))).shape
    ((3, 2), (5, 2))
    """

    how_to_show_preactivations = (
        'in the module, call self.sow(nnx.Intermediate, "name", a) before each nonlinearity'
    )

    def __init__(self, Net: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        from flax import nnx

        if not (isinstance(Net, type) and issubclass(Net, nnx.Module)):
            raise InputError("model", Net, "give a class of flax.nnx, as in jt.models.NNX(Net, 8)")
        _, *parameters = inspect.signature(Net.__init__).parameters.values()
        signature = inspect.Signature(parameters)
        if "rngs" not in signature.parameters:
            raise InputError("model", Net, "its constructor takes no `rngs`; give it that argument")
        try:
            bound = signature.bind(*args, **kwargs, rngs=None)
        except TypeError as error:
            remedy = f"{one_line(error)}; give the arguments of the class, without rngs"
            raise InputError("model", Net, remedy) from None
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        # a default that can be an axis; others, such as initialisers, belong to the class
        plain = {k: v for k, v in self.defaults.items() if v is None or isinstance(v, PLAIN)}
        settings = plain | bound.arguments
        del settings["rngs"]
        for p in parameters:
            if p.kind is p.VAR_KEYWORD:
                settings |= settings.pop(p.name)
            elif p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) and settings.pop(p.name, ()):
                raise InputError("model", Net, f"its argument {p.name} needs a name")
        super().__init__(None, (), {"Net": Net, **settings})

    def start(self, key: Array) -> tuple[Any, Any]:
        """Initial parameters and the initial state."""
        params, _, state = _split(self.net(key))[1]
        return _values(params), _values(state)

    def call(
        self, params: Any, state: Any, x: Array, key: Array | None, train: bool, sow: bool = False
    ) -> Called:
        """Put the values into a net and call it; every stream of random numbers starts afresh."""
        from flax import nnx

        graph, (params_like, streams_like, state_like) = _template(self.value)
        streams = _streams(streams_like, jax.random.key(0) if key is None else key)
        filled = [
            _filled(like, traverse_util.flatten_dict(tree))
            for like, tree in ((params_like, params), (state_like, state))
        ]
        net = nnx.merge(graph, filled[0], _filled(streams_like, streams), filled[1])
        (net.train if train else net.eval)()
        keywords: dict[str, Any] = mode(type(net).__call__, train)
        if "rngs" in inspect.signature(type(net).__call__).parameters:
            keywords["rngs"] = None if key is None else nnx.Rngs(key)
        outputs, sown = nnx.capture(lambda net: net(x, **keywords), nnx.Intermediate)(net)
        after = _split(net)[1][2]
        layers = {
            "/".join(map(str, path)): value.get_value()[-1]
            for path, value in nnx.to_flat_state(sown)
        }
        return Called(outputs, _values({path: after[path] for path in state_like}), layers)

    def net(self, key: Array) -> Any:
        """A new net."""
        from flax import nnx

        settings = {k: v for k, v in self.arguments.items() if k != "Net"}
        return self.arguments["Net"](**settings, rngs=nnx.Rngs(key))

    @property
    def is_random(self) -> bool:
        """Whether the net holds a stream of random numbers, as dropout does, or is given one."""
        streams = _template(self.value).variables[1]
        call = inspect.signature(self.arguments["Net"].__call__).parameters
        return bool(streams) or "rngs" in call

    @property
    def title(self) -> str:
        """The net's class."""
        return f"{self.arguments['Net'].__name__} (flax.nnx)"


class _Template(NamedTuple):
    """A net without numbers: its structure; its parameters, streams and other variables."""

    graph: Any
    variables: tuple[Paths, Paths, Paths]


@functools.lru_cache(maxsize=256)
@pinned()
def _template(model: NNX) -> _Template:
    from flax import nnx

    return _split(nnx.eval_shape(lambda: model.net(jax.random.key(0))))


def _split(net: Any) -> _Template:
    from flax import nnx

    graph, *states = nnx.split(net, nnx.Param, nnx.RngState, ...)
    params, streams, rest = (dict(nnx.to_flat_state(state)) for state in states)
    return _Template(graph, (params, streams, rest))


def _values(variables: Paths) -> Any:
    """The values of variables as nested dicts; items of a list are called by their number."""
    values = {tuple(map(str, path)): v.get_value() for path, v in variables.items()}
    return traverse_util.unflatten_dict(values)


def _filled(like: Paths, values: Paths) -> Any:
    """The variables with these values, as a state of nnx."""
    from flax import nnx

    named = [(path, v.replace(values[tuple(map(str, path))])) for path, v in like.items()]
    return nnx.from_flat_state(named)


def _streams(like: Paths, key: Array) -> Paths:
    """Values of the streams of random numbers, from the key of one call."""
    from flax import nnx

    values = {}
    for number, (path, variable) in enumerate(like.items()):
        shape, own = variable.get_value().shape, jax.random.fold_in(key, number)
        if isinstance(variable, nnx.RngKey):
            value = jax.random.split(own, shape) if shape else own
        else:
            value = jnp.zeros(shape, jnp.uint32)
        values[tuple(map(str, path))] = value
    return values
