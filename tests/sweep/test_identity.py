"""The permanent names: ids, random streams and JSON don't depend on where a class is defined.

Every value here was computed before the package was divided into rooms. If one changes, existing
results folders become unreadable or random numbers change for all users. That is legitimate only
with a CHANGELOG entry that says so.
"""

import importlib
import inspect
import pkgutil

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import jthermo
import jthermo as jt
from jthermo.models import Model, as_model
from jthermo.observables import Observable
from jthermo.sweep import json_codec, stable_names
from jthermo.sweep.start import StartArrays
from jthermo.update_rule import residual_noise

X, Y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 1, 0])


def weights(key, width):
    return jax.random.normal(key, (width,))


def linear(params, x):
    return x @ params


GROUP = {"key": "0" * 16, "engine": "xla", "lane_width": 4}
VALUES = {
    "TwoLayer": jt.models.TwoLayer(inputs=3, hidden=4),
    "MLP": jt.models.MLP(inputs=3, hidden=(4,)),
    "Init": jt.models.TwoLayer(inputs=3, hidden=4, init=jt.models.Init(output_gain=0.5)),
    "CNN": jt.models.CNN(),
    "Flax": as_model(nn.Dense(1), (3,)),
    "NNX": jt.models.NNX(nnx.Linear, 3, out_features=1),
    "Function": jt.models.Function(init=weights, apply=linear, width=3),
    "Gaussian": jt.data.Gaussian(dim=3),
    "Uniform": jt.data.Uniform(dim=3),
    "Sphere": jt.data.Sphere(dim=3),
    "Teacher": jt.data.Teacher(jt.data.Sphere(dim=3), jt.models.TwoLayer(inputs=3, hidden=3)),
    "FashionMNIST": jt.data.FashionMNIST(),
    "CIFAR10": jt.data.CIFAR10(),
    "Arrays": jt.data.Arrays(X, Y),
    "Full": residual_noise.Full(),
    "Unbiased": residual_noise.Unbiased(),
    "LabelAveraged": residual_noise.LabelAveraged(),
    "SVAG": jt.noise.SVAG(4),
    "NoNoise": jt.noise.NoNoise(),
    "Gaussian noise": jt.noise.Gaussian(),
    "Isotropic": jt.noise.Isotropic(),
    "Drift": jt.noise.Drift(),
    "Softmax": jt.losses.Softmax(0.1),
    "sgd": jt.sgd(momentum=0.9),
    "stepped_sgd": jt.sgd(decay_at=1000.0),
    "weight_decay_sgd": jt.sgd(weight_decay=0.1),
    "adam": jt.Optimizer(optax.adam),
    "Start": jt.Start("o", runs=({**GROUP, "at": {}, "seeds": ((0, 1),)},)),
    "StartArrays": StartArrays("0" * 64),
    "LogSteps": jt.log_steps(5),
    "Every": jt.every(5),
    "RescaledSteps": jt.RescaledSteps(2.0),
    "Record": jt.Record(steps=(0, 1), observables=jt.loss()),
    "ActivationRate": jt.activation_rate(),
    "UnitActivation": jt.unit_activation(),
    "Kappa": jt.kappa(),
    "HessianTrace": jt.hessian_trace(),
    "TraceBound": jt.trace_bound(),
    "TopEigenvalues": jt.top_eigenvalues(),
    "GradientVariance": jt.gradient_variance(),
    "Accuracy": jt.accuracy(),
    "Loss": jt.loss(),
    "MeanSquaredResidual": jt.mean_squared_residual(),
    "WeightNorm": jt.weight_norm("V"),
    "LayerStatistics": jt.layer_statistics(),
    "Sparse": jt.sparse(jt.loss(), every=2),
}
# Of the sweep that contains this value: the stream of its only configuration, the key of its run,
# its law and its id.
GOLDEN = {
    "TwoLayer": (0xBBD714B6, "f9d88bec704d7bf7", "6bbe0f0ed92ac916", "b2620807cd44e10f"),
    "MLP": (0x1AC41D24, "39b375b610a6d7df", "6bbe0f0ed92ac916", "795d97a4c9435361"),
    "Init": (0xFD3B8E1C, "fed51831a5520088", "6bbe0f0ed92ac916", "2ceebcd46ae3a7fe"),
    "CNN": (0x12AEAE7D, "46219ea4dc463e47", "6bbe0f0ed92ac916", "8de1f95f68c83759"),
    "Flax": (0xDAAE6441, "07fb0ccbc26ddfb9", "6bbe0f0ed92ac916", "d2c97dcb2acce2bd"),
    "NNX": (0xD2AD2DA3, "f5d1c9fe12c3741b", "6bbe0f0ed92ac916", "973b4383fe5de88a"),
    "Function": (0xB331E669, "73b12ffd58641126", "6bbe0f0ed92ac916", "db06be9f16d7d355"),
    "Gaussian": (0xBBD714B6, "f9d88bec704d7bf7", "5d2b6a513220f2bb", "c6223743c03d3e12"),
    "Uniform": (0x1514F9B8, "99c41c7c4f837940", "5d2b6a513220f2bb", "f17c8ec63e606f5b"),
    "Sphere": (0x788D0352, "1ca091d2f4e84c03", "5d2b6a513220f2bb", "08a164591747bf83"),
    "Teacher": (0x63C77E2A, "9f077e9a66f55edc", "5d2b6a513220f2bb", "3845fa56d2246ebc"),
    "FashionMNIST": (0x805F9FF9, "2706118b5c62f21a", "6bbe0f0ed92ac916", "07c3ae430a8530ba"),
    "CIFAR10": (0xB9B39D3E, "33b1de3bda5affee", "6bbe0f0ed92ac916", "915c1afa38adeb8d"),
    "Arrays": (0xBAA86AE2, "54e6bb04043b960a", "5d2b6a513220f2bb", "dac32d8c1d8c5c8f"),
    "Full": (0xBBD714B6, "f9d88bec704d7bf7", "5d2b6a513220f2bb", "c6223743c03d3e12"),
    "Unbiased": (0xD8CB9D72, "ff50b6c47cf925cf", "5d2b6a513220f2bb", "30f9197c42a27e17"),
    "LabelAveraged": (0xBE241C8D, "52745c9f3f4d3866", "5d2b6a513220f2bb", "9960f48da11254e6"),
    "Softmax": (0xB42C705D, "b289c43b91fbe813", "6bbe0f0ed92ac916", "36358aca295108d4"),
    "SVAG": (0x9B65FD31, "1c07138a3241e50c", "5d2b6a513220f2bb", "d5a229899ef134a3"),
    "NoNoise": (0x71A982D5, "174c449354023ade", "5d2b6a513220f2bb", "7b7a3e893866979c"),
    "Gaussian noise": (0xC1CA5949, "9af9f2625d3f80fb", "5d2b6a513220f2bb", "b421947835b4c931"),
    "Isotropic": (0x246FA4D9, "4a6ebccc577f3af9", "5d2b6a513220f2bb", "a7272aa948042ec3"),
    "Drift": (0x8D0562B1, "8673fee24127a9bb", "5d2b6a513220f2bb", "3a919d1b131ccc07"),
    "sgd": (0x492684F4, "38a7ead1599c6cee", "5d2b6a513220f2bb", "ce7a2938a1fe94b9"),
    "stepped_sgd": (0x37821389, "edc31f07c9bd4b2c", "5d2b6a513220f2bb", "78caa357b0f9d85d"),
    "weight_decay_sgd": (0xD3B1FEC5, "90c23e6b94ee7e55", "5d2b6a513220f2bb", "6465109eaf55c823"),
    "adam": (0x3492B8F3, "057099af0e44b7c6", "5d2b6a513220f2bb", "d1fbcddf5ae60613"),
    "Start": (0x0D2C1310, "a536f9867f1ca77e", "5d2b6a513220f2bb", "4a688d4d587409ea"),
    "StartArrays": (0x2E831577, "54aedc2536eb0e03", "5d2b6a513220f2bb", "fa02d0a3a3ab45fe"),
    "LogSteps": (0xBBD714B6, "5dba7274a8d97bf6", "5d2b6a513220f2bb", "5dc49bdf2d3c3dff"),
    "Every": (0xBBD714B6, "f9d88bec704d7bf7", "5d2b6a513220f2bb", "c6223743c03d3e12"),
    "RescaledSteps": (0xBBD714B6, "2081208ce23260b9", "5d2b6a513220f2bb", "ba3030ed1609e6ba"),
    "Record": (0xBBD714B6, "d10e8fc4ea871269", "6bbe0f0ed92ac916", "7e485cc1fc550627"),
    "ActivationRate": (0xBBD714B6, "f9d88bec704d7bf7", "6bb7ce1d10498077", "04518338f880d18f"),
    "UnitActivation": (0xBBD714B6, "f9d88bec704d7bf7", "ad2d914c3bd466ed", "41ab4f00a5ded848"),
    "Kappa": (0xBBD714B6, "f9d88bec704d7bf7", "b8403ccd229611f1", "6b427fb709f1154e"),
    "HessianTrace": (0xBBD714B6, "f9d88bec704d7bf7", "1e180f4cf76505f4", "0082627e4a9c283c"),
    "TraceBound": (0x1AC41D24, "39b375b610a6d7df", "7cde624706794765", "9f72603cf231bf7f"),
    "TopEigenvalues": (0xBBD714B6, "f9d88bec704d7bf7", "238215921439d55d", "f7c0ce8262dc1f09"),
    "GradientVariance": (0xBBD714B6, "f9d88bec704d7bf7", "a9f83cc2f910e677", "a303e648231cd1bd"),
    "Accuracy": (0xBBD714B6, "f9d88bec704d7bf7", "0984bb6ee85aca25", "e772a8ec051996eb"),
    "Loss": (0xBBD714B6, "f9d88bec704d7bf7", "6bbe0f0ed92ac916", "b2620807cd44e10f"),
    "MeanSquaredResidual": (0xBBD714B6, "f9d88bec704d7bf7", "40ceee0f9ca7c874", "fd6c0b2a1fffaee2"),
    "WeightNorm": (0xBBD714B6, "f9d88bec704d7bf7", "5d2b6a513220f2bb", "c6223743c03d3e12"),
    "LayerStatistics": (0xBBD714B6, "f9d88bec704d7bf7", "4314a6a0001b2f9b", "496d78e50f910770"),
    "Sparse": (0xBBD714B6, "f9d88bec704d7bf7", "5cfa112483dedd0a", "044353e3c4cb8cb6"),
}


