"""What training carries from step to step and a checkpoint keeps."""

from __future__ import annotations

from typing import Any, NamedTuple

from jthermo.engines.step_program import Run, built_optimizer
from jthermo.models import Model
from jthermo.randomness.streams import init_key
from jthermo.update_rule.optimizer import Optimizer


class State(NamedTuple):
    """What training carries and a checkpoint keeps: parameters and optimizer state."""

    params: Any
    opt_state: Any


def init(model: Model, optimizer: Optimizer, run: Run) -> State:
    """The state of one run before its first step; runs of one seed share their parameters."""
    params = model.init(init_key(run.seed))
    return State(params, built_optimizer(optimizer, run).init(params))
