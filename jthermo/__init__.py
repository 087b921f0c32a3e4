"""The public names of jthermo: vectorised SGD sweeps, their observables and scaling exponents.

Each name is imported when it is first used: ``import jthermo`` doesn't import JAX, and
``from jthermo.collapse import fit_collapse`` never does.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__: str

# Public modules: the public name, then the module below jthermo.
_MODULES = {
    "claims": "paper.claims",
    "collapse": "collapse",
    "data": "data",
    "errors": "errors",
    "figures": "figures",
    "gradients": "observables.gradient_moments",
    "losses": "update_rule.losses",
    "models": "models",
    "noise": "update_rule.residual_noise",
    "observables": "observables",
    "reproduction": "paper.reproduce",
    "results": "results",
    "sinks": "execution.callbacks",
    "theory": "theory",
}
# Public classes and functions: the public name, then the module below jthermo that defines it.
_NAMES = {
    "Claim": "paper.claims",
    "InputError": "errors",
    "Interrupted": "errors",
    "Optimizer": "update_rule.optimizer",
    "Record": "sweep.record",
    "RescaledSteps": "sweep.recorded_steps",
    "Start": "sweep.start",
    "Sweep": "sweep.sweep",
    "accuracy": "observables",
    "activation_rate": "observables",
    "doctor": "cli.doctor",
    "every": "sweep.recorded_steps",
    "explore": "figures.explore",
    "export": "results",
    "fit_collapse": "collapse",
    "gradient_variance": "observables",
    "grid": "results",
    "hessian_trace": "observables",
    "kappa": "observables",
    "layer_statistics": "observables",
    "log_steps": "sweep.recorded_steps",
    "loss": "observables",
    "mean_squared_residual": "observables",
    "observable": "observables.custom",
    "open_params": "execution.trained_params",
    "open_results": "results",
    "plan": "execution.forecast",
    "reproduce": "paper.reproduce",
    "run": "execution.runner",
    "sgd": "update_rule.optimizer",
    "sparse": "observables",
    "status": "execution.running",
    "tau": "results",
    "top_eigenvalues": "observables",
    "trace_bound": "observables",
    "unit_activation": "observables",
    "weight_norm": "observables",
}
__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it, and keep it."""
    if name in _NAMES:
        value = getattr(importlib.import_module(f"jthermo.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"jthermo.{_MODULES[name]}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("jthermo")
    else:
        raise AttributeError(
            f"module 'jthermo' has no attribute {name!r}; its public names are {', '.join(__all__)}"
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
