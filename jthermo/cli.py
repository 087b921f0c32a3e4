"""The command line: every verb is one function, and every function is also reachable from Python.

Exit codes: 0 done, 2 bad input, 75 interrupted (the same command again goes on), 1 anything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from jthermo.errors import InputError

BAD_INPUT, INTERRUPTED = 2, 75
DESCRIPTION = """Train thousands of small networks at once over seeds × learning rates × batch sizes, record what the
theory of SGD noise speaks about, and fit the scaling exponents of the decay by data collapse.

Start with `jthermo reproduce fig3_4`. Exit codes: 0 done, 2 bad input, 75 interrupted (the same command again goes on)."""

Directory = Annotated[Positional[Path], arg(metavar="DIR", help="results folder")]
Target = Annotated[
    Positional[str],
    arg(metavar="NAME|FILE", help="experiment (see `jthermo list`), or a Python file with SWEEP"),
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


Changes = OmitArgPrefixes[Overrides]


def run(
    target: Target,
    /,
    changes: Changes,
    out: Path | None = None,
    placement: Literal["sharding", "pmap"] = "sharding",
    engine: Literal["auto", "xla"] = "auto",
    quiet: bool = False,
) -> None:
    """Train a sweep and write its records.

    Args:
        target: experiment or file.
        changes: fields to change.
        out: results folder; results/NAME where it is not given. The same command again goes on with it.
        placement: how runs are laid over the devices.
        engine: which engine trains.
        quiet: print no progress.
    """
    from jthermo.reproduction import sweep_of
    from jthermo.results import num_diverged
    from jthermo.runner import run

    sweep = sweep_of(target, changes.scale, **changes.changes())
    folder = out or Path("results") / Path(target).stem
    ds = run(sweep, folder, placement=placement, engine=engine, progress=not quiet)
    print(f"{folder}: {ds.sizes['run']:,} runs, {ds.sizes['record']} records, {num_diverged(ds)} diverged")


def plan(target: Target, /, changes: Changes, measure: bool = True) -> None:
    """Forecast a sweep: programs, lanes, memory, time and disk.

    Args:
        target: experiment or file.
        changes: fields to change.
        measure: compile each program and time a burst of it.
    """
    from jthermo.forecast import plan
    from jthermo.reproduction import sweep_of

    print(plan(sweep_of(target, changes.scale, **changes.changes()), measure=measure))


def status(directory: Directory, /) -> None:
    """What a results folder holds, finished or not."""
    from jthermo.results import status

    for name, text in status(directory).items():
        print(f"{name:<14} {text}")


def fit(
    target: Annotated[
        Positional[Path], arg(metavar="DIR|TABLE", help="results folder, or a CSV or parquet table")
    ],
    /,
    value: str = "activation_rate",
    controls: tuple[str, ...] = ("learning_rate", "batch_size"),
    time: str = "step",
    replicate: str = "seed",
    where: tuple[str, ...] = (),
    window: tuple[float, float] | None = None,
    confidence: float = 0.95,
    as_json: bool = False,
) -> None:
    """Fit the exponents of τ = t·Π control^p by data collapse.

    Args:
        target: results folder or table.
        value: the variable to fit; the column of a table.
        controls: controls with an exponent each; those with one value only are left out for a results folder.
        time: the column of t.
        replicate: the column that tells replicates apart.
        where: only runs with NAME=VALUE, such as model.init=torch.
        window: first and last t to use.
        confidence: of the intervals.
        as_json: print JSON in place of text.
    """
    from jthermo.collapse import fit_collapse

    data, kept = _table(target, controls) if target.is_file() else _variable(target, value, controls, where)
    found = fit_collapse(
        data, kept, time=time, replicate=replicate, value=value, window=window, confidence=confidence
    )
    print(json.dumps(found.to_dict(), indent=1) if as_json else found.summary())


def plot(
    directory: Directory,
    /,
    value: str = "activation_rate",
    by: str = "learning_rate",
    powers: tuple[float, ...] = (0.0, 1.0, 2.0),
    where: tuple[str, ...] = (),
    out: Path | None = None,
) -> None:
    """Draw a variable on the clocks t·c^p of one control c.

    Args:
        directory: results folder.
        value: the variable.
        by: the control c.
        powers: p of each panel.
        where: only runs with NAME=VALUE.
        out: the PNG file; DIR/VALUE.png where it is not given.
    """
    from jthermo import figures
    from jthermo.results import open_results

    ds = _where(open_results(directory), where)
    if value not in ds:
        raise InputError("value", value, f"is not recorded; there are {', '.join(map(str, ds.data_vars))}")
    path = out or directory / f"{value}.png"
    print(*figures.save({path.stem: figures.clocks(ds, value, by=by, powers=powers)}, path.parent))


def export(directory: Directory, /, to: Literal["csv", "parquet", "netcdf"], out: Path | None = None) -> None:
    """Write results for other programs.

    Args:
        directory: results folder.
        to: the format.
        out: the file; DIR/results.<format> where it is not given.
    """
    from jthermo.results import SUFFIX, export, open_results

    print(export(open_results(directory), out or directory / f"results{SUFFIX[to]}", to))


def reproduce(
    name: Annotated[Positional[str], arg(metavar="NAME|all", help="experiment, or all of them")],
    /,
    scale: Literal["small", "paper"] = "small",
    out: Path = Path("results"),
    quiet: bool = False,
) -> None:
    """Reproduce a figure of the paper: sweep, fits, verdicts, pictures.

    Args:
        name: experiment.
        scale: small takes minutes on two cores.
        out: where results go.
        quiet: print nothing but errors.
    """
    from jthermo.reproduction import experiments, reproduce

    for each in experiments() if name == "all" else (name,):
        reproduce(each, scale, out, progress=not quiet)


def claims(results: Path = Path("results"), into: Path | None = None) -> None:
    """The verdicts on the paper's claims, as far as their experiments have been run.

    Args:
        results: the folder with claims.json.
        into: a Markdown page to put the table into, between its markers.
    """
    from jthermo import claims as verdicts

    path = results / "claims.json"
    if not path.exists():
        raise InputError("results", str(results), "has no claims.json; run `jthermo reproduce all` first")
    if into is None:
        print(verdicts.table(json.loads(path.read_text())))
    else:
        verdicts.write_table(path, into)


def list_experiments() -> None:
    """The experiments that come with jthermo."""
    from jthermo.reproduction import experiments, load

    for name in experiments():
        module = load(name)
        runs = f"{module.SWEEP.num_runs:>6,} runs" if hasattr(module, "SWEEP") else "    no nets"
        print(f"{name:<11} {runs}  {(module.__doc__ or '').strip()}")


def doctor(results: Path = Path("results")) -> None:
    """Check versions, devices and disk, with a remedy for what is wrong.

    Args:
        results: where results would go.
    """
    from jthermo.diagnosis import doctor

    found = doctor(results)
    for check in found:
        print(f"{'ok ' if check.ok else 'BAD'} {check.name:<10} {check.text}")
    if not all(check.ok for check in found):
        raise SystemExit(1)


VERBS: dict[str, Callable[..., Any]] = {
    "run": run,
    "fit": fit,
    "plot": plot,
    "export": export,
    "reproduce": reproduce,
    "claims": claims,
    "list": list_experiments,
    "plan": plan,
    "status": status,
    "doctor": doctor,
}


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    import matplotlib

    matplotlib.use("Agg")
    try:
        tyro.extras.subcommand_cli_from_dict(VERBS, prog="jthermo", description=DESCRIPTION, args=args)
    except InputError as error:
        sys.exit(_say(f"error: {error}", BAD_INPUT))
    except KeyboardInterrupt:
        sys.exit(
            _say(
                "interrupted; what is finished is kept, and the same command again goes on from there",
                INTERRUPTED,
            )
        )


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


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


def _where(ds: Any, conditions: tuple[str, ...]) -> Any:
    for text in conditions:
        name, _, value = text.partition("=")
        if name not in ds.coords or ds[name].dims != ("run",):
            raise InputError("where", text, "name a swept axis, such as model.init=torch")
        ds = (
            ds.isel(run=ds[name].values.astype(str) == value)
            if ds[name].dtype.kind == "U"
            else ds.isel(run=ds[name].values == _literal(value))
        )
        if not ds.sizes["run"]:
            raise InputError("where", text, "leaves no run")
    return ds


def _variable(
    directory: Path, value: str, controls: tuple[str, ...], where: tuple[str, ...]
) -> tuple[Any, tuple[str, ...]]:
    from jthermo.results import open_results

    ds = _where(open_results(directory), where)
    if value not in ds:
        raise InputError("value", value, f"is not recorded; there are {', '.join(map(str, ds.data_vars))}")
    for control in controls:
        if control not in ds.coords:
            raise InputError(
                "controls", control, f"is no swept axis; there are {', '.join(map(str, ds.coords))}"
            )
    return ds[value], tuple(c for c in controls if len(set(ds[c].values.tolist())) > 1) or controls


def _table(path: Path, controls: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    import pandas as pd

    readers: dict[str, Callable[[Path], Any]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise InputError("table", str(path), "give a .csv or .parquet file, or a results folder")
    return readers[path.suffix](path), controls