GAUSSIAN, FINITE = jt.data.Gaussian(dim=3), jt.data.Gaussian(dim=3, num_samples=5)


def sweep_with(name):
    """The smallest sweep that contains the value of this name."""
    value = VALUES[name]
    parts = {
        "model": jt.models.TwoLayer(inputs=3, hidden=4),
        "data": GAUSSIAN,
        "num_steps": 4,
    }
    record = {"steps": (0, 4), "observables": (jt.weight_norm("V"),)}
    if isinstance(value, jt.Record):
        return jt.Sweep(record=value, learning_rate=0.1, **parts)
    if isinstance(value, Model):
        parts["model"], record["observables"] = value, (jt.loss(),)
        if name == "CNN":
            parts["data"] = jt.data.FashionMNIST()
    elif hasattr(value, "draw"):
        parts["data"] = value
        if name in ("FashionMNIST", "CIFAR10"):
            size = int(np.prod(value.shape))
            parts["model"] = jt.models.MLP(inputs=size, hidden=(4,), outputs=10)
            record["observables"] = (jt.loss(),)
    elif name == "Softmax":
        parts["loss"] = value
        parts["model"] = jt.models.MLP(inputs=3, hidden=(4,), outputs=2)
        record["observables"] = (jt.loss(),)
    elif hasattr(value, "residual"):
        parts["noise"], parts["data"] = value, FINITE if residual_noise.of_set(value) else GAUSSIAN
    elif isinstance(value, jt.Start | StartArrays):
        parts["start"] = value
    elif isinstance(value, jt.Optimizer):
        parts["optimizer"] = value
    elif name == "RescaledSteps":
        parts["num_steps"], record["steps"] = value, jt.log_steps(3)
    elif isinstance(value, Observable):
        record["observables"] = (value,)
        if name == "TraceBound":
            parts["model"] = jt.models.MLP(inputs=3, hidden=(4,))
    else:
        record["steps"] = value
    return jt.Sweep(record=jt.Record(**record), learning_rate=0.1, **parts)


