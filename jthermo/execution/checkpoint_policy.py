"""When a checkpoint is saved, and how many are kept."""

from __future__ import annotations

from dataclasses import dataclass

from jthermo.errors import finite_number, whole_number


@dataclass(frozen=True)
class CheckpointPolicy:
    """When training is saved: after some wall time or some steps, and never for more than a share of the time.

    Args:
        seconds: wall time between checkpoints.
        steps: save also after so many steps of the longest run; None does not.
        share: the largest share of the wall time that saving may take; the interval stretches where it would take
            more.
        kept: how many checkpoints of a cohort stay on disk, each verified; the older one is there for the case that
            the newer one is damaged.

    >>> policy = CheckpointPolicy()
    >>> policy.due(elapsed=61.0, steps=10, slowest_save=0.1), policy.due(elapsed=61.0, steps=10, slowest_save=2.0)
    (True, False)
    """

    seconds: float = 60.0
    steps: int | None = None
    share: float = 0.01
    kept: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "seconds", finite_number("checkpoint_seconds", self.seconds, above=0)
        )
        if self.steps is not None:
            object.__setattr__(self, "steps", whole_number("checkpoint_steps", self.steps))

    def due(self, *, elapsed: float, steps: int, slowest_save: float) -> bool:
        """Whether to save now.

        Args:
            elapsed: seconds since the last checkpoint.
            steps: steps of the longest run since then.
            slowest_save: seconds that the slowest save has taken so far.
        """
        if self.steps is not None and steps >= self.steps:
            return True
        return elapsed > max(self.seconds, slowest_save / self.share)
