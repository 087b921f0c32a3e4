"""Inputs of a compiled step: the static program that runs share, and the numbers of each run."""

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
from jthermo.models.model import started
from jthermo.observables import Observable
from jthermo.randomness.jax_settings import real
from jthermo.randomness.streams import dataset_key, optimizer_key
from jthermo.sweep.record import WHOLE_SET, Record
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.spec_value import float_fields
from jthermo.sweep.sweep import Sweep
from jthermo.update_rule.losses import Loss
from jthermo.update_rule.optimizer import Optimizer, weight_decay_sgd
from jthermo.update_rule.random_keys import with_own_keys
from jthermo.update_rule.schedule import stepped_rate, stepped_sgd

# Arrays of a data set in memory, shared by all runs; empty for other sources.
HeldArrays = Mapping[str, Any]


@dataclass(frozen=True)
class Program:
    """The static part of a run's configuration; runs with equal programs share compiled code.

    The floats of data, noise, optimizer and loss are zero here; each run supplies its own, see
    :func:`split`. If observables read it, `last_step` is True, and each record computes the step
    that led to it.
    """

    model: Model
    data: Any
    noise: Any
    optimizer: Optimizer
    loss: Loss
    batch_size: int
    observables: tuple[Observable, ...]
    probe_size: int
    engine: str = "xla"
    full_batch: bool = False
    whole_probe: bool = False
    dtype: str = "float32"
    last_step: bool = False


class Run(NamedTuple):
    """The traced numbers of one run, or of many runs with leading axes; NumPy arrays on the host.

    Attributes:
        seed: () uint32.
        stream: () uint32, hash of the run's configuration; if the runs of a sweep share their data,
            0 or the hash of the data_seed.
        learning_rate: () η.
        hyper: () by dotted name: every float of data, noise, optimizer, loss and
            model.init.
    """

    seed: Any
    stream: Any
    learning_rate: Any
    hyper: Mapping[str, Any]


def split(
    config: RunConfig, record: Record, engine: str = "xla"
) -> tuple[Program, dict[str, float]]:
    """The static part of a configuration, and its traced floats by dotted name."""
    parts = {
        "data": config.data,
        "noise": config.noise,
        "optimizer": config.optimizer,
        "loss": config.loss,
    }
    hyper = {
        f"{part}.{k}": v for part, value in parts.items() for k, v in float_fields(value).items()
    }
    hyper |= {f"model.{k}": v for k, v in config.model.init_floats.items()}
    data, noise, optimizer, loss = (
        _bind(v, dict.fromkeys(float_fields(v), 0.0)) for v in parts.values()
    )
    model = config.model.step_model()
    whole = record.probe_size == WHOLE_SET
    probe_size = config.data.size(config.data.abstract()) if whole else record.probe_size
    assert isinstance(probe_size, int)
    observables = tuple(o.of_optimizer(optimizer) for o in record.observables)
    last_step = any(o.reads_last_step(model, data, probe_size, loss) for o in observables)
    program = Program(
        model,
        data,
        noise,
        optimizer,
        loss,
        config.batch_size,
        observables,
        probe_size,
        engine,
        config.full_batch,
        whole,
        config.dtype,
        last_step,
    )
    return program, hyper


def starting_model(model: Model) -> Model:
    """The model in a compiled init: the numbers of its ``Init`` are inputs, so they are zero."""
    return model.with_init_floats(dict.fromkeys(model.init_floats, 0.0))


def programs(sweep: Sweep) -> tuple[Program, ...]:
    """The distinct programs of a sweep for the XLA engine."""
    return tuple(dict.fromkeys(split(config, sweep.record)[0] for config in sweep.configs))


def built_optimizer(optimizer: Optimizer, run: Run) -> optax.GradientTransformation:
    """The optax transformation with the run's η, hyperparameters and random keys."""
    built = optimizer.build(run.learning_rate, _own(run, "optimizer"))
    return with_own_keys(built, optimizer_key(run))


def learning_rate_at(program: Program, run: Run, t: Any) -> Any:
    """The learning rate of step t, which falls in the course of a run with ``decay_at``."""
    rate = program.model.learning_rate_of(run.learning_rate)
    hyper = {**program.optimizer.hyper, **_own(run, "optimizer")}
    # another optimizer may mean something else by these names
    if program.optimizer.fn not in (stepped_sgd, weight_decay_sgd) or hyper["decay_at"] is None:
        return rate
    return stepped_rate(rate, hyper["decay_at"], hyper["decay"], t)


def initial_variables(model: Model, key: Array, run: Run) -> tuple[Any, Any]:
    """The parameters and the state of the net at which a run starts, with the run's numbers."""
    return started(model.with_init_floats(_own(run, "model")), key)


def source_of(program: Program, run: Run) -> Source:
    """The data source with the run's floats and with the teacher of the run's seed."""
    data: Source = bound(program.data, "data", run)
    return data.of_seed(dataset_key(run))


def bound(value: Any, part: str, run: Run) -> Any:
    """A part of the program, such as ``"noise"``, with the run's floats."""
    return _bind(value, _own(run, part))


def _own(run: Run, part: str) -> dict[str, Array]:
    return {k.partition(".")[2]: v for k, v in run.hyper.items() if k.startswith(f"{part}.")}


def _bind(value: Any, floats: dict[str, Any]) -> Any:
    """A copy of a spec value with these floats; they are not checked, since they may be tracers."""
    copied = copy.copy(value)
    if isinstance(copied, Optimizer):
        copied.hyper = {**copied.hyper, **floats}
        return copied
    for name, new in floats.items():
        object.__setattr__(copied, name, new)
    return copied


def as_runs(
    configs: list[RunConfig], hypers: list[dict[str, float]], seeds: np.ndarray, streams: np.ndarray
) -> Run:
    """Many runs as NumPy arrays with leading axis (R,)."""
    return Run(
        seeds.astype(np.uint32),
        streams.astype(np.uint32),
        np.array([c.learning_rate for c in configs], real()),
        {k: np.array([h[k] for h in hypers], real()) for k in hypers[0]},
    )
