"""Something to call with a number of steps, and what all contestants share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scripts.benchmark.cases import Net

ROOT = Path(__file__).resolve().parents[2]
# The learning rate of every contestant.
ETA = 0.05


class Contestant(NamedTuple):
    """What takes part.

    Attributes:
        run: does so many steps, or calls.
        runs: nets that a step trains.
        unit: steps come in multiples of it.
        least: fewest steps.
        exactly: whether `least` steps are timed, however long they take.
        prepare: done before each timing, outside it.
    """

    run: Callable[[int], None]
    runs: int = 1
    unit: int = 1
    least: int = 1
    exactly: bool = False
    prepare: Callable[[], None] = lambda: None


def sweep(net: Net, steps: int, momentum: float | None = None, loss: bool = False) -> Any:
    """A case as a sweep, with momentum or with loss() among its observables."""
    import jthermo as jt

    model: Any
    if net.channels:
        model = jt.models.CNN(channels=net.channels, hidden=net.hidden, outputs=10)
        data = images()
    else:
        two_layer = len(net.hidden) == 1
        model = jt.models.TwoLayer(net.inputs, *net.hidden, bias=net.bias) if two_layer else None
        model = model or jt.models.MLP(net.inputs, net.hidden, bias=net.bias)
        data = {"gaussian": jt.data.Gaussian, "uniform": jt.data.Uniform}[net.data](dim=net.inputs)
    observables = (jt.activation_rate(), *([jt.loss()] if loss else []))
    record = jt.Record(
        steps=jt.log_steps(net.records), observables=observables, probe_size=net.probe
    )
    return jt.Sweep(
        model=model,
        data=data,
        learning_rate=ETA,
        batch_size=net.batch,
        seed=range(net.runs),
        num_steps=steps,
        optimizer=jt.sgd(momentum=momentum),
        record=record,
    )


def images() -> Any:
    """Fashion-MNIST if it is installed, else 60,000 images of noise, which take the same time."""
    import numpy as np

    import jthermo as jt

    data = jt.data.FashionMNIST()
    try:
        data.load()
    except jt.InputError:
        draw = np.random.default_rng(0)
        pixels = draw.integers(0, 256, (60_000, 28, 28, 1)).astype(np.uint8)
        return jt.data.Arrays(pixels, draw.integers(0, 10, 60_000))
    return data
