"""jthermo's engines beside what one would write in their place, on this machine, in turns.

Every contestant of a case lives in a process of its own: it compiles, finds a number of steps that takes about a
second, then all of them are timed in turns and the median counts. A contestant's time is nanoseconds of wall time per
step of one run on the whole machine, and of the processors' time, which others on the machine disturb less; the first
call, which compiles, and the peak memory of the process, libraries included, stand apart.

    python scripts/benchmark.py                      all cases → results/benchmark.json and a table
    python scripts/benchmark.py --cases small wide   some of them
    python scripts/benchmark.py --table              the table of the JSON that is there
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jthermo import engines
from jthermo.kernels import library

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1.0  # of one timing
ETA = 0.05


class Net(NamedTuple):
    """A case of training: `runs` nets on fresh examples, or on pictures where `channels` are given."""

    runs: int
    inputs: int
    hidden: tuple[int, ...]
    batch: int = 1
    bias: bool = True
    data: str = "gaussian"
    channels: tuple[tuple[int, ...], ...] = ()
    records: int = 120
    least: int = (
        2_000  # steps of a sweep of jthermo, which also makes its records; 20/η² at η = 0.025 are 32,000
    )


NETS = {
    "small": Net(512, 10, (10,), least=32_000),
    "uniform": Net(512, 10, (10,), bias=False, data="uniform", records=12, least=32_000),
    "batch": Net(512, 10, (10,), batch=32, least=4_000),
    "wide": Net(64, 100, (100,), least=20_000),
    "mlp6": Net(32, 100, (100,) * 5, records=4),
    "cnn": Net(8, 784, (128,), batch=8, channels=((16, 16), (32, 32)), records=4, least=1),
}
SCALING = {f"runs-{n}": Net(n, 10, (10,)) for n in (16, 64, 256, 1024, 4096)} | {
    f"width-{n}": Net(64, 10, (n,)) for n in (10, 32, 100, 316)
}
EVALUATIONS = {
    "gradient-variance-mlp6": ("batch-gradient", "moments", "moments-vmap", "vmap-grad"),
    "gradient-variance-cnn": ("batch-gradient", "moments", "moments-vmap", "vmap-grad"),
    "fit": ("fit_collapse",),
}
CONTESTANTS = (
    "torch-loop",
    "torch-func",
    "torch-batched",
    "plain-jax",
    "jthermo-xla",
    "jthermo-fused",
    "limit",
)
LIMITS = ("small", "uniform", "batch", "wide", "mlp6")  # cases of limit.cc


# ---- jthermo -------------------------------------------------------------------------------------------------------


def jthermo(net: Net, engine: str) -> Callable[[int], None]:
    """The whole of `jt.run`, records included."""
    import jthermo as jt

    if net.channels:
        model = jt.models.CNN(channels=net.channels, hidden=net.hidden, outputs=10)
        data: Any = jt.data.Arrays(*pictures())
    else:
        simple = jt.models.TwoLayer(net.inputs, *net.hidden, bias=net.bias) if len(net.hidden) == 1 else None
        model = simple or jt.models.MLP(net.inputs, net.hidden, bias=net.bias)
        data = {"gaussian": jt.data.Gaussian, "uniform": jt.data.Uniform}[net.data](dim=net.inputs)

    def run(steps: int) -> None:
        jt.run(
            jt.Sweep(
                model=model,
                data=data,
                learning_rate=ETA,
                batch_size=net.batch,
                seed=range(net.runs),
                num_steps=steps,
                record=jt.Record(steps=jt.log_steps(net.records), observables=jt.activation_rate()),
            ),
            engine=engine,
            progress=False,
        )

    run.least = net.least  # type: ignore[attr-defined]
    return run


def limit(case: str, net: Net) -> Callable[[int], None]:
    """The same arithmetic with no JAX around it, from limit.cc."""
    built = Path(tempfile.mkdtemp()) / "limit"
    flags = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-pthread", "-w"]
    source = [f"-I{ROOT / 'jthermo' / 'kernels'}", str(ROOT / "scripts" / "limit.cc")]
    subprocess.run([*library.compiler(), *flags, *source, "-o", str(built)], check=True)

    def run(steps: int) -> None:
        subprocess.run([built, case, str(steps), str(net.runs)], check=True, stdout=subprocess.DEVNULL)

    run.unit = 100  # type: ignore[attr-defined]
    return run


# ---- plain JAX -----------------------------------------------------------------------------------------------------


def plain_jax(net: Net) -> Callable[[int], None]:
    """`lax.scan` over `vmap(grad)`, jax.random and optax: what a good user would write; it records nothing."""
    import jax
    import jax.numpy as jnp
    import optax

    init, apply = flax_cnn(net) if net.channels else dense(net)
    optimizer = optax.sgd(ETA)
    x_all, y_all = map(jnp.asarray, pictures()) if net.channels else (None, None)

    def draw(key: Any) -> Any:
        key_x, key_y = jax.random.split(key)
        if net.channels:
            index = jax.random.randint(key_x, (net.batch,), 0, len(x_all))
            return x_all[index], y_all[index]
        law = jax.random.normal if net.data == "gaussian" else jax.random.uniform
        return law(key_x, (net.batch, net.inputs)), jax.random.bernoulli(key_y, 0.5, (net.batch,)) * 1.0

    def loss(params: Any, x: Any, y: Any) -> Any:
        outputs = apply(params, x)
        if net.channels:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean()
        return optax.sigmoid_binary_cross_entropy(outputs, y).mean()

    def train(params: Any, opt_state: Any, keys: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            params, opt_state = carry
            grads = jax.grad(loss)(params, *draw(key))
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, opt_state), keys)[0]

    chunk = 8 if net.channels else 256
    advance = jax.jit(jax.vmap(train), donate_argnums=(0, 1))
    split = jax.jit(jax.vmap(lambda key, i: jax.random.split(jax.random.fold_in(key, i), chunk), (0, None)))
    keys = jax.random.split(jax.random.key(0), net.runs)
    state = jax.jit(jax.vmap(lambda key: (p := init(key), optimizer.init(p))))(keys)

    def run(steps: int) -> None:
        nonlocal state
        for i in range(-(-steps // chunk)):
            state = advance(*state, split(keys, i))
        jax.block_until_ready(state)

    run.unit = chunk  # type: ignore[attr-defined]
    return run


def dense(net: Net) -> Any:
    """A ReLU net as a list of (W, b)."""
    import jax
    import jax.numpy as jnp

    widths = (net.inputs, *net.hidden, 1)

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(widths) - 1)
        shapes = zip(keys, widths[:-1], widths[1:], strict=True)
        return [
            {"w": jax.random.normal(k, (n, m)) / n**0.5} | ({"b": jnp.zeros(m)} if net.bias else {})
            for k, n, m in shapes
        ]

    def apply(params: Any, x: Any) -> Any:
        for i, layer in enumerate(params):
            x = x @ layer["w"] + layer.get("b", 0.0)
            x = jax.nn.relu(x) if i < len(params) - 1 else x
        return x[:, 0]

    return init, apply


def flax_cnn(net: Net) -> Any:
    """The CNN with flax's own convolution."""
    import flax.linen as nn
    import jax.numpy as jnp

    class Module(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for block in net.channels:
                for width in block:
                    x = nn.relu(nn.Conv(width, (3, 3))(x))
                x = nn.max_pool(x, (2, 2), (2, 2))
            x = x.reshape(len(x), -1)
            for width in net.hidden:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(10)(x)

    module = Module()
    return lambda key: module.init(key, jnp.zeros((1, 28, 28, 1))), module.apply


def pictures() -> tuple[Any, Any]:
    """256 pictures of noise with labels: what is in them costs no time."""
    import numpy as np

    draw = np.random.default_rng(0)
    return draw.normal(size=(256, 28, 28, 1)).astype(np.float32), draw.integers(0, 10, 256)


# ---- PyTorch -------------------------------------------------------------------------------------------------------


def torch_loop(net: Net) -> Callable[[int], None]:
    """One run, one step after the other; a sweep would take `runs` times as long."""
    import torch

    layers: list[Any] = []
    for n, m in zip((net.inputs, *net.hidden), (*net.hidden, 1), strict=True):
        layers += [torch.nn.Linear(n, m, bias=net.bias), torch.nn.ReLU()]
    model, loss_fn = torch.nn.Sequential(*layers[:-1]), torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)
    law = torch.randn if net.data == "gaussian" else torch.rand

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            x, y = law(net.batch, net.inputs), torch.randint(0, 2, (net.batch,)).float()
            loss_fn(model(x)[:, 0], y).backward()
            optimizer.step()

    run.runs = 1  # type: ignore[attr-defined]
    return run


