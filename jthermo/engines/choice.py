"""Choice of the engine that trains: XLA, or the fused kernel for the paper's nets.

XLA trains any model on any device. Both engines draw the same random bits but round differently, so
the engine is fixed when a results folder is created. The package also works without ``fused/``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax

from jthermo.engines import step_program, xla
from jthermo.errors import InputError, one_of
from jthermo.observables import Observable

ENGINES = ("auto", "xla", "fused")
# Name of the fused engine in results, by JAX backend.
FUSED = {"cpu": "fused", "gpu": "pallas"}
# Raised whenever the rounding of an engine changes; results of two versions are never mixed. 2: the
# C++ kernel takes the records too.
VERSIONS = {"xla": 1, "fused": 2, "pallas": 1}
# Most records that one call of an engine takes, for those that take records.
RECORDS = {"fused": 32}


def advance(program: step_program.Program) -> Callable[..., Any]:
    """The update of a block by the program's engine.

    See :func:`jthermo.engines.xla.advance`, and :func:`jthermo.engines.fused.train` for an engine
    that takes the records.
    """
    if program.engine == "xla":
        return xla.advance
    from jthermo.engines import fused

    if program.engine == "pallas":
        return fused.advance
    fused.load()
    return fused.train


def together(engine: str) -> bool:
    """Whether one call of an engine trains all blocks of a device, instead of one after the other.

    The blocks are an axis of the Pallas kernel's grid, and the native kernel spreads them over its
    threads. Neither rounding depends on the number of blocks.
    """
    return engine in FUSED.values()


def measured(program: step_program.Program) -> tuple[Observable, ...]:
    """The observables that the program's engine measures itself; XLA measures the others."""
    # a step that a record is about ends before it, in a call of its own
    if program.engine not in RECORDS or program.last_step:
        return ()
    from jthermo.engines import fused

    return fused.measured(program)


def left_to_xla(programs: Iterable[step_program.Program], engine: str) -> tuple[str, ...]:
    """Names of the variables that XLA measures though another engine trains."""
    names: dict[str, None] = {}
    for program in programs if engine in RECORDS else ():
        own = measured(replace(program, engine=engine))
        for observable in program.observables:
            if observable not in own:
                names |= dict.fromkeys(observable.variables(program.model, program.data))
    return tuple(names)


def settle(
    wanted: str, begun_with: str | None, programs: Iterable[step_program.Program], say: Any
) -> str:
    """Name of a sweep's engine in its results: ``"xla"``, ``"fused"`` (CPU) or ``"pallas"`` (GPU).

    Args:
        wanted: ``"auto"``, ``"xla"`` or ``"fused"``.
        begun_with: engine of an existing results folder; None for a new one.
        programs: all programs of the sweep.
        say: prints one line with the reason if ``"auto"`` becomes ``"xla"``.

    Returns:
        The engine of the folder if there is one, otherwise the wanted engine. ``"auto"`` means the
        fused engine if this is a CPU that can build it and it supports all programs, otherwise XLA.

    Raises:
        InputError: the engine is unknown, is not the folder's, or cannot train the programs here.
    """
    check(wanted)
    if begun_with is not None and not answers(wanted, begun_with):
        raise InputError(
            "engine",
            wanted,
            f"this folder was created with engine {begun_with!r}, which rounds differently; "
            "omit `engine`",
        )
    if "xla" in (wanted, begun_with):
        return "xla"
    local = at_hand()
    reason = refusal(programs)
    if reason is None and begun_with is None and (wanted, local) == ("auto", "pallas"):
        reason = "the fused engine is untested on GPUs; engine='fused' selects it"
    elif reason is None and begun_with not in (None, local):
        reason = f"the device is a {jax.default_backend()}, whose fused engine rounds differently"
    if reason is None:
        assert local is not None
        return local
    if begun_with is not None:
        raise InputError(
            "engine",
            begun_with,
            f"this folder was created with this engine, which cannot be used here: {reason}; "
            "resume on a machine that supports it, or choose another folder",
        )
    if wanted == "fused":
        raise InputError("engine", "fused", f"{reason}; use engine='xla'")
    say(f"engine: xla, because {reason}")
    return "xla"


def at_hand() -> str | None:
    """Name in results of the fused engine for this machine's device; None if there is none."""
    return FUSED.get(jax.default_backend())


def answers(wanted: str, engine: str) -> bool:
    """Whether the choice `wanted` admits results of this engine."""
    return wanted in ("auto", "fused" if engine in FUSED.values() else engine)


def refusal(programs: Iterable[step_program.Program] = ()) -> str | None:
    """The reason why the fused engine cannot train these programs here; None if it can."""
    if importlib.util.find_spec("jthermo.engines.fused") is None:
        return "this installation has no fused engine"
    engine = at_hand()
    if engine is None:
        return f"the fused engine runs on CPUs and GPUs, not on a {jax.default_backend()}"
    from jthermo.engines import fused

    for program in programs:
        if (what := fused.refusal(program, engine)) is not None:
            return f"the fused engine does not support {what}"
    if engine == "fused":
        try:
            fused.load()
        except fused.Unavailable as error:
            return f"the fused engine cannot be built: {error}"
    return None


def check(engine: str) -> None:
    """Raise an InputError unless `engine` is the name of a choice."""
    one_of("engine", engine, ENGINES)
