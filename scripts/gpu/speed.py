"""Timing on one device: the updates of each engine, of plain JAX, and whole sweeps by `jt.run`."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import nets
from cases import Net

ETA = 0.01
# pictures of noise in place of CIFAR-10, which is not at hand everywhere
PICTURES = 10_000
TURNS = 3


class Timed(NamedTuple):
    """Something to time.

    Attributes:
        run: does so many steps and waits for them.
        runs: nets that a step trains.
        unit: steps come in multiples of it.
        exactly: how many are timed; None for as many as last long enough.
        about: what else the table tells of it.
    """

    run: Callable[[int], None]
    runs: int
    unit: int
    about: dict[str, Any]
    exactly: int | None = None


def plain_jax(net: Net) -> Timed:
    """`lax.scan` of `vmap(grad)`, that of scripts/benchmark or the same for pictures."""
    if nets.is_pictures(net):
        return _plain_pictures(net)
    import plain

    made = plain.plain_jax(net)
    return Timed(made.run, made.runs, made.unit, {})


def ours(net: Net, engine: str, width: int | None = None) -> Timed:
    """The update of all blocks, placed as `jt.run` places them; nothing is recorded."""
    import jax
    import numpy as np

    from jthermo.engines import choice, step_program
    from jthermo.execution import cohorts, memory, placement

    sweep = sweep_of(net).replace(lane_width=width)
    name = choice.settle(engine, None, step_program.programs(sweep), print)
    (cohort,) = cohorts.cohorts(sweep, engine=name)
    place = placement.Placement("sharding", placement.devices())
    lanes, _, _ = cohort.deal(len(place.devices))
    call = placement.programs(cohort.program, place).advance
    with placement.pinned():
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        states = placement.initializer(cohort.model, cohort.program.optimizer, place)(runs)
        zero = np.zeros(len(lanes), np.int32)
        compiled = call.compiled(runs, states, *place.tell(zero, zero))
    now = 0

    def run(steps: int) -> None:
        nonlocal states, now
        with placement.pinned():
            clock = place.tell(zero + np.int32(now), zero + np.int32(now + steps))
            states = jax.block_until_ready(compiled(runs, states, *clock))
        now += steps

    about = {
        "width": cohort.width,
        "blocks": len(lanes),
        "program_bytes": memory.peak(compiled.jitted),
    }
    return Timed(run, cohort.num_runs, 1, about)


def one_block(net: Net, width: int, layout: tuple[int, int, bool]) -> Timed:
    """The fused kernel for GPUs on one block, its runs laid out as given."""
    import jax
    import jax.numpy as jnp

    from jthermo.engines import fused, run_state
    from jthermo.engines.fused import pallas
    from jthermo.execution import cohorts, placement

    sweep = sweep_of(net._replace(runs=width)).replace(lane_width=width)
    (cohort,) = cohorts.cohorts(sweep, engine="pallas", platform="gpu")
    chosen, pallas.shape = pallas.shape, lambda *_: pallas.Shape(*layout)
    try:
        update = jax.jit(functools.partial(fused.advance, cohort.program), donate_argnums=1)
        first = jax.jit(
            jax.vmap(functools.partial(run_state.init, cohort.model, cohort.program.optimizer))
        )
        with placement.pinned():
            runs = jax.tree.map(jnp.asarray, cohort.runs)
            states = first(runs)
            compiled = update.lower(runs, states, jnp.int32(0), jnp.int32(0), {}).compile()
    finally:
        pallas.shape = chosen

    def run(steps: int) -> None:
        nonlocal states
        states = jax.block_until_ready(compiled(runs, states, jnp.int32(0), jnp.int32(steps), {}))

    about = dict(zip(("runs_per_program", "warps", "unrolled"), layout, strict=True))
    return Timed(run, width, 1, about)


def whole_sweep(net: Net, engine: str, steps: int) -> Timed:
    """All of `jt.run`: planning, training and 120 records of the activation rate."""
    import jthermo as jt

    record = jt.Record(steps=jt.log_steps(120), observables=jt.activation_rate())

    def run(steps: int) -> None:
        jt.run(sweep_of(net).replace(num_steps=steps, record=record), engine=engine, progress=False)

    return Timed(run, net.runs, 1, {}, exactly=steps)


def sweep_of(net: Net) -> Any:
    """A net as a sweep that records nothing."""
    import contestants

    import jthermo as jt

    record = jt.Record(steps=(2**30,), observables=jt.activation_rate(), probe_size=16)
    if nets.is_pictures(net):
        return jt.Sweep(
            model=jt.models.MLP(net.inputs, hidden=net.hidden, outputs=10),
            data=_pictures(net.inputs),
            learning_rate=ETA,
            batch_size=net.batch,
            seed=range(net.runs),
            num_steps=2**30,
            record=record,
        )
    return contestants.sweep(net, 2**30).replace(record=record)


@functools.cache
def _pictures(inputs: int) -> Any:
    import numpy as np

    import jthermo as jt

    draw = np.random.default_rng(0)
    return jt.data.Arrays(
        draw.standard_normal((PICTURES, inputs), np.float32), draw.integers(0, 10, PICTURES)
    )


def _plain_pictures(net: Net) -> Timed:
    """A dense net with softmax in plain JAX, on the same pictures."""
    import jax
    import jax.numpy as jnp
    import optax

    held = _pictures(net.inputs).load().arrays
    x_all, y_all = jnp.asarray(held["x"]), jnp.asarray(held["y"], jnp.int32)
    widths, optimizer = (net.inputs, *net.hidden, 10), optax.sgd(ETA)

    def init(key: Any) -> Any:
        each = zip(jax.random.split(key, len(widths) - 1), widths[:-1], widths[1:], strict=True)
        return [(jax.random.normal(k, (n, m)) / n**0.5, jnp.zeros(m)) for k, n, m in each]

    def loss(params: Any, x: Any, y: Any) -> Any:
        for i, (w, b) in enumerate(params):
            x = x @ w + b
            x = jax.nn.relu(x) if i < len(params) - 1 else x
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    def train(params: Any, keys: Any) -> Any:
        def step(params: Any, key: Any) -> Any:
            index = jax.random.randint(key, (net.batch,), 0, len(x_all))
            grads = jax.grad(loss)(params, x_all[index], y_all[index])
            updates, _ = optimizer.update(grads, optimizer.init(params))
            return optax.apply_updates(params, updates), None

        return jax.lax.scan(step, params, keys)[0]

    chunk = 8
    advance = jax.jit(jax.vmap(train), donate_argnums=0)
    split = jax.jit(
        jax.vmap(lambda key, i: jax.random.split(jax.random.fold_in(key, i), chunk), (0, None))
    )
    keys = jax.random.split(jax.random.key(0), net.runs)
    state = jax.jit(jax.vmap(init))(keys)

    def run(steps: int) -> None:
        nonlocal state
        for i in range(-(-steps // chunk)):
            state = advance(state, split(keys, i))
        jax.block_until_ready(state)

    return Timed(run, net.runs, chunk, {})


def measured(it: Timed, seconds: float, prepare: bool) -> dict[str, Any]:
    """Nanoseconds per step of one run, without the first call, which compiles."""
    began = time.perf_counter()
    it.run(it.unit)
    row: dict[str, Any] = {
        "runs": it.runs,
        "first_call_seconds": round(time.perf_counter() - began, 3),
    }
    if prepare:
        return row
    steps, spent = it.exactly or it.unit, 0.0
    while not it.exactly and spent < seconds / 3 and steps < 2**24:
        if spent or steps > it.unit:
            steps = (
                int(steps * min(16.0, max(2.0, seconds / max(spent, 1e-6))) / it.unit + 1) * it.unit
            )
        else:
            steps *= 16
        began = time.perf_counter()
        it.run(steps)
        spent = time.perf_counter() - began
    times = []
    if it.exactly:
        it.run(steps)  # whatever compiles for so many
    for _ in range(TURNS):
        began = time.perf_counter()
        it.run(steps)
        times.append((time.perf_counter() - began) / steps)
    each = [1e9 * t / it.runs for t in times]
    row |= {"steps": steps, "microseconds_per_step": 1e6 * statistics.median(times)}
    return (
        row | {"ns": statistics.median(each), "ns_low": min(each), "ns_high": max(each)} | it.about
    )


def peak() -> int:
    """Peak bytes of this process on the device so far; 0 where the device doesn't say."""
    import jax

    return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def items(kind: str, tiny: bool) -> Iterator[tuple[dict[str, Any], Callable[[], Timed]]]:
    """What a worker measures, in order: how a row is named, and how it is made."""
    shrink = nets.tiny if tiny else (lambda net: net)
    if kind in nets.CONTESTANTS:
        for case in nets.ORDER:
            net = shrink(nets.CASES[case])
            if kind == "plain-jax":
                yield {"case": case}, functools.partial(plain_jax, net)
            else:
                yield {"case": case}, functools.partial(ours, net, kind.removeprefix("jthermo-"))
    elif kind == "widths":
        for name, (net, widths) in nets.WIDTHS.items():
            for width in nets.TINY["widths"] if tiny else widths:
                yield (
                    {"net": name, "width": width},
                    functools.partial(ours, shrink(net._replace(runs=width)), "xla", width),
                )
    elif kind == "layouts":
        for name, (net, layouts, all_runs) in nets.LAYOUTS.items():
            for layout in layouts[: nets.TINY["layouts"]] if tiny else layouts:
                # what is unrolled takes long to compile, so it is tried once per net
                for runs in (8,) if tiny else all_runs[-1:] if layout[2] else all_runs:
                    yield {"net": name}, functools.partial(one_block, shrink(net), runs, layout)
    elif kind == "sweeps":
        for engine in ("xla", "fused"):
            net = shrink(nets.SMALL._replace(runs=16384))
            yield (
                {"engine": engine},
                functools.partial(whole_sweep, net, engine, 50 if tiny else 20_000),
            )


