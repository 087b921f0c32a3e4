"""What a compiled step needs: the static program that runs share, and the numbers that each run brings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import optax
from jax import Array

from jthermo.data.source import Source
from jthermo.models import Model
from jthermo.observables import Observable
from jthermo.randomness.streams import dataset_key
from jthermo.sweep.record import Record
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.spec_value import float_fields
from jthermo.sweep.sweep import Sweep
from jthermo.update_rule.optimizer import Optimizer

# the arrays of a data set in memory, shared by all runs; empty for the other sources
HeldArrays = Mapping[str, Any]


@dataclass(frozen=True)
class Program:
    """What is static in a group of runs: two runs with equal programs share their compiled code.

    The floats of data, noise and optimizer stand at zero here; each run brings its own (see :func:`split`).
    """

    model: Model
    data: Any
    noise: Any
    optimizer: Optimizer
    loss: str
    batch_size: int
    observables: tuple[Observable, ...]
    probe_size: int
    engine: str = "xla"


class Run(NamedTuple):
    """What is traced: one run's numbers, or a batch of runs with leading axes; NumPy on the host.

    Attributes:
        seed: () uint32.
        stream: () uint32, the hash of the run's configuration; 0 where the sweep shares its data.
        learning_rate: () float32, η.
        hyper: () float32 by dotted name, every float of data, noise and optimizer.
    """

    seed: Any
    stream: Any
    learning_rate: Any
    hyper: Mapping[str, Any]


def split(
    config: RunConfig, record: Record, engine: str = "xla"
) -> tuple[Program, dict[str, float]]:
    """A configuration's static part and its traced floats."""
    parts = {"data": config.data, "noise": config.noise, "optimizer": config.optimizer}
    hyper = {
        f"{part}.{k}": v for part, value in parts.items() for k, v in float_fields(value).items()
    }
    data, noise, optimizer = (_bind(v, dict.fromkeys(float_fields(v), 0.0)) for v in parts.values())
    model = config.model.step_model()
    static = (model, data, noise, optimizer, config.loss, config.batch_size)
    return Program(*static, record.observables, record.probe_size, engine), hyper


def programs(sweep: Sweep) -> tuple[Program, ...]:
    """The different programs of a sweep, by the XLA engine."""
    return tuple(dict.fromkeys(split(config, sweep.record)[0] for config in sweep.configs))


def built_optimizer(optimizer: Optimizer, run: Run) -> optax.GradientTransformation:
    """The optax transformation with the run's η and hyperparameters."""
    return optimizer.build(run.learning_rate, _own(run, "optimizer"))


def source_of(program: Program, run: Run) -> Source:
    """The data source as a run sees it: its floats, and its teacher, that of the seed."""
    data: Source = bound(program.data, "data", run)
    return data.of_seed(dataset_key(run))


def bound(value: Any, part: str, run: Run) -> Any:
    """A part of the program, such as ``"noise"``, with the run's floats in it."""
    return _bind(value, _own(run, part))


def _own(run: Run, part: str) -> dict[str, Array]:
    return {k.partition(".")[2]: v for k, v in run.hyper.items() if k.startswith(f"{part}.")}


def _bind(value: Any, floats: dict[str, Any]) -> Any:
    """A copy of a spec value with its floats put in unchecked: inside a program they are tracers."""
    made = copy.copy(value)
    if isinstance(made, Optimizer):
        made.hyper = {**made.hyper, **floats}
        return made
    for name, new in floats.items():
        object.__setattr__(made, name, new)
    return made


def as_runs(
    configs: list[RunConfig], hypers: list[dict[str, float]], seeds: np.ndarray, streams: np.ndarray
) -> Run:
    """A batch of runs as NumPy arrays with leading axis (R,)."""
    return Run(
        seeds.astype(np.uint32),
        streams.astype(np.uint32),
        np.array([c.learning_rate for c in configs], np.float32),
        {k: np.array([h[k] for h in hypers], np.float32) for k in hypers[0]},
    )
