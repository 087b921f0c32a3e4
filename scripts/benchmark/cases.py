"""What is measured, and who takes part in it."""

from __future__ import annotations

from typing import NamedTuple

TORCH = ("torch-loop", "torch-func", "torch-batched")
JTHERMO = ("jthermo-xla", "jthermo-fused")
# The fused engine in a process where JAX has been used before, with momentum, with loss() among the
# observables, and its kernel without anything around it.
LATE, MOMENTUM, LOSS, KERNEL = (
    "jthermo-fused-late",
    "jthermo-fused-momentum",
    "jthermo-fused-loss",
    "jthermo-fused-kernel",
)
PEERS = (*TORCH, "plain-jax", "equinox", *JTHERMO)
EVERYONE = (*PEERS, "hand", "limit", LATE, MOMENTUM, LOSS, KERNEL)
VARIANCE = ("batch-gradient", "moments", "vmap-grad")


class Net(NamedTuple):
    """Training `runs` nets on fresh examples, or on pictures where `channels` are given.

    Attributes:
        runs: how many at once.
        inputs: components of x.
        hidden: widths of the hidden dense layers.
        batch: examples a step.
        bias: whether layers have one.
        data: the law of x.
        channels: blocks of convolutions.
        records: of jthermo, which are part of its time; the others record nothing.
        probe: examples that a record looks at.
        least: steps of a sweep of jthermo; 20/η² at η = 0.025 are 32,000.
        exactly: whether jthermo is timed over so many steps, however long they take.
        turns: how often each contestant is timed.
        who: the contestants.
    """

    runs: int
    inputs: int
    hidden: tuple[int, ...]
    batch: int = 1
    bias: bool = True
    data: str = "gaussian"
    channels: tuple[tuple[int, ...], ...] = ()
    records: int = 120
    probe: int = 256
    least: int = 2_000
    exactly: bool = False
    turns: int = 5
    who: tuple[str, ...] = (*PEERS, "limit")


class Call(NamedTuple):
    """One call at a time: a gradient variance, a fit, a sweep with a folder.

    Attributes:
        what: the function of ``calls.py``.
        who: its first argument, a contestant each.
        size: its second one.
        turns: how often each contestant is timed.
    """

    what: str
    who: tuple[str, ...]
    size: int = 0
    turns: int = 5


_BOTH = ("plain-jax", *JTHERMO)
_CNN = Net(
    8,
    784,
    (128,),
    channels=((16, 16), (32, 32)),
    records=2,
    probe=16,
    who=("plain-jax", "jthermo-xla"),
)
NETS = {
    "small": Net(512, 10, (10,), least=32_000, who=(*PEERS, "hand", "limit", LATE, MOMENTUM)),
    "uniform": Net(512, 10, (10,), bias=False, data="uniform", records=12, least=32_000),
    "batch": Net(512, 10, (10,), batch=32, least=2_000, who=(*_BOTH, "hand", "limit")),
    "wide": Net(64, 100, (100,), least=20_000, who=(*PEERS, "hand", "limit")),
    "wide-batch": Net(
        64, 100, (100,), batch=32, records=12, least=500, who=(*_BOTH, "hand", "limit")
    ),
    "mlp6": Net(32, 100, (100,) * 5, records=4),
    "cnn": _CNN._replace(least=100),
    "cnn-batch": _CNN._replace(runs=4, batch=8, least=40),
}
RECORDS = {
    "records": Net(
        20_000,
        10,
        (10,),
        records=24,
        least=2_000,
        exactly=True,
        turns=3,
        who=("jthermo-fused", LOSS, "limit"),
    ),
    "many-records": Net(512, 10, (10,), least=20_000, exactly=True, who=("jthermo-fused", KERNEL)),
}
RUNS = {  # equally many steps, so that their fixed costs weigh alike
    f"runs-{n}": Net(n, 10, (10,), records=12, least=16_000, exactly=True, who=_BOTH)
    for n in (16, 64, 256, 1024, 2048, 4096)
}
WIDTHS = {
    f"width-{n}": Net(64, 10, (n,), records=12, least=8_000, turns=3, who=_BOTH)
    for n in (10, 32, 100, 316)
}
STEPS = {
    f"steps-{n}": Net(128, 10, (10,), records=12, least=n, exactly=True, turns=3, who=JTHERMO)
    for n in (4_000, 16_000, 64_000, 256_000)
}
MEMORY = {  # below 2,000 runs the peak is that of the compilation, which is not constant
    f"memory-{n}": Net(n, 100, (100,), records=2, least=8, exactly=True, turns=3, who=JTHERMO)
    for n in (2048, 4096, 8192, 16_384)
}
CALLS = {
    "gradient-variance-mlp6": Call("gradient_variance", VARIANCE, size=0),
    "gradient-variance-cnn": Call("gradient_variance", VARIANCE, size=1),
    **{f"fit-{n}": Call("fit", ("fit_collapse",), n) for n in (16, 64, 256)},
    "checkpoint": Call("checkpoint", ("in-memory", "folder"), 200_000, turns=3),
    "resume": Call("resume", ("anew", "resume", "open", "resume-process"), 2_000),
}
CASES: dict[str, Net | Call] = NETS | RECORDS | RUNS | WIDTHS | STEPS | MEMORY | CALLS
# The cases of limit.cc and of hand.cc that train. The limit of "records" draws a probe.
LIMITS, HANDS = (
    tuple(case for case, net in NETS.items() if name in net.who) for name in ("limit", "hand")
)
