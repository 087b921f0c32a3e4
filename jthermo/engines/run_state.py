"""The training state of a run, carried from step to step and saved in checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jthermo.engines.step_program import Run, built_optimizer, initial_variables
from jthermo.models import Model
from jthermo.randomness.streams import init_key, start_key
from jthermo.update_rule.optimizer import Optimizer

# A function that changes the initial parameters; None without one.
Start = Callable[[Any, Any], Any] | None


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


def init(model: Model, optimizer: Optimizer, run: Run, start: Start = None) -> State:
    """State of one run before its first step; the seed and the model determine the parameters.

    A function `start` changes them, ``fn(params, key) -> params``.
    """
    key = init_key(run.seed)
    params, model_state = initial_variables(model, key, run)
    if start is not None:
        params = start(params, start_key(key))
    return begun(optimizer, run, params, model_state)


def begun(optimizer: Optimizer, run: Run, params: Any, model_state: Any) -> State:
    """State of one run before its first step, from its parameters and the state of the net."""
    return State(params, built_optimizer(optimizer, run).init(params), model_state)
