"""One run without its seed: the settings that decide its law, and the number of its random stream."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

from jthermo.sweep import identity
from jthermo.update_rule.optimizer import Optimizer
from jthermo.update_rule.residual_noise import Noise


@dataclass(frozen=True)
class RunConfig:
    """One run without its seed: what decides its law. Equal configurations are the same run in any sweep."""

    model: Any
    data: Any
    noise: Noise
    optimizer: Optimizer
    loss: str
    learning_rate: float
    batch_size: int

    @functools.cached_property
    def stream(self) -> int:
        """A hash of the configuration, folded into the run's data stream; never its place in the grid."""
        return int(identity.json_digest(identity.canonical(self))[:8], 16)


class RunGroup(NamedTuple):
    """The runs of one configuration, which differ in their seeds alone.

    Attributes:
        at: the value of every swept axis but the seed, by name.
        seeds: the seeds, sorted.
    """

    at: dict[str, Any]
    seeds: tuple[int, ...]
