"""The JSON in words: the tables of README.md and docs/speed.md, the targets, and how cost grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jthermo.results.atomic import write_between
from scripts.benchmark.cases import (
    CALLS,
    CASES,
    HANDS,
    KERNEL,
    LATE,
    LIMITS,
    LOSS,
    MOMENTUM,
    RECORDS,
    Net,
)

Found = Mapping[str, Any]
FILLED = 64  # runs from which the lanes of two cores are full
COLUMNS = {
    "small": "10-10-1, 512 runs",
    "uniform": "no bias, U(0, 1)",
    "wide": "100-100-1, 64 runs",
    "mlp6": "100-100×5-1, 32 runs",
    "cnn": "CNN, 8 runs",
}
ROWS = {
    "torch-loop": "PyTorch, one run in a loop",
    "torch-func": "torch.func vmap of grad",
    "torch-batched": "PyTorch, batched by hand",
    "plain-jax": "plain JAX, `lax.scan` of `vmap(grad)`",
    "equinox": "Equinox, `filter_vmap` of an ensemble",
    "jthermo-xla": 'jthermo `engine="xla"`',
    "jthermo-fused": 'jthermo `engine="fused"`',
    "limit": "the kernel's arithmetic alone, sizes compiled in",
    "hand": "a loop of C++ by hand, for one net",
}


class Line(NamedTuple):
    """A curve y = fixed + each·x, fitted with equal weight to every relative deviation.

    Attributes:
        fixed: what is spent whatever x.
        each: what one more x costs.
        slope: of log(y − fixed) against log x; 1 is linear.
        misfit: the largest |y/(fixed + each·x) − 1|.
        points: how many.
    """

    fixed: float
    each: float
    slope: float
    misfit: float
    points: int


class Bar(NamedTuple):
    """A row of what the benchmark has to show: `value` is None where it was not measured."""

    what: str
    measured: str
    asked: str = ""
    met: bool | None = None


def page(found: Found) -> str:
    """The text between the markers of docs/speed.md: all tables and the figure."""
    words = (
        f"Nanoseconds of wall time per training step of one run at B = 1, on {_where(found)}. "
        "The programs take turns, and each number is a median. jthermo's time includes recording; "
        "the others record nothing. The numbers come from "
        "[results/benchmark.json](../results/benchmark.json), which `python scripts/benchmark` "
        "writes. "
        "Its option "
        "`--table` also prints processor time, compilation time and memory."
    )
    picture = (
        "![Speed of each program relative to plain JAX, case by case; time against runs, steps and "
        "width; memory "
        "against runs.](../results/figures/benchmark.png)"
    )
    return "\n\n".join([summary(found), words, picture, verdicts(found)])


def short(found: Found) -> str:
    """The text between the markers of README.md: seven rows, and where they were measured."""
    words = (
        f"Wall time of one training step of one run at B = 1, on {_where(found)}.\n"
        "[Method, scaling, checkpoints and resume](docs/speed.md)."
    )
    return "\n\n".join([summary(found), words])


def _where(found: Found) -> str:
    here = found["machine"]
    return (
        f"{here['cores']} cores of an {here['cpu']}, JAX {here['versions']['jax']}, {here['date']}"
    )


def write(found: Found, path: Path) -> None:
    """Fill the markers of a page: ``speed`` in README.md, ``benchmark`` in docs/speed.md."""
    write_between(path, {"speed": short(found), "benchmark": page(found)})


def summary(found: Found) -> str:
    """Wall time per run-step of every contestant, a column a case."""
    lines = [
        f"| ns per run-step | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    for name, words in ROWS.items():
        each = (found["cases"].get(case, {}).get(name) for case in COLUMNS)
        cells = ("–" if row is None else f"{row['ns']:,.0f}" for row in each)
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table(found: Found) -> str:
    """Everything, nanoseconds per run-step or per call."""
    lines = [
        "| case | contestant | wall, ns | lowest … highest | processors, ns "
        "| 1st call, s | peak, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for case, each in found["cases"].items():
        for name, row in each.items():
            span = f"{row['ns_low']:,.4g} … {row['ns_high']:,.4g}"
            times = f"{row['ns']:,.4g} | {span} | {row['processor_ns']:,.4g}"
            times += f" | {row['first_call_seconds']:.2f}"
            lines.append(f"| {case} | {name} | {times} | {row['peak_bytes'] / 1e6:,.0f} |")
    return "\n".join(lines)


def verdicts(found: Found) -> str:
    """Every claim of speed beside its target, as a Markdown table."""
    lines = ["| claim | measured | target |", "|---|---|---|"]
    for bar in bars(found):
        asked = bar.asked + {True: ": met", False: ": **not met**", None: ""}[bar.met]
        lines.append(f"| {bar.what} | {bar.measured} | {asked or '–'} |")
    return "\n".join(lines)


def bars(found: Found) -> list[Bar]:
    """Every claim of speed with its number and the number that was asked for."""
    nets = {c: COLUMNS[c].partition(",")[0] for c in ("small", "wide", "mlp6")}
    nets |= {"batch": "10-10-1, B = 32", "wide-batch": "100-100-1, B = 32"}
    fused, xla, plain = "jthermo-fused", "jthermo-xla", "plain-jax"
    faster = [
        (f"{nets['small']}, fused against {{}}", "small", plain, fused, 20),
        (f"{nets['small']} where JAX ran before, fused against {{}}", "small", plain, LATE, 14),
        (f"{nets['small']}, fused against {{}}", "small", "equinox", fused, 14),
        (f"{nets['small']}, fused against {{}}", "small", "torch-func", fused, 40),
        (f"{nets['small']}, fused against {{}}", "small", "torch-loop", fused, 4000),
        (f"{nets['wide']}, fused against {{}}", "wide", plain, fused, 8),
        (f"{nets['mlp6']}, fused against {{}}", "mlp6", plain, fused, 8),
        (f"{nets['batch']}, fused against {{}}", "batch", plain, fused, 6),
        (f"{nets['wide-batch']}, fused against {{}}", "wide-batch", plain, fused, 6),
        (f"{nets['mlp6']}, XLA alone against {{}}", "mlp6", plain, xla, 1.3),
        (f"{nets['small']}, XLA alone against {{}}", "small", plain, xla, 2),
        ("CNN, B = 1, against {} with `lax.conv`", "cnn", plain, xla, 3),
        ("CNN, B = 8, against {} with `lax.conv`", "cnn-batch", plain, xla, 3),
    ]
    names = {plain: "plain JAX", "equinox": "an Equinox ensemble"}
    names |= {"torch-func": "torch.func", "torch-loop": "a PyTorch loop"}
    own, many = RECORDS["records"], RECORDS["many-records"]
    within = [
        (f"{nets[case]}, fused in the time of a C++ loop by hand", case, fused, "hand", most)
        for case, most in zip(HANDS, (1.35, 2, 1.35, 2), strict=True)
    ]
    within += [
        ("momentum in the time of plain SGD, 10-10-1", "small", MOMENTUM, fused, 1.3),
        (
            f"{own.runs:,} runs of {own.least:,} steps with `loss()` at {own.records} records in "
            "the time without",
            "records",
            LOSS,
            fused,
            1.5,
        ),
        (
            f"{many.runs} runs of {many.least:,} steps with {many.records} records in the time of "
            "one call of the kernel",
            "many-records",
            fused,
            KERNEL,
            1.25,
        ),
    ]
    return [
        *(_times(found, what.format(names[row[1]]), *row, least) for what, *row, least in faster),
        *(_within(found, what, *row, most) for what, *row, most in within),
        _drawn(found),
        _never_slower(found),
        _limit(found),
        *_growth(found),
        *_calls(found),
    ]


def ratio(found: Found, case: str, slow: str, fast: str) -> float | None:
    """Wall time of one contestant in that of another, None where either is missing."""
    rows = found["cases"].get(case, {})
    return rows[slow]["ns"] / rows[fast]["ns"] if slow in rows and fast in rows else None


def _times(found: Found, what: str, case: str, slow: str, fast: str, least: float) -> Bar:
    value = ratio(found, case, slow, fast)
    if value is None:
        return Bar(what, "not measured", f"≥ {least:g} ×")
    return Bar(what, f"{_number(value)} ×", f"≥ {least:g} ×", value >= least)


def _within(found: Found, what: str, case: str, slow: str, fast: str, most: float) -> Bar:
    value = ratio(found, case, slow, fast)
    if value is None:
        return Bar(what, "not measured", f"≤ {most:g}")
    return Bar(what, _number(value), f"≤ {most:g}", value <= most)


def _drawn(found: Found) -> Bar:
    own, value = RECORDS["records"], ratio(found, "records", "limit", "jthermo-fused")
    what = "drawing those probes without a net (`limit.cc`), in the time without `loss()`"
    if value is None:
        return Bar(what, "not measured")
    return Bar(what, _number(value * own.records * own.probe / own.least))


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _never_slower(found: Found) -> Bar:
    each = {case: ratio(found, case, "plain-jax", "jthermo-xla") for case in found["cases"]}
    known = {case: value for case, value in each.items() if value is not None}
    what, asked = "XLA alone against plain JAX, the worst case", "never slower"
    if not known:
        return Bar(what, "not measured", asked)
    worst = min(known, key=lambda case: known[case])
    return Bar(what, f"{known[worst]:.2f} × (`{worst}`, of {len(known)})", asked, known[worst] >= 1)


def _limit(found: Found) -> Bar:
    each = {case: ratio(found, case, "jthermo-fused", "limit") for case in LIMITS}
    known = {case: value for case, value in each.items() if value is not None}
    what, asked = "fused in the time of its arithmetic alone (`limit.cc`), the worst case", "≤ 2"
    if not known:
        return Bar(what, "not measured", asked)
    worst = max(known, key=lambda case: known[case])
    return Bar(what, f"{known[worst]:.2f} (`{worst}`, of {len(known)})", asked, known[worst] <= 2)


def _growth(found: Found) -> list[Bar]:
    made = []
    for what, curve, least in (
        ("time", "runs", FILLED),
        ("time", "steps", 0),
        ("memory", "memory", 0),
    ):
        for name in ("jthermo-xla", "jthermo-fused"):
            x, y = curves(found, curve, name)
            line = linear(x[x >= least], y[x >= least])
            of = "steps" if curve == "steps" else "runs"
            start = f" from {least}" if least else ""
            words = f"{what} against {of}{start}, {name.removeprefix('jthermo-')}"
            if line is None:
                made.append(Bar(words, "not measured", "linear"))
                continue
            each = {
                "runs": f"{line.each:,.3g} ns a run-step",
                "steps": f"{line.fixed:.2f} s and {1e6 * line.each:.3g} µs a step",
                "memory": f"{line.fixed / 1e6:,.0f} MB and {line.each / 1e3:,.0f} kB a run",
            }[curve]
            measured = f"log–log slope {line.slope:.2f}, misfit {100 * line.misfit:.0f} % ({each})"
            made.append(
                Bar(words, measured, "linear", max(abs(line.slope - 1), line.misfit) <= 0.1)
            )
    return made


def _calls(found: Found) -> list[Bar]:
    made = []
    for case, words in (
        ("gradient-variance-mlp6", "784-100×5-10 net"),
        ("gradient-variance-cnn", "CNN"),
    ):
        values = [ratio(found, case, name, "batch-gradient") for name in ("moments", "vmap-grad")]
        if None not in values:
            ours, plain = values
            made.append(
                Bar(
                    f"gradient variance of 256 examples, {words}",
                    f"{ours:.2f} batch gradients; `vmap(grad)` {plain:.0f}",
                )
            )
    seconds = {
        case: rows[n]["ns"] / 1e9
        for case, rows in found["cases"].items()
        for n in rows
        if case in CALLS
    }
    fits = {case: s for case, s in seconds.items() if case.startswith("fit-")}
    if fits:
        told = ", ".join(f"{s:.2g} s for {case.removeprefix('fit-')}" for case, s in fits.items())
        made.append(Bar("`jt.fit_collapse`, 6 curves of 60 records by seeds", told))
    share = ratio(found, "checkpoint", "folder", "in-memory")
    if share is not None:
        rows = found["cases"]["checkpoint"]
        spent = (rows["folder"]["ns"] - rows["in-memory"]["ns"]) * rows["folder"]["run_steps"] / 1e9
        whole = rows["in-memory"]["ns"] * rows["folder"]["run_steps"] / 1e9
        made.append(
            Bar(
                f"a results folder with checkpoints, to a sweep of {whole:.1f} s", f"{spent:+.2f} s"
            )
        )
    if "resume" in found["cases"]:
        rows = {name: row["ns"] / 1e9 for name, row in found["cases"]["resume"].items()}
        told = (
            f"{rows['resume']:.2f} s, in a new process {rows['resume-process']:.1f} s; "
            f"from the start {rows['anew']:.2f} s; "
            f"a finished folder opens in {1000 * rows['open']:.0f} ms"
        )
        made.append(Bar("a sweep of 512 runs resumed from a checkpoint and ended", told))
    return made


def curves(found: Found, what: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A scaling curve: runs → ns per step of all, steps → seconds, width → ns, runs → bytes."""
    x, y = [], []
    for case, rows in found["cases"].items():
        net = CASES.get(case)
        if not isinstance(net, Net) or not case.startswith(f"{what}-") or name not in rows:
            continue
        row = rows[name]
        x.append(
            {"runs": net.runs, "memory": net.runs, "steps": net.least, "width": net.hidden[0]}[what]
        )
        y.append(
            {
                "runs": row["ns"] * net.runs,
                "memory": row["peak_bytes"],
                "steps": row["ns"] * row["run_steps"] / 1e9,
                "width": row["ns"],
            }[what]
        )
    order = np.argsort(x)
    return np.array(x, float)[order], np.array(y, float)[order]


def linear(x: np.ndarray, y: np.ndarray) -> Line | None:
    """The straight line of a curve and its deviation; None for fewer than three points.

    >>> import numpy as np
    >>> linear(np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0])).each
    2.0
    """
    if len(x) < 3:
        return None
    (fixed, each), *_ = np.linalg.lstsq(np.stack([1 / y, x / y], 1), np.ones(len(x)), rcond=None)
    misfit = float(np.abs(y / (fixed + each * x) - 1).max())
    above = np.maximum(y - fixed, 1e-3 * y)
    slope = float(np.polyfit(np.log(x), np.log(above), 1)[0])
    return Line(float(fixed), round(float(each), 12), slope, misfit, len(x))
