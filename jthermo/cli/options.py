"""Options of the verbs: changes to a sweep, execution, cluster jobs; reading tables."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from jthermo.errors import InputError, finite_number, whole_number

# A name that needs no quotes anywhere, and a SLURM time limit, [D-]HH:MM:SS.
TOKEN = re.compile(r"[A-Za-z0-9._:/@+=,-]+")
TIME = re.compile(r"(?:([0-9]+)-)?([0-9]+):([0-5][0-9]):([0-5][0-9])")
# Largest number of seeds on a command line.
MOST_SEEDS = 10_000_000
# Suffixes of text tables.
TEXT = (".csv", ".tsv", ".dat", ".txt")

Target = Annotated[
    Positional[str],
    arg(metavar="NAME|FILE", help="experiment (see `jthermo list`), or a Python file with SWEEP"),
]
Source = Annotated[
    Positional[Path], arg(metavar="DIR|TABLE", help="results folder, or a CSV or parquet table")
]


@dataclass(frozen=True)
class Overrides:
    """Changes to the fields of a sweep."""

    learning_rate: tuple[float, ...] | None = None
    """one or several learning rates η."""
    batch_size: tuple[int | Literal["full"], ...] | None = None
    """one or several batch sizes B; full uses each example of a finite set at every step."""
    seed: tuple[str, ...] | None = None
    """seeds, as numbers or as ranges such as 0:256."""
    num_steps: int | None = None
    """number of steps of every run."""
    noise: str | None = None
    """residual noise: full, unbiased or label_averaged."""
    loss: str | None = None
    """loss: auto, or the name of a loss such as bce, softmax, squared or hinge."""
    start: str | None = None
    """results folder whose last parameters the runs start from."""
    dtype: str | None = None
    """float32, float64 or bfloat16."""
    set: tuple[str, ...] = ()
    """any other field as NAME=VALUE, with VALUE in JSON: model.hidden=20 num_steps.value=5."""
    scale: Literal["paper", "small"] = "paper"
    """small applies the changes in SMALL of the experiment, such as fewer seeds."""

    def changes(self) -> dict[str, Any]:
        """The changed fields by dotted name, as :meth:`jthermo.Sweep.replace` takes them."""
        plain = {
            k: getattr(self, k)
            for k in ("learning_rate", "batch_size", "num_steps", "noise", "loss", "start", "dtype")
        }
        changes = {k: v for k, v in plain.items() if v is not None}
        if self.seed is not None:
            changes["seed"] = _joined_seeds(self.seed)
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError("set", text, "write NAME=VALUE, such as model.hidden=20")
            changes[name] = _literal(value)
        return changes

    def arguments(self) -> tuple[str, ...]:
        """The command-line arguments with the same effect."""
        words: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                several = value if isinstance(value, tuple) else (value,)
                words += [f"--{field.name.replace('_', '-')}", *map(str, several)]
        return tuple(words)


Changes = OmitArgPrefixes[Overrides]


@dataclass(frozen=True)
class Execution:
    """How to run a sweep; only the engine affects the bits of its results."""

    placement: Literal["sharding", "pmap"] = "sharding"
    """how runs are distributed over the devices."""
    engine: Literal["auto", "xla", "fused"] = "auto"
    """engine that trains; auto picks the fused one on CPUs if it is available for this sweep."""
    extend: bool = False
    """the folder holds a part of this sweep, fewer runs or fewer steps; train what is missing."""
    shard: str | None = None
    """I/N: train every N-th block of runs, from block I (0 … N-1), in a folder shared by all I."""
    distributed: bool = False
    """join the other processes of this job; JAX detects SLURM, Open MPI, Kubernetes, TPU pods."""
    coordinator: str | None = None
    """HOST:PORT of process 0, if JAX cannot detect it."""
    num_processes: int | None = None
    """number of processes, if JAX cannot detect it."""
    process_id: int | None = None
    """index of this process, if JAX cannot detect it."""
    init_timeout: int = 300
    """seconds to wait for the other processes at the start."""
    heartbeat_timeout: int = 100
    """seconds of silence after which a process counts as dead and all processes stop."""
    checkpoint_seconds: float = 60.0
    """seconds of wall time between checkpoints."""
    checkpoint_steps: int | None = None
    """also save a checkpoint each time this many steps are done."""
    quiet: bool = False
    """print no progress."""
    tensorboard: str | None = None
    """folder for TensorBoard logs: means and quantiles of every observable."""
    wandb: str | None = None
    """folder for an offline run of Weights & Biases with the same values."""

    def start(self) -> None:
        """Join the other processes if `distributed`; call it before JAX is used."""
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
class ScalingLaw:
    """The data and the scaling law to fit, (value − v₀) = Π c^q·F(τ) with τ = (t − t_c)·Π c^p."""

    controls: tuple[str, ...] = ("learning_rate", "batch_size")
    """controls c, each with an exponent p; of a results folder, those with several values."""
    time: str = "step"
    """column of t."""
    replicate: str = "seed"
    """column that numbers the replicates; "none" if each curve was recorded once."""
    columns: tuple[str, ...] = ()
    """names of the columns of a table whose file has no names."""
    where: tuple[str, ...] = ()
    """use only the runs or rows with NAME=VALUE, such as model.init=torch."""
    window: tuple[float, float] | None = None
    """first and last t to use."""
    fixed: tuple[str, ...] = ()
    """exponents to hold at a value, as NAME=POWER, such as batch_size=-1."""
    rescale: tuple[str, ...] = ()
    """controls that also scale the value, as value = c^q·F(τ)."""
    correction: tuple[str, ...] = ()
    """corrections as NAME=POWER, with τ = t·c^p·exp(a·(c/c₀)^POWER); NAME=LOW:HIGH fits it."""
    error: str | None = None
    """column of published standard errors; without replicates they are the noise."""
    critical_point: str | None = None
    """t_c, or LOW:HIGH to fit it."""
    branches: int = 1
    """1 if the curve is smooth through t_c, 2 for another curve on either side."""
    offset: str | None = None
    """v₀, or LOW:HIGH to fit it together with rescale."""
    scale: Literal["linear", "log"] = "linear"
    """log for noise in proportion to the value."""
    clock_window: tuple[float, float] | None = None
    """first and last τ to use, with the exponents given as fixed."""
    time_resolution: float | None = None
    """step of a discrete or coarse clock, in units of t."""
    confidence: float = 0.95
    """confidence level of the intervals."""

    def options(self) -> dict[str, Any]:
        """Arguments of :func:`jthermo.fit_collapse`, except the data, controls and value."""
        names = ("time", "window", "rescale", "error", "branches", "scale", "clock_window")
        more = ("time_resolution", "confidence")
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "replicate": replicate_column(self.replicate),
            "fixed": powers("fixed", self.fixed),
            "correction": powers("correction", self.correction),
            "critical_point": number_or_range("critical_point", self.critical_point),
            "offset": number_or_range("offset", self.offset),
        }

    def table(self, path: Path, values: Sequence[str]) -> Any:
        """The rows of a table that are fitted, with its columns named as the options name them."""
        optional = [name for name in (replicate_column(self.replicate), self.error) if name]
        names = (*self.controls, self.time, *optional, *values)
        return read_table(path, self.where, names, self.columns)


Law = OmitArgPrefixes[ScalingLaw]


@dataclass(frozen=True)
class Job:
    """Settings of a cluster job."""

    tasks: int | None = None
    """number of tasks of the array; by default one per block of runs, at most 64."""
    nodes: int | None = None
    """number of nodes, for slurm-multinode; by default 2."""
    gpus: int = 1
    """GPUs per task, or per node for slurm-multinode; 0 trains on CPUs."""
    cpus: int = 8
    """CPU cores per task."""
    time: str = "24:00:00"
    """time limit, as HH:MM:SS or D-HH:MM:SS."""
    name: str | None = None
    """name of the job; by default that of the experiment or file."""
    partition: str | None = None
    """SLURM partition."""
    account: str | None = None
    """SLURM account."""
    setup: str | None = None
    """shell lines to run first, such as "source .venv/bin/activate"."""
    image: str | None = None
    """container image with jthermo, for gke."""
    claim: str | None = None
    """persistent volume claim that holds the results, for gke."""
    accelerator: str | None = None
    """TPU slice, such as v5litepod-256, or GPU type for gke, such as nvidia-h100-80gb."""
    runtime: str | None = None
    """software version of the TPU VM, for tpu."""
    zone: str | None = None
    """zone of the TPU, for tpu."""
    project: str | None = None
    """Google Cloud project, for tpu; by default that of gcloud."""
    spot: bool = False
    """use TPUs that may be preempted, for tpu."""
    rate: float | None = None
    """steps per second of one device, counting empty lanes too; adds a forecast of the time."""

    def check(self) -> None:
        """Raise InputError for a setting out of range.

        Not on construction, where tyro would wrap the message.
        """
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
        """The time limit in minutes, rounded up."""
        match = TIME.fullmatch(self.time)
        assert match is not None
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return max(1, days * 1440 + hours * 60 + minutes + (seconds > 0))


def token(field: str, value: str | None) -> str | None:
    """Check that a name needs no quotes in a shell, in YAML and in Python, and return it."""
    if value is not None and not TOKEN.fullmatch(value):
        raise InputError(field, value, "use letters, digits and ._:/@+=,- without spaces")
    return value


def _joined_seeds(texts: tuple[str, ...]) -> tuple[int, ...]:
    """The seeds of several numbers and ranges; their number is checked before they are listed."""
    ranges = [_seeds(text) for text in texts]
    number = sum(len(seeds) for seeds in ranges)
    if number > MOST_SEEDS:
        limit = f"names {number:,} seeds, the limit is {MOST_SEEDS:,}; give fewer"
        raise InputError("seed", " ".join(texts), limit)
    return tuple(seed for seeds in ranges for seed in seeds)


def _seeds(text: str) -> range:
    """The seeds of a number or of a range such as 0:256."""
    first, colon, last = text.partition(":")
    try:
        start = int(first)
        stop = int(last) if colon else start + 1
    except ValueError:
        raise InputError("seed", text, "give whole numbers or ranges such as 0:256") from None
    if not 0 <= start < stop <= 2**32:
        raise InputError(
            "seed", text, "give numbers from 0 to 4294967295, or ranges FIRST:END with FIRST < END"
        )
    return range(start, stop)


def _literal(text: str) -> Any:
    """The value of a JSON text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def replicate_column(name: str) -> str | None:
    """The name of the column of replicates; None for "none"."""
    return None if name == "none" else name


