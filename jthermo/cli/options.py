"""What the verbs of the command line take: changes to a sweep, how it is run, and what it doesn't say about a job."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from jthermo.errors import InputError, finite_number, whole_number

TOKEN = re.compile(r"[A-Za-z0-9._:/@+=,-]+")
TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")

Target = Annotated[
    Positional[str],
    arg(metavar="NAME|FILE", help="experiment (see `jthermo list`), or a Python file with SWEEP"),
]
Source = Annotated[
    Positional[Path], arg(metavar="DIR|TABLE", help="results folder, or a CSV or parquet table")
]


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
        plain = {
            k: getattr(self, k)
            for k in ("learning_rate", "batch_size", "num_steps", "noise", "loss")
        }
        made = {k: v for k, v in plain.items() if v is not None}
        if self.seed is not None:
            made["seed"] = tuple(s for text in self.seed for s in _seeds(text))
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError("set", text, "write NAME=VALUE, such as model.hidden=20")
            made[name] = _literal(value)
        return made

    def arguments(self) -> tuple[str, ...]:
        """The command-line arguments that say the same."""
        made: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                several = value if isinstance(value, tuple) else (value,)
                made += [f"--{field.name.replace('_', '-')}", *map(str, several)]
        return tuple(made)


Changes = OmitArgPrefixes[Overrides]


@dataclass(frozen=True)
class Execution:
    """How a sweep is run; nothing here but the engine changes a bit of its results."""

    placement: Literal["sharding", "pmap"] = "sharding"
    """how runs are laid over the devices."""
    engine: Literal["auto", "xla", "fused"] = "auto"
    """which engine trains: auto takes the fused kernel on CPUs, where it is at hand and covers the sweep."""
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
    tensorboard: str | None = None
    """folder for TensorBoard: means and quantiles of every observable, as they are recorded."""
    wandb: str | None = None
    """folder for an offline run of Weights & Biases, with the same."""

    def start(self) -> None:
        """Join the other processes, before JAX is used for anything else."""
        if self.distributed:
            from jthermo.execution.processes import join

            join(
                self.coordinator,
                self.num_processes,
                self.process_id,
                self.init_timeout,
                self.heartbeat_timeout,
            )

    def options(self) -> dict[str, Any]:
        """Arguments of :func:`jthermo.run`."""
        from jthermo.execution.callbacks import TensorBoard, WandB

        kinds = (("tensorboard", TensorBoard), ("wandb", WandB))
        callbacks = [
            make(getattr(self, name)) for name, make in kinds if getattr(self, name) is not None
        ]
        names = ("placement", "engine", "extend", "checkpoint_seconds", "checkpoint_steps")
        shard = None if self.shard is None else tuple(self.shard.split("/"))
        return {
            **{k: getattr(self, k) for k in names},
            "shard": shard,
            "progress": not self.quiet,
            "callbacks": callbacks,
        }


How = OmitArgPrefixes[Execution]


@dataclass(frozen=True)
class Job:
    """What the sweep doesn't say about a job."""

    tasks: int | None = None
    """Tasks of the array; None: one a block of lanes, at most 64."""
    nodes: int | None = None
    """Nodes of slurm-multinode; None: 2."""
    gpus: int = 1
    """GPUs of a task, or of a node of slurm-multinode; 0: CPU only."""
    cpus: int = 8
    """Cores of a task."""
    time: str = "24:00:00"
    """Time limit, HH:MM:SS or D-HH:MM:SS."""
    name: str | None = None
    """Name of the job; None: that of the sweep."""
    partition: str | None = None
    """SLURM partition."""
    account: str | None = None
    """SLURM account."""
    setup: str | None = None
    """Shell lines to run first, such as "source .venv/bin/activate"."""
    image: str | None = None
    """Container image, for gke."""
    claim: str | None = None
    """Persistent volume claim of the results, for gke."""
    accelerator: str | None = None
    """TPU slice, such as v5litepod-256, or GPU type of gke, such as nvidia-h100-80gb."""
    runtime: str | None = None
    """Software version of the TPU VM."""
    zone: str | None = None
    """Zone of the TPU."""
    project: str | None = None
    """Google Cloud project of the TPU; None: gcloud's default."""
    spot: bool = False
    """Take TPUs that may be preempted."""
    rate: float | None = None
    """Run-steps a second of one device, to forecast the time of a task in the job's head."""

    def __post_init__(self) -> None:
        for name, least in (("tasks", 1), ("nodes", 1), ("gpus", 0), ("cpus", 1)):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), least)
        if self.rate is not None:
            finite_number("rate", self.rate, above=0)
        if not TIME.fullmatch(self.time):
            raise InputError("time", self.time, "write HH:MM:SS or D-HH:MM:SS")
        for name in (
            "name",
            "partition",
            "account",
            "image",
            "claim",
            "accelerator",
            "runtime",
            "zone",
            "project",
        ):
            token(name, getattr(self, name))

    @property
    def minutes(self) -> int:
        """The time limit."""
        found = TIME.fullmatch(self.time)
        assert found is not None
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return max(1, days * 1440 + hours * 60 + minutes + (seconds > 0))


def token(field: str, value: str | None) -> str | None:
    """A name that means itself in a shell, in YAML and in Python."""
    if value is not None and not TOKEN.fullmatch(value):
        raise InputError(field, value, "use letters, digits and ._:/@+=,- without spaces")
    return value


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


def replicate_column(name: str) -> str | None:
    """The column of replicates, None for the word none."""
    return None if name == "none" else name


def powers(field: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """NAME=POWER as a number by name, NAME=LOW:HIGH as a pair."""
    out: dict[str, Any] = {}
    for text in texts:
        name, _, power = text.partition("=")
        try:
            found = tuple(float(part) for part in power.split(":"))
        except ValueError:
            raise InputError(field, text, "write NAME=POWER, such as batch_size=-1") from None
        out[name] = found[0] if len(found) == 1 else found
    return out


def is_table(path: Path) -> bool:
    """Whether a file is meant, be it there or not; else it is a results folder."""
    return path.is_file() or (bool(path.suffix) and not path.is_dir())


def read_table(path: Path, where: tuple[str, ...] = ()) -> Any:
    """The rows of a CSV or parquet file that meet every ``"column=value"``, as a pandas table."""
    import pandas as pd

    readers: dict[str, Callable[[Path], Any]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise InputError("table", str(path), "give a .csv or .parquet file, or a results folder")
    if not path.is_file():
        raise InputError("table", str(path), "there is no such file; check the path")
    try:
        table = readers[path.suffix](path)
    except ImportError:
        remedy = "reading parquet takes pyarrow; pip install pyarrow, or export the table as CSV"
        raise InputError("table", str(path), remedy) from None
    except (ValueError, OSError) as error:
        raise InputError(
            "table", str(path), f"can't be read ({' '.join(str(error).split())})"
        ) from None
    for text in where:
        table = _rows(table, text)
    return table


def _rows(table: Any, text: str) -> Any:
    name, _, wanted = text.partition("=")
    if name not in table.columns:
        raise InputError("where", text, f"name a column: {', '.join(map(str, table.columns))}")
    column = table[name]
    numeric = column.dtype.kind in "iuf"
    try:
        kept = table[
            (column if numeric else column.astype(str)) == (float(wanted) if numeric else wanted)
        ]
    except ValueError:
        raise InputError("where", text, f"{name} takes numbers") from None
    if kept.empty:
        raise InputError(
            "where", text, f"leaves no row; {name} takes {', '.join(map(str, column.unique()[:8]))}"
        )
    return kept
