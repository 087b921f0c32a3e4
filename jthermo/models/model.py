"""The base class of models: the built-in nets, and nets of other libraries (``wrapped.py``)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import Array
from jax.extend import core as jex

from jthermo.errors import MOST_WHOLE, InputError, one_line
from jthermo.randomness.jax_settings import cached_per_dtype, pinned_dtype, real


class Model:
    """A network as a hashable value.

    Args:
        module: the flax module.
        input_shape: shape of one example.
        arguments: the constructor arguments of the subclass; models are equal when they are.

    Attributes:
        input_dtype: dtype of the examples, ``"float32"``, or ``"int32"`` for a net that takes
            integers. Real numbers are float64 in a sweep with this dtype.
    """

    input_dtype = "float32"

    def __init__(
        self, module: Any, input_shape: tuple[int, ...], arguments: Mapping[str, Any]
    ) -> None:
        self.module, self.input_shape, self.arguments = module, input_shape, dict(arguments)

    def init(self, key: Array) -> Any:
        """Initial parameters (a pytree of float32) from a key; empty for a fixed function."""
        return self.module.init(key, jnp.zeros((1, *self.input_shape), float)).get("params", {})

    def apply(self, params: Any, x: Array) -> Array:
        """Outputs: () or (C,) of an example, (M,) or (M, C) of a batch; no C for one output."""
        return jnp.asarray(self.module.apply({"params": params}, x))

    def start(self, key: Array) -> tuple[Any, Any]:
        """Initial parameters and the initial state.

        The state is what a net has besides its parameters and changes by itself in training, such
        as the running averages of batch normalisation; it is empty for most nets.
        """
        return self.init(key), {}

    def forward(self, params: Any, state: Any, x: Array, key: Array | None) -> tuple[Array, Any]:
        """Outputs of a batch in training mode, and the new state; `key` if the net is random."""
        return self.apply(params, x), state

    def with_state(self, state: Any) -> Model:
        """The model whose `apply` and `preactivations` use this state."""
        return self

    def preactivations(self, params: Any, x: Array) -> dict[str, Array]:
        """Pre-activations of a batch `x` by layer name, in the order in which layers are called."""
        _, sown = self.module.apply({"params": params}, x, mutable=["preactivations"])
        return named_preactivations(sown)

    # How a net shows its pre-activations to observables, for messages.
    how_to_show_preactivations = (
        'in the flax module, call self.sow("preactivations", "name", a) before each nonlinearity'
    )

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether the model accepts examples of this shape."""
        return tuple(shape) == self.input_shape

    @property
    def shapes(self) -> Any:
        """Shapes and dtypes of the parameters, without computing them."""
        return _shapes(self.value)[0]

    @property
    def state_shapes(self) -> Any:
        """Shapes and dtypes of the state, see :meth:`start`."""
        return _shapes(self.value)[1]

    @property
    def is_random(self) -> bool:
        """Whether an update draws random numbers inside the net, as dropout does."""
        return False

    @property
    def has_modes(self) -> bool:
        """Whether the net computes something else in an update than in `apply`."""
        return self.is_random or bool(jax.tree.leaves(self.state_shapes))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the outputs of two examples."""
        return _outputs(self.value).shape

    @property
    def num_outputs(self) -> int:
        """Number of outputs per example."""
        return 1 if len(self.output_shape) == 1 else self.output_shape[-1]

    def examples(self, number: int) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a batch of so many examples."""
        return jax.ShapeDtypeStruct((number, *self.input_shape), self.x_dtype)

    @property
    def x_dtype(self) -> Any:
        """`input_dtype` in the dtype of the sweep."""
        return real() if self.input_dtype == "float32" else self.input_dtype

    @property
    def value(self) -> Model:
        """The model without the state of :meth:`with_state`, which may be traced."""
        return self

    @property
    def title(self) -> str:
        """The model in one line of a message."""
        return type(self).__name__

    def step_model(self) -> Model:
        """The model for the compiled update: equal for models that differ only in their init."""
        return self.value

    @property
    def init_floats(self) -> dict[str, float]:
        """The numbers of the initialisation that compiled programs take as inputs, by name."""
        return {}

    def with_init_floats(self, floats: Mapping[str, Any]) -> Model:
        """The model with these numbers in its initialisation; they may be traced."""
        return self

    @property
    def learning_rate_factor(self) -> float:
        """The factor by which every update is multiplied, beside η."""
        return 1.0

    def learning_rate_of(self, eta: Any) -> Any:
        """The learning rate of a sweep's η: η times :attr:`learning_rate_factor`."""
        return eta if (factor := self.learning_rate_factor) == 1 else factor * eta

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model) or type(self) is not type(other):
            return False
        mine, others = ((m.arguments, m.input_shape, m.input_dtype) for m in (self, other))
        return mine == others

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.arguments.items())))