def powers(field: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Options as a dict by NAME: NAME=POWER gives a number, NAME=LOW:HIGH the pair (low, high)."""
    by_name: dict[str, Any] = {}
    for text in texts:
        name, _, power = text.partition("=")
        try:
            numbers = tuple(float(part) for part in power.split(":"))
        except ValueError:
            raise InputError(field, text, "write NAME=POWER, such as batch_size=-1") from None
        by_name[name] = numbers[0] if len(numbers) == 1 else numbers
    return by_name


def number_or_range(field: str, text: str | None) -> Any:
    """An option NUMBER or LOW:HIGH as a number or the pair (low, high)."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(":"))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2):
        remedy = "write a number, or LOW:HIGH to fit it, such as 0.42:0.46"
        raise InputError(field, text, remedy)
    return numbers[0] if len(numbers) == 1 else numbers


def is_table(path: Path) -> bool:
    """Whether a path names a table, which need not exist, and not a results folder."""
    return path.is_file() or (bool(path.suffix) and not path.is_dir())


def read_table(
    path: Path,
    where: Sequence[str] = (),
    names: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Any:
    """The rows of a text or parquet file with every ``"column=value"``, as a pandas table.

    A text file is separated by commas, semicolons, tabs or spaces. Lines that begin with # are
    comments. It may be compressed (.gz).

    Args:
        path: .csv, .tsv, .dat, .txt or .parquet file.
        where: rows to keep.
        names: columns that will be used; a unit after a name in the file may be omitted here.
        columns: names of all columns, for a text file without names.
    """
    import pandas as pd

    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".parquet", *TEXT):
        remedy = f"give a {', '.join(TEXT)} or .parquet file, or a results folder"
        raise InputError("table", str(path), remedy)
    if not path.is_file():
        raise InputError("table", str(path), "no such file; check the path")
    try:
        table = pd.read_parquet(path) if kind == ".parquet" else _read_text(path, columns)
    except ImportError:
        remedy = "parquet needs pyarrow; pip install pyarrow, or export the table as CSV"
        raise InputError("table", str(path), remedy) from None
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(
            "table", str(path), f"can't be read ({' '.join(str(error).split())})"
        ) from None
    selected = [text.partition("=")[0] for text in where]
    table = table.rename(columns=_with_units(table.columns, (*names, *selected)))
    for text in where:
        table = _rows(table, text)
    return table


def _read_text(path: Path, columns: Sequence[str]) -> Any:
    """A table of columns that its first line separates by commas, semicolons, tabs or spaces."""
    import pandas as pd

    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "rt", encoding="utf-8-sig") as file:
        whole = [line.strip() for line in file]
    lines = [line for line in whole if line and not line.startswith("#")]
    first = lines[0] if lines else ""
    spaced = r"\s+" if len(first.split()) > 1 else ","
    separator = next((mark for mark in (",", ";", "\t") if mark in first), spaced)

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in re.split(separator, line)]

    if lines and separator == spaced:
        # A unit belongs to the name before it: T [K].
        lines[0] = re.sub(r"\s+(?=[\[(])", "", first)
    names = list(columns)
    if not names and lines and all(map(_is_number, cells(first))):
        # As NumPy and gnuplot write it, a comment above the numbers holds the names.
        comments = [cells(line.strip("# ")) for line in whole[: whole.index(first)]]
        fitting = [words for words in comments if len(words) == len(cells(first))]
        if not fitting:
            remedy = "names no columns; give them, such as --columns L T value error"
            raise InputError("table", str(path), remedy)
        names = fitting[-1]
    elif not names and len(lines) > 2 and not any(map(_is_number, cells(lines[1]))):
        # A line of units.
        del lines[1]
    if columns and len(names) != len(cells(first)):
        remedy = f"the file has {len(cells(first))} columns; name each of them"
        raise InputError("columns", " ".join(columns), remedy)
    body = "\n".join(lines)
    return pd.read_csv(
        io.StringIO(body),
        sep=separator,
        skipinitialspace=True,
        names=names or None,
        header=None if names else 0,
        decimal="," if separator == ";" and re.search(r"\d,\d", body) else ".",
    )


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _with_units(columns: Iterable[Any], names: Sequence[str]) -> dict[str, str]:
    """For each name that is no column: the column that has this name with a unit, T [K] or T/K."""
    known = list(map(str, columns))
    bare = [re.sub(r"\s*([\[(].*[\])]|/.*)$", "", name) for name in known]
    return {
        known[bare.index(name)]: name
        for name in names
        if name not in known and bare.count(name) == 1
    }


def _rows(table: Any, text: str) -> Any:
    """The rows of a table with one ``"column=value"``."""
    name, _, wanted = text.partition("=")
    if name not in table.columns:
        raise InputError(
            "where", text, f"name one of the columns {', '.join(map(str, table.columns))}"
        )
    column = table[name]
    numeric = column.dtype.kind in "iuf"
    try:
        kept = table[
            (column if numeric else column.astype(str)) == (float(wanted) if numeric else wanted)
        ]
    except ValueError:
        raise InputError("where", text, f"column {name} holds numbers; give a number") from None
    if kept.empty:
        raise InputError(
            "where",
            text,
            f"no row has this value; {name} takes {', '.join(map(str, column.unique()[:8]))}",
        )
    return kept
