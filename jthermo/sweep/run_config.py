"""All settings of a run except its seed; the number of its random stream follows from them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

from jthermo.sweep import identity
from jthermo.update_rule.losses import Loss
from jthermo.update_rule.optimizer import Optimizer
from jthermo.update_rule.residual_noise import Noise


@dataclass(frozen=True)
class RunConfig:
    """The settings of one run without its seed; equal ones give equal runs in any sweep."""

    model: Any
    data: Any
    noise: Noise
    optimizer: Optimizer
    loss: Loss
    learning_rate: float
    batch_size: int
    # Whether each step uses every example of the finite set once; then batch_size is their number.
    full_batch: bool = False
    # Another order of the data for the same seed; None: the seed alone determines the run.
    data_seed: int | None = None
    # Where the parameters start, see jthermo.sweep.start; None: at the model's own.
    start: Any = None
    # One of jax_settings.DTYPES.
    dtype: str = "float32"

    @functools.cached_property
    def stream(self) -> int:
        """A hash of the settings, folded into the run's keys; independent of the sweep's grid."""
        return int(identity.json_digest(identity.canonical(self))[:8], 16)

    @property
    def common_stream(self) -> int:
        """The number of the stream that runs of a seed share with ``common_data``."""
        if self.data_seed is None:
            return 0
        return int(identity.json_digest({"data_seed": self.data_seed})[:8], 16)


class RunGroup(NamedTuple):
    """The runs with equal settings, which differ only in their seeds.

    Attributes:
        at: the value of every swept axis except the seed, by name.
        seeds: the seeds, sorted.
    """

    at: dict[str, Any]
    seeds: tuple[int, ...]
