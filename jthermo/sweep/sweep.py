"""`jt.Sweep`: the specification of a sweep, validated when it is constructed.

Its runs are the product learning_rate × batch_size × seed × every field named in `vary`. With
`points`, they are the product of the points and the axes that the points don't name.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from jthermo.data.sampling import SAMPLINGS, check_epoch
from jthermo.data.source import Source
from jthermo.errors import InputError, flag, one_line, one_of, sequence, whole_number
from jthermo.models import Model, as_model
from jthermo.observables.variables import check_variables
from jthermo.randomness.jax_settings import ask_for_cores, pinned
from jthermo.sweep import identity, json_codec, spec_value
from jthermo.sweep.axes import FULL_BATCH, label, position, read_axis, read_point
from jthermo.sweep.record import WHOLE_SET, Record
from jthermo.sweep.recorded_steps import RescaledSteps, as_num_steps, steps_of_run
from jthermo.sweep.run_config import RunConfig, RunGroup
from jthermo.sweep.start import as_start, start_of
from jthermo.update_rule import losses
from jthermo.update_rule.optimizer import Optimizer, sgd
from jthermo.update_rule.residual_noise import (
    SVAG,
    Drift,
    LabelAveraged,
    Noise,
    Unbiased,
    as_noise,
    of_set,
)

F = TypeVar("F", bound=Callable[..., Any])
AXES = ("learning_rate", "batch_size", "seed")
# Arguments of Sweep that are axes.
ARGUMENTS = (*AXES, "data_seed")
MAX_RUNS = 100_000
# Largest values of max_runs and lane_width, far above what any machine trains.
MOST_RUNS, MOST_LANES = 10_000_000, 2**20
# Fields of which only one type of value is valid, with the remedy.
KINDS: dict[str, tuple[type, str]] = {
    "record": (Record, "give a jt.Record"),
    "optimizer": (Optimizer, "give a jt.Optimizer such as jt.sgd()"),
    "data": (
        Source,
        "give a source such as jt.data.Gaussian(dim=10), or extend jt.data.Source",
    ),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """A model and its data, to be trained for all learning rates × batch sizes × seeds.

    Args:
        model: a ``jt.models`` value or any flax module. ``jt.models.NNX`` takes classes of
            flax.nnx, and ``jt.models.Function`` plain functions and nets of other libraries.
        data: a ``jt.data`` source, or your own subclass of ``jt.data.Source``.
        learning_rate: η, one or several positive numbers.
        batch_size: B, one or several positive whole numbers; 1 if omitted. ``"full"`` is gradient
            descent: every step uses each example of a finite set once.
        seed: one or several whole numbers below 2³²; 0 if omitted. Runs with the same seed start
            from the same parameters.
        data_seed: one or several whole numbers below 2³²; None if omitted. Runs that differ only in
            it start from the same parameters and, for a finite set, have the same examples, but
            draw their batches and probes differently.
        num_steps: a number of steps, or ``jt.RescaledSteps(20.0)`` to train until t·η²/B = 20.
        record: the steps and observables to record.
        noise: ``"full"`` (SGD), ``"unbiased"``, ``"label_averaged"``, ``"gaussian"``,
            ``"isotropic"``, ``"drift"``, ``"none"`` or a ``jt.noise`` value.
        optimizer: ``jt.sgd()`` or ``jt.Optimizer(optax_factory, **hyper)``.
        loss: ``"auto"`` (logistic for one output, softmax for several, squared for real-valued
            targets), ``"bce"``, ``"softmax"``, ``"squared"``, ``"hinge"``, ``"logistic"``,
            ``"exponential"``, ``"multi_label"``, ``jt.losses.Softmax(label_smoothing=0.1)``, or
            your own function ``(outputs, y) -> (M,)``.
        vary: further axes by dotted name, as in
            ``{"model.hidden": (10, 20), "optimizer.momentum": (0.0, 0.9)}``.
        points: a list of dicts instead of a product, as in
            ``[{"learning_rate": .1, "batch_size": 1}, …]``; all axes that the points don't name are
            crossed with them.
        start: parameters to start from, in place of the model's own: a pytree of arrays, which all
            runs share; a results folder or ``jt.Start(folder, where=…)``, whose last parameters the
            runs with the same seed take; or a function ``fn(params, key) -> params`` of the model's
            own. The state of a net and of the optimizer are new, but a folder that has a state of
            the net gives this too.
        common_data: if True, all runs of a seed train on the same random examples, for paired
            comparisons.
        lane_width: W, the number of runs vectorised together. None chooses it by a rule;
            :func:`jthermo.plan` shows the choice. W affects rounding, so it is part of the id.
        max_runs: the largest number of runs allowed, as a guard against mistyped axes.
        dtype: ``"float32"``; ``"float64"`` for data, parameters, updates and records; or
            ``"bfloat16"`` for the forward and backward pass of an update, all else in float32.

    Raises:
        InputError: names the field, the value and the remedy.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(
    ...     model=jt.models.TwoLayer(inputs=10, hidden=10), data=jt.data.Gaussian(dim=10),
    ...     learning_rate=(0.05, 0.1), seed=range(3), num_steps=jt.RescaledSteps(1.0),
    ...     record=jt.Record(steps=jt.log_steps(20), observables=jt.activation_rate()))
    >>> sweep.num_runs
    6
    >>> jt.Sweep.from_json(sweep.to_json()) == sweep
    True
    """

    model: Any
    data: Any
    num_steps: int | RescaledSteps
    record: Record
    learning_rate: Any = None
    batch_size: Any = None
    seed: Any = None
    data_seed: Any = None
    noise: str | Noise = "full"
    optimizer: Optimizer = field(default_factory=sgd)
    loss: losses.Loss = "auto"
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    points: Sequence[Mapping[str, Any]] = ()
    start: Any = None
    common_data: bool = False
    lane_width: int | None = None
    max_runs: int = MAX_RUNS
    dtype: str = "float32"

    def __post_init__(self) -> None:
        ask_for_cores()
        with pinned(self.dtype):
            self._validate()

    def _validate(self) -> None:
        for name in KINDS:
            _check_kind(name, getattr(self, name))
        if not isinstance(self.vary, Mapping):
            remedy = "give a dict of values by name, such as {'model.hidden': (10, 20)}"
            raise InputError("vary", self.vary, remedy)
        limit = whole_number("max_runs", self.max_runs, most=MOST_RUNS)
        remedy = "give a list of dicts such as [{'learning_rate': 0.1, 'batch_size': 4}]"
        most = f"max_runs = {limit:,}; set a larger max_runs if this is intended"
        points = sequence("points", self.points, limit, remedy, most)
        checked = {
            "noise": as_noise(self.noise),
            "loss": losses.as_loss(self.loss),
            "num_steps": as_num_steps(self.num_steps),
            "lane_width": None
            if self.lane_width is None
            else whole_number("lane_width", self.lane_width, most=MOST_LANES),
            "max_runs": limit,
            "points": tuple(read_point(p) for p in points),
            "start": as_start(self.start),
            "vary": {str(k): v for k, v in self.vary.items()},
            "common_data": flag("common_data", self.common_data),
        }
        for name, new in checked.items():
            object.__setattr__(self, name, new)
        self._set_axes()
        # observables depend on few of the settings, and their check traces the model
        for parts in dict.fromkeys((c.model, c.data, c.loss, c.optimizer) for c in self.configs):
            _check_observables(self, *parts)
        for config in self.configs:
            _check(self, config)

    def _set_axes(self) -> None:
        """Check every axis, and the number of runs before their product is formed."""
        named = {key for point in self.points for key in point}
        if any(set(p) != named for p in self.points):
            raise InputError("points", self.points[0], "every point must name the same fields")
        for name in sorted(named.difference(ARGUMENTS)):
            _check_name("points", name)
        axes: dict[str, tuple[Any, ...]] = {}
        for name, default in zip(ARGUMENTS, (None, 1, 0, None), strict=True):
            values = getattr(self, name)
            if name == "data_seed" and values is None:
                continue
            if name in named and values is not None:
                raise InputError(name, values, "is also named by the points; give it in one place")
            if name not in named:
                if (values := default if values is None else values) is None:
                    raise InputError(name, values, "give at least one value")
                axes[name] = read_axis(name, values, self.max_runs)
                object.__setattr__(self, name, axes[name])
        for name, values in self.vary.items():
            if name in named:
                raise InputError("vary", name, "is also named by the points; give it in one place")
            if name in ARGUMENTS:
                raise InputError(
                    "vary", name, f"is an argument of Sweep; give Sweep({name}=...) instead"
                )
            _check_name("vary", name)
            axes[name] = read_axis(name, values, self.max_runs)
        object.__setattr__(self, "vary", {k: v for k, v in axes.items() if k not in ARGUMENTS})
        size = math.prod(len(a) for a in axes.values()) * max(1, len(self.points))
        if size > self.max_runs:
            sizes = " × ".join(f"{len(a)} {k}" for k, a in axes.items())
            raise InputError(
                "max_runs",
                self.max_runs,
                f"the grid has {size:,} runs ({sizes}"
                f"{f' × {len(self.points)} points' if self.points else ''}); "
                f"set max_runs={size} if this is intended",
            )
        object.__setattr__(self, "_axes", axes)

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """Names of all axes: learning_rate, batch_size, seed, then data_seed, vary and points."""
        named = tuple(self.points[0]) if self.points else ()
        data_seed = () if self.data_seed is None else ("data_seed",)
        return tuple(dict.fromkeys((*AXES, *data_seed, *self.vary, *named)))

    @functools.cached_property
    def groups(self) -> dict[RunConfig, RunGroup]:
        """The runs by their settings without the seed, in sorted order."""
        axes: dict[str, tuple[Any, ...]] = self._axes  # type: ignore[attr-defined]
        seeds_at: dict[tuple[Any, ...], set[int]] = {}
        names = [n for n in self.axes if n != "seed"]
        free: dict[str, tuple[Any, ...]] = {k: v for k, v in axes.items() if k != "seed"}
        for point, rest in itertools.product(
            self.points or ({},), itertools.product(*free.values())
        ):
            at = {**dict(zip(free, rest, strict=True)), **point}
            seeds = axes.get("seed") or (at["seed"],)
            known = seeds_at.setdefault(tuple(at[n] for n in names), set())
            if known & set(seeds):
                raise InputError("points", point, "appears twice; remove the repeat")
            known.update(seeds)
        order = sorted(
            seeds_at,
            key=lambda at: tuple(position(v) for v in reversed(at)),
        )
        groups: dict[RunConfig, RunGroup] = {}
        seen: set[tuple[Any, ...]] = set()
        for values in order:
            coordinates = dict(zip(names, values, strict=True))
            config = self._config(coordinates, sorted(seeds_at[values]))
            coordinates = {k: label(v) for k, v in coordinates.items()}
            coordinates["batch_size"] = config.batch_size
            if config.full_batch and tuple(coordinates.values()) in seen:
                remedy = f"is {config.batch_size:,} here, which is named too; remove one of the two"
                raise InputError("batch_size", FULL_BATCH, remedy)
            if config in groups:
                raise InputError(
                    "vary",
                    coordinates,
                    f"gives the same run as {groups[config].at}; remove one of the two",
                )
            seen.add(tuple(coordinates.values()))
            groups[config] = RunGroup(coordinates, tuple(sorted(seeds_at[values])))
        return groups

    @property
    def configs(self) -> tuple[RunConfig, ...]:
        """The settings of all runs without their seeds, each once."""
        return tuple(self.groups)

    @functools.cached_property
    def num_runs(self) -> int:
        """Number of runs."""
        return sum(len(group.seeds) for group in self.groups.values())

    def steps_of(self, config: RunConfig) -> tuple[int, ...]:
        """The recorded steps of runs with these settings; training may stop after the last."""
        return steps_of_run(
            self.num_steps, self.record.steps, config.learning_rate, config.batch_size
        )

    def key_of(self, config: RunConfig, steps: Sequence[int] | None = None) -> str:
        """16 hex digits that identify a run without its seed: its settings and recorded steps."""
        steps = self.steps_of(config) if steps is None else steps
        settings = [identity.canonical(config, source=True), list(steps)]
        return identity.json_digest(settings)[:16]

    @functools.cached_property
    def runs(self) -> frozenset[tuple[str, int]]:
        """All runs as (key, seed), with the key of :meth:`key_of`."""
        keys = {self.key_of(config): group.seeds for config, group in self.groups.items()}
        return frozenset((key, seed) for key, seeds in keys.items() for seed in seeds)

    @functools.cached_property
    def law(self) -> str:
        """16 hex digits of the settings common to all runs: observables, probe size, W, axes."""
        observables = sorted(
            json.dumps(identity.canonical(o, source=True), sort_keys=True)
            for o in self.record.observables
        )
        names = sorted(set(self.axes) - set(AXES))
        shared = [observables, self.record.probe_size, self.common_data, self.lane_width, names]
        return identity.json_digest(shared)[:16]

    @functools.cached_property
    def id(self) -> str:
        """16 hex digits, equal exactly if the results must be equal, in any order of the axes."""
        runs = sorted([self.key_of(c), list(group.seeds)] for c, group in self.groups.items())
        return identity.json_digest([runs, self.law])[:16]

    def to_json(self) -> str:
        """The sweep as JSON text, including all defaults."""
        plain = {k: json_codec.to_plain(v) for k, v in spec_value.arguments(self).items()}
        return json.dumps(plain, indent=2, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Sweep:
        """The sweep from the text of :meth:`to_json`.

        Raises:
            InputError: the text isn't the JSON of a sweep, or names what can't be imported.
        """
        try:
            plain = json.loads(text)
            return Sweep(**{k: json_codec.from_plain(v) for k, v in plain.items()})
        except InputError:
            raise
        except Exception as error:
            remedy = f"isn't the JSON of a sweep ({type(error).__name__}: {one_line(error)})"
            raise InputError("sweep", text, f"{remedy}; give the text of Sweep.to_json()") from None

    def replace(self, **changes: Any) -> Sweep:
        """A copy with some fields changed, also nested: ``replace(**{"model.hidden": 20})``."""
        arguments = spec_value.arguments(self)
        # apply all changes before the copy is validated, since some fit only together
        for path, new in changes.items():
            field, _, rest = path.partition(".")
            spec_value.get(self, field)
            arguments[field] = spec_value.put(arguments[field], rest, new) if rest else new
        return spec_value.replace(self, **arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _config(self, at: Mapping[str, Any], seeds: Sequence[int]) -> RunConfig:
        """The settings of the runs at one point of the grid, which have these seeds."""
        parts: dict[str, Any] = {
            k: getattr(self, k) for k in ("model", "data", "noise", "optimizer", "loss")
        }
        nested: dict[str, dict[str, Any]] = {}
        for path, new in at.items():
            part, _, rest = path.partition(".")
            if rest:
                nested.setdefault(part, {})[rest] = new
            elif part in parts:
                parts[part] = new
        if "loss" in nested and parts["loss"] in ("auto", "softmax"):
            parts["loss"] = losses.Softmax()
        # replace the fields of a part at once, since some values are valid only together
        for part, changes in nested.items():
            deep = {k: v for k, v in changes.items() if "." in k}
            shallow = {k: v for k, v in changes.items() if "." not in k}
            for k in shallow:
                spec_value.get(parts[part], k)
            parts[part] = spec_value.replace(parts[part], **shallow)
            for k, v in deep.items():
                parts[part] = spec_value.put(parts[part], k, v)
        for name in ("data", "optimizer"):
            _check_kind(name, parts[name])
        model, data = _fitted(parts["model"], parts["data"])
        if self.dtype == "float64":
            data = data.in_float64()
        loss = losses.resolve(parts["loss"], model.num_outputs, data.num_classes, data.num_targets)
        if data.num_samples is not None:
            whole_number("data.num_samples", data.num_samples)
        one_of("data.sampling", data.sampling, SAMPLINGS)
        full_batch = at["batch_size"] == FULL_BATCH
        batch_size = data.size(data.abstract()) if full_batch else at["batch_size"]
        if batch_size is None:
            remedy = "needs a finite set; give data.num_samples, or arrays of your own"
            raise InputError("batch_size", FULL_BATCH, remedy)
        labels = {k: label(v) for k, v in at.items()} | {"batch_size": batch_size}
        return RunConfig(
            model,
            data,
            as_noise(parts["noise"]),
            parts["optimizer"],
            loss,
            at["learning_rate"],
            batch_size,
            full_batch,
            at.get("data_seed"),
            start_of(self.start, model, labels, seeds),
            self.dtype,
        )


def pinned_to_sweep(function: F) -> F:
    """Decorator of functions of a sweep: refuse anything else, and pin the sweep's dtype."""

    @functools.wraps(function)
    def call(sweep: Sweep, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(sweep, Sweep):
            raise InputError("sweep", sweep, "give a jt.Sweep")
        with pinned(sweep.dtype):
            return function(sweep, *args, **kwargs)

    return cast(F, call)


def _check_name(field: str, name: str) -> None:
    """Refuse an axis that is no field of a part of a sweep; `field` is where it was named."""
    if name == "dtype":
        raise InputError(field, name, "make one sweep per dtype, with Sweep(dtype=...)")
    if name.partition(".")[0] not in ("model", "data", "noise", "optimizer", "loss"):
        remedy = "name a field of model, data, noise, optimizer or loss, such as 'model.hidden'"
        if field == "points":
            remedy = f"name {', '.join(AXES)}, or {remedy.removeprefix('name ')}"
        raise InputError(field, name, remedy)


def _check_kind(name: str, value: Any) -> None:
    kind, remedy = KINDS[name]
    if not isinstance(value, kind):
        raise InputError(name, value, remedy)


def _fitted(model: Any, data: Source) -> tuple[Model, Source]:
    """The model for these data, whose whole numbers become integers if it takes only these."""
    try:
        return as_model(model, data.shape, data.x_dtype), data
    except InputError:
        if (integers := data.as_integers()) is None:
            raise
        with contextlib.suppress(InputError):
            return as_model(model, data.shape, integers.x_dtype), integers
        raise


def _check_observables(
    sweep: Sweep, model: Model, data: Source, loss: losses.Loss, optimizer: Optimizer
) -> None:
    """Check that the observables are defined here, and that their variables fit together.

    Raises:
        InputError: one is undefined, or two record the same variable.
    """
    observables = [o.of_optimizer(optimizer) for o in sweep.record.observables]
    for observable in observables:
        observable.check(model, data, loss)
    check_variables(observables, model, data, loss, sweep.axes)


def _check(sweep: Sweep, config: RunConfig) -> None:
    """Check settings that depend on each other: noise, data, batch size, recorded steps."""
    if isinstance(config.noise, LabelAveraged) and config.data.num_targets:
        raise InputError(
            "noise",
            config.noise,
            "averages class labels, but the data have real-valued targets; use 'full'",
        )
    if isinstance(config.noise, Unbiased | LabelAveraged):
        _check_residual(config)
    data = config.data
    if config.loss == "multi_label":
        _check_shares(data)
    size = data.size(data.abstract())
    if size is None and sweep.record.probe_size == WHOLE_SET:
        remedy = "needs a finite set; give data.num_samples, or a number of examples"
        raise InputError("record.probe_size", WHOLE_SET, remedy)
    if size is None and of_set(config.noise):
        remedy = "replaces the noise of a finite set; give data.num_samples, or arrays of your own"
        raise InputError("noise", config.noise, remedy)
    if isinstance(config.noise, SVAG) and (config.full_batch or data.sampling == "epochs"):
        remedy = "draws two independent batches; use a batch size and sampling='replacement'"
        raise InputError("noise", config.noise, remedy)
    if isinstance(config.noise, Drift) and config.dtype == "bfloat16":
        remedy = "is a second derivative, for which bfloat16 is too coarse; use dtype='float32'"
        raise InputError("noise", config.noise, remedy)
    if isinstance(config.noise, SVAG | Drift) and config.model.has_modes:
        remedy = "needs a net that is the same in an update and in evaluation; use noise='full'"
        raise InputError("noise", config.noise, remedy)
    check_epoch(config.batch_size, size, data.sampling)
    sweep.steps_of(config)


def _check_residual(config: RunConfig) -> None:
    """Refuse a control of the noise where dL/df is not p − y with class labels."""
    if (name := losses.name(config.loss)) not in losses.WITH_RESIDUAL:
        remedy = (
            f"replaces the residual p − y of the losses {', '.join(losses.WITH_RESIDUAL)}, but the "
            f"loss is {name}; use noise='full'"
        )
        raise InputError("noise", config.noise, remedy)


def _check_shares(data: Source) -> None:
    """Refuse targets outside 0 … 1, for which the loss of several labels has no minimum."""
    for name, y in data.load().arrays.items():
        if name in ("y", "y_test") and not ((y >= 0) & (y <= 1)).all():
            wrong = float(y[(y < 0) | (y > 1)].flat[0])
            remedy = "multi_label needs targets from 0 to 1; use 'squared' for other numbers"
            raise InputError(f"data.{name}", wrong, remedy)
