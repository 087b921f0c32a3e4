"""The tables of docs/speed.md between ``<!-- gpu:begin -->`` and ``<!-- gpu:end -->``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nets

from jthermo.results.atomic import write_between

Found = Mapping[str, Any]
ROWS = {
    "plain-jax": "plain JAX, `lax.scan` of `vmap(grad)`",
    "jthermo-xla": 'jthermo `engine="xla"`',
    "jthermo-fused": 'jthermo `engine="fused"`',
}
NAMES = {
    "wide": "100-100-1, 1,024 runs",
    "batch": "10-10-1, B = 32, 4,096 runs",
    "mlp6": "100-100×5-1, 1,024 runs",
    "cnn": "6-layer CNN, B = 32, 32 runs",
    "pictures": "3072-300-10, B = 1000, 64 runs",
}
SHORT = {
    "small": "10-10-1",
    "wide": "100-100-1",
    "mlp6": "100-100×5-1",
    "batch": "10-10-1, B = 32",
    "cnn": "6-layer CNN, B = 32",
    "pictures": "3072-300-10, B = 1000",
}


def page(found: Found) -> str:
    """All that the page says, measured on one device."""
    here = found["machine"]
    where = f"one {here.get('name', here['device'])}"
    if "driver" in here:
        where += f", driver {here['driver']}"
    words = (
        f"Nanoseconds of wall time per step of one run, nothing recorded, medians of three turns. "
        f"Measured on {where}, JAX {here['versions']['jax']}, {found['date']}. Pictures are noise "
        "of the right shape. Plain JAX multiplies matrices at its default precision, jthermo "
        "always in float32. The numbers come from [results/gpu.json](../results/gpu.json), which "
        "`python scripts/gpu` writes."
    )
    parts = [
        words,
        speeds(found, nets.RUNS, "10-10-1, runs"),
        speeds(found, nets.NETS, "other nets"),
    ]
    parts += [lane_widths(found), layouts(found), checked(found)]
    return "\n\n".join(part for part in parts if part)


def write(found: Found, path: Path) -> None:
    """Put the page's part between its markers."""
    write_between(path, {"gpu": page(found)})


def speeds(found: Found, cases: Mapping[str, Any], title: str) -> str:
    """Nanoseconds per run-step of every contestant, a column a case."""
    columns = [NAMES.get(case, case.removeprefix("runs-")) for case in cases]
    lines = [f"| {title} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, words in ROWS.items():
        rows = {row["case"]: row for row in found.get(name, ())}
        cells = [number(rows.get(case, {}).get("ns")) for case in cases]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lane_widths(found: Found) -> str:
    """Nanoseconds per run-step of one block by XLA for every lane width."""
    rows = [row for row in found.get("widths", ()) if "ns" in row]
    if not rows:
        return ""
    lines = ["| one block by XLA | ns per run-step at W lanes |", "|---|---|"]
    for net in dict.fromkeys(row["net"] for row in rows):
        each = [f"{number(r['ns'])} at {r['width']:,}" for r in rows if r["net"] == net]
        lines.append(f"| {SHORT[net]} | {', '.join(each)} |")
    return "\n".join(lines)


def layouts(found: Found) -> str:
    """The fastest layouts of the fused kernel for every net and number of runs."""
    rows = [row for row in found.get("layouts", ()) if "ns" in row]
    if not rows:
        return ""
    lines = [
        "| one block by the fused kernel | ns per run-step, fastest layouts first |",
        "|---|---|",
    ]
    for net, runs in dict.fromkeys((row["net"], row["runs"]) for row in rows):
        those = sorted(
            (r for r in rows if (r["net"], r["runs"]) == (net, runs)), key=lambda r: r["ns"]
        )
        lines.append(f"| {SHORT[net]}, {runs:,} runs | {', '.join(map(_layout, those[:4]))} |")
    return "\n".join(lines)


def _layout(row: Mapping[str, Any]) -> str:
    kind = "a thread per run" if row["unrolled"] else f"{row['warps']} warps"
    return f"{number(row['ns'])} ({row['runs_per_program']} runs per program, {kind})"


def checked(found: Found) -> str:
    """How the tests ended, and what failed."""
    if "tests" not in found:
        return ""
    rows = found["tests"]["rows"]
    lines = [
        f"Of {len(rows)} tests on this device {sum(r['outcome'] == 'passed' for r in rows)} passed."
    ]
    lines += [f"- {row['name']}: {row['outcome']}" for row in rows if row["outcome"] != "passed"]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three digits, without an exponent; a dash where nothing was measured.

    >>> number(1234.5), number(0.12345), number(None)
    ('1,234', '0.123', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
