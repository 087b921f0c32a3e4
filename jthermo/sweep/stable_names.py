"""The permanent names of classes and functions in ids and JSON, independent of their files."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jthermo.errors import InputError

# Every class and function of jthermo whose name enters sweep ids, random streams or JSON: the
# written name, then the place of its definition. The written names are permanent: changing one
# changes ids and random numbers and makes existing results folders unreadable. When code moves,
# only the right-hand side changes.
STABLE_NAMES = {
    "jthermo.models:Model": "jthermo.models.model:Model",
    "jthermo.models:Flax": "jthermo.models.flax_linen:Flax",
    "jthermo.models:NNX": "jthermo.models.flax_nnx:NNX",
    "jthermo.models:Function": "jthermo.models.function:Function",
    "jthermo.models:TwoLayer": "jthermo.models.two_layer:TwoLayer",
    "jthermo.models:MLP": "jthermo.models.mlp:MLP",
    "jthermo.models:CNN": "jthermo.models.cnn:CNN",
    "jthermo.models:Init": "jthermo.models.init:Init",
    "jthermo.data.synthetic:Gaussian": "jthermo.data.synthetic:Gaussian",
    "jthermo.data.synthetic:Uniform": "jthermo.data.synthetic:Uniform",
    "jthermo.data.synthetic:Sphere": "jthermo.data.synthetic:Sphere",
    "jthermo.data.teacher:Teacher": "jthermo.data.teacher:Teacher",
    "jthermo.data.images:FashionMNIST": "jthermo.data.images:FashionMNIST",
    "jthermo.data.images:CIFAR10": "jthermo.data.images:CIFAR10",
    "jthermo.data.arrays:Arrays": "jthermo.data.arrays:Arrays",
    "jthermo.noise:Full": "jthermo.update_rule.residual_noise:Full",
    "jthermo.noise:Unbiased": "jthermo.update_rule.residual_noise:Unbiased",
    "jthermo.noise:LabelAveraged": "jthermo.update_rule.residual_noise:LabelAveraged",
    "jthermo.noise:SVAG": "jthermo.update_rule.residual_noise:SVAG",
    "jthermo.noise:NoNoise": "jthermo.update_rule.residual_noise:NoNoise",
    "jthermo.noise:Gaussian": "jthermo.update_rule.residual_noise:Gaussian",
    "jthermo.noise:Isotropic": "jthermo.update_rule.residual_noise:Isotropic",
    "jthermo.noise:Drift": "jthermo.update_rule.residual_noise:Drift",
    "jthermo.losses:Softmax": "jthermo.update_rule.losses:Softmax",
    "jthermo.optimizer:Optimizer": "jthermo.update_rule.optimizer:Optimizer",
    "jthermo.optimizer:stepped_sgd": "jthermo.update_rule.schedule:stepped_sgd",
    "jthermo.optimizer:weight_decay_sgd": "jthermo.update_rule.optimizer:weight_decay_sgd",
    "jthermo.schedule:LogSteps": "jthermo.sweep.recorded_steps:LogSteps",
    "jthermo.schedule:Every": "jthermo.sweep.recorded_steps:Every",
    "jthermo.schedule:RescaledSteps": "jthermo.sweep.recorded_steps:RescaledSteps",
    "jthermo.spec:Record": "jthermo.sweep.record:Record",
    "jthermo.spec:Config": "jthermo.sweep.run_config:RunConfig",
    "jthermo.spec:Sweep": "jthermo.sweep.sweep:Sweep",
    "jthermo.sweep:Start": "jthermo.sweep.start:Start",
    "jthermo.sweep:StartRun": "jthermo.sweep.start:StartRun",
    "jthermo.sweep:StartArrays": "jthermo.sweep.start:StartArrays",
    "jthermo.observables:ActivationRate": "jthermo.observables.activation:ActivationRate",
    "jthermo.observables:UnitActivation": "jthermo.observables.activation:UnitActivation",
    "jthermo.observables:Custom": "jthermo.observables.custom:Custom",
    "jthermo.observables:Kappa": "jthermo.observables.curvature:Kappa",
    "jthermo.observables:HessianTrace": "jthermo.observables.curvature:HessianTrace",
    "jthermo.observables:TraceBound": "jthermo.observables.curvature:TraceBound",
    "jthermo.observables:TopEigenvalues": "jthermo.observables.curvature:TopEigenvalues",
    "jthermo.observables:GradientVariance": (
        "jthermo.observables.gradient_variance:GradientVariance"
    ),
    "jthermo.observables:Accuracy": "jthermo.observables.loss:Accuracy",
    "jthermo.observables:Loss": "jthermo.observables.loss:Loss",
    "jthermo.observables:MeanSquaredResidual": "jthermo.observables.loss:MeanSquaredResidual",
    "jthermo.observables:WeightNorm": "jthermo.observables.weight_norm:WeightNorm",
    "jthermo.observables:LayerStatistics": "jthermo.observables.layer_statistics:LayerStatistics",
    "jthermo.observables:Sparse": "jthermo.observables.sparse:Sparse",
}


# Renamed constructor arguments: by the written name of the class, the old name in the JSON of older
# results folders, then the name today.
RENAMED_ARGUMENTS = {
    "jthermo.schedule:RescaledSteps": {
        "learning_rate": "learning_rate_power",
        "batch_size": "batch_size_power",
    },
}
# Packages that reading a sweep may import, and the functions of Python that a sweep may name.
_PACKAGES = ("jthermo", "jax", "flax", "optax")
_BUILTINS = ("builtins:abs",)
_WRITTEN = {place: name for name, place in STABLE_NAMES.items()}


def main_name() -> str:
    """The module name of the running program: ``sweep`` under ``python sweep.py``."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return spec.name
    file = getattr(main, "__file__", None)
    return "__main__" if file is None else Path(file).stem


