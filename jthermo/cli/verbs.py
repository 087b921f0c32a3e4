"""The verbs of the command line, one function each, and `main`, which runs them.

Exit codes: 0 done, 2 bad input, 75 interrupted (the same command continues), 1 any other error.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from jthermo.cli.launch import launch
from jthermo.cli.options import (
    Changes,
    How,
    Law,
    Source,
    Target,
    is_table,
)
from jthermo.errors import InputError, Interrupted, StorageError

# Exit codes; launchers start a job again after 75.
BAD_INPUT, INTERRUPTED = 2, 75
DESCRIPTION = """Train thousands of small networks at once over seeds × learning rates × batch
sizes, record the quantities that theories of SGD noise predict, and fit scaling exponents by data
collapse.

Start with `jthermo reproduce fig3_4`.

Exit codes: 0 done, 2 bad input, 75 interrupted (run the same command again to continue), 1 any
other error."""

Directory = Annotated[Positional[Path], arg(metavar="DIR", help="results folder")]


def run(target: Target, /, changes: Changes, how: How, out: Path | None = None) -> None:
    """Train a sweep and write its records; the same command continues from the last checkpoint.

    Args:
        target: experiment or file.
        changes: changes to the sweep.
        how: how to run the sweep.
        out: results folder; by default results/NAME.
    """
    how.start()
    from jthermo.execution.runner import run
    from jthermo.paper.reproduce import sweep_of

    sweep = sweep_of(target, changes.scale, **changes.changes())
    folder = out or Path("results") / Path(target).stem
    _say_done(folder, run(sweep, folder, **how.options()))


def resume(directory: Directory, /, how: How) -> None:
    """Continue the sweep of a results folder; an error if the folder holds none.

    Args:
        directory: results folder.
        how: how to run the sweep.
    """
    how.start()
    from jthermo.execution.runner import run
    from jthermo.results.writing import resumable

    _say_done(directory, run(resumable(directory), directory, **how.options()))


def _say_done(folder: Path, ds: Any) -> None:
    """Print what a results folder holds after a run."""
    from jthermo.results.tables import num_diverged

    counts = f"{ds.sizes['run']:,} runs, {ds.sizes['record']} records, {num_diverged(ds)} diverged"
    state = "" if ds.attrs["complete"] else " so far; the other shards train the rest"
    print(f"{folder}: {counts}{state}")


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
    """Forecast a sweep: compilations, memory, time and disk, on this machine or on another one.

    Args:
        target: experiment or file.
        changes: changes to the sweep.
        measure: compile each program and, without --rate, time a few steps of it.
        devices: number of devices; by default those of this machine.
        hosts: number of hosts that the devices belong to.
        rate: steps per second of all lanes of one device, empty ones too; by default measured here.
        memory_gb: memory of one device in GB; by default that of a device here.
        platform: kind of device, which decides how many runs are vectorised together; by default
            that of this machine.
    """
    from jthermo.execution.forecast import plan
    from jthermo.paper.reproduce import sweep_of

    sweep = sweep_of(target, changes.scale, **changes.changes())
    memory = memory_gb and memory_gb * 1e9
    machine: dict[str, Any] = {
        "devices": devices,
        "hosts": hosts,
        "memory": memory,
        "platform": platform,
    }
    print(plan(sweep, measure=measure, rate=rate, **machine))


def status(directory: Directory, /) -> None:
    """Print what a results folder holds, and how far a sweep is that runs in it."""
    from jthermo.execution.running import status

    for name, text in status(directory).items():
        print(f"{name:<14} {text}")


def fit(
    target: Source,
    /,
    law: Law,
    value: str = "activation_rate",
    advice: bool = False,
    as_json: bool = False,
) -> None:
    """Fit the exponents of a scaling law by data collapse.

    In a results folder, the values of any other swept axis are fitted separately.

    Args:
        target: results folder or table.
        law: the scaling law.
        value: variable of the results folder, or column of the table, to fit.
        advice: also print what would narrow the intervals, such as more replicates, more control
            values, or later or denser records.
        as_json: print JSON instead of text.
    """
    from jthermo.collapse import fit_collapse
    from jthermo.paper.claims import fit_choices
    from jthermo.results.reading import open_results
    from jthermo.results.tables import axes_of, select, variable

    options, controls = law.options(), law.controls
    fits: list[tuple[dict[str, Any], Any]]
    if is_table(target):
        table = law.table(target, [value])
        fits = [({}, fit_collapse(table, controls, value=value, **options))]
    else:
        ds = select(open_results(target), law.where)
        for control in controls:
            if control not in (axes := axes_of(ds)):
                remedy = f"is no swept axis; choose from {', '.join(axes)}"
                raise InputError("controls", control, remedy)
        several = [c for c in controls if len(set(ds[c].values.tolist())) > 1]
        variable(ds, value, "value")
        chosen = fit_choices(ds, value, several or controls, **options)
        fits = [(choice, result) for choice, _, result in chosen]
    if as_json:
        rows = [{"choice": choice, **result.to_dict()} for choice, result in fits]
        if advice:
            for row, (_, result) in zip(rows, fits, strict=True):
                row["advice"] = [dataclasses.asdict(change) for change in result.advice()]
        print(json.dumps(rows, indent=1))
        return
    for choice, result in fits:
        if choice:
            print(", ".join(f"{k} = {v}" for k, v in choice.items()))
        print(result.summary())
        for change in result.advice() if advice else ():
            print(f"  advice: {change}")


def plot(
    directory: Directory,
    /,
    value: str = "activation_rate",
    by: str = "learning_rate",
    powers: tuple[float, ...] = (0.0, 1.0, 2.0),
    col: str | None = None,
    index: tuple[int, ...] | None = None,
    xscale: Literal["log", "linear"] = "log",
    where: tuple[str, ...] = (),
    out: Path | None = None,
) -> None:
    """Draw a variable against the clocks t·c^p of one control c, one panel for each p.

    Args:
        directory: results folder.
        value: variable to draw.
        by: the control c.
        powers: p of each panel.
        col: axis with one column of panels for each of its values, such as model.init.
        index: element of an array variable, one number for each of its dims; by default the
            quartiles over all elements.
        xscale: scale of the time.
        where: use only the runs with NAME=VALUE.
        out: PNG, PDF or SVG file; by default DIR/VALUE.png.
    """
    _draw_to_files()
    from jthermo import figures
    from jthermo.results.reading import open_results
    from jthermo.results.tables import select, variable

    path = out or directory / f"{value}.png"
    kind = path.suffix[1:]
    if kind not in (kinds := ("png", "pdf", "svg")):
        raise InputError("out", str(path), f"give a name that ends in .{', .'.join(kinds)}")
    ds = select(open_results(directory), where)
    variable(ds, value, "value")
    drawn = figures.clocks(ds, value, by=by, powers=powers, col=col, index=index, xscale=xscale)
    print(*figures.save({path.stem: drawn}, path.parent, (kind,)))


def explore(
    target: Source, /, law: Law, value: tuple[str, ...] = (), out: Path | None = None
) -> None:
    """Write an HTML page that redraws the curves as you move a slider for each exponent.

    Args:
        target: results folder or table.
        law: the scaling law, whose numbers have sliders.
        value: observables to choose from on the page, or columns of the table; by default all
            observables of the results folder.
        out: HTML file; by default explore.html in the results folder or next to the table.
    """
    from jthermo.figures.explore import explore
    from jthermo.results.reading import open_results
    from jthermo.results.tables import select

    table = is_table(target)
    data = law.table(target, value) if table else select(open_results(target), law.where)
    path = out or (target.parent if target.is_file() else target) / "explore.html"
    summary = explore(data, path, law.controls, value=value, title=str(target), **law.options())
    print(f"{summary}\n{path}")


def export(
    directory: Directory, /, to: Literal["csv", "parquet", "netcdf"], out: Path | None = None
) -> None:
    """Export results as a file for other programs.

    Args:
        directory: results folder.
        to: format of the file.
        out: file to write; by default DIR/results with the suffix of the format.
    """
    from jthermo.results.reading import open_results
    from jthermo.results.tables import SUFFIX, export

    print(export(open_results(directory), out or directory / f"results{SUFFIX[to]}", to))


def reproduce(
    name: Annotated[
        Positional[str], arg(metavar="NAME|all", help="experiment (see `jthermo list`), or all")
    ],
    /,
    scale: Literal["small", "paper"] = "small",
    out: Path = Path("results"),
    quiet: bool = False,
) -> None:
    """Run an experiment, or all that are not done: train, fit, judge the claims, draw the figures.

    With "all", a failing experiment does not stop the others. The exit code is then 2 if every
    failure was bad input, and 1 for any other error. Experiments without their data are listed as
    not run and do not count as failures.

    Args:
        name: experiment.
        scale: number of seeds and steps; small takes minutes on two cores.
        out: folder for all results.
        quiet: print only errors.
    """
    _draw_to_files()
    from jthermo.paper.reproduce import reproduce, reproduce_all

    if name != "all":
        reproduce(name, scale, out, progress=not quiet)
        return
    outcomes = reproduce_all(scale, out, progress=not quiet)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        reasons = "; ".join(f"{outcome.name}: {outcome.why}" for outcome in failed)
        bad_input = all(isinstance(outcome.error, InputError) for outcome in failed)
        counts = f"{len(failed)} of {len(outcomes)} experiments failed"
        sys.exit(_say(f"error: {counts}: {reasons}", BAD_INPUT if bad_input else 1))


def claims(
    results: Path = Path("results"), only: tuple[str, ...] = (), into: tuple[Path, ...] = ()
) -> None:
    """Print the verdicts on the paper's claims from claims.json, or write them into pages.

    Args:
        results: folder with claims.json.
        only: claims to print, such as C2 C3; by default all.
        into: Markdown pages to write the tables into, between their markers, instead of printing.
    """
    from jthermo.paper import claims_json, claims_tables

    path = results / "claims.json"
    if not path.is_file():
        raise InputError(
            "results", str(results), "has no claims.json; run `jthermo reproduce all` first"
        )
    known = claims_json.read(path)
    if unknown := set(only) - set(known):
        raise InputError(
            "only", sorted(unknown)[0], f"has no verdict; choose from {', '.join(known)}"
        )
    if not into:
        print(claims_tables.summary({name: known[name] for name in only or known}))
    for page in into:
        claims_tables.write_tables(path, page)
        print(f"wrote the tables into {page}")


def report(
    results: Path = Path("results"), out: Path | None = None, published: bool = False
) -> None:
    """Write the replication report: one HTML page on every claim, with the experiments run here.

    Args:
        results: folder that `jthermo reproduce` wrote into.
        out: HTML file, which works without a network; by default report.html in that folder.
        published: report the published claims.json instead of the experiments run here.
    """
    from jthermo.paper.report import report

    out = out or results / "report.html"
    names = report(results, out, published)
    print(f"{out}: {len(names['found'])} experiments reported, {len(names['not run'])} not run")


def list_experiments() -> None:
    """List the experiments that come with jthermo; `jthermo plan NAME` counts their runs."""
    from jthermo.paper.catalogue import about, experiments

    known = experiments()
    for name, path in known.items():
        print(f"{name:<{max(map(len, known))}} {about(path).title}")


def doctor(results: Path = Path("results")) -> None:
    """Check versions, devices, memory and disk, and print a remedy for each problem.

    Args:
        results: folder for results, whose disk is checked.
    """
    from jthermo.cli.doctor import doctor

    checks = doctor(results)
    for check in checks:
        print(f"{'ok ' if check.ok else 'BAD'} {check.name:<10} {check.text}")
    if not all(check.ok for check in checks):
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
    _prepare()
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS, prog="jthermo", description=DESCRIPTION, args=args
        )
        if sys.stdout is not None:
            sys.stdout.flush()
    except StorageError as error:
        sys.exit(_say(f"error: {error}", INTERRUPTED))
    except InputError as error:
        sys.exit(_say(f"error: {error}", BAD_INPUT))
    except Interrupted as stopped:
        sys.exit(INTERRUPTED if stopped.printed else _say(str(stopped), INTERRUPTED))
    except BrokenPipeError:
        # the reader of the output, such as `head`, has closed it
        _discard_output()
        sys.exit(1)
    except OSError as error:
        # a file that can't be read, or an output that can't be written, such as /dev/full
        _discard_output()
        name = "output" if error.filename is None else str(error.filename)
        sys.exit(_say(f"error: {name}: {error.strerror or error}", BAD_INPUT))
    except KeyboardInterrupt:
        remedy = "run the same command again to continue from the last checkpoint"
        sys.exit(_say(f"interrupted; {remedy}", INTERRUPTED))


def _prepare() -> None:
    """Make every verb work without a display, a UTF-8 terminal and a home directory."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a letter that the terminal can't show, such as η, is printed as \u03b7
            stream.reconfigure(errors="backslashreplace")
    try:
        Path.home()
    except RuntimeError:
        # containers without HOME and without an entry for their user in /etc/passwd
        home = tempfile.mkdtemp(prefix="jthermo-home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        os.environ["HOME"] = home
    # Python ends with a search for garbage in all it has imported: 0.3 s with pandas and Bokeh
    atexit.register(gc.freeze)
    # a notebook's MPLBACKEND names a module that may not be installed here
    os.environ.pop("MPLBACKEND", None)


def _draw_to_files() -> None:
    """Make Matplotlib work without a display; only for verbs that draw, since its import is slow.

    It reads the environment when it is imported, so this comes after `_prepare`.
    """
    import matplotlib

    matplotlib.use("Agg")


def _discard_output() -> None:
    """Send all further output nowhere, so that Python doesn't fail to write it when it exits."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str, code: int) -> int:
    """Print a message to stderr and return the exit code."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
    return code
