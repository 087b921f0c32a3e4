"""Who takes part in a case: JAX, Equinox, PyTorch, jthermo itself, C++, and the machine's limit."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jthermo.engines import choice as engines
from jthermo.engines.fused import build
from scripts.benchmark import calls, plain, pytorch
from scripts.benchmark.cases import CASES, KERNEL, LATE, LOSS, MOMENTUM, TORCH, Call, Net
from scripts.benchmark.contestant import ROOT, Contestant, sweep

OTHERS = {
    "plain-jax": plain.plain_jax,
    "equinox": plain.equinox,
    "torch-loop": pytorch.torch_loop,
    "torch-func": pytorch.torch_func,
    "torch-batched": pytorch.torch_batched,
}
CALLS = {
    "gradient_variance": calls.gradient_variance,
    "fit": calls.fit,
    "checkpoint": calls.checkpoint,
    "resume": calls.resume,
}


def contestant(case: str, name: str) -> Contestant:
    """A contestant of a case."""
    what = CASES[case]
    if isinstance(what, Call):
        return CALLS[what.what](name, what.size)
    if name == KERNEL:
        return kernel(what)
    if name.startswith("jthermo"):
        return jthermo(what, name)
    return native(case, name, what) if name in ("limit", "hand") else OTHERS[name](what)


def taking_part(case: str, without: Sequence[str] = ()) -> tuple[str, ...]:
    """Who of a case is at hand on this machine."""
    absent = set(without)
    if importlib.util.find_spec("torch") is None:
        absent |= set(TORCH)
    if importlib.util.find_spec("equinox") is None:
        absent |= {"equinox"}
    if engines.refusal():
        absent |= {"jthermo-fused", KERNEL, LATE, LOSS, MOMENTUM}
    if build.compiler() is None:
        absent |= {"hand", "limit"}
    return tuple(name for name in CASES[case].who if name not in absent)


def jthermo(net: Net, name: str) -> Contestant:
    """The whole of `jt.run`, records included."""
    if name == LATE:
        import jax

        jax.numpy.ones(1).block_until_ready()
    import jthermo as jt

    engine = "xla" if name == "jthermo-xla" else "fused"
    momentum = 0.9 if name == MOMENTUM else None

    def run(steps: int) -> None:
        asked = sweep(net, steps, momentum, name == LOSS)
        jt.run(asked, engine=engine, progress=False)

    return Contestant(run, net.runs, least=net.least, exactly=net.exactly)


def kernel(net: Net) -> Contestant:
    """One call of the fused kernel for all steps, without records."""
    import jax
    import numpy as np

    from jthermo.execution import cohorts, placement

    asked = sweep(net, net.least)
    place = placement.Placement("sharding", placement.devices())
    (cohort,) = cohorts.cohorts(asked, engine="fused")
    lanes, _, _ = cohort.deal(len(place.devices))
    call = placement.programs(cohort.program, place)
    initial = placement.initializer(cohort.model, cohort.program.optimizer, place)
    runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
    states, zero = initial(runs), np.zeros(len(lanes), np.int32)
    marks = np.full((len(lanes), call.records), -1, np.int32)

    def run(steps: int) -> None:
        nonlocal states
        clock = place.tell(zero, zero + np.int32(steps), marks)
        states, _ = jax.block_until_ready(call.advance(runs, states, *clock))

    return Contestant(run, net.runs, least=net.least, exactly=net.exactly)


def native(case: str, name: str, net: Net) -> Contestant:
    """Training with no JAX around it: limit.cc with the kernel's arithmetic, hand.cc without."""
    built = Path(tempfile.mkdtemp()) / name
    flags = ["-std=c++17", "-O3", *build.variants()[0], "-fno-math-errno", "-pthread", "-w"]
    source = [
        f"-I{ROOT / 'jthermo' / 'engines' / 'fused'}",
        str(Path(__file__).with_name(f"{name}.cc")),
    ]
    subprocess.run([*build.compiler(), *flags, *source, "-o", str(built)], check=True)

    def run(steps: int) -> None:
        subprocess.run(
            [built, case, str(steps), str(net.runs)], check=True, stdout=subprocess.DEVNULL
        )

    return Contestant(run, net.runs, unit=100)