def torch_params(net: Net) -> list[Any]:
    """Weights (runs, in, out) and biases (runs, 1, out)."""
    import torch

    made = []
    for n, m in zip((net.inputs, *net.hidden), (*net.hidden, 1), strict=True):
        made.append(torch.randn(net.runs, n, m) / n**0.5)
        made += [torch.zeros(net.runs, 1, m)] if net.bias else []
    return made


def torch_func(net: Net) -> Callable[[int], None]:
    """`torch.func.vmap` over `torch.func.grad`."""
    import torch

    law = torch.randn if net.data == "gaussian" else torch.rand
    per_layer = 2 if net.bias else 1

    def loss(params: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(params), per_layer):
            x = x @ params[i]
            x = x + params[i + 1] if net.bias else x
            x = torch.relu(x) if i + per_layer < len(params) else x
        return torch.nn.functional.binary_cross_entropy_with_logits(x[:, 0], y)

    grad = torch.func.vmap(torch.func.grad(loss))
    state = torch_params(net)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            x = law(net.runs, net.batch, net.inputs)
            y = torch.randint(0, 2, (net.runs, net.batch)).float()
            state = [p - ETA * g for p, g in zip(state, grad(state, x, y), strict=True)]

    return run


def torch_batched(net: Net) -> Callable[[int], None]:
    """Forward and backward by hand in batched matrix products, updated in place."""
    import torch

    law = torch.randn if net.data == "gaussian" else torch.rand
    per_layer = 2 if net.bias else 1
    params = torch_params(net)

    def run(steps: int) -> None:
        for _ in range(steps):
            hs = [law(net.runs, net.batch, net.inputs)]
            y = torch.randint(0, 2, (net.runs, net.batch, 1)).float()
            last = len(params) - per_layer
            for i in range(0, len(params), per_layer):
                a = (
                    torch.baddbmm(params[i + 1], hs[-1], params[i])
                    if net.bias
                    else torch.bmm(hs[-1], params[i])
                )
                hs.append(a if i == last else a.relu_())
            delta = (hs.pop().sigmoid_() - y) / net.batch
            for i in range(last, -1, -per_layer):
                h = hs.pop()
                down = torch.bmm(delta, params[i].mT).mul_(h > 0) if i else None
                params[i].baddbmm_(h.mT, delta, alpha=-ETA)
                if net.bias:
                    params[i + 1].sub_(delta.sum(1, keepdim=True), alpha=ETA)
                delta = down

    return run


