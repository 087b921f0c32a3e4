"""Fields of a sweep as options of the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from jthermo.errors import InputError


@dataclass(frozen=True)
class Overrides:
    """Fields of the sweep to change."""

    learning_rate: tuple[float, ...] | None = None
    """η, one or several."""
    batch_size: tuple[int, ...] | None = None
    """B, one or several."""
    seed: tuple[str, ...] | None = None
    """Seeds, one by one or as a range: 0:256."""
    num_steps: int | None = None
    """Number of steps of every run."""
    noise: str | None = None
    """full, unbiased or label_averaged."""
    loss: str | None = None
    """auto, bce, softmax or squared."""
    set: tuple[str, ...] = ()
    """Any other field as NAME=VALUE, with VALUE in JSON: model.hidden=20 record.probe_size=512 num_steps.value=5."""
    scale: Literal["paper", "small"] = "paper"
    """small: the experiment with the fewer seeds of its SMALL."""

    def changes(self) -> dict[str, Any]:
        """The changed fields by dotted name."""
        plain = {k: getattr(self, k) for k in ("learning_rate", "batch_size", "num_steps", "noise", "loss")}
        made = {k: v for k, v in plain.items() if v is not None}
        if self.seed is not None:
            made["seed"] = tuple(s for text in self.seed for s in _seeds(text))
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError("set", text, "write NAME=VALUE, such as model.hidden=20")
            made[name] = _literal(value)
        return made


@dataclass(frozen=True)
class Execution:
    """How a sweep is run; nothing here changes a bit of its results."""

    placement: Literal["sharding", "pmap"] = "sharding"
    """how runs are laid over the devices."""
    engine: Literal["auto", "xla"] = "auto"
    """which engine trains."""
    extend: bool = False
    """the folder holds a part of this sweep: run only what is new."""
    shard: str | None = None
    """I/N: train every N-th lane block, I from 0; N such commands with one folder need no coordination."""
    distributed: bool = False
    """one process of several that know of each other; SLURM, Open MPI, Kubernetes and TPU pods are found by JAX."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where JAX can't find it."""
    num_processes: int | None = None
    """how many processes, where JAX can't find it."""
    process_id: int | None = None
    """which of them this is, where JAX can't find it."""
    init_timeout: int = 300
    """seconds to wait for the other processes at the start."""
    heartbeat_timeout: int = 100
    """seconds after which a silent process counts as dead, and all end."""
    checkpoint_seconds: float = 60.0
    """wall time between checkpoints."""
    checkpoint_steps: int | None = None
    """save also after so many steps."""
    quiet: bool = False
    """print no progress."""

    def start(self) -> None:
        """Join the other processes, before JAX is used for anything else."""
        if self.distributed:
            from jthermo.distributed import join

            join(
                self.coordinator,
                self.num_processes,
                self.process_id,
                self.init_timeout,
                self.heartbeat_timeout,
            )

    def options(self) -> dict[str, Any]:
        """Arguments of :func:`jthermo.run`."""
        names = ("placement", "engine", "extend", "checkpoint_seconds", "checkpoint_steps")
        shard = None if self.shard is None else tuple(self.shard.split("/"))
        return {**{k: getattr(self, k) for k in names}, "shard": shard, "progress": not self.quiet}


def _seeds(text: str) -> range | tuple[int]:
    first, colon, last = text.partition(":")
    try:
        return range(int(first), int(last)) if colon else (int(first),)
    except ValueError:
        raise InputError("seed", text, "give whole numbers or a range such as 0:256") from None


def _literal(text: str) -> Any:
    """JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
