"""Hostile values of the fields of sweeps, of their parts and of the calls that take a sweep."""

import dataclasses
import functools
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import optax
import xarray as xr

import jthermo as jt
from scripts.fuzz.trial import Outcome, Trial, accepted, run_all
from scripts.fuzz.values import VALUES, value

# Largest number of updates and parameters of a sweep that is also trained, and the share of these.
SMALL, TRAINED = 1000, 0.05


class Wide(nn.Module):
    """A user's module."""

    features: Any = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        """One dense layer."""
        return nn.Dense(self.features, dtype=self.dtype)(x)


@dataclasses.dataclass(frozen=True)
class Zeros(jt.data.Source):
    """A user's source of examples of any shape."""

    of: tuple[int, ...]
    num_classes: int = 2

    shape = property(lambda self: self.of)

    def draw(self, key, size):
        """All components are zero."""
        import jax.numpy as jnp

        return jnp.zeros((size, *self.of)), jnp.zeros((size,), jnp.int32)


def scaled(learning_rate, factor=1.0, power=1):
    """A user's optimizer."""
    return optax.sgd(learning_rate * factor**power)


def record(**changes):
    """A small record."""
    fields = {"steps": (0, 2), "observables": (jt.loss(),), "probe_size": 4}
    return jt.Record(**{**fields, **changes})


def sweep_of(**changes):
    """A small sweep."""
    fields = {
        "model": jt.models.TwoLayer(inputs=3, hidden=4),
        "data": jt.data.Gaussian(dim=3),
        "learning_rate": (0.1, 0.2),
        "batch_size": (1, 2),
        "seed": (0, 1),
        "num_steps": 4,
        "record": record(),
    }
    return jt.Sweep(**{**fields, **changes})


def of_model(cls, **base):
    """A sweep with a model, on data of the model's shape."""

    def build(**changes):
        model = cls(**{**base, **changes})
        return sweep_of(model=model, data=Zeros(model.input_shape, max(2, model.num_outputs)))

    return build


def of_data(cls, **base):
    """A sweep with a data source."""
    return lambda **changes: sweep_of(data=cls(**{**base, **changes}))


def of_field(name, make, **base):
    """A sweep with one field that a function makes."""
    return lambda **changes: sweep_of(**{name: make(**{**base, **changes})})


def of_observable(make, **base):
    """A sweep with one observable."""
    return lambda **changes: sweep_of(record=record(observables=make(**{**base, **changes})))


def of_vary(**changes):
    """A sweep with further axes; underscores stand for the dot of a name."""
    return sweep_of(vary={k.replace("__", "."): v for k, v in changes.items()})


def of_replace(**changes):
    """A sweep of which nested fields are replaced."""
    return sweep_of().replace(**{k.replace("__", "."): v for k, v in changes.items()})


def of_points(**changes):
    """A sweep with one field of its points changed."""
    points = [{"learning_rate": 0.1, "batch_size": 1}, {"learning_rate": 0.2, "batch_size": 2}]
    points[1] |= changes
    return sweep_of(learning_rate=None, batch_size=None, points=points)


