"""What is measured on a GPU: nets, numbers of runs, lane widths and layouts of the fused kernel."""

from __future__ import annotations

from typing import NamedTuple

from cases import Net

CONTESTANTS = ("plain-jax", "jthermo-xla", "jthermo-fused")
SMALL = Net(1, 10, (10,))
WIDE = Net(1, 100, (100,))
DEEP = Net(1, 100, (100,) * 5)
CNN = Net(1, 784, (128,), batch=32, channels=((16, 16), (32, 32)))
PICTURES = Net(
    1, 3072, (300,), batch=1000
)  # the net of Figures 11 to 14 on pictures of CIFAR-10's size

RUNS = {f"runs-{n}": SMALL._replace(runs=n) for n in (16, 64, 256, 1024, 4096, 16384, 65536)}
NETS = {
    "wide": WIDE._replace(runs=1024),
    "batch": SMALL._replace(runs=4096, batch=32),
    "mlp6": DEEP._replace(runs=1024),
    "cnn": CNN._replace(runs=32),
    "pictures": PICTURES._replace(runs=64),
}
CASES = RUNS | NETS
# first what a table needs most, so that a budget that ends leaves a usable one
ORDER = (
    "runs-4096",
    "runs-65536",
    "wide",
    "runs-256",
    "runs-16",
    "mlp6",
    "batch",
    "runs-16384",
    "runs-1024",
    "runs-64",
    "cnn",
    "pictures",
)
NOT_FUSED = ("mlp6", "cnn", "pictures")  # what the kernel for GPUs does not cover

WIDTHS = {
    "small": (SMALL, (64, 256, 1024, 4096, 16384, 65536)),
    "wide": (WIDE, (16, 64, 256, 1024, 4096)),
    "mlp6": (DEEP, (16, 64, 256, 1024)),
    "batch": (SMALL._replace(batch=32), (64, 256, 1024, 4096)),
    "cnn": (CNN, (4, 8, 16, 32, 64)),
    "pictures": (PICTURES, (4, 16, 64)),
}


class Layouts(NamedTuple):
    """Layouts of the fused kernel to be timed: (runs per program, warps, unrolled).

    Attributes:
        net: the net.
        layouts: see :class:`jthermo.engines.fused.pallas.Shape`.
        runs: numbers of runs; a layout that is unrolled is timed with the last one only.
    """

    net: Net
    layouts: tuple[tuple[int, int, bool], ...]
    runs: tuple[int, ...]


LAYOUTS = {
    "small": Layouts(
        SMALL,
        (
            (16, 1, False),
            (32, 2, False),
            (8, 1, False),
            (32, 4, False),
            (32, 8, False),
            (8, 4, False),
            (32, 1, True),
        ),
        (1024, 16384, 65536),
    ),
    "wide": Layouts(
        WIDE,
        ((2, 8, False), (1, 8, False), (1, 4, False), (2, 16, False), (4, 16, False)),
        (256, 1024),
    ),
    "batch": Layouts(
        SMALL._replace(batch=32),
        ((4, 1, False), (8, 2, False), (8, 4, False), (16, 8, False), (32, 8, False)),
        (4096,),
    ),
}
TINY = {"runs": 8, "widths": (2, 4), "layouts": 2}  # of a rehearsal without a GPU


def tiny(net: Net) -> Net:
    """A net that is quick on any machine, of the same kind."""
    shallow = net.hidden if len(net.hidden) == 1 else (5,) * len(net.hidden)
    small = net._replace(runs=min(net.runs, TINY["runs"]), hidden=tuple(min(h, 6) for h in shallow))
    if net.channels:
        return small._replace(channels=((2, 2), (2, 2)), batch=2)
    return small._replace(
        inputs=min(net.inputs, 48 if is_pictures(net) else 8), batch=min(net.batch, 4)
    )


def is_pictures(net: Net) -> bool:
    """Whether a dense net is trained on pictures with ten classes, as in Figures 11 to 14."""
    return not net.channels and (net.inputs == PICTURES.inputs or net.inputs == 48)
