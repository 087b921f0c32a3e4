"""From records of raw replicates to curves, one per setting of the controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jthermo.collapse.forms import Clock, Form
from jthermo.collapse.settings import Settings
from jthermo.collapse.table import Table, read_table, refuse_other_settings
from jthermo.errors import InputError, is_number

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Condition:
    """The replicates at one setting of the controls.

    Attributes:
        log_controls: natural logs of the controls, (P,).
        log_time: natural log of the recorded times, increasing, or asinh of signed ones, as
            :class:`Clock` places them, (T,).
        values: one row per replicate, NaN where nothing was recorded, (S, T).
        labels: the replicates' codes, (S,). The same code at another condition means that the two
            runs are paired.
        errors: published standard errors of a single replicate, (1, T), or None.
    """

    log_controls: np.ndarray
    log_time: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    errors: np.ndarray | None = None


@dataclass(frozen=True)
class LeftOut:
    """A replicate that the fit does not use.

    The reason is "non-finite", "outlier", "copy" of another one, or "too short" to be compared.
    """

    controls: dict[str, float]
    replicate: object
    reason: str


@dataclass(frozen=True)
class Curves:
    """All conditions of one data set, with the names of its columns.

    Attributes:
        controls: names of the controls.
        time: name of t.
        value: name of the value.
        long_name: the value in words, if the data say so; else its name.
        conditions: one per setting of the controls.
        label_names: the replicates' own labels, by code.
        left_out: replicates that are not used.
        window: first and last time used.
        num_records: number of finite values that were given.
        not_positive: how many of those in the window have a time ≤ 0, or none. They are not used.
        negative: how many of them have a time other than 0.
        clock: the axis of the times.
        log_above: the number whose distance to the value is compared on a log scale; None if
            values are compared as they are.
        published: whether standard errors were given. They are used if there are no replicates.
        time_resolution: within which times are known; None if they are exact.
    """

    controls: tuple[str, ...]
    time: str
    value: str
    long_name: str
    conditions: tuple[Condition, ...]
    label_names: tuple[object, ...]
    left_out: tuple[LeftOut, ...]
    window: tuple[float, float]
    num_records: int
    not_positive: int
    negative: int
    clock: Clock = field(default_factory=Clock)
    log_above: float | None = None
    published: bool = False
    time_resolution: float | None = None

    def compared(self, values: np.ndarray) -> np.ndarray:
        """The numbers that are averaged: the values, or the logs of what exceeds `log_above`."""
        return values if self.log_above is None else np.log(values - self.log_above)

    @property
    def paired(self) -> bool:
        """Whether some replicate label appears at more than one condition."""
        labels = np.concatenate([np.unique(c.labels) for c in self.conditions])
        return len(np.unique(labels)) < len(labels)


def read_curves(
    data: xr.DataArray | pd.DataFrame,
    controls: Sequence[str],
    *,
    time: str,
    replicate: str | None,
    value: str,
    error: str | xr.DataArray | None = None,
    form: Form,
    settings: Settings,
) -> Curves:
    """Group the raw replicates by their controls. Padding is dropped.

    So are times ≤ 0 where τ needs log t, which is unless there is a critical point.

    Raises:
        InputError: a column is missing or holds no numbers, a control is not positive, something
            else varies, or too little is left.
    """
    names, table = read_table(data, controls, time, replicate, value, error)
    if not len(table.values):
        raise InputError(
            "data",
            "0 rows",
            "there is nothing to fit; give raw replicates, one row per recorded value",
        )
    clock, unplaced, usable = _usable(table, names, time, form, settings)
    bad = ~(np.isfinite(table.controls) & (table.controls > 0)) & usable[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            names[column],
            float(table.controls[row, column]),
            "a power law needs finite controls > 0; drop those rows or fit another control",
        )
    _check_errors(table, usable, settings)
    above = form.log_above
    if above is not None and (low := usable & (table.values <= above)).any():
        remedy = (
            f'scale="log" takes values > {above:g}; drop those records, or give an offset below'
        )
        raise InputError(table.value_name, float(table.values[low][0]), remedy)
    curves = _group(table, usable, unplaced, names, time, clock, above, settings)
    _check_records(curves, form, settings)
    return curves


def _usable(
    table: Table, names: tuple[str, ...], time: str, form: Form, settings: Settings
) -> tuple[Clock, np.ndarray, np.ndarray]:
    """The clock, the rows of the window without a place on it, (n,), and those in use, (n,).

    Records outside the windows change nothing, not even the axis on which the others lie.
    """
    signed = form.critical_point is not None or bool((table.time < 0).any())
    early, late = _window(form.window, signed)
    there = np.isfinite(table.time)
    inside = there & (table.time >= early) & (table.time <= late)
    tau, shown, clocked = table.time, inside, form.clock_powers(names)
    if clocked is not None:
        low, high, powers = clocked
        with np.errstate(all="ignore"):
            tau = (table.time - form.origin) * np.prod(table.controls**powers, axis=1)
        shown = inside & (tau >= low) & (tau <= high)
    shares = settings.clock_inner_share, settings.clock_core_share, settings.clock_slow_share
    clock = Clock.of(form, table.time[shown & np.isfinite(table.values)], *shares)
    signed = clock.given is not None
    placed = there & (signed | (table.time > 0))
    if not placed.any():
        raise InputError(time, "no value > 0", "τ needs log t; name the column of t with time=")
    if not (placed & inside).any():
        least = "" if signed else " > 0"
        remedy = f"no {time}{least} lies in it; widen it or check {time!r}"
        raise InputError("window", (early, late), remedy)
    usable = placed & shown
    if clocked is not None and not usable.any():
        remedy = f"no record lies in it, since τ goes from {np.nanmin(tau):.3g} to "
        raise InputError("clock_window", clocked[:2], f"{remedy}{np.nanmax(tau):.3g}; widen it")
    if not clock.signed:
        usable &= table.time > clock.origin
    unplaced = ~placed & ~((table.time < early) | (table.time > late))
    return clock, unplaced, usable


def _check_errors(table: Table, usable: np.ndarray, settings: Settings) -> None:
    """Refuse standard errors that are not positive, or whose square overflows."""
    if table.errors is None:
        return
    fine = (table.errors > 0) & (table.errors < settings.max_value)
    bad = usable & np.isfinite(table.values) & ~fine
    if bad.any():
        remedy = "a standard error must be > 0 and finite; drop those rows, or give no error"
        raise InputError("error", float(table.errors[bad][0]), remedy)


def _window(window: tuple[float, float] | None, signed: bool) -> tuple[float, float]:
    if window is None:
        return -np.inf, np.inf
    try:
        low, high = (float(edge) for edge in window)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not (low < high and (signed or low >= 0)):
        raise InputError("window", window, "give (low, high) in units of time with 0 ≤ low < high")
    return low, high


def _cells(controls: np.ndarray) -> np.ndarray:
    """A code for each setting of the controls, in the order of the first, the second, …, (n,)."""
    cell = np.zeros(len(controls), int)
    for column in controls.T:
        codes, uniques = pd.factorize(column, sort=True)
        # Factored again at each control, so that the codes of many controls don't overflow.
        cell = pd.factorize(cell * (len(uniques) + 1) + codes, sort=True)[0]
    return cell


def _group(
    table: Table,
    usable: np.ndarray,
    unplaced: np.ndarray,
    names: tuple[str, ...],
    time: str,
    clock: Clock,
    log_above: float | None,
    settings: Settings,
) -> Curves:
    """One condition per setting of the controls, without replicates that diverged."""
    cell = _cells(table.controls)
    finite = np.isfinite(table.values)
    refuse_other_settings(table, np.flatnonzero(usable & finite), cell)
    number = len(pd.unique(cell[usable]))
    if number > settings.max_conditions:
        raise InputError(
            "controls",
            names,
            f"take {number:,} settings, and a fit compares at most {settings.max_conditions}; "
            "select some, or round the controls so that runs share settings",
        )
    conditions: list[Condition] = []
    left_out: list[LeftOut] = []
    order = np.argsort(cell[usable], kind="stable")
    rows = np.flatnonzero(usable)[order]
    for chunk in np.split(rows, np.flatnonzero(np.diff(cell[rows])) + 1):
        setting = dict(zip(names, table.controls[chunk[0]].tolist(), strict=True))
        x, values, errors, recorded, labels = _pivot(table, chunk, setting, time, clock, settings)
        # The square of a larger value overflows, so it counts as diverged.
        values[~(np.abs(values) < settings.max_value)] = np.nan
        counted = recorded & _measured(values)
        keep = []
        for row, label in enumerate(labels):
            if _diverged(values[row][counted[row]], settings):
                left_out.append(LeftOut(setting, table.label_names[label], "non-finite"))
            else:
                keep.append(row)
        if not keep:
            continue
        values, recorded, labels = values[keep], recorded[keep], labels[keep]
        if errors is not None and len(keep) == 1:
            there = np.isfinite(values[0])
            x, values, errors = x[there], values[:, there], errors[keep][:, there]
        else:
            errors = None
            if recorded.mean() < settings.own_clock_share:
                x, values = _common_clock(x, values)
            x, values = _coarsen(x, values, settings)
        seen = np.isfinite(values).any(axis=1)
        left_out += [
            LeftOut(setting, table.label_names[label], "too short") for label in labels[~seen]
        ]
        if seen.any():
            log_controls = np.log(table.controls[chunk[0]])
            conditions.append(Condition(log_controls, x, values[seen], labels[seen], errors))
    used = usable & finite
    if not conditions:
        raise InputError(
            "value",
            table.value_name,
            f"no replicate of it is finite and below {settings.max_value:g}, so there is nothing "
            "to fit; check the column or its unit",
        )
    return Curves(
        controls=names,
        time=time,
        value=table.value_name,
        conditions=tuple(conditions),
        label_names=table.label_names,
        left_out=tuple(left_out),
        window=(float(table.time[used].min()), float(table.time[used].max())),
        num_records=int(finite.sum()),
        not_positive=int((finite & unplaced).sum()),
        negative=int((finite & unplaced & (table.time != 0)).sum()),
        clock=clock,
        log_above=log_above,
        published=table.errors is not None,
        long_name=table.long_name,
    )


def _check_records(curves: Curves, form: Form, settings: Settings) -> None:
    """Refuse curves of too few records."""
    numbers = [n for c in curves.conditions for n in np.isfinite(c.values).sum(axis=1)]
    typical = float(np.median(numbers))
    if typical < settings.min_records:
        several = max(len(c.log_time) for c in curves.conditions) > 1
        remedy = f"a curve needs at least {settings.min_records}; record more often"
        if form.window is not None or form.clock_window is not None:
            remedy += ", or widen the window"
        if several:
            remedy += ", and check that replicate= names the column that numbers whole curves"
        raise InputError("data", f"{typical:g} records per replicate", remedy)


def _pivot(
    table: Table,
    chunk: np.ndarray,
    setting: dict[str, float],
    time: str,
    clock: Clock,
    settings: Settings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """One condition's rows as a (replicate, time) matrix on the union of the recorded times."""
    times, column = np.unique(table.time[chunk], return_inverse=True)
    labels, row = np.unique(table.replicate[chunk], return_inverse=True)
    if len(labels) * len(times) > settings.max_cells:
        raise InputError(
            time,
            f"{len(times):,} different times of {len(labels):,} replicates at one setting",
            f"are too many to compare; round {time}, or check that replicate= names the column "
            "that numbers whole curves",
        )
    recorded = np.zeros((len(labels), len(times)), bool)
    recorded[row, column] = True
    if recorded.sum() < len(chunk):
        raise InputError(
            "controls",
            setting,
            f"two values for one replicate and one {time}, so something else varies; make it a "
            "control, select one value of it, or name the column that distinguishes the replicates "
            "with replicate=",
        )
    values = np.full(recorded.shape, np.nan)
    values[row, column] = table.values[chunk]
    errors = None
    if table.errors is not None:
        errors = np.full(recorded.shape, np.nan)
        errors[row, column] = table.errors[chunk]
    return clock.place(times), values, errors, recorded, labels


