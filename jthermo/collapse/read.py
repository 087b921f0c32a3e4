"""From a DataArray or a table of raw replicates to curves, one per setting of the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from jthermo.collapse.forms import Clock, Form
from jthermo.collapse.settings import Settings
from jthermo.errors import InputError


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
        errors: published standard errors, like `values`; None if the replicates' scatter is used.
    """

    log_controls: np.ndarray
    log_time: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    errors: np.ndarray | None = None


@dataclass(frozen=True)
class LeftOut:
    """A replicate that the fit does not use, and the reason: "non-finite" or "outlier"."""

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
        conditions: one per setting of the controls.
        label_names: the replicates' own labels, by code.
        left_out: replicates that are not used.
        window: first and last time used.
        clock: the axis of the times.
        log_above: the number whose distance to the value is compared on a log scale; None if
            values are compared as they are.
    """

    controls: tuple[str, ...]
    time: str
    value: str
    conditions: tuple[Condition, ...]
    label_names: tuple[object, ...]
    left_out: tuple[LeftOut, ...]
    window: tuple[float, float]
    clock: Clock = field(default_factory=Clock)
    log_above: float | None = None

    def compared(self, values: np.ndarray) -> np.ndarray:
        """The numbers that are averaged: the values, or the logs of what exceeds `log_above`."""
        return values if self.log_above is None else np.log(values - self.log_above)

    @property
    def paired(self) -> bool:
        """Whether some replicate label appears at more than one condition."""
        labels = np.concatenate([np.unique(c.labels) for c in self.conditions])
        return len(np.unique(labels)) < len(labels)


@dataclass(frozen=True)
class Table:
    """One row per recorded value: the common form of both kinds of input.

    Attributes:
        controls: (n, P).
        time: (n,).
        replicate: integer codes, (n,).
        values: (n,).
        label_names: the replicates' own labels, by code.
        value_name: name of the value.
        errors: published standard errors of the values, (n,), or None.
    """

    controls: np.ndarray
    time: np.ndarray
    replicate: np.ndarray
    values: np.ndarray
    label_names: tuple[object, ...]
    value_name: str
    errors: np.ndarray | None = None


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
        InputError: a column is missing, a control is not positive, something else varies, or
            nothing is left.
    """
    names = _control_names(controls)
    if isinstance(data, pd.DataFrame):
        table = _from_frame(data, names, time, replicate, value, error)
    elif isinstance(data, xr.DataArray):
        table = _from_array(data, names, time, replicate, error)
    else:
        raise InputError(
            "data",
            type(data).__name__,
            "give an xarray.DataArray (one variable, such as ds.activation_rate) or a tidy "
            "pandas.DataFrame",
        )
    if not len(table.values):
        raise InputError(
            "data",
            "0 rows",
            "there is nothing to fit; give raw replicates, one row per recorded value",
        )
    clock, usable = _usable(table, names, time, form, settings)
    bad = ~(np.isfinite(table.controls) & (table.controls > 0)) & usable[:, None]
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            names[column],
            float(table.controls[row, column]),
            "a power law needs controls > 0; drop those rows or fit another control",
        )
    _check_errors(table, usable)
    above = form.log_above
    if above is not None and (low := usable & (table.values <= above)).any():
        remedy = (
            f'scale="log" takes values > {above:g}; drop those records, or give an offset below'
        )
        raise InputError(table.value_name, float(table.values[low][0]), remedy)
    return _group(table, usable, names, time, clock, above, settings)


def _usable(
    table: Table, names: tuple[str, ...], time: str, form: Form, settings: Settings
) -> tuple[Clock, np.ndarray]:
    """The clock, and which rows lie on it and in the windows, (n,)."""
    there = np.isfinite(table.time)
    finite = there & np.isfinite(table.values)
    inner, core = settings.clock_inner_share, settings.clock_core_share
    clock = Clock.of(form, table.time[finite], inner, core)
    signed = clock.given is not None
    positive = there if signed else table.time > 0
    if not positive.any():
        raise InputError(time, "no value > 0", "τ needs log t; name the column of t with time=")
    low, high = _window(form.window, signed)
    usable = positive & (table.time >= low) & (table.time <= high)
    if not usable.any():
        least = "" if signed else " > 0"
        raise InputError(
            "window", (low, high), f"no {time}{least} lies in it; widen it or check {time!r}"
        )
    if (clocked := form.clock_powers(names)) is not None:
        low, high, powers = clocked
        with np.errstate(all="ignore"):
            tau = (table.time - clock.origin) * np.prod(table.controls**powers, axis=1)
        usable &= (tau >= low) & (tau <= high)
        if not usable.any():
            remedy = f"no record lies in it, since τ goes from {np.nanmin(tau):.3g} to "
            raise InputError("clock_window", (low, high), f"{remedy}{np.nanmax(tau):.3g}; widen it")
    if not clock.signed:
        usable &= table.time > clock.origin
    return clock, usable