# The cache's key is the model's value, so that equal models are traced once.
@cached_per_dtype
def _shapes(model: Model) -> tuple[Any, Any]:
    """Shapes and dtypes of the parameters and of the state."""
    # eval_shape computes nothing and uses no device
    return jax.eval_shape(lambda: started(model, jax.random.key(0)))


@cached_per_dtype
def _outputs(model: Model) -> Any:
    """Shape and dtype of the outputs of a batch of two examples."""

    def outputs(params: Any, state: Any, x: Array) -> Array:
        return model.with_state(state).apply(params, x)

    return jax.eval_shape(outputs, *_shapes(model), model.examples(2))


@cached_per_dtype
def _after_forward(model: Model) -> Any:
    """Shapes and dtypes of the outputs and of the state after an update of two examples."""
    key = jax.eval_shape(lambda: jax.random.key(0)) if model.is_random else None
    update = functools.partial(forward_in, pinned_dtype(), model)
    return jax.eval_shape(update, *_shapes(model), model.examples(2), key)


def started(model: Model, key: Array) -> tuple[Any, Any]:
    """`model.start`, with float64 for float32 in a sweep with this dtype.

    Most nets draw their parameters in float32 unless told otherwise.
    """
    start = model.start(key)
    if pinned_dtype() != "float64":
        return start
    return jax.tree.map(lambda a: a.astype(float) if a.dtype == jnp.float32 else a, start)


def forward_in(
    dtype: str, model: Model, params: Any, state: Any, x: Array, key: Array | None
) -> tuple[Array, Any]:
    """`model.forward` in an update of a sweep with this dtype.

    For ``"bfloat16"``, parameters and examples are rounded to it, and what the net returns is cast
    back. Its state, such as running averages, stays float32.
    """
    if dtype != "bfloat16":
        return model.forward(params, state, x, key)

    def rounded(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        # XLA may remove a cast to bfloat16 and back, but not this rounding to its bits.
        return jax.lax.reduce_precision(leaf, exponent_bits=8, mantissa_bits=7).astype(jnp.bfloat16)

    outputs, after = model.forward(jax.tree.map(rounded, params), state, rounded(x), key)
    if outputs.dtype != jnp.bfloat16:
        remedy = (
            f"has {outputs.dtype} outputs for bfloat16 parameters and examples, since a layer has "
            "a dtype of its own or uses a state in float32; omit that, or use dtype='float32'"
        )
        raise InputError("model", model, remedy)
    same = jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)
    return outputs.astype(jnp.float32), same


def loss_inputs(outputs: Array) -> Array:
    """Outputs of a batch as the losses take them, (M,) or (M, C); a net may return (M, 1).

    >>> loss_inputs(jnp.zeros((5, 1))).shape
    (5,)
    """
    return outputs[..., 0] if outputs.ndim == 2 and outputs.shape[-1] == 1 else outputs


