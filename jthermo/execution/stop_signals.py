"""SIGTERM, SIGINT and SIGUSR1 as a request to save and stop; a second one stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Request:
    """Whether a signal has asked to stop; the runner looks at it between all its phases."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def watched() -> Iterator[Request]:
    """Take note of the signals while a sweep runs, and give the old handlers back after it.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in CAUGHT}

    def note(number: int, frame: FrameType | None) -> None:
        # asked twice: the default is to die
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
