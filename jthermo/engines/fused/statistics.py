"""The observables that the C++ kernel measures itself, and the statistics that they consist of."""

from __future__ import annotations

from enum import IntEnum

from jthermo.engines.fused.supported_nets import by_layer
from jthermo.engines.step_program import Program
from jthermo.models import named_leaves
from jthermo.observables.activation import ActivationRate
from jthermo.observables.curvature import HessianTrace, Kappa
from jthermo.observables.loss import Accuracy, Loss, MeanSquaredResidual
from jthermo.observables.observable import Observable
from jthermo.observables.weight_norm import WeightNorm


class Statistic(IntEnum):
    """What a record of the kernel can hold, as in ``dense.h``."""

    FINITE = 0
    MEAN_LOSS = 1
    ACCURACY = 2
    SQUARED_RESIDUAL = 3
    ACTIVE = 4
    ACTIVE_ERROR = 5
    TRACE = 6
    KAPPA = 7
    EXACT_ACTIVE = 8
    NORM = 9


# The observables of one variable that is a mean over the probe.
_OF_PROBE: dict[type, int] = {
    Loss: Statistic.MEAN_LOSS,
    Accuracy: Statistic.ACCURACY,
    MeanSquaredResidual: Statistic.SQUARED_RESIDUAL,
    HessianTrace: Statistic.TRACE,
    Kappa: Statistic.KAPPA,
}


def measured(program: Program) -> tuple[Observable, ...]:
    """The observables of a program that the native kernel measures; XLA measures the others."""
    return tuple(o for o in program.observables if _statistics(o, program))


def statistics(program: Program) -> dict[str, int]:
    """The numbers of a record of the kernel, by variable, in their order."""
    found = {"finite": int(Statistic.FINITE)}
    for observable in measured(program):
        names = observable.variables(program.model, program.data)
        found |= dict(zip(names, _statistics(observable, program), strict=True))
    return found


def _statistics(observable: Observable, program: Program) -> tuple[int, ...]:
    """The statistics of an observable's variables; none if the kernel can't measure it."""
    kind, model = type(observable), program.model
    if isinstance(observable, WeightNorm) and kind is WeightNorm:
        paths = list(named_leaves(model.shapes))
        order = by_layer(model, model.shapes)
        return (Statistic.NORM + order.index(paths.index(observable.parameter)),)
    if isinstance(observable, ActivationRate) and kind is ActivationRate:
        if len(observable.variables(model, program.data)) == 1:
            return (Statistic.EXACT_ACTIVE,)
        return () if program.whole_probe else (Statistic.ACTIVE, Statistic.ACTIVE_ERROR)
    if program.whole_probe or getattr(observable, "split", "probe") != "probe":
        return ()
    if isinstance(observable, HessianTrace) and observable.method != "exact":
        return ()
    return (_OF_PROBE[kind],) if kind in _OF_PROBE else ()
