"""When a checkpoint is saved, and how many are kept: all defaults of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from jthermo.errors import finite_number, whole_number


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to save a checkpoint: at intervals of wall time or steps, with a bound on the cost.

    Args:
        seconds: wall time between checkpoints.
        steps: save also after so many steps of the longest run; None does not count steps.
        share: bound on the share of the wall time that saving takes. A slow save lengthens the
            interval of `seconds` accordingly, but not that of `steps`.
        kept: number of verified checkpoints of a cohort that stay on disk. The older ones are used
            if the newest is damaged.

    Raises:
        InputError: `seconds` or `steps` is not positive.

    >>> policy = CheckpointPolicy()
    >>> policy.due(elapsed=61.0, steps=10, slowest_save=0.1)
    True
    >>> policy.due(elapsed=61.0, steps=10, slowest_save=2.0)
    False
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
            slowest_save: seconds of the slowest save so far.
        """
        if self.steps is not None and steps >= self.steps:
            return True
        return elapsed > max(self.seconds, slowest_save / self.share)
