"""Progress lines of a sweep on standard error, and the time left for a list of experiments."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

# Seconds between two progress lines: one that overwrites itself on a terminal, or lines of a log.
LIVE_SECONDS, LOG_SECONDS = 0.2, 10.0
# Share of the updates from which on the time left is stated. The first call compiles.
KNOWN = 0.001


class Progress:
    """Prints how much of the sweep is done, step, speed, time left, and number of diverged runs.

    On a terminal one line overwrites itself; elsewhere a line is added every ten seconds.

    Args:
        num_runs: runs of the sweep.
        run_steps: updates of all runs together.
        show: False prints nothing.
        stream: where to print; standard error by default.

    Attributes:
        diverged: number of diverged runs by name of a cohort; the caller updates it.
        done: updates so far, of all runs together.
        total: updates of all runs together.
    """

    def __init__(
        self, num_runs: int = 0, run_steps: int = 0, show: bool = True, stream: TextIO | None = None
    ) -> None:
        self.show = show
        self.stream = stream or sys.stderr
        self.live = show and self.stream.isatty()
        self.diverged: dict[str, int] = {}
        self.begin(num_runs, run_steps)

    def begin(self, num_runs: int, run_steps: int, done: int = 0, records: int = 0) -> None:
        """Start the clock.

        Args:
            num_runs: runs to train.
            run_steps: updates of all runs of the sweep.
            done: updates that were made earlier.
            records: records still to take, summed over runs.
        """
        self.num_runs, self.total = num_runs, run_steps
        self.done = self._earlier = done
        self._records, self._recorded = records, 0
        self._began = self._printed = time.monotonic()
        self._busy = 0.0
        # updates and seconds of the first call, which compiles
        self._first: tuple[int, float] | None = None

    def advance(self, run_steps: int, seconds: float, step: int) -> None:
        """Count `run_steps` updates that took `seconds`; print the line if it is due."""
        self.done += run_steps
        self._busy += seconds
        self._first = self._first or (run_steps, seconds)
        now = time.monotonic()
        if self.show and now - self._printed > (LIVE_SECONDS if self.live else LOG_SECONDS):
            self._print(step, now)

    def recorded(self, number: int) -> None:
        """Count records, summed over runs."""
        self._recorded += number

    def say(self, text: str) -> None:
        """Print a separate line."""
        if self.show:
            self.stream.write(("\r\x1b[K" if self.live else "") + text + "\n")
            self.stream.flush()

    def finish(self, saving: float = 0.0) -> None:
        """Print the last line.

        Args:
            saving: seconds spent on saving checkpoints, part of the total.
        """
        seconds = time.monotonic() - self._began
        lost = f", {self.num_diverged} diverged" if self.num_diverged else ""
        spent = (
            f" ({saving:.2g} s of them, {100 * saving / max(seconds, 1e-9):.1f} %, for checkpoints)"
            if saving
            else ""
        )
        self.say(
            f"{self.num_runs:,} runs, {self.total - self._earlier:,} run-steps in {seconds:.1f} s"
            f"{spent}{lost}"
        )

    @property
    def num_diverged(self) -> int:
        """Number of runs that have a non-finite parameter by now."""
        return sum(self.diverged.values())

    @property
    def rate(self) -> float:
        """Updates per second of training, without saving, recording and the first compilation."""
        steps, seconds = self.done - self._earlier, self._busy
        first_steps, first_seconds = self._first or (0, 0.0)
        if steps > first_steps:
            steps, seconds = steps - first_steps, seconds - first_seconds
        return steps / max(seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds left, at the pace of the updates and of all else per record; None at first."""
        if self.done - self._earlier < KNOWN * (self.total - self._earlier):
            return None
        other = max(time.monotonic() - self._began - self._busy, 0.0)
        records = other * (self._records - self._recorded) / max(self._recorded, 1)
        return (self.total - self.done) / max(self.rate, 1e-9) + max(records, 0.0)

    def __str__(self) -> str:
        left = "time left unknown" if self.left is None else f"{_clock(self.left)} left"
        share = 100 * self.done / max(self.total, 1)
        return f"{share:.0f} % of {self.total:.3g} run-steps, {self.rate:.3g} run-steps/s, {left}"

    def _print(self, step: int, now: float) -> None:
        self._printed = now
        lost = f", {self.num_diverged} diverged" if self.num_diverged else ""
        line = f"{self.num_runs:,} runs, step {step:,}, {self}{lost}"
        self.stream.write(f"\r\x1b[K{line}" if self.live else f"{line}\n")
        self.stream.flush()


class TimeLeft:
    """Estimates the time left for several tasks.

    The expected seconds of the waiting tasks are scaled by the ratio of actual to expected time of
    the finished ones.

    Args:
        expected: seconds by task; None counts as the mean of the others.

    >>> clock = TimeLeft({"a": 10.0, "b": 30.0, "c": None})
    >>> clock.took("a", 20.0)
    >>> clock.left
    100.0
    """

    def __init__(self, expected: Mapping[str, float | None]) -> None:
        stated = [seconds for seconds in expected.values() if seconds is not None]
        mean = sum(stated) / len(stated) if stated else None
        self._waiting = {
            name: mean if seconds is None else seconds for name, seconds in expected.items()
        }
        self._expected = self._taken = 0.0
        self._began = time.monotonic()

    def took(self, name: str, seconds: float) -> None:
        """Count a task as finished after so many seconds."""
        self._expected += self._waiting.pop(name) or 0.0
        self._taken += seconds

    @property
    def left(self) -> float | None:
        """Seconds left; None if no expectation is known."""
        pace = self._taken / self._expected if self._expected else 1.0
        known = [seconds for seconds in self._waiting.values() if seconds is not None]
        return pace * sum(known) if len(known) == len(self._waiting) else None

    def __str__(self) -> str:
        left = "time left unknown" if self.left is None else f"about {_clock(self.left)} left"
        return f"{_clock(time.monotonic() - self._began)} elapsed, {left}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