def _measured(values: np.ndarray) -> np.ndarray:
    """At which times (T,) a missing value is a gap of its replicate, from values (R, T).

    It is none where no replicate has a value, as between the records of a sparse observable. At the
    end it is none only if such a stretch is no longer than one before.
    """
    measured = np.isfinite(values).any(axis=0)
    places = np.flatnonzero(measured)
    longest = np.diff(places).max(initial=1) - 1
    last = places.max(initial=-1) + 1
    if len(measured) - last > longest:
        measured[last:] = True
    return measured


def _diverged(row: np.ndarray, settings: Settings) -> bool:
    """Whether a replicate diverged. It is left out whole: its last finite values are wrong too.

    A few gaps are allowed.
    """
    gaps = ~np.isfinite(row)
    if gaps.all():
        return True
    share = gaps.mean()
    late = gaps[-1] and share > settings.max_gap_share_at_end
    return bool(share > settings.max_gap_share or late)


def _common_clock(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate replicates recorded at different times, linearly in log t."""
    finite = np.isfinite(values)
    num_points = max(int(np.median(finite.sum(axis=1))), 2)
    grid = np.unique(np.quantile(x[np.nonzero(finite)[1]], np.linspace(0, 1, num_points)))
    rows = [
        np.interp(grid, x[seen], row[seen], left=np.nan, right=np.nan)
        for row, seen in zip(values, finite, strict=True)
    ]
    return grid, np.array(rows)


def _coarsen(
    x: np.ndarray, values: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Average very dense records in equal steps of log t, and drop times of few replicates."""
    seen = np.isfinite(values).sum(axis=0)
    enough = seen >= max(1, settings.min_tail_share * seen.max())
    x, values = x[enough], values[:, enough]
    most = settings.max_records
    if len(x) <= most:
        return x, values
    cell = np.floor((x - x[0]) / (x[-1] - x[0]) * (most - 1e-9)).astype(int)
    starts = np.flatnonzero(np.r_[True, np.diff(cell) > 0])
    counts = np.diff(np.r_[starts, len(x)])
    finite = np.isfinite(values)
    total = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=1)
    number = np.add.reduceat(finite, starts, axis=1)
    mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return np.add.reduceat(x, starts) / counts, mean


def with_resolution(curves: Curves, time_resolution: float | None) -> Curves:
    """The curves with the step within which their times are known."""
    if time_resolution is None:
        return curves
    if not is_number(time_resolution) or not 0 < time_resolution < math.inf:
        remedy = "give the step of the clock, a number > 0 in units of time, or None"
        raise InputError("time_resolution", time_resolution, remedy)
    return replace(curves, time_resolution=float(time_resolution))


def in_whole_steps(curves: Curves) -> bool:
    """Whether all times are whole numbers, some of them neighbours, counted from 0."""
    if curves.clock.given is not None:
        return False
    least = math.inf
    for condition in curves.conditions:
        times = curves.clock.time(condition.log_time)
        if np.any(np.abs(times - np.round(times)) > 1e-9 * times):
            return False
        least = min(least, float(np.diff(times).min(initial=math.inf)))
    return abs(least - 1) < 1e-6