@functools.cache
def results():
    """A small dataset in the form of results."""
    run = np.arange(6)
    axes = {
        "learning_rate": ("run", np.array([0.1, 0.2] * 3)),
        "batch_size": ("run", np.ones(6, int)),
        "seed": ("run", run // 2),
        "step": (("run", "record"), np.tile(np.arange(4), (6, 1))),
    }
    shape = (6, 4)
    variables = {
        "loss": (("run", "record"), np.ones(shape)),
        "finite": (("run", "record"), np.ones(shape, bool)),
        "rate": (("run", "record", "layer"), np.ones((*shape, 2))),
    }
    return xr.Dataset(variables, axes)


def plan(**changes):
    """A forecast."""
    return jt.plan(sweep_of(), **{"measure": False, **changes})


def start(**changes):
    """A run whose arguments are checked before anything is trained."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.touch()
        try:
            jt.run(**{"sweep": sweep_of(), "out": path, "progress": False, **changes})
        except jt.InputError as error:
            # the folder is a file, so that accepted arguments end in this error
            if error.remedy != "is a file; give a folder":
                raise


_IMAGES = {"labels": "random", "num_classes": 2, "num_samples": 5, "sampling": "epochs"}
_SYNTHETIC = {"dim": 3, "labels": "random", "num_classes": 2, "num_samples": 8}
_SYNTHETIC |= {"sampling": "epochs", "redraw": 0.5}
_TWO_LAYER = jt.models.TwoLayer(inputs=3, hidden=4)
# Each builder takes these keyword arguments, of which one or two are replaced.
BUILDERS: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "Sweep": (
        sweep_of,
        (
            *("model", "data", "num_steps", "record", "learning_rate", "batch_size", "seed"),
            *("noise", "optimizer", "loss", "vary", "points", "common_data", "lane_width"),
            "max_runs",
        ),
    ),
    "Record": (of_field("record", record), ("steps", "observables", "probe_size")),
    "RescaledSteps": (
        of_field("num_steps", jt.RescaledSteps, value=1.0),
        ("value", "learning_rate_power", "batch_size_power", "at_most"),
    ),
    "log_steps": (lambda n=3: sweep_of(record=record(steps=jt.log_steps(n))), ("n",)),
    "every": (lambda k=2: sweep_of(record=record(steps=jt.every(k))), ("k",)),
    "TwoLayer": (
        of_model(jt.models.TwoLayer, inputs=3, hidden=4),
        ("inputs", "hidden", "bias", "init"),
    ),
    "MLP": (
        of_model(jt.models.MLP, inputs=3, hidden=(4,)),
        ("inputs", "hidden", "outputs", "bias", "init"),
    ),
    "CNN": (
        of_model(jt.models.CNN, input_shape=(4, 4, 1), channels=((2,),), hidden=(3,), outputs=2),
        ("input_shape", "channels", "hidden", "outputs", "bias", "init"),
    ),
    "flax": (lambda **changes: sweep_of(model=Wide(**changes)), ("features", "dtype")),
    "Gaussian": (of_data(jt.data.Gaussian, **_SYNTHETIC), (*_SYNTHETIC, "scale")),
    "Uniform": (of_data(jt.data.Uniform, **_SYNTHETIC), (*_SYNTHETIC, "low", "high")),
    "Sphere": (of_data(jt.data.Sphere, **_SYNTHETIC), (*_SYNTHETIC, "radius")),
    "Teacher": (
        of_data(jt.data.Teacher, inputs=jt.data.Gaussian(dim=3), model=_TWO_LAYER),
        ("inputs", "model", "label_noise"),
    ),
    "FashionMNIST": (
        lambda **changes: sweep_of(
            data=jt.data.FashionMNIST(**{**_IMAGES, **changes}), model=jt.models.MLP(784, (3,))
        ),
        (*_IMAGES, "data_dir", "verify"),
    ),
    "Unbiased": (of_field("noise", jt.noise.Unbiased), ("scale",)),
    "sgd": (of_field("optimizer", jt.sgd), ("momentum", "nesterov", "decay_at", "decay")),
    "adam": (
        of_field("optimizer", functools.partial(jt.Optimizer, optax.adam)),
        ("b1", "b2", "eps", "eps_root", "mu_dtype", "nesterov", "absent"),
    ),
    "Optimizer": (of_field("optimizer", jt.Optimizer, fn=scaled), ("fn", "factor", "power")),
    "activation_rate": (of_observable(jt.activation_rate), ("method",)),
    "loss": (of_observable(jt.loss), ("split",)),
    "accuracy": (of_observable(jt.accuracy), ("split",)),
    "weight_norm": (of_observable(jt.weight_norm, parameter="V"), ("parameter",)),
    "gradient_variance": (of_observable(jt.gradient_variance), ("by", "method")),
    "hessian_trace": (of_observable(jt.hessian_trace), ("method", "num_probes")),
    "top_eigenvalues": (of_observable(jt.top_eigenvalues), ("number", "num_matvecs")),
    "sparse": (of_observable(jt.sparse, observable=jt.loss(), every=2), ("observable", "every")),
    "vary": (
        of_vary,
        (
            *("model__hidden", "model__init", "data__scale", "data__num_samples", "model", "data"),
            *("noise", "optimizer", "loss", "optimizer__momentum", "optimizer__fn", "model__"),
            *("model__hidden__x", "absent", "data__absent", "seed"),
        ),
    ),
    "points": (of_points, ("learning_rate", "batch_size", "seed", "model.hidden", "loss")),
    "replace": (
        of_replace,
        (
            *("model__hidden", "data__dim", "record__probe_size", "record__steps", "num_steps"),
            *("optimizer__momentum", "noise__scale", "record__observables", "absent", "record"),
        ),
    ),
    "plan": (plan, ("placement", "engine", "devices", "hosts", "rate", "memory", "platform")),
    "run": (
        start,
        (
            *("out", "placement", "engine", "progress", "extend", "shard", "checkpoint_seconds"),
            *("checkpoint_steps", "callbacks", "sweep"),
        ),
    ),
    "curves": (
        lambda **changes: jt.figures.curves(results(), **{"variable": "loss", **changes}),
        ("variable", "by", "power", "index", "xscale"),
    ),
    "clocks": (
        lambda **changes: jt.figures.clocks(results(), **{"variable": "loss", **changes}),
        ("variable", "by", "powers", "col", "index", "xscale"),
    ),
}


def use(build: Callable[..., Any], changes: Mapping[str, str], train: bool) -> None:
    """Build something from hostile values; write and read a sweep, and train a small one."""
    built = build(**{name: value(expression) for name, expression in changes.items()})
    if not isinstance(built, jt.Sweep):
        return
    again = jt.Sweep.from_json(built.to_json())
    if again.id != built.id:
        raise AssertionError("the JSON of the sweep is that of another sweep")
    for config in built.configs if train else ():
        updates = max(built.steps_of(config)) * built.num_runs * config.batch_size
        if updates * built.record.probe_size < SMALL * 10 and _size(config.model) < SMALL:
            jt.run(built, progress=False, engine="xla")
        return


def _size(model: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(model.shapes))


def run(count: int, seed: int) -> list[Outcome]:
    """Try `count` hostile fields, after every builder as it is, which has to be accepted."""
    controls = [
        Trial(f"{name}()", functools.partial(accepted, use, build, {}, False))
        for name, (build, _) in BUILDERS.items()
    ]
    rng, trials = random.Random(seed), controls[:count]
    while len(trials) < count:
        name, (build, fields) = rng.choice(list(BUILDERS.items()))
        chosen = rng.sample(fields, min(len(fields), rng.choice((1, 1, 1, 2))))
        changes = {field: rng.choice(VALUES) for field in chosen}
        text = f"{name}({', '.join(f'{k}={v}' for k, v in changes.items())})"
        train = rng.random() < TRAINED
        trials.append(Trial(text, functools.partial(use, build, changes, train)))
    return run_all(trials)
