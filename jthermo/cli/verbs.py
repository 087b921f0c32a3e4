"""The command line: every verb is one function, and every function is also reachable from Python.

Exit codes: 0 done, 2 bad input, 75 interrupted (the same command again goes on), 1 anything else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from jthermo.cli.launch import launch
from jthermo.cli.options import (
    Changes,
    How,
    Source,
    Target,
    is_table,
    powers,
    read_table,
    replicate_column,
)
from jthermo.errors import InputError, Interrupted, StorageError

BAD_INPUT, INTERRUPTED = 2, 75
DESCRIPTION = """Train thousands of small networks at once over seeds × learning rates × batch sizes, record what the
theory of SGD noise speaks about, and fit the scaling exponents of the decay by data collapse.

Start with `jthermo reproduce fig3_4`. Exit codes: 0 done, 2 bad input, 75 interrupted (the same command again goes on)."""

Directory = Annotated[Positional[Path], arg(metavar="DIR", help="results folder")]


def run(target: Target, /, changes: Changes, how: How, out: Path | None = None) -> None:
    """Train a sweep and write its records; the same command again goes on from the last checkpoint.

    Args:
        target: experiment or file.
        changes: fields to change.
        how: how it is run.
        out: results folder; results/NAME where it is not given.
    """
    how.start()
    from jthermo.execution.runner import run
    from jthermo.paper.reproduce import sweep_of

    sweep = sweep_of(target, changes.scale, **changes.changes())
    folder = out or Path("results") / Path(target).stem
    _say_done(folder, run(sweep, folder, **how.options()))


def resume(directory: Directory, /, how: How) -> None:
    """Go on with the sweep of a results folder; never starts one afresh.

    Args:
        directory: results folder.
        how: how it is run.
    """
    how.start()
    from jthermo.execution.runner import run
    from jthermo.results.writing import resumable

    _say_done(directory, run(resumable(directory), directory, **how.options()))


def _say_done(folder: Path, ds: Any) -> None:
    from jthermo.results.tables import num_diverged

    state = "" if ds.attrs["complete"] else " so far; other shards have the rest"
    print(
        f"{folder}: {ds.sizes['run']:,} runs, {ds.sizes['record']} records, {num_diverged(ds)} diverged{state}"
    )


def plan(
    target: Target,
    /,
    changes: Changes,
    measure: bool = True,
    devices: int | None = None,
    hosts: int = 1,
    rate: float | None = None,
    memory_gb: float | None = None,
    platform: Literal["cpu", "gpu", "tpu"] | None = None,
) -> None:
    """Forecast a sweep: programs, lanes, memory, time and disk, on this machine or on another one.

    Args:
        target: experiment or file.
        changes: fields to change.
        measure: compile each program and, where no rate is stated, time a burst of it.
        devices: devices of the machine to forecast; those at hand where it is not given.
        hosts: hosts they belong to.
        rate: run-steps a second of one device; measured here where it is not given.
        memory_gb: memory of one device.
        platform: its kind, which decides the lane width; that of this machine where it is not given.
    """
    from jthermo.execution.forecast import plan
    from jthermo.paper.reproduce import sweep_of

    sweep, memory = (
        sweep_of(target, changes.scale, **changes.changes()),
        memory_gb and memory_gb * 1e9,
    )
    machine: dict[str, Any] = {
        "devices": devices,
        "hosts": hosts,
        "memory": memory,
        "platform": platform,
    }
    print(plan(sweep, measure=measure, rate=rate, **machine))


def status(directory: Directory, /) -> None:
    """What a results folder holds, finished or not."""
    from jthermo.results.reading import status

    for name, text in status(directory).items():
        print(f"{name:<14} {text}")


def fit(
    target: Source,
    /,
    value: str = "activation_rate",
    controls: tuple[str, ...] = ("learning_rate", "batch_size"),
    time: str = "step",
    replicate: str = "seed",
    where: tuple[str, ...] = (),
    window: tuple[float, float] | None = None,
    fixed: tuple[str, ...] = (),
    rescale: tuple[str, ...] = (),
    correction: tuple[str, ...] = (),
    confidence: float = 0.95,
    advice: bool = False,
    as_json: bool = False,
) -> None:
    """Fit the exponents of τ = t·Π control^p by data collapse.

    Args:
        target: results folder or table.
        value: the variable to fit; the column of a table.
        controls: controls c with an exponent p each; those with one value only are left out for a results folder.
        time: the column of t.
        replicate: the column that tells replicates apart; none where each curve was recorded once.
        where: only runs, or rows of a table, with NAME=VALUE, such as model.init=torch; each further axis of a results
            folder gets a fit per value.
        window: first and last t to use.
        fixed: exponents held at a value as NAME=POWER, such as batch_size=-1.
        rescale: controls that scale the value too, value = c^q·F(τ).
        correction: leading corrections as NAME=POWER, τ = t·c^p·exp(a·(c/c₀)^POWER); the power is fitted by NAME=LOW:HIGH.
        confidence: of the intervals.
        advice: say too what would narrow the intervals: replicates, control values, later or denser records.
        as_json: print JSON in place of text.
    """
    from jthermo.collapse import fit_collapse
    from jthermo.paper.claims import fit_choices
    from jthermo.results.reading import open_results
    from jthermo.results.tables import select, variable

    options: dict[str, Any] = {
        "time": time,
        "replicate": replicate_column(replicate),
        "window": window,
        "fixed": powers("fixed", fixed),
        "rescale": rescale,
        "correction": powers("correction", correction),
        "confidence": confidence,
    }
    found: list[tuple[dict[str, Any], Any]]
    if is_table(target):
        found = [({}, fit_collapse(read_table(target, where), controls, value=value, **options))]
    else:
        ds = select(open_results(target), where)
        several = [c for c in controls if len(set(variable(ds, c, "controls").values.tolist())) > 1]
        variable(ds, value, "value")
        chosen = fit_choices(ds, value, several or controls, **options)
        found = [(each.choice, each.fit) for each in chosen]
    if as_json:
        told = [{"choice": choice, **each.to_dict()} for choice, each in found]
        for row, (_, each) in zip(told if advice else (), found if advice else (), strict=True):
            row["advice"] = [dataclasses.asdict(change) for change in each.advice()]
        print(json.dumps(told, indent=1))
        return
    for choice, each in found:
        if choice:
            print(", ".join(f"{k} = {v}" for k, v in choice.items()))
        print(each.summary())
        for change in each.advice() if advice else ():
            print(f"  advice: {change}")


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
    from jthermo.results.reading import open_results
    from jthermo.results.tables import select, variable

    ds = select(open_results(directory), where)
    variable(ds, value, "value")
    path = out or directory / f"{value}.png"
    print(*figures.save({path.stem: figures.clocks(ds, value, by=by, powers=powers)}, path.parent))


def explore(
    target: Source,
    /,
    value: tuple[str, ...] = (),
    controls: tuple[str, ...] = ("learning_rate", "batch_size"),
    time: str = "step",
    replicate: str = "seed",
    where: tuple[str, ...] = (),
    window: tuple[float, float] | None = None,
    out: Path | None = None,
) -> None:
    """Write a page on which to move the exponents by hand and watch the curves collapse; a browser opens it.

    Args:
        target: results folder or table.
        value: observables to choose from, columns of a table; all of a results folder where none is given.
        controls: controls with a slider each; those with one value only are left out.
        time: the column of t.
        replicate: the column that tells replicates apart; none where each curve was recorded once.
        where: only runs with NAME=VALUE.
        window: first and last t to use.
        out: the HTML file; explore.html in the folder, or beside the table, where it is not given.
    """
    from jthermo.figures.explore import explore
    from jthermo.results.reading import open_results
    from jthermo.results.tables import select

    data = read_table(target, where) if is_table(target) else select(open_results(target), where)
    path = out or (target.parent if target.is_file() else target) / "explore.html"
    column = replicate_column(replicate)
    said = explore(
        data,
        path,
        controls,
        value=value,
        time=time,
        replicate=column,
        window=window,
        title=str(target),
    )
    print(f"{said}\n{path}")


def export(
    directory: Directory, /, to: Literal["csv", "parquet", "netcdf"], out: Path | None = None
) -> None:
    """Write results for other programs.

    Args:
        directory: results folder.
        to: the format.
        out: the file; DIR/results.<format> where it is not given.
    """
    from jthermo.results.reading import open_results
    from jthermo.results.tables import SUFFIX, export

    print(export(open_results(directory), out or directory / f"results{SUFFIX[to]}", to))


def reproduce(
    name: Annotated[Positional[str], arg(metavar="NAME|all", help="experiment, or all of them")],
    /,
    scale: Literal["small", "paper"] = "small",
    out: Path = Path("results"),
    quiet: bool = False,
) -> None:
    """Reproduce a figure of the paper, or all: sweep, fits, verdicts, pictures. What is done already is skipped.

    Of all, one that fails does not stop the others; the exit code is 2 where what failed was bad input, 1 where it was
    anything else, and 0 where all was done but what lacks its data, which is told.

    Args:
        name: experiment.
        scale: small takes minutes on two cores.
        out: where results go.
        quiet: print nothing but errors.
    """
    from jthermo.paper.reproduce import reproduce, reproduce_all

    if name != "all":
        reproduce(name, scale, out, progress=not quiet)
        return
    failed = [
        ended for ended in reproduce_all(scale, out, progress=not quiet) if ended.state == "failed"
    ]
    if failed:
        told = "; ".join(f"{each.name}: {each.why}" for each in failed)
        bad_input = all(isinstance(each.error, InputError) for each in failed)
        sys.exit(_say(f"error: all done but {told}", BAD_INPUT if bad_input else 1))


def claims(
    results: Path = Path("results"), only: tuple[str, ...] = (), into: tuple[Path, ...] = ()
) -> None:
    """The verdicts on the paper's claims, as far as their experiments have been run.

    Args:
        results: the folder with claims.json.
        only: claims to print, such as C2 C3; all where none is given.
        into: Markdown pages to put the tables into, between their markers.
    """
    from jthermo.paper import claims_tables

    path = results / "claims.json"
    if not path.exists():
        raise InputError(
            "results", str(results), "has no claims.json; run `jthermo reproduce all` first"
        )
    known = json.loads(path.read_text())
    if unknown := set(only) - set(known):
        raise InputError(
            "only", sorted(unknown)[0], f"is not among the verdicts; there are {', '.join(known)}"
        )
    if not into:
        print(claims_tables.summary({name: known[name] for name in only or known}))
    for page in into:
        claims_tables.write_tables(path, page)
        print(f"{page}: written")


def report(
    results: Path = Path("results"), out: Path | None = None, published: bool = False
) -> None:
    """Write the replication report: one page on every claim, from what was found in the records that are there.

    Args:
        results: the folder that reproduce wrote into.
        out: the page, which needs no other file and no network; report.html in that folder if not given.
        published: show the published claims.json in place of what was found here.
    """
    from jthermo.paper.report import report

    out = out or results / "report.html"
    told = report(results, out, published)
    print(f"{out}: {len(told['found'])} experiments found, {len(told['not run'])} not run")


def list_experiments() -> None:
    """The experiments that come with jthermo."""
    from jthermo.paper.reproduce import experiments, load

    for name in experiments():
        module = load(name)
        runs = f"{module.SWEEP.num_runs:>6,} runs" if hasattr(module, "SWEEP") else "    no nets"
        print(f"{name:<11} {runs}  {(module.__doc__ or '').strip()}")


def doctor(results: Path = Path("results")) -> None:
    """Check versions, devices and disk, with a remedy for what is wrong.

    Args:
        results: where results would go.
    """
    from jthermo.cli.doctor import doctor

    found = doctor(results)
    for check in found:
        print(f"{'ok ' if check.ok else 'BAD'} {check.name:<10} {check.text}")
    if not all(check.ok for check in found):
        raise SystemExit(1)


VERBS: dict[str, Callable[..., Any]] = {
    "run": run,
    "resume": resume,
    "fit": fit,
    "plot": plot,
    "explore": explore,
    "export": export,
    "reproduce": reproduce,
    "claims": claims,
    "report": report,
    "list": list_experiments,
    "plan": plan,
    "launch": launch,
    "status": status,
    "doctor": doctor,
}


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    import matplotlib

    matplotlib.use("Agg")
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS, prog="jthermo", description=DESCRIPTION, args=args
        )
        sys.stdout.flush()
    except StorageError as error:
        sys.exit(_say(f"error: {error}", INTERRUPTED))
    except InputError as error:
        sys.exit(_say(f"error: {error}", BAD_INPUT))
    except Interrupted as stopped:
        sys.exit(_say(str(stopped), INTERRUPTED))
    except BrokenPipeError:
        # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(
            _say("interrupted; the same command again goes on from what is saved", INTERRUPTED)
        )


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
