"""Timed call by call: gradient variance, collapse fits, and the cost of a results folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmark.cases import NETS
from scripts.benchmark.contestant import Contestant, sweep


def gradient_variance(way: str, convolutional: int) -> Contestant:
    """The mean gradient of 256 examples, and the trace of their covariance in several ways."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jthermo as jt
    from jthermo.observables import gradient_moments
    from jthermo.update_rule import losses

    channels = ((16, 16), (32, 32))
    model = jt.models.CNN(channels=channels) if convolutional else jt.models.MLP(784, outputs=10)
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(256, *model.input_shape)), jnp.float32)
    y = jnp.asarray(draw.integers(0, 10, 256), jnp.int32)
    params = model.init(jax.random.key(0))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return losses.value(
            "softmax", model.apply(params, x), losses.targets("softmax", y, 10)
        ).mean()

    def trace(params: Any, x: Any, y: Any) -> Any:
        each = jax.vmap(jax.grad(loss), (None, 0, 0))(params, x[:, None], y[:, None])
        return sum(g.var(0, ddof=1).sum() for g in jax.tree.leaves(each))

    ways = {
        "batch-gradient": jax.grad(loss),
        "moments": lambda p, x, y: gradient_moments.moments(model, p, x, y, "softmax").trace,
        "vmap-grad": trace,
    }
    call = jax.jit(ways[way])
    return Contestant(
        lambda times: _repeat(times, lambda: jax.block_until_ready(call(params, x, y)))
    )


def fit(_: str, seeds: int) -> Contestant:
    """A collapse of 3 learning rates × 2 batch sizes × `seeds` seeds × 60 planted records."""
    import numpy as np
    import pandas as pd

    from jthermo.collapse import fit_collapse

    draw, rows = np.random.default_rng(0), []
    for eta in (0.025, 0.05, 0.1):
        for batch in (1, 4):
            t = np.unique(np.geomspace(1, 20 * batch / eta**2, 60).astype(int))
            for seed in range(seeds):
                value = 0.5 / (1 + t * eta**2 / batch) + 0.01 * draw.normal(size=len(t))
                curve = {
                    "learning_rate": eta,
                    "batch_size": batch,
                    "seed": seed,
                    "step": t,
                    "value": value,
                }
                rows.append(pd.DataFrame(curve))
    table = pd.concat(rows)
    return Contestant(
        lambda times: _repeat(times, lambda: fit_collapse(table, ("learning_rate", "batch_size")))
    )


def checkpoint(where: str, steps: int) -> Contestant:
    """The small nets in memory, and with a folder that may save every second."""
    import jthermo as jt

    net, folder = NETS["small"], Path(tempfile.mkdtemp())

    def run(steps: int) -> None:
        out = None if where == "in-memory" else folder / "out"
        jt.run(sweep(net, steps), out, checkpoint_seconds=1.0, progress=False)

    def prepare() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)

    return Contestant(run, net.runs, least=steps, exactly=True, prepare=prepare)


def resume(way: str, steps: int) -> Contestant:
    """A short sweep from the start, from a checkpoint (here or in a new process), or finished."""
    import jthermo as jt

    asked, folder = sweep(NETS["small"], steps), Path(tempfile.mkdtemp())
    stopped, out = folder / "stopped", folder / "out"

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(stopped, out)

    if way.startswith("resume"):
        _stop_after_a_checkpoint(
            lambda: jt.run(asked, stopped, checkpoint_steps=100, progress=False), stopped
        )
        prepare()
    if way == "open":
        jt.run(asked, out, progress=False)
    command = [
        sys.executable,
        "-c",
        "from jthermo.cli import main; main()",
        "resume",
        str(out),
        "--quiet",
    ]
    do: dict[str, Callable[[], Any]] = {
        "anew": lambda: jt.run(asked, progress=False),
        "open": lambda: jt.run(asked, out, progress=False),
        "resume": lambda: jt.run(asked, out, progress=False),
        "resume-process": lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL),
    }
    made = Contestant(lambda times: _repeat(times, do[way]), exactly=True)
    return made._replace(prepare=prepare) if way.startswith("resume") else made


def _repeat(times: int, call: Callable[[], Any]) -> None:
    for _ in range(times):
        call()


def _stop_after_a_checkpoint(run: Callable[[], Any], folder: Path) -> None:
    """Ask a run to stop as soon as something is saved, as a job scheduler would."""
    import jthermo as jt

    def ask() -> None:
        while not list(folder.glob("checkpoints/*-of-*/*/[0-9]*")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with contextlib.suppress(jt.Interrupted):
        run()
        raise RuntimeError("the run ended before it was asked to stop")