def loaded(module: str) -> ModuleType | None:
    """The loaded module with this name, or None."""
    return sys.modules.get(module) or (sys.modules["__main__"] if module == main_name() else None)


def reference(obj: Any) -> str:
    """The name of a class or function in ids and JSON.

    It is the stable name if there is one, else ``module:name``. The module is the top-level package
    if that exports the object.

    Raises:
        InputError: it has no module, as code that was run by ``exec`` may.
    """
    module, name = obj.__module__, obj.__qualname__
    if not module:
        raise InputError("function", obj, "belongs to no module; define it in a Python file")
    if (written := _WRITTEN.get(f"{module}:{name}")) is not None:
        return written
    if module == "__main__":
        module = main_name()
    root = module.partition(".")[0]
    if root != "jthermo" and getattr(sys.modules.get(root), name, None) is obj:
        module = root
    return f"{module}:{name}"


def dereference(ref: str) -> Any:
    """The class or function that :func:`reference` wrote as `ref`; imports no file of the user.

    Raises:
        InputError: its module is the user's and has not been imported, it doesn't exist, or
            `reference` can't have written this name.
    """
    module, _, name = STABLE_NAMES.get(ref, ref).partition(":")
    root = module.partition(".")[0]
    foreign = root in sys.stdlib_module_names and ref not in _BUILTINS
    if foreign or (root == "jthermo" and ref not in STABLE_NAMES):
        raise InputError("type", ref, "can't be a part of a sweep, so the JSON was altered")
    home = loaded(module)
    try:
        if home is None and root in _PACKAGES:
            home = importlib.import_module(module)
        if home is None:
            remedy = "import it first; only `jthermo run` and `jthermo resume` import your files"
            raise InputError("type", ref, f"the module {module} has not been imported; {remedy}")
        obj = functools.reduce(getattr, name.split("."), home)
    except (ImportError, AttributeError) as error:
        remedy = (
            "define it in a file that can be imported (not in a notebook cell or inside a function)"
        )
        raise InputError("type", ref, f"can't be imported ({error}); {remedy}") from None
    # a module also holds what it imports, such as the module os
    if (getattr(obj, "__module__", None) or "").partition(".")[0] not in (root, "__main__"):
        raise InputError("type", ref, "is defined in another package, so the JSON was altered")
    return obj