def work(kind: str, budget: float, seconds: float, prepare: bool, tiny: bool) -> None:
    """A worker's process: one line of JSON for every row, until its time is up."""
    began = time.monotonic()
    for name, make in items(kind, tiny):
        if kind == "jthermo-fused" and name["case"] in nets.NOT_FUSED:
            continue
        if prepare and (
            set(name.values()) & {"cnn", "pictures", "mlp6", "batch"} or kind == "sweeps"
        ):
            # XLA tunes their matrix products by timing, so they are compiled when nothing else runs
            continue
        if time.monotonic() - began > budget:
            print(json.dumps({**name, "skipped": "its time was up"}), flush=True)
            continue
        before = peak()
        try:
            row = measured(make(), seconds, prepare)
            row |= {"peak_bytes": peak()} if peak() > before else {}
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps({**name, **row}), flush=True)


def ceilings() -> dict[str, float]:
    """Measured limits of the device: bytes copied per second and float32 operations per second."""
    import jax
    import jax.numpy as jnp

    large = 1 << (28 if jax.default_backend() == "gpu" else 20)
    n = 8192 if jax.default_backend() == "gpu" else 256
    copy = jax.jit(lambda a: a + 1.0)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    key = jax.random.key(0)

    def best(call: Callable[[Any], Any], given: Any) -> float:
        times = []
        for _ in range(6):
            began = time.perf_counter()
            jax.block_until_ready(call(given))
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    bytes_per_second = 8 * large / best(copy, jax.random.normal(key, (large,)))
    flops = 2 * n**3 / best(product, jax.random.normal(key, (n, n)))
    return {"copied_bytes_per_second": bytes_per_second, "float32_flops": flops}


def device() -> dict[str, Any]:
    """What the numbers belong to."""
    import jax

    from jthermo.results.provenance import versions

    one = jax.devices()[0]
    found: dict[str, Any] = {
        "device": one.device_kind,
        "platform": one.platform,
        "number": jax.device_count(),
        "multiprocessors": getattr(one, "core_count", None),
        "compute_capability": getattr(one, "compute_capability", None),
        "memory_bytes": (one.memory_stats() or {}).get("bytes_limit"),
        "versions": versions(),
    }
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout
        name, driver, memory = (part.strip() for part in said.splitlines()[0].split(","))
        found |= {"name": name, "driver": driver, "memory": memory}
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    return found | ceilings()
