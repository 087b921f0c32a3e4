"""The training state of a run, carried from step to step and saved in checkpoints."""

from __future__ import annotations

from typing import Any, NamedTuple

from jthermo.engines.step_program import Run, built_optimizer, initial_params
from jthermo.models import Model
from jthermo.randomness.streams import init_key
from jthermo.update_rule.optimizer import Optimizer


class State(NamedTuple):
    """Training state of a run: parameters and optimizer state."""

    params: Any
    opt_state: Any


def init(model: Model, optimizer: Optimizer, run: Run) -> State:
    """State of one run before its first step; the seed and the model determine the parameters."""
    params = initial_params(model, init_key(run.seed), run)
    return State(params, built_optimizer(optimizer, run).init(params))
