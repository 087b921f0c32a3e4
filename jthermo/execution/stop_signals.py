"""Handle SIGTERM, SIGINT and SIGUSR1: the first asks to save and stop, a second stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Request:
    """The stop signal received so far, or None; training checks it between pieces of work."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def watched() -> Iterator[Request]:
    """Catch the signals while a sweep runs, then restore the previous handlers.

    Outside the main thread nothing is caught, since Python allows no signal handlers there.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}

    def note(number: int, frame: FrameType | None) -> None:
        # Second signal: restore the default action, which ends the process, and send it again.
        if request.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        request.signal = signal.Signals(number)

    for number in CAUGHT:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