# ---- single evaluations --------------------------------------------------------------------------------------------


def gradient_variance(case: str, contestant: str) -> Callable[[int], None]:
    """The mean gradient of 256 examples, and the trace of their covariance in several ways."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jthermo as jt
    from jthermo import gradients, losses

    images = case.endswith("cnn")
    model = (
        jt.models.CNN(channels=((16, 16), (32, 32)), outputs=10) if images else jt.models.MLP(784, outputs=10)
    )
    x, y = pictures()
    x, y = jnp.asarray(x if images else x.reshape(256, -1)), jnp.asarray(y, jnp.int32)
    params = model.init(jax.random.key(0))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return losses.value("softmax", model.apply(params, x), losses.targets("softmax", y, 10)).mean()

    def trace(params: Any, x: Any, y: Any) -> Any:
        each = jax.vmap(jax.grad(loss), (None, 0, 0))(params, x[:, None], y[:, None])
        return sum(g.var(0, ddof=1).sum() for g in jax.tree.leaves(each))

    ways = {
        "batch-gradient": jax.grad(loss),
        "moments": lambda p, x, y: gradients.moments(model, p, x, y, "softmax").trace,
        "moments-vmap": lambda p, x, y: gradients.moments(model, p, x, y, "softmax", method="vmap").trace,
        "vmap-grad": trace,
    }
    call = jax.jit(ways[contestant])
    assert np.isfinite(np.sum([np.sum(a) for a in jax.tree.leaves(call(params, x, y))]))

    def run(times: int) -> None:
        for _ in range(times):
            jax.block_until_ready(call(params, x, y))

    return run


def fit() -> Callable[[int], None]:
    """The collapse of 3 learning rates × 2 batch sizes × 16 seeds × 60 records of a planted law."""
    import numpy as np
    import pandas as pd

    from jthermo.collapse import fit_collapse

    draw, rows = np.random.default_rng(0), []
    for eta in (0.025, 0.05, 0.1):
        for batch in (1, 4):
            t = np.unique(np.geomspace(1, 20 * batch / eta**2, 60).astype(int))
            for seed in range(16):
                value = 0.5 / (1 + t * eta**2 / batch) + 0.01 * draw.normal(size=len(t))
                rows.append(
                    pd.DataFrame(
                        {"learning_rate": eta, "batch_size": batch, "seed": seed, "step": t, "value": value}
                    )
                )
    table = pd.concat(rows)

    def run(times: int) -> None:
        for _ in range(times):
            fit_collapse(table, ("learning_rate", "batch_size"))

    return run


# ---- taking turns --------------------------------------------------------------------------------------------------


def contestant(case: str, name: str) -> Callable[[int], None]:
    """What runs so many steps, or evaluations."""
    if case == "fit":
        return fit()
    if case in EVALUATIONS:
        return gradient_variance(case, name)
    net = (NETS | SCALING)[case]
    made: dict[str, Callable[[], Callable[[int], None]]] = {
        "torch-loop": lambda: torch_loop(net),
        "torch-func": lambda: torch_func(net),
        "torch-batched": lambda: torch_batched(net),
        "plain-jax": lambda: plain_jax(net),
        "jthermo-xla": lambda: jthermo(net, "xla"),
        "jthermo-fused": lambda: jthermo(net, "fused"),
        "limit": lambda: limit(case, net),
    }
    return made[name]()


def processors() -> float:
    """Seconds that all threads of this process and its children have kept processors busy."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(r.ru_utime + r.ru_stime for r in both)


