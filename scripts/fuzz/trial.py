"""Runs trials in forked processes with a limit of time and memory, and says how each ended."""

import json
import os
import resource
import select
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jthermo.errors import InputError

# Seconds and bytes that a trial may take. The limit of memory counts what is allocated beyond the
# libraries, which are loaded before.
SECONDS, BYTES = 30.0, 2 << 30
# Trials of one process; a fresh one forgets what JAX has cached.
PER_PROCESS = 250
# How a trial may end: the input was used, or refused by a message of one line.
ACCEPTED, REFUSED = "accepted", "refused"
OUTCOMES = (ACCEPTED, REFUSED, "several lines", "traceback", "hang", "memory", "crash")


class Trial(NamedTuple):
    """A call with a hostile input, and the input as text."""

    text: str
    call: Callable[[], object]


class Outcome(NamedTuple):
    """How a trial ended: one of OUTCOMES, the input as text, and the message."""

    kind: str
    text: str
    message: str = ""

    @property
    def bad(self) -> bool:
        """Whether the input was neither used nor refused by a message of one line."""
        return self.kind not in (ACCEPTED, REFUSED)


def run_all(trials: Sequence[Trial], seconds: float = SECONDS, limit: int = BYTES) -> list[Outcome]:
    """The outcome of every trial, in order."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        while len(outcomes) < len(trials):
            first = len(outcomes)
            rest = trials[first : first + PER_PROCESS]
            outcomes += _in_one_process(rest, seconds, limit, scratch)
    return outcomes


def _in_one_process(
    trials: Sequence[Trial], seconds: float, limit: int, scratch: str
) -> list[Outcome]:
    """The outcomes of the first trials, up to one that ends the process."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(read)
        try:
            _work(trials, write, limit, scratch)
        finally:
            os._exit(0)
    os.close(write)
    outcomes: list[Outcome] = []
    kind = "crash"
    with os.fdopen(read, "rb", buffering=0) as pipe:
        lines = b""
        last = time.monotonic()
        while len(outcomes) < len(trials):
            waited = seconds - (time.monotonic() - last)
            if waited <= 0 or not select.select([pipe], [], [], waited)[0]:
                kind = "hang"
                break
            if not (part := pipe.read(1 << 16)):
                break
            *complete, lines = (lines + part).split(b"\n")
            outcomes += [Outcome(*json.loads(line)) for line in complete]
            if complete:
                last = time.monotonic()
    if len(outcomes) < len(trials):
        os.kill(pid, signal.SIGKILL)
        outcomes.append(Outcome(kind, trials[len(outcomes)].text))
    os.waitpid(pid, 0)
    return outcomes


def _work(trials: Sequence[Trial], write: int, limit: int, scratch: str) -> None:
    """In the forked process: run trials and write a line for each."""
    warnings.simplefilter("ignore")
    # a trial may write into the present folder, under any name
    os.chdir(tempfile.mkdtemp(dir=scratch))
    _limit_memory(limit)
    for trial in trials:
        kind, message = outcome_of(trial.call)
        line = json.dumps([kind, trial.text, message[:2000]]) + "\n"
        os.write(write, line.encode())


def outcome_of(call: Callable[[], object]) -> tuple[str, str]:
    """How a call ends: one of OUTCOMES, and the message."""
    try:
        call()
    except InputError as error:
        message = str(error)
        return (REFUSED if "\n" not in message else "several lines"), message
    except MemoryError:
        return "memory", _traceback()
    except BaseException as error:
        text = _traceback()
        return ("memory" if "RESOURCE_EXHAUSTED" in str(error) else "traceback"), text
    return ACCEPTED, ""


def _traceback() -> str:
    """The last calls and the message of the present error."""
    return traceback.format_exc(limit=-4)[-1500:]


def accepted(call: Callable[..., object], *args: object) -> None:
    """Call something that must not refuse its input."""
    try:
        call(*args)
    except InputError as error:
        raise AssertionError(f"a valid input is refused: {error}") from None


def _limit_memory(limit: int) -> None:
    """Let this process allocate `limit` more bytes than it has now."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    held = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))