def test_every_value_has_a_golden_row():
    assert set(VALUES) == set(GOLDEN)
    named = {type(v).__name__ for v in VALUES.values()} | {
        "Init",
        "stepped_sgd",
        "weight_decay_sgd",
        "Model",
        "Custom",
        "Config",
        "StartRun",
        "Sweep",
    }
    assert {name.partition(":")[2] for name in stable_names.STABLE_NAMES} == named


@pytest.mark.parametrize("name", VALUES)
def test_streams_keys_laws_and_ids_are_golden(name):
    sweep = sweep_with(name)
    (config,) = sweep.configs
    assert (config.stream, sweep.key_of(config), sweep.law, sweep.id) == GOLDEN[name]


# The same by dtype of the sweep.
OF_DTYPE = {
    "float32": GOLDEN["TwoLayer"],
    "float64": (0xDBAD1ED0, "b35e5d6d07fbec18", "6bbe0f0ed92ac916", "73de50d90347ea50"),
    "bfloat16": (0x490CB942, "d00bc5d49d9151e5", "6bbe0f0ed92ac916", "40686de0fdc05873"),
}


@pytest.mark.parametrize("dtype", OF_DTYPE)
def test_streams_keys_laws_and_ids_of_a_dtype_are_golden(dtype):
    sweep = sweep_with("TwoLayer").replace(dtype=dtype)
    (config,) = sweep.configs
    assert (config.stream, sweep.key_of(config), sweep.law, sweep.id) == OF_DTYPE[dtype]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_written_under_its_stable_name_and_read_back(name):
    value = VALUES[name]
    plain = json_codec.to_plain(value)
    assert plain["type"] in stable_names.STABLE_NAMES
    assert json_codec.from_plain(plain) == value