def work(case: str, name: str) -> None:
    """A contestant's process: say how it is set up, then time one run for every line that comes in."""
    run = contestant(case, name)
    unit = getattr(run, "unit", 1)
    began = time.perf_counter()
    run(unit)
    first, steps = time.perf_counter() - began, getattr(run, "least", unit)
    while True:
        began = time.perf_counter()
        run(steps)
        spent = time.perf_counter() - began
        if spent > SECONDS / 2:
            break
        steps = max(steps + unit, int(steps * min(8.0, SECONDS / spent) / unit) * unit)
    runs = 1 if case in EVALUATIONS else getattr(run, "runs", (NETS | SCALING)[case].runs)
    print(
        json.dumps({"steps": steps, "run_steps": steps * runs, "first_call_seconds": round(first, 3)}),
        flush=True,
    )
    for _ in sys.stdin:
        began, busy = time.perf_counter(), processors()
        run(steps)
        print(time.perf_counter() - began, processors() - busy, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(peak, flush=True)


def compare(case: str, names: tuple[str, ...], repeats: int) -> dict[str, Any]:
    """All contestants of a case, in turns; each starts when the one before is set up, so that none disturbs another."""
    found: dict[str, Any] = {}
    workers: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, __file__, "--worker", case, name]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        said = worker.stdout.readline()
        if not said:
            raise RuntimeError(f"{case}: {name} did not start")
        workers[name], found[name] = worker, json.loads(said) | {"seconds": []}
    for _ in range(repeats):
        for name, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            found[name]["seconds"].append([float(s) for s in worker.stdout.readline().split()])
    for name, worker in workers.items():
        worker.stdin.close()
        each = found[name]
        each["peak_bytes"] = int(worker.stdout.readline())
        worker.wait()
        wall, busy = zip(*each.pop("seconds"), strict=True)
        per_step = sorted(s / each["run_steps"] * 1e9 for s in wall)
        each |= {"ns": statistics.median(per_step), "ns_low": per_step[0], "ns_high": per_step[-1]}
        each["processor_ns"] = statistics.median(busy) / each["run_steps"] * 1e9
        words = f"{each['ns']:14,.1f} ns {each['processor_ns']:14,.1f} ns of processors"
        print(f"{case:24} {name:16} {words}", file=sys.stderr, flush=True)
    return found


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        lines = (
            line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if "model name" in line
        )
        model = next(lines, model)
    names = ("jthermo", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
    there = [n for n in names if n != "torch" or has_torch()]
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[1],  # over five minutes; one busy contestant makes 1 to 2 of it
        "python": platform.python_version(),
        "versions": {n: importlib.metadata.version(n) for n in there},
        "date": datetime.date.today().isoformat(),
    }