def leaves_by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    """Leaves of a parameter tree by path, such as ``("Dense_0", "kernel")``.

    >>> list(leaves_by_path({"a": (1.0, 2.0)}))
    [('a', '0'), ('a', '1')]
    """
    names = ("key", "idx", "name")
    return {
        tuple(str(next(getattr(k, n) for n in names if hasattr(k, n))) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a parameter tree by name, such as ``"Dense_0/kernel"``."""
    return {"/".join(path): leaf for path, leaf in leaves_by_path(tree).items()}


def named_preactivations(sown: Mapping[str, Any]) -> dict[str, Array]:
    """The pre-activations that a flax module has sown, by layer name.

    Under the name ``"a"``, a layer is called by the module's path instead.
    """
    flat = traverse_util.flatten_dict(sown.get("preactivations", {}))
    names = ["/".join(path[:-1] if len(path) > 1 and path[-1] == "a" else path) for path in flat]
    return {name: leaf[-1] for name, leaf in zip(names, flat.values(), strict=True)}


def check(model: Model, shown: Any) -> None:
    """Raise an InputError unless a model can be trained; `shown` is what the user passed.

    Raises:
        InputError: it isn't hashable, it fails on its examples, or it has parameters or outputs
            that can't be trained.
    """
    try:
        hash(model)
    except Exception:
        # flax raises any error of a field's own hash or repr
        raise InputError(
            "model", shown, "isn't hashable: it has a list or a dict as a field; use a tuple"
        ) from None
    if (remedy := _refusal(model)) is not None:
        raise InputError("model", shown, remedy)


@cached_per_dtype
def _refusal(model: Model) -> str | None:
    """Why a model can't be trained; it is traced once."""
    try:
        outputs, shapes = _outputs(model), model.shapes
        trained, state = _after_forward(model)
    except InputError as error:
        return error.remedy
    except Exception as error:
        return f"fails on examples of shape {model.input_shape}: {one_line(error)}"
    leaves = {
        f"parameters {jax.tree_util.keystr(path)}": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }
    number = sum(math.prod(leaf.shape) for leaf in leaves.values())
    if number > MOST_WHOLE:
        return f"has {number:,} parameters, more than {MOST_WHOLE:,}; give a smaller net"
    for name, array in {**leaves, "outputs": outputs}.items():
        if array.dtype != real():
            return f"has {array.dtype} {name}, but {_trains()}"
    if real() == jnp.float64 and (narrow := _narrowed(model)) is not None:
        return f"rounds to {narrow} inside, but {_trains()}"
    for batch in (outputs, trained):
        if batch.shape[:1] != (2,) or batch.ndim > 2 or 0 in batch.shape:
            return (
                f"returns the shape {batch.shape} for 2 examples of shape {model.input_shape}; "
                "return (M,), (M, 1) or (M, C) for M examples"
            )
    before, after = (
        (jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)])
        for tree in (model.state_shapes, state)
    )
    if before != after:
        return "has a state whose shapes or dtypes change in an update; keep them fixed"
    return None


def _trains() -> str:
    """The dtype in which the net must compute, and how."""
    return (
        f"jthermo trains in {real()}; give the module "
        f"dtype=jnp.{real()} and param_dtype=jnp.{real()}"
    )


def _narrowed(model: Model) -> str | None:
    """A dtype narrower than float64 to which an update or an evaluation rounds; None if neither."""
    key = jax.eval_shape(lambda: jax.random.key(0)) if model.is_random else None

    def both(params: Any, state: Any, x: Array, key: Array | None) -> Any:
        return model.forward(params, state, x, key), model.with_state(state).apply(params, x)

    return _rounds_to(jax.make_jaxpr(both)(*_shapes(model), model.examples(2), key).jaxpr)


def _rounds_to(jaxpr: Any) -> str | None:
    """The dtype of an operation that turns float64 into a narrower float, also in inner jaxprs."""
    for eqn in jaxpr.eqns:
        inner = list(jex.jaxprs_in_params(eqn.params))
        before, after = (
            {v.aval.dtype for v in variables if hasattr(v.aval, "dtype")}
            for variables in (eqn.invars, eqn.outvars)
        )
        narrow = {d for d in after if jnp.issubdtype(d, jnp.floating)} - {jnp.dtype("float64")}
        if not inner and jnp.dtype("float64") in before and narrow:
            return str(narrow.pop())
        for found in filter(None, map(_rounds_to, inner)):
            return found
    return None
