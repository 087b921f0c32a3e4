"""The progress of a sweep on the host: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Runs, steps, speed, time left and how many runs have diverged.

    Args:
        num_runs: runs of the sweep.
        run_steps: updates of all of them together.
        show: False prints nothing.
        stream: where to print, standard error by default.
    """

    def __init__(
        self, num_runs: int = 0, run_steps: int = 0, show: bool = True, stream: TextIO | None = None
    ) -> None:
        self.show = show
        self.stream = stream or sys.stderr
        self.live = show and self.stream.isatty()
        self.diverged: dict[str, int] = {}
        self.begin(num_runs, run_steps)

    def begin(self, num_runs: int, run_steps: int) -> None:
        """Start the clock for what is to be done."""
        self.num_runs, self.total, self.done = num_runs, run_steps, 0
        self._began = self._printed = time.monotonic()
        self._busy = 0.0

    def advance(self, run_steps: int, seconds: float, step: int) -> None:
        """Count updates that took `seconds`, and say so when it is time."""
        self.done += run_steps
        self._busy += seconds
        now = time.monotonic()
        if self.show and now - self._printed > (0.2 if self.live else 10.0):
            self._print(step, now)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.show:
            self.stream.write(("\r\x1b[K" if self.live else "") + text + "\n")
            self.stream.flush()

    def finish(self, saving: float = 0.0) -> None:
        """The closing line, with the seconds that checkpoints took and their share."""
        seconds = time.monotonic() - self._began
        lost = f", {self.num_diverged} diverged" if self.num_diverged else ""
        spent = (
            f", {saving:.2g} s of it ({100 * saving / max(seconds, 1e-9):.1f} %) for checkpoints"
            if saving
            else ""
        )
        self.say(f"{self.num_runs:,} runs, {self.total:,} run-steps in {seconds:.1f} s{spent}{lost}")

    @property
    def num_diverged(self) -> int:
        """Runs with a non-finite parameter so far."""
        return sum(self.diverged.values())

    @property
    def rate(self) -> float:
        """Updates a second of training."""
        return self.done / max(self._busy, 1e-9)

    def _print(self, step: int, now: float) -> None:
        self._printed = now
        left = (self.total - self.done) / max(self.rate, 1e-9)
        lost = f"  {self.num_diverged} diverged" if self.num_diverged else ""
        line = (
            f"{self.num_runs:,} runs  step {step:,}  {100 * self.done / self.total:.0f} %  "
            f"{self.rate:.3g} run-steps/s  {_clock(left)} left{lost}"
        )
        self.stream.write(f"\r\x1b[K{line}" if self.live else f"{line}\n")
        self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