@functools.cache
def has_torch() -> bool:
    """Whether PyTorch is at hand."""
    return importlib.util.find_spec("torch") is not None


def contestants(case: str) -> tuple[str, ...]:
    """Who takes part in a case on this machine."""
    if case in EVALUATIONS:
        return EVALUATIONS[case]
    out = set()
    if case in SCALING or not has_torch() or NETS[case].channels:
        out |= {n for n in CONTESTANTS if n.startswith("torch")}
    if case in SCALING:
        out |= {"plain-jax"}
    if engines.refusal() or case == "cnn":
        out |= {"jthermo-fused"}
    if library.compiler() is None or case not in LIMITS:
        out |= {"limit"}
    return tuple(n for n in CONTESTANTS if n not in out)


def table(found: dict[str, Any]) -> str:
    """The JSON as a Markdown table, nanoseconds per run-step, or per evaluation."""
    lines = [
        "| case | contestant | wall, ns | processors, ns | 1st call, s | peak, MB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for case, each in found["cases"].items():
        for name, row in each.items():
            times = f"{row['ns']:,.4g} | {row['processor_ns']:,.4g} | {row['first_call_seconds']:.2f}"
            lines.append(f"| {case} | {name} | {times} | {row['peak_bytes'] / 1e6:,.0f} |")
    return "\n".join(lines)


COLUMNS = {
    "small": "10-10-1, 512 runs",
    "uniform": "without bias, U(0, 1)",
    "wide": "100-100-1, 64 runs",
    "mlp6": "100-100×5-1, 32 runs",
}
ROWS = {
    "torch-loop": "PyTorch, one run in a loop",
    "torch-func": "torch.func vmap of grad",
    "torch-batched": "PyTorch, batched by hand",
    "plain-jax": "plain JAX, `lax.scan` of `vmap(grad)`",
    "jthermo-xla": 'jthermo `engine="xla"`',
    "jthermo-fused": 'jthermo `engine="fused"`',
    "limit": "the kernel's arithmetic alone, sizes compiled in",
}


def summary(found: dict[str, Any]) -> str:
    """The README's table: wall time per run-step of every contestant, a column a case."""
    lines = [
        f"| ns per run-step | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    for name, words in ROWS.items():
        each = (found["cases"].get(case, {}).get(name) for case in COLUMNS)
        cells = ("–" if row is None else f"{row['ns']:,.0f}" for row in each)
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run cases, write the JSON, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = (*NETS, *SCALING, *EVALUATIONS)
    parser.add_argument("--cases", nargs="*", choices=every, default=list(every))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without", nargs="*", choices=CONTESTANTS, default=[], help="leave these out")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmark.json")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(*given.worker)
        return
    found = json.loads(given.out.read_text()) if given.out.exists() else {"cases": {}}
    if not given.table:
        if not has_torch():
            print(
                "PyTorch is not installed (pip install '.[bench]'): its contestants are left out",
                file=sys.stderr,
            )
        for case in given.cases:
            found["cases"][case] = compare(
                case, tuple(n for n in contestants(case) if n not in given.without), given.repeats
            )
            found["machine"] = machine()
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(summary(found), table(found), sep="\n\n")


if __name__ == "__main__":
    main()
