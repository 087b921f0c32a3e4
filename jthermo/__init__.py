"""jthermo: vectorized SGD sweeps, their observables, and the scaling exponents of the decay by data collapse.

Names are loaded when they are first used: ``import jthermo`` costs no JAX, and ``from jthermo.collapse import
fit_collapse`` never imports it.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__: str

_MODULES = (
    "claims",
    "collapse",
    "data",
    "errors",
    "figures",
    "gradients",
    "models",
    "noise",
    "observables",
    "reproduction",
    "results",
    "sinks",
    "store",
    "theory",
)
_NAMES = {
    "Claim": "claims",
    "InputError": "errors",
    "Interrupted": "errors",
    "Optimizer": "optimizer",
    "Record": "spec",
    "RescaledSteps": "schedule",
    "Sweep": "spec",
    "accuracy": "observables",
    "activation_rate": "observables",
    "doctor": "diagnosis",
    "every": "schedule",
    "explore": "exploration",
    "export": "results",
    "fit_collapse": "collapse",
    "gradient_variance": "observables",
    "grid": "results",
    "hessian_trace": "observables",
    "kappa": "observables",
    "layer_statistics": "observables",
    "log_steps": "schedule",
    "loss": "observables",
    "mean_squared_residual": "observables",
    "open_params": "parameters",
    "open_results": "results",
    "plan": "forecast",
    "reproduce": "reproduction",
    "run": "runner",
    "sgd": "optimizer",
    "sparse": "observables",
    "status": "results",
    "tau": "results",
    "top_eigenvalues": "observables",
    "trace_bound": "observables",
    "unit_activation": "observables",
    "weight_norm": "observables",
}
__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, once."""
    if name in _NAMES:
        value = getattr(importlib.import_module(f"jthermo.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"jthermo.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("jthermo")
    else:
        raise AttributeError(f"module 'jthermo' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
