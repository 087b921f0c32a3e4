"""Contestants as something to call with a number of steps; jthermo itself and the machine's limit."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cases import CASES, TORCH, Call, Net

from jthermo.engines import choice as engines
from jthermo.engines.fused import build

ROOT = Path(__file__).resolve().parents[2]
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


def made(case: str, name: str) -> Contestant:
    """A contestant of a case."""
    what = CASES[case]
    if isinstance(what, Call):
        return getattr(importlib.import_module("calls"), what.what)(name, what.size)
    if name.startswith("jthermo"):
        return jthermo(what, name.removeprefix("jthermo-"))
    if name == "limit":
        return limit(case, what)
    if name == "plain-jax":
        return importlib.import_module("plain").plain_jax(what)
    return getattr(importlib.import_module("pytorch"), name.replace("-", "_"))(what)


def taking_part(case: str, without: Sequence[str] = ()) -> tuple[str, ...]:
    """Who of a case is at hand on this machine."""
    absent = set(without)
    if importlib.util.find_spec("torch") is None:
        absent |= set(TORCH)
    if engines.refusal():
        absent |= {"jthermo-fused"}
    if build.compiler() is None:
        absent |= {"limit"}
    return tuple(name for name in CASES[case].who if name not in absent)


def sweep(net: Net, steps: int) -> Any:
    """A case as a sweep."""
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
    record = jt.Record(
        steps=jt.log_steps(net.records), observables=jt.activation_rate(), probe_size=net.probe
    )
    return jt.Sweep(
        model=model,
        data=data,
        learning_rate=ETA,
        batch_size=net.batch,
        seed=range(net.runs),
        num_steps=steps,
        record=record,
    )


def jthermo(net: Net, engine: str) -> Contestant:
    """The whole of `jt.run`, records included."""
    import jthermo as jt

    def run(steps: int) -> None:
        jt.run(sweep(net, steps), engine=engine, progress=False)

    return Contestant(run, net.runs, least=net.least, exactly=net.exactly)


def images() -> Any:
    """Fashion-MNIST where it is at hand, else 60,000 pictures of noise: what is in them costs no time."""
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


def limit(case: str, net: Net) -> Contestant:
    """The same arithmetic with no JAX around it, from limit.cc."""
    built = Path(tempfile.mkdtemp()) / "limit"
    flags = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-pthread", "-w"]
    source = [
        f"-I{ROOT / 'jthermo' / 'engines' / 'fused'}",
        str(Path(__file__).with_name("limit.cc")),
    ]
    subprocess.run([*build.compiler(), *flags, *source, "-o", str(built)], check=True)

    def run(steps: int) -> None:
        subprocess.run(
            [built, case, str(steps), str(net.runs)], check=True, stdout=subprocess.DEVNULL
        )

    return Contestant(run, net.runs, unit=100)
