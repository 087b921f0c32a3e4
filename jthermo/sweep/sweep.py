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

from jthermo.data.source import Source
from jthermo.errors import InputError, whole_number
from jthermo.models import as_model
from jthermo.sweep import identity, json_codec, spec_value
from jthermo.sweep.axes import read_axis, read_list, read_point
from jthermo.sweep.record import Record
from jthermo.sweep.recorded_steps import RescaledSteps, as_num_steps
from jthermo.sweep.run_config import RunConfig, RunGroup
from jthermo.update_rule import losses
from jthermo.update_rule.optimizer import Optimizer, sgd
from jthermo.update_rule.residual_noise import LabelAveraged, Noise, as_noise

AXES = ("learning_rate", "batch_size", "seed")
MAX_RUNS = 100_000


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
                    f"give a jt.{kind.__name__}"
                    + (" such as jt.sgd()" if name == "optimizer" else ""),
                )
        if not isinstance(self.data, Source):
            remedy = "give a source such as jt.data.Gaussian(dim=10), or extend jt.data.Source"
            raise InputError("data", self.data, remedy)
        made = {
            "noise": as_noise(self.noise),
            "num_steps": as_num_steps(self.num_steps),
            "lane_width": None
            if self.lane_width is None
            else whole_number("lane_width", self.lane_width),
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
                raise InputError(
                    name, given, "is given by the points as well; name it in one place"
                )
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
    def groups(self) -> dict[RunConfig, RunGroup]:
        """The runs of every configuration, in sorted order."""
        axes: dict[str, tuple[Any, ...]] = self._axes  # type: ignore[attr-defined]
        found: dict[tuple[Any, ...], set[int]] = {}
        names = [n for n in self.axes if n != "seed"]
        free: dict[str, tuple[Any, ...]] = {k: v for k, v in axes.items() if k != "seed"}
        for point, rest in itertools.product(
            self.points or ({},), itertools.product(*free.values())
        ):
            at = {**dict(zip(free, rest, strict=True)), **point}
            seeds = axes.get("seed") or (at["seed"],)
            known = found.setdefault(tuple(at[n] for n in names), set())
            if known & set(seeds):
                raise InputError("points", point, "stands twice; drop the repeat")
            known.update(seeds)
        order = sorted(
            found,
            key=lambda at: tuple(
                (str(type(v)), v) if v is not None else ("", 0) for v in reversed(at)
            ),
        )
        groups: dict[RunConfig, RunGroup] = {}
        for where in order:
            coordinates = dict(zip(names, where, strict=True))
            config = self._config(coordinates)
            if config in groups:
                raise InputError(
                    "vary", coordinates, f"is the same run as {groups[config].at}; drop one of them"
                )
            groups[config] = RunGroup(coordinates, tuple(sorted(found[where])))
        return groups

    @property
    def configs(self) -> tuple[RunConfig, ...]:
        """Every distinct configuration."""
        return tuple(self.groups)

    @functools.cached_property
    def num_runs(self) -> int:
        """Number of runs."""
        return sum(len(group.seeds) for group in self.groups.values())

    def steps_of(self, config: RunConfig) -> tuple[int, ...]:
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

    def key_of(self, config: RunConfig) -> str:
        """Sixteen hex digits of what a run is, its seed apart: its configuration and its recorded steps."""
        what = [identity.canonical(config, source=True), list(self.steps_of(config))]
        return identity.json_digest(what)[:16]

    @functools.cached_property
    def runs(self) -> frozenset[tuple[str, int]]:
        """Every run as (key, seed)."""
        keys = {self.key_of(config): group.seeds for config, group in self.groups.items()}
        return frozenset((key, seed) for key, seeds in keys.items() for seed in seeds)

    @functools.cached_property
    def law(self) -> str:
        """Sixteen hex digits of what all runs share: what is recorded, from which data, at which lane width."""
        asked = sorted(
            json.dumps(identity.canonical(o, source=True), sort_keys=True)
            for o in self.record.observables
        )
        names = sorted(set(self.axes) - set(AXES))
        shared = [asked, self.record.probe_size, self.common_data, self.lane_width, names]
        return identity.json_digest(shared)[:16]

    @functools.cached_property
    def id(self) -> str:
        """Sixteen hex digits, equal exactly when the results must be equal: the order of a grid doesn't count."""
        runs = sorted([self.key_of(c), list(group.seeds)] for c, group in self.groups.items())
        return identity.json_digest([runs, self.law])[:16]

    def to_json(self) -> str:
        """The sweep as JSON text, complete with defaults."""
        plain = {k: json_codec.to_plain(v) for k, v in spec_value.arguments(self).items()}
        return json.dumps(plain, indent=2, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Sweep:
        """The sweep that `to_json` wrote."""
        return Sweep(**{k: json_codec.from_plain(v) for k, v in json.loads(text).items()})

    def replace(self, **changes: Any) -> Sweep:
        """A copy with fields changed; dotted names reach inside: ``replace(**{"model.hidden": 20})``."""
        given = spec_value.arguments(self)
        # all of them before the copy is validated: some only fit together
        for path, new in changes.items():
            field, _, rest = path.partition(".")
            spec_value.get(self, field)
            given[field] = spec_value.put(given[field], rest, new) if rest else new
        return spec_value.replace(self, **given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _config(self, at: Mapping[str, Any]) -> RunConfig:
        """The configuration at a point of the grid."""
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
        # together, so that fields that must agree can change together
        for part, changes in nested.items():
            deep = {k: v for k, v in changes.items() if "." in k}
            shallow = {k: v for k, v in changes.items() if "." not in k}
            for k in shallow:
                spec_value.get(parts[part], k)
            parts[part] = spec_value.replace(parts[part], **shallow)
            for k, v in deep.items():
                parts[part] = spec_value.put(parts[part], k, v)
        model, data = as_model(parts["model"], parts["data"].shape), parts["data"]
        loss = losses.resolve(parts["loss"], model.num_outputs, data.num_classes, data.num_targets)
        return RunConfig(
            model,
            data,
            as_noise(parts["noise"]),
            parts["optimizer"],
            loss,
            at["learning_rate"],
            at["batch_size"],
        )


def _check(sweep: Sweep, config: RunConfig) -> None:
    """Refuse what can't run: observables the model lacks, batches larger than the data set, records past the end."""
    names: set[str] = set()
    for observable in sweep.record.observables:
        observable.check(config.model, config.data, config.loss)
        new = set(observable.variables(config.model, config.data))
        if new & names:
            raise InputError(
                "record.observables",
                observable,
                f"records {', '.join(new & names)} a second time; drop one",
            )
        names |= new
    if isinstance(config.noise, LabelAveraged) and config.data.num_targets:
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