def _check_errors(table: Table, usable: np.ndarray) -> None:
    """Refuse standard errors that are not positive."""
    if table.errors is None:
        return
    bad = usable & np.isfinite(table.values) & ~(table.errors > 0)
    if bad.any():
        remedy = "a standard error must be > 0; drop those rows, or give no error"
        raise InputError("error", float(table.errors[bad][0]), remedy)


def _control_names(controls: Sequence[str]) -> tuple[str, ...]:
    names = (controls,) if isinstance(controls, str) else tuple(controls)
    if not names or len(set(names)) < len(names):
        raise InputError("controls", names, "name at least one control, and none twice")
    return names


def _window(window: tuple[float, float] | None, signed: bool) -> tuple[float, float]:
    if window is None:
        return -np.inf if signed else 0.0, np.inf
    try:
        low, high = (float(edge) for edge in window)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not (low < high and (signed or low >= 0)):
        raise InputError("window", window, "give (low, high) in units of time with 0 ≤ low < high")
    return low, high


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        text = next(v for v in np.ravel(np.asarray(values, dtype=object)) if not _is_number(v))
        raise InputError(
            name, text, "is not a number; convert the column or drop such rows"
        ) from None


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _from_frame(
    frame: pd.DataFrame,
    names: tuple[str, ...],
    time: str,
    replicate: str | None,
    value: str,
    error: str | xr.DataArray | None,
) -> Table:
    wanted = [*names, time, value] + ([replicate] if replicate is not None else [])
    wanted += [error] if isinstance(error, str) else []
    for name in wanted:
        if name not in frame.columns:
            raise InputError(
                "column",
                name,
                f"is not in the table, which has {list(frame.columns)}; name it with controls=, "
                "time=, value= or replicate= (replicate=None if each curve was recorded once)",
            )
    cells = np.zeros(len(frame), int) if replicate is None else frame[replicate].to_numpy()
    codes, labels = pd.factorize(cells, sort=False)
    return Table(
        controls=np.column_stack([_numbers(frame[name].to_numpy(), name) for name in names]),
        time=_numbers(frame[time].to_numpy(), time),
        replicate=codes,
        values=_numbers(frame[value].to_numpy(), value),
        label_names=tuple(labels.tolist()),
        value_name=value,
        errors=_numbers(frame[error].to_numpy(), error) if isinstance(error, str) else None,
    )


def _from_array(
    array: xr.DataArray,
    names: tuple[str, ...],
    time: str,
    replicate: str | None,
    error: str | xr.DataArray | None,
) -> Table:
    wanted = [*names, time] + ([replicate] if replicate is not None else [])
    for name in wanted:
        if name not in array.coords:
            raise InputError(
                "coordinate",
                name,
                f"is not on the data, which has {list(array.coords)}; name it with controls=, "
                f"time= or replicate=, or attach it (ds.set_coords({name!r}))",
            )
    _refuse_other_axes(array, wanted, time)

    def flat(name: str) -> np.ndarray:
        return np.asarray(
            array.coords[name].broadcast_like(array).transpose(*array.dims).values
        ).ravel()

    cells = np.zeros(array.size, int) if replicate is None else flat(replicate)
    codes, labels = pd.factorize(cells, sort=False)
    errors = None
    if error is not None:
        there = array.coords[error] if isinstance(error, str) else error
        there = there.broadcast_like(array).transpose(*array.dims)
        errors = _numbers(there.values, "error").ravel()
    return Table(
        controls=np.column_stack([_numbers(flat(name), name) for name in names]),
        time=_numbers(flat(time), time),
        replicate=codes,
        values=_numbers(array.values, str(array.name)).ravel(),
        label_names=tuple(labels.tolist()),
        value_name="value" if array.name is None else str(array.name),
        errors=errors,
    )


