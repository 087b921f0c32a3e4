"""What is asked: a Sweep is one frozen value, validated where it is built, written as JSON and read back.

Its runs are the product of learning_rate × batch_size × seed × every field named in `vary`, or the `points` given,
crossed with the axes that the points leave open.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jthermo import values
from jthermo.axes import read_axis, read_list, read_point
from jthermo.errors import InputError, whole_number
from jthermo.models import as_model
from jthermo.observables import as_observable
from jthermo.schedule import Every, LogSteps, RescaledSteps, as_num_steps, as_steps
from jthermo.update_rule import losses
from jthermo.update_rule.optimizer import Optimizer, sgd
from jthermo.update_rule.residual_noise import LabelAveraged, Noise, as_noise

AXES = ("learning_rate", "batch_size", "seed")
MAX_RUNS = 100_000


@dataclass(frozen=True)
class Record:
    """When and what to record; a record at step s is the state after s updates.

    Args:
        steps: ``jt.log_steps(n)``, ``jt.every(k)`` or an increasing tuple of steps.
        observables: values such as ``jt.activation_rate()`` or functions ``(model, params, probe) -> array``.
        probe_size: M, the number of fresh examples an observable may look at.

    >>> import jthermo as jt
    >>> Record(steps=jt.every(10), observables=jt.activation_rate()).observables
    (ActivationRate(method='auto'),)
    """

    steps: LogSteps | Every | tuple[int, ...]
    observables: tuple[Any, ...]
    probe_size: int = 256

    def __post_init__(self) -> None:
        given = self.observables if isinstance(self.observables, Sequence) else (self.observables,)
        observables = tuple(as_observable(o) for o in given)
        if len(set(observables)) < len(observables):
            raise InputError("record.observables", observables, "names one observable twice; drop the repeat")
        object.__setattr__(self, "observables", observables)
        object.__setattr__(self, "steps", as_steps(self.steps))
        object.__setattr__(self, "probe_size", whole_number("record.probe_size", self.probe_size, 2))


@dataclass(frozen=True)
class Config:
    """One run without its seed: what decides its law. Equal configurations are the same run in any sweep."""

    model: Any
    data: Any
    noise: Noise
    optimizer: Optimizer
    loss: str
    learning_rate: float
    batch_size: int

    @functools.cached_property
    def stream(self) -> int:
        """A hash of the configuration, folded into the run's data stream; never its place in the grid."""
        return int(values.digest(values.canonical(self))[:8], 16)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """Thousands of small networks: a model and its data over learning rates × batch sizes × seeds.

    Args:
        model: a ``jt.models`` value or any flax module.
        data: a ``jt.data`` source.
        learning_rate: η, one or several positive numbers.
        batch_size: B, one or several positive whole numbers.
        seed: one or several whole numbers, below 2³². Runs of one seed share their init.
        num_steps: a number of steps, or ``jt.RescaledSteps(20.0)`` to run until t·η²/B = 20.
        record: when and what to record.
        noise: ``"full"``, ``"unbiased"``, ``"label_averaged"`` or a ``jt.noise`` value.
        optimizer: ``jt.sgd()`` or ``jt.Optimizer(optax_factory, **hyper)``.
        loss: ``"auto"`` (logistic for one output, softmax for several, squared for real targets), ``"bce"``,
            ``"softmax"`` or ``"squared"``.
        vary: further axes by dotted name, ``{"model.hidden": (10, 20), "optimizer.momentum": (0.0, 0.9)}``.
        points: a list of dicts in place of a product, ``[{"learning_rate": .1, "batch_size": 1}, …]``; crossed
            with the axes that the points don't name.
        common_data: True shares the data stream of a seed over all its runs, for paired comparisons.
        lane_width: W, the number of runs vectorised together; None takes a rule, and :func:`jthermo.plan`
            says which width that is. It is part of the results' identity, since it decides rounding.
        max_runs: refuse a larger grid, which is most often a slip.

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
    noise: str | Noise = "full"
    optimizer: Optimizer = field(default_factory=sgd)
    loss: str = "auto"
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    points: Sequence[Mapping[str, Any]] = ()
    common_data: bool = False
    lane_width: int | None = None
    max_runs: int = MAX_RUNS

    def __post_init__(self) -> None:
        for name, kind in (("record", Record), ("optimizer", Optimizer)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(
                    name,
                    getattr(self, name),
                    f"give a jt.{kind.__name__}" + (" such as jt.sgd()" if name == "optimizer" else ""),
                )
        if not hasattr(self.data, "draw"):
            raise InputError("data", self.data, "give a jt.data source such as jt.data.Gaussian(dim=10)")
        made = {
            "noise": as_noise(self.noise),
            "num_steps": as_num_steps(self.num_steps),
            "lane_width": None if self.lane_width is None else whole_number("lane_width", self.lane_width),
            "max_runs": whole_number("max_runs", self.max_runs, 1),
            "points": tuple(read_point(p) for p in read_list("points", self.points)),
            "vary": {str(k): v for k, v in dict(self.vary).items()},
        }
        for name, new in made.items():
            object.__setattr__(self, name, new)
        self._set_axes()
        for config in self.configs:
            _check(self, config)

    def _set_axes(self) -> None:
        """Read every axis, refusing a huge product before it is made."""
        named = {key for point in self.points for key in point}
        if any(set(p) != named for p in self.points):
            raise InputError("points", self.points[0], "every point has to name the same fields")
        axes: dict[str, tuple[Any, ...]] = {}
        for name, default in (("learning_rate", None), ("batch_size", 1), ("seed", 0)):
            given = getattr(self, name)
            if name in named and given is not None:
                raise InputError(name, given, "is given by the points as well; name it in one place")
            if name not in named:
                if (given := default if given is None else given) is None:
                    raise InputError(name, given, "give at least one value")
                axes[name] = read_axis(name, given, self.max_runs)
                object.__setattr__(self, name, axes[name])
        for name, given in self.vary.items():
            if name in AXES or name in named:
                raise InputError(
                    "vary",
                    name,
                    f"is an axis of its own or named by the points; use {name}=(...) in one place",
                )
            if name.partition(".")[0] not in ("model", "data", "noise", "optimizer", "loss"):
                raise InputError(
                    "vary",
                    name,
                    "name a field of model, data, noise, optimizer or loss, such as 'model.hidden'",
                )
            axes[name] = read_axis(name, given, self.max_runs)
        object.__setattr__(self, "vary", {k: v for k, v in axes.items() if k not in AXES})
        size = math.prod(len(a) for a in axes.values()) * max(1, len(self.points))
        if size > self.max_runs:
            sizes = " × ".join(f"{len(a)} {k}" for k, a in axes.items())
            raise InputError(
                "max_runs",
                self.max_runs,
                f"the grid has {size:,} runs ({sizes}"
                f"{f' × {len(self.points)} points' if self.points else ''}); set max_runs={size} if that is meant",
            )
        object.__setattr__(self, "_axes", axes)

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """Names of every swept axis, with learning_rate, batch_size and seed always among them."""
        named = tuple(self.points[0]) if self.points else ()
        return tuple(dict.fromkeys((*AXES, *self.vary, *named)))

    @functools.cached_property
    def groups(self) -> dict[Config, tuple[dict[str, Any], tuple[int, ...]]]:
        """Configurations in sorted order, each with its coordinates and its sorted seeds."""
        axes: dict[str, tuple[Any, ...]] = self._axes  # type: ignore[attr-defined]
        found: dict[tuple[Any, ...], set[int]] = {}
        names = [n for n in self.axes if n != "seed"]
        free: dict[str, tuple[Any, ...]] = {k: v for k, v in axes.items() if k != "seed"}
        for point, rest in itertools.product(self.points or ({},), itertools.product(*free.values())):
            at = {**dict(zip(free, rest, strict=True)), **point}
            seeds = axes.get("seed") or (at["seed"],)
            known = found.setdefault(tuple(at[n] for n in names), set())
            if known & set(seeds):
                raise InputError("points", point, "stands twice; drop the repeat")
            known.update(seeds)
        order = sorted(
            found, key=lambda at: tuple((str(type(v)), v) if v is not None else ("", 0) for v in reversed(at))
        )
        made: dict[Config, tuple[dict[str, Any], tuple[int, ...]]] = {}
        for where in order:
            coordinates = dict(zip(names, where, strict=True))
            config = self._config(coordinates)
            if config in made:
                raise InputError(
                    "vary", coordinates, f"is the same run as {made[config][0]}; drop one of them"
                )
            made[config] = (coordinates, tuple(sorted(found[where])))
        return made

    @property
    def configs(self) -> tuple[Config, ...]:
        """Every distinct configuration."""
        return tuple(self.groups)

    @functools.cached_property
    def num_runs(self) -> int:
        """Number of runs."""
        return sum(len(seeds) for _, seeds in self.groups.values())

    def steps_of(self, config: Config) -> tuple[int, ...]:
        """The recorded steps of a configuration; the last one is where training may stop."""
        if isinstance(self.num_steps, RescaledSteps):
            total = self.num_steps.resolve(config.learning_rate, config.batch_size)
        else:
            total = self.num_steps
        steps = self.record.steps
        if not isinstance(steps, tuple):
            return steps.resolve(total)
        kept = tuple(s for s in steps if s <= total)
        if not kept or (steps[-1] > total and not isinstance(self.num_steps, RescaledSteps)):
            raise InputError(
                "record.steps",
                steps,
                f"go beyond the {total} steps of the run; lower them or raise num_steps",
            )
        return kept

    def key_of(self, config: Config) -> str:
        """Sixteen hex digits of what a run is, its seed apart: its configuration and its recorded steps."""
        what = [values.canonical(config, source=True), list(self.steps_of(config))]
        return values.digest(what)[:16]

    @functools.cached_property
    def runs(self) -> frozenset[tuple[str, int]]:
        """Every run as (key, seed)."""
        keys = {self.key_of(config): seeds for config, (_, seeds) in self.groups.items()}
        return frozenset((key, seed) for key, seeds in keys.items() for seed in seeds)

    @functools.cached_property
    def law(self) -> str:
        """Sixteen hex digits of what all runs share: what is recorded, from which data, at which lane width."""
        asked = sorted(
            json.dumps(values.canonical(o, source=True), sort_keys=True) for o in self.record.observables
        )
        names = sorted(set(self.axes) - set(AXES))
        shared = [asked, self.record.probe_size, self.common_data, self.lane_width, names]
        return values.digest(shared)[:16]

    @functools.cached_property
    def id(self) -> str:
        """Sixteen hex digits, equal exactly when the results must be equal: the order of a grid doesn't count."""
        runs = sorted([self.key_of(c), list(seeds)] for c, (_, seeds) in self.groups.items())
        return values.digest([runs, self.law])[:16]

    def to_json(self) -> str:
        """The sweep as JSON text, complete with defaults."""
        plain = {k: values.to_plain(v) for k, v in values.arguments(self).items()}
        return json.dumps(plain, indent=2, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Sweep:
        """The sweep that `to_json` wrote."""
        return Sweep(**{k: values.from_plain(v) for k, v in json.loads(text).items()})

    def replace(self, **changes: Any) -> Sweep:
        """A copy with fields changed; dotted names reach inside: ``replace(**{"model.hidden": 20})``."""
        given = values.arguments(self)
        for path, new in changes.items():  # all of them before the copy is validated: some only fit together
            field, _, rest = path.partition(".")
            values.get(self, field)
            given[field] = values.put(given[field], rest, new) if rest else new
        return values.replace(self, **given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _config(self, at: Mapping[str, Any]) -> Config:
        """The configuration at a point of the grid."""
        parts: dict[str, Any] = {k: getattr(self, k) for k in ("model", "data", "noise", "optimizer", "loss")}
        nested: dict[str, dict[str, Any]] = {}
        for path, new in at.items():
            part, _, rest = path.partition(".")
            if rest:
                nested.setdefault(part, {})[rest] = new
            elif part in parts:
                parts[part] = new
        for part, changes in nested.items():  # together, so that fields that must agree can change together
            deep = {k: v for k, v in changes.items() if "." in k}
            shallow = {k: v for k, v in changes.items() if "." not in k}
            for k in shallow:
                values.get(parts[part], k)
            parts[part] = values.replace(parts[part], **shallow)
            for k, v in deep.items():
                parts[part] = values.put(parts[part], k, v)
        model, data = as_model(parts["model"], parts["data"].shape), parts["data"]
        num_targets = getattr(data, "num_targets", None)
        loss = losses.resolve(parts["loss"], model.num_outputs, data.num_classes, num_targets)
        return Config(
            model,
            data,
            as_noise(parts["noise"]),
            parts["optimizer"],
            loss,
            at["learning_rate"],
            at["batch_size"],
        )


def _check(sweep: Sweep, config: Config) -> None:
    """Refuse what can't run: observables the model lacks, batches larger than the data set, records past the end."""
    names: set[str] = set()
    for observable in sweep.record.observables:
        observable.check(config.model, config.data, config.loss)
        new = set(observable.variables(config.model, config.data))
        if new & names:
            raise InputError(
                "record.observables", observable, f"records {', '.join(new & names)} a second time; drop one"
            )
        names |= new
    if isinstance(config.noise, LabelAveraged) and getattr(config.data, "num_targets", None):
        raise InputError(
            "noise", config.noise, "averages class labels, and these are real numbers; use 'full'"
        )
    size = config.data.num_samples
    if size is not None and config.data.sampling == "epochs" and config.batch_size > size:
        raise InputError(
            "batch_size",
            config.batch_size,
            f"an epoch has {size} examples; lower it or use sampling='replacement'",
        )
    sweep.steps_of(config)


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Field by field, where two sweeps' JSON differ."""
    return [
        f"{k}: {json.dumps(a.get(k))[:120]} → {json.dumps(b.get(k))[:120]}"
        for k in sorted({*a, *b})
        if a.get(k) != b.get(k)
    ]
