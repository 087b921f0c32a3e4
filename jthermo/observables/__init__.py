"""The recorded quantities; your own function ``(model, params, probe)`` is an observable too."""

from jthermo.observables.activation import (
    ActivationRate,
    UnitActivation,
    activation_rate,
    unit_activation,
    unit_rates,
)
from jthermo.observables.curvature import (
    HessianTrace,
    Kappa,
    TopEigenvalues,
    TraceBound,
    hessian_trace,
    kappa,
    top_eigenvalues,
    trace_bound,
)
from jthermo.observables.custom import Custom, as_observable
from jthermo.observables.gradient_variance import GradientVariance, gradient_variance
from jthermo.observables.layer_statistics import LayerStatistics, layer_statistics
from jthermo.observables.loss import (
    Accuracy,
    Loss,
    MeanSquaredResidual,
    accuracy,
    loss,
    mean_squared_residual,
)
from jthermo.observables.observable import Observable, Probe, Variable
from jthermo.observables.sparse import Sparse, sparse
from jthermo.observables.weight_norm import WeightNorm, weight_norm

__all__ = [
    "Accuracy",
    "ActivationRate",
    "Custom",
    "GradientVariance",
    "HessianTrace",
    "Kappa",
    "LayerStatistics",
    "Loss",
    "MeanSquaredResidual",
    "Observable",
    "Probe",
    "Sparse",
    "TopEigenvalues",
    "TraceBound",
    "UnitActivation",
    "Variable",
    "WeightNorm",
    "accuracy",
    "activation_rate",
    "as_observable",
    "gradient_variance",
    "hessian_trace",
    "kappa",
    "layer_statistics",
    "loss",
    "mean_squared_residual",
    "sparse",
    "top_eigenvalues",
    "trace_bound",
    "unit_activation",
    "unit_rates",
    "weight_norm",
]