def _refuse_other_axes(array: xr.DataArray, wanted: list[str], time: str) -> None:
    """Every axis must be a control, the replicate or time: any other would be taken for noise."""
    time_dims = set(array.coords[time].dims)
    carried = {dim for name in wanted for dim in array.coords[name].dims}
    for dim in array.dims:
        if dim not in carried and array.sizes[dim] > 1:
            raise InputError(
                "dimension",
                dim,
                f"(size {array.sizes[dim]}) is neither a control nor the replicate nor time; "
                f"select one entry (data.isel({dim}=0)) or make it a control",
            )
    settings = {dim for name in wanted if name != time for dim in array.coords[name].dims}
    for name, coord in array.coords.items():
        # the bare index of the dimension that carries the controls, such as run
        is_index = name in array.dims
        if name in wanted or is_index or coord.dtype == bool or not coord.dims:
            continue
        if not set(coord.dims) <= settings or set(coord.dims) & (time_dims - settings):
            # varies along time only: another clock
            continue
        distinct = pd.unique(np.asarray(coord.values).ravel())
        if 1 < len(distinct) < coord.size:
            shown = ", ".join(map(repr, distinct[:4].tolist())) + (
                ", …" if len(distinct) > 4 else ""
            )
            raise InputError(
                "coordinate",
                name,
                f"varies ({shown}) and is neither a control nor the replicate; select one value "
                f"(data.where(data[{name!r}] == …, drop=True)) or make it a control",
            )


def _group(
    table: Table,
    usable: np.ndarray,
    names: tuple[str, ...],
    time: str,
    clock: Clock,
    log_above: float | None,
    settings: Settings,
) -> Curves:
    """One condition per setting of the controls, without replicates that diverged."""
    cell = np.zeros(len(table.values), int)
    for column in table.controls.T:
        codes, uniques = pd.factorize(column, sort=True)
        cell = cell * (len(uniques) + 1) + codes
    conditions: list[Condition] = []
    left_out: list[LeftOut] = []
    order = np.argsort(cell[usable], kind="stable")
    rows = np.flatnonzero(usable)[order]
    for chunk in np.split(rows, np.flatnonzero(np.diff(cell[rows])) + 1):
        setting = dict(zip(names, table.controls[chunk[0]].tolist(), strict=True))
        x, values, errors, recorded, labels = _pivot(table, chunk, setting, time, clock)
        keep = []
        for row, label in enumerate(labels):
            if _diverged(values[row][recorded[row]], settings):
                left_out.append(LeftOut(setting, table.label_names[label], "non-finite"))
            else:
                keep.append(row)
        if keep:
            values, recorded = np.where(np.isfinite(values), values, np.nan)[keep], recorded[keep]
            if recorded.mean() < settings.own_clock_share:
                x, values = _common_clock(x, values)
            if errors is not None:
                errors = errors[keep]
            if errors is not None and len(keep) == 1:
                seen = np.isfinite(values[0])
                x, values, errors = x[seen], values[:, seen], errors[:, seen]
            else:
                x, values = _coarsen(x, values, settings)
            log_controls = np.log(table.controls[chunk[0]])
            conditions.append(Condition(log_controls, x, values, labels[keep], errors))
    if not conditions:
        raise InputError(
            "value",
            table.value_name,
            "no replicate of it is finite, so there is nothing to fit; check the column",
        )
    if len(conditions) == 1 and len(conditions[0].labels) == 1:
        raise InputError(
            "data",
            "one curve",
            f"there is no other to compare it with; give several values of {', '.join(names)}",
        )
    return Curves(
        controls=names,
        time=time,
        value=table.value_name,
        conditions=tuple(conditions),
        label_names=table.label_names,
        left_out=tuple(left_out),
        window=(float(table.time[usable].min()), float(table.time[usable].max())),
        clock=clock,
        log_above=log_above,
    )


def _pivot(
    table: Table, chunk: np.ndarray, setting: dict[str, float], time: str, clock: Clock
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """One condition's rows as a (replicate, time) matrix on the union of the recorded times."""
    times, column = np.unique(table.time[chunk], return_inverse=True)
    labels, row = np.unique(table.replicate[chunk], return_inverse=True)
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


def _diverged(row: np.ndarray, settings: Settings) -> bool:
    """Whether a replicate diverged. It is left out whole: its last finite values are wrong too.

    A few gaps are allowed.
    """
    gaps = ~np.isfinite(row)
    share = gaps.mean()
    late = gaps[-1] and share > settings.max_gap_share_at_end
    return bool(gaps.all() or share > settings.max_gap_share or late)


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
