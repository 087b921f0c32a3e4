"""Who takes part in a case: plain JAX, PyTorch, jthermo itself, and the machine's limit."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jthermo.engines import choice as engines
from jthermo.engines.fused import build
from scripts.benchmark import calls, plain, pytorch
from scripts.benchmark.cases import CASES, TORCH, Call, Net
from scripts.benchmark.contestant import ROOT, Contestant, sweep

PYTORCH = {
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
    if name.startswith("jthermo"):
        return jthermo(what, name.removeprefix("jthermo-"))
    if name == "limit":
        return limit(case, what)
    return plain.plain_jax(what) if name == "plain-jax" else PYTORCH[name](what)


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


def jthermo(net: Net, engine: str) -> Contestant:
    """The whole of `jt.run`, records included."""
    import jthermo as jt

    def run(steps: int) -> None:
        jt.run(sweep(net, steps), engine=engine, progress=False)

    return Contestant(run, net.runs, least=net.least, exactly=net.exactly)


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
