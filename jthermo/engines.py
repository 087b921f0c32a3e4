"""Which engine trains: XLA, which takes any model on any device, or the fused kernel, which takes the paper's nets on CPUs.

Both draw the same random bits and round differently, so an engine belongs to the results: it is chosen when a sweep
first starts, and a folder is never continued with another one. The package works with ``kernels/`` removed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jthermo import train
from jthermo.errors import InputError

ENGINES = ("auto", "xla", "fused")


def advance(program: train.Program) -> Callable[..., train.State]:
    """The update of a block by the program's engine; see :func:`jthermo.train.advance`."""
    if program.engine == "fused":
        from jthermo import kernels

        kernels.load()
        return kernels.advance
    return train.advance


def settle(wanted: str, begun_with: str | None, programs: Iterable[train.Program], say: Any) -> str:
    """The engine of a sweep.

    Args:
        wanted: ``"auto"``, ``"xla"`` or ``"fused"``.
        begun_with: the engine its folder was begun with, None for a new one.
        programs: everything that is to be trained.
        say: prints the line that says why ``"auto"`` is not ``"fused"``.

    Raises:
        InputError: an engine that is not at hand, lacks something, or is not the one the folder was begun with.
    """
    check(wanted)
    if begun_with not in (None, wanted) and wanted != "auto":
        raise InputError(
            "engine",
            wanted,
            f"the folder was begun with {begun_with}, which rounds differently; leave engine away",
        )
    engine = begun_with or wanted
    if engine == "xla":
        return "xla"
    reason = refusal(programs)
    if reason is None:
        return "fused"
    if begun_with == "fused":
        raise InputError("engine", "fused", f"the folder was begun with it, and here {reason}")
    if wanted == "fused":
        raise InputError("engine", "fused", f"{reason}; use engine='xla'")
    say(f"engine: xla, since {reason}")
    return "xla"


def refusal(programs: Iterable[train.Program] = ()) -> str | None:
    """Why the fused engine can't train these programs here; None where it can."""
    if importlib.util.find_spec("jthermo.kernels") is None:
        return "this installation has no fused engine"
    if jax.default_backend() != "cpu":
        return f"the fused engine runs on CPUs, not on a {jax.default_backend()}"
    from jthermo import kernels

    for program in programs:
        if (what := kernels.refusal(program)) is not None:
            return f"the fused engine lacks {what}"
    try:
        kernels.load()
    except kernels.Unavailable as error:
        return f"the fused engine can't be built: {error}"
    return None


def check(engine: str) -> None:
    """Refuse what is no engine."""
    if engine not in ENGINES:
        raise InputError("engine", engine, f"use one of {', '.join(ENGINES)}")
