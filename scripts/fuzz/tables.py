"""Hostile tables for `fit_collapse`: each gets an answer or one clear error, in bounded memory."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from jthermo.collapse import fit_collapse
from scripts.fuzz.trial import Outcome, Trial, run_all

Table = pd.DataFrame
Change = Callable[[Table, np.random.Generator], Table]


def plain(rng: np.random.Generator) -> Table:
    """A table that collapses on t·c^p, of random small size."""
    conditions, replicates = rng.choice([1, 2, 3, 4, 4]), rng.integers(1, 6)
    records = int(rng.choice([2, 4, 5, 8, 20, 40]))
    index = pd.MultiIndex.from_product(
        [
            np.geomspace(0.1, 10 ** rng.uniform(-1, 2), conditions),
            range(replicates),
            np.geomspace(1, 10 ** rng.uniform(0.1, 4), records),
        ],
        names=["c", "seed", "step"],
    )
    table = index.to_frame(index=False)
    noise = float(rng.choice([0.0, 1e-12, 0.01, 1.0])) * rng.standard_normal(len(table))
    table["value"] = 1 / (1 + table.step * table.c ** rng.uniform(-2, 2) / 10) + noise
    if rng.random() < 0.4:
        table["seed"] += 100 * table.groupby("c").ngroup()
    return table


def _numbers(column: str, kinds: list[Callable[[pd.Series], Any]]) -> Change:
    """A change of one column to another type or scale."""

    def change(table: Table, rng: np.random.Generator) -> Table:
        return table.assign(**{column: kinds[rng.integers(len(kinds))](table[column])})

    return change


def _cells(column: str, values: list[Any]) -> Change:
    """A few cells of a column, or nearly all, get a strange value."""

    def change(table: Table, rng: np.random.Generator) -> Table:
        share = rng.choice([0.02, 0.3, 0.95])
        here, cells = rng.random(len(table)) < share, table[column].astype(object)
        if rng.random() < 0.5:
            here = np.arange(len(table)) == rng.integers(max(len(table), 1))
        cells[here] = [values[rng.integers(len(values))]] * int(here.sum())
        return table.assign(**{column: cells if rng.random() < 0.5 else cells.infer_objects()})

    return change


def _more_rows(table: Table, rng: np.random.Generator) -> Table:
    """Rows twice, in another order, a few only, or none."""
    kind = rng.integers(5)
    if kind == 0:
        return pd.concat([table, table])
    if kind == 1:
        return table.sample(frac=1, random_state=int(rng.integers(1000)))
    if kind == 2:
        return table.sample(n=min(len(table), int(rng.integers(1, 8))), random_state=1)
    if kind == 3:
        return table[rng.random(len(table)) < 0.5]
    return table.iloc[:0]


def _columns(table: Table, rng: np.random.Generator) -> Table:
    """Names that repeat, are no text or are missing; indices; further columns."""
    kind = rng.integers(8)
    if kind == 0:
        return pd.concat([table, table[[rng.choice(table.columns)]]], axis=1)
    if kind == 1:
        return table.set_axis(range(len(table.columns)), axis=1)
    if kind == 2:
        return table.drop(columns=rng.choice(table.columns))
    if kind == 3:
        return table.set_index(list(rng.choice(table.columns, 2, replace=False)))
    if kind == 4:
        return table.set_axis(np.zeros(len(table)), axis=0)
    if kind == 5:
        return table.assign(kind=rng.choice(["a", "b"], len(table)))
    if kind == 6:
        return table.assign(kind=np.where(table.seed.astype(str) < "2", "a", "b"))
    return table.assign(cells=[[1]] * len(table), when=pd.Timestamp("2026-01-01"))


def _constant(table: Table, rng: np.random.Generator) -> Table:
    """A column with one value, or one that is the same but for rounding."""
    column = rng.choice(["c", "step", "value", "seed"])
    value = float(rng.choice([0.0, 1.0, -1.0, 1e-300, 1e300, 5.0]))
    wobble = rng.choice([0.0, 1e-16, 1e-9]) * rng.standard_normal(len(table))
    return table.assign(**{column: value * (1 + wobble)})


def _own_clocks(table: Table, rng: np.random.Generator) -> Table:
    """Every record at a time of its own, absolute temperatures, or labels of their own."""
    kind = rng.integers(4)
    if kind == 0:
        return table.assign(step=table.step * np.exp(0.1 * rng.standard_normal(len(table))))
    if kind == 1:
        return table.assign(step=10.0 ** rng.uniform(0, 8) + table.step / table.step.max())
    if kind == 2:
        return table.assign(seed=np.arange(len(table)))
    return table.assign(c=rng.uniform(0.5, 2, len(table)))


STRANGE = [np.nan, None, np.inf, -np.inf, 0, -1, 1e300, 1e-300, 1e12, "x", "", "1e3", pd.NA, pd.NaT]
STRANGE += [10**400, 1j, True, [1], pd.Timestamp("2026-01-01"), np.timedelta64(3, "s"), b"1"]
TYPES: list[Callable[[pd.Series], Any]] = [
    lambda s: s.astype("float32"),
    lambda s: s.astype("float16"),
    lambda s: s.astype(np.longdouble),
    lambda s: s.astype("Float64"),
    lambda s: s.astype("string"),
    lambda s: s.astype("category"),
    lambda s: s.astype(complex),
    lambda s: s > s.median(),
    lambda s: (100 * s).round().clip(-(2**31), 2**31).fillna(0).astype("int64"),
    lambda s: (100 * s).round().clip(0, 255).fillna(0).astype("uint8"),
    lambda s: pd.Timestamp("2026-01-01") + pd.to_timedelta(s.clip(-1e6, 1e6), unit="s"),
    lambda s: pd.to_timedelta(s.clip(-1e6, 1e6), unit="s"),
    lambda s: 1e200 * s,
    lambda s: 1e-310 * s,
    lambda s: 1e9 + s,
    lambda s: -s,
    lambda s: s.round(1),
]
CHANGES: list[Change] = [
    *(_numbers(column, TYPES) for column in ("c", "step", "value", "seed")),
    *(_cells(column, STRANGE) for column in ("c", "step", "value", "seed")),
    *(_more_rows, _columns, _constant, _own_clocks) * 2,
]
OPTIONS: dict[str, list[Any]] = {
    "confidence": [0.5, 0.999, 0, 1, -1, np.nan, "x", None, True],
    "seed": [1, -1, 1.5, "x", None, 2**70],
    "window": [(1, 10), (5, 1), (0, 0), (np.nan, 1), "ab", 3, (0, np.inf), (1e3, 1e4)],
    "fixed": [{"c": 1}, {"c": 1e300}, {"c": np.nan}, {"c": "x"}, {"d": 1}, ["c"], {"c": 30}],
    "rescale": ["c", ["c", "c"], ["d"], 5, [None]],
    "correction": [{"c": -1}, {"c": (-3, -1)}, {"c": 0}, {"c": "x"}, {"c": 1e9}, ["c"]],
    "controls": [[], None, ["c", "c"], ["d"], ["c", "step"], [["c"]], "c", 3, ["seed"]],
    "time": ["c", None, "x", 3],
    "replicate": [None, "c", "x", 3],
    "value": ["c", None, "x"],
}


def mutations(rng: np.random.Generator) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Tables or arrays with the arguments of :func:`fit_collapse`, without end."""
    while True:
        table: Any = plain(rng)
        for _ in range(rng.integers(1, 3)):
            try:
                table = CHANGES[rng.integers(len(CHANGES))](table, rng)
            except Exception:
                # A change that does not apply to the result of another one.
                continue
        options: dict[str, Any] = {"controls": ["c"]}
        if rng.random() < 0.3:
            name = rng.choice(list(OPTIONS))
            options[str(name)] = OPTIONS[str(name)][rng.integers(len(OPTIONS[str(name)]))]
        if rng.random() < 0.2:
            table = _as_array(table)
        yield table, options


def _as_array(table: Table) -> Any:
    """The values with their columns as coordinates, or the table where that can't be."""
    try:
        columns = {
            name: ("row", table[name].to_numpy()) for name in table.columns if name != "value"
        }
        return xr.DataArray(table["value"].to_numpy(), dims="row", coords=columns)
    except Exception:
        return table


def fit(table: Any, options: dict[str, Any]) -> None:
    """Fit and ask for all that is said about the fit; a warning counts as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_collapse(table, **options)
        found.summary()
        found.to_dict()
        found.advice()


def trials(count: int, seed: int) -> list[Trial]:
    """`count` hostile tables."""
    listed = []
    for number in range(count):
        table, options = next(mutations(np.random.default_rng([seed, number])))
        text = f"fit_collapse(table {number} of seed {seed}, {options})"
        listed.append(Trial(text, functools.partial(fit, table, options)))
    return listed


def run(count: int, seed: int) -> list[Outcome]:
    """Try `count` hostile tables."""
    return run_all(trials(count, seed), seconds=60)