@pytest.mark.parametrize("written", stable_names.STABLE_NAMES)
def test_every_stable_name_is_that_of_the_object_it_refers_to(written):
    obj = stable_names.dereference(written)
    assert stable_names.reference(obj) == written
    renamed = {"jthermo.spec:Config": "RunConfig"}
    assert obj.__qualname__ == renamed.get(written, written.partition(":")[2])


def test_no_class_that_a_sweep_can_hold_lacks_a_stable_name():
    modules = [
        importlib.import_module(m.name)
        for m in pkgutil.walk_packages(jthermo.__path__, "jthermo.")
        if not m.name.endswith("__main__") and "_experiments" not in m.name
    ]
    places = {
        f"{kind.__module__}:{kind.__qualname__}"
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__.startswith("jthermo.")
        # the fitter of curves is no part of a sweep
        and not kind.__module__.startswith("jthermo.collapse")
        and (
            issubclass(kind, Model | Observable)
            or hasattr(kind, "draw")
            or hasattr(kind, "residual")
        )
        and not inspect.isabstract(kind)
        and not kind.__name__.startswith("_")
        and kind.__name__ not in ("InMemory", "BuiltIn", "Source")
    }
    assert places <= set(stable_names.STABLE_NAMES.values())


def test_a_sweep_written_with_the_old_names_of_powers_is_read():
    old = {
        "type": "jthermo.schedule:RescaledSteps",
        "value": 5.0,
        "learning_rate": 1.0,
        "batch_size": 0.0,
        "at_most": None,
    }
    assert json_codec.from_plain(old) == jt.RescaledSteps(
        5.0, learning_rate_power=1.0, batch_size_power=0.0
    )
