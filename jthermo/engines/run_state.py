"""The training state of a run, carried from step to step and saved in checkpoints."""

from __future__ import annotations

from typing import Any, NamedTuple

from jthermo.engines.step_program import Run, built_optimizer, initial_variables
from jthermo.models import Model
from jthermo.randomness.streams import init_key
from jthermo.update_rule.optimizer import Optimizer


class State(NamedTuple):
    """Training state of a run.

    Attributes:
        params: the parameters.
        opt_state: the state of the optimizer.
        model_state: what the net has besides its parameters, such as running averages; most nets
            have nothing, and then a checkpoint holds nothing of it.
    """

    params: Any
    opt_state: Any
    model_state: Any


def init(model: Model, optimizer: Optimizer, run: Run) -> State:
    """State of one run before its first step; the seed and the model determine the parameters."""
    params, model_state = initial_variables(model, init_key(run.seed), run)
    return State(params, built_optimizer(optimizer, run).init(params), model_state)
