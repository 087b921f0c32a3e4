"""Which engine trains: XLA, which takes any model on any device, or the fused kernel, which takes the paper's nets.

Both draw the same random bits and round differently, so an engine belongs to the results: it is chosen when a sweep
first starts, and a folder is never continued with another one. The package works with ``kernels/`` removed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jthermo.engines import run_state, step_program, xla
from jthermo.errors import InputError

ENGINES = ("auto", "xla", "fused")
# what results call the fused engine of each kind of device
FUSED = {"cpu": "fused", "gpu": "pallas"}


def advance(program: step_program.Program) -> Callable[..., run_state.State]:
    """The update of a block by the program's engine; see :func:`jthermo.engines.xla.advance`."""
    if program.engine == "xla":
        return xla.advance
    from jthermo.engines import fused

    if program.engine == "fused":
        fused.load()
    return fused.advance


def settle(
    wanted: str, begun_with: str | None, programs: Iterable[step_program.Program], say: Any
) -> str:
    """The engine of a sweep, as its results name it: ``"xla"``, ``"fused"`` on CPUs or ``"pallas"`` on GPUs.

    Args:
        wanted: ``"auto"``, ``"xla"`` or ``"fused"``.
        begun_with: the engine its folder was begun with, None for a new one.
        programs: everything that is to be trained.
        say: prints the line that says why ``"auto"`` is not ``"fused"``.

    Raises:
        InputError: an engine that is not at hand, lacks something, or is not the one the folder was begun with.
    """
    check(wanted)
    if begun_with is not None and not answers(wanted, begun_with):
        raise InputError(
            "engine",
            wanted,
            f"the folder was begun with {begun_with}, which rounds differently; leave engine away",
        )
    if "xla" in (wanted, begun_with):
        return "xla"
    here = at_hand()
    reason = refusal(programs)
    if reason is None and begun_with is None and (wanted, here) == ("auto", "pallas"):
        reason = "the fused engine has never been run on a GPU; ask for it by engine='fused'"
    elif reason is None and begun_with not in (None, here):
        reason = f"the fused engine is a {jax.default_backend()}'s, which rounds differently"
    if reason is None:
        assert here is not None
        return here
    if begun_with is not None:
        raise InputError("engine", begun_with, f"the folder was begun with it, and here {reason}")
    if wanted == "fused":
        raise InputError("engine", "fused", f"{reason}; use engine='xla'")
    say(f"engine: xla, since {reason}")
    return "xla"


def at_hand() -> str | None:
    """What results call the fused engine on this kind of device; None where there is none for it."""
    return FUSED.get(jax.default_backend())


def answers(wanted: str, engine: str) -> bool:
    """Whether results of this engine are what was asked for."""
    return wanted in ("auto", "fused" if engine in FUSED.values() else engine)


def refusal(programs: Iterable[step_program.Program] = ()) -> str | None:
    """Why the fused engine can't train these programs here; None where it can."""
    if importlib.util.find_spec("jthermo.engines.fused") is None:
        return "this installation has no fused engine"
    engine = at_hand()
    if engine is None:
        return f"the fused engine runs on CPUs and GPUs, not on a {jax.default_backend()}"
    from jthermo.engines import fused

    for program in programs:
        if (what := fused.refusal(program, engine)) is not None:
            return f"the fused engine lacks {what}"
    if engine == "fused":
        try:
            fused.load()
        except fused.Unavailable as error:
            return f"the fused engine can't be built: {error}"
    return None


def check(engine: str) -> None:
    """Refuse what is no engine."""
    if engine not in ENGINES:
        raise InputError("engine", engine, f"use one of {', '.join(ENGINES)}")
