"""From a DataArray or a tidy table to one row per record, with what the columns mean."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import pandas as pd

from jthermo.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


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
        long_name: the value in words, or its name.
        further: columns without a role that may hold another setting, by name.
        errors: published standard errors of the values, (n,), or None.
    """

    controls: np.ndarray
    time: np.ndarray
    replicate: np.ndarray
    values: np.ndarray
    label_names: tuple[object, ...]
    value_name: str
    long_name: str
    further: dict[Hashable, np.ndarray]
    errors: np.ndarray | None = None


def read_table(
    data: xr.DataArray | pd.DataFrame,
    controls: Sequence[str],
    time: str,
    replicate: str | None,
    value: str,
    error: str | xr.DataArray | None,
) -> tuple[tuple[str, ...], Table]:
    """Names of the controls, and the records.

    Raises:
        InputError: a column is missing, has two roles or holds no numbers.
    """
    names = _control_names(controls)
    if error is not None and replicate == "seed" and "seed" not in _names(data):
        # Published values have no replicates.
        replicate = None
    column = error if isinstance(error, str) else None
    if error is not column and not (_is_array(error) and _is_array(data)):
        remedy = "name the column of standard errors; a DataArray takes another one like it too"
        raise InputError("error", type(error).__name__, remedy)
    _check_roles(names, time, replicate, value if isinstance(data, pd.DataFrame) else None, column)
    if isinstance(data, pd.DataFrame):
        table = _from_frame(data, names, time, replicate, value, column)
    elif _is_array(data):
        table = _from_array(data, names, time, replicate, error)
    else:
        raise InputError(
            "data",
            type(data).__name__,
            "give an xarray.DataArray (one variable, such as ds.activation_rate) or a tidy "
            "pandas.DataFrame",
        )
    return names, table


def _control_names(controls: Sequence[str]) -> tuple[str, ...]:
    try:
        names = (controls,) if isinstance(controls, str) else tuple(controls)
    except TypeError:
        raise InputError("controls", controls, "give a list of names") from None
    if not all(isinstance(name, str) for name in names):
        remedy = "names are text; rename the columns first, as by table.rename(columns=str)"
        raise InputError("controls", names, remedy)
    if not names or len(set(names)) < len(names):
        raise InputError("controls", names, "name at least one control, and none twice")
    return names


def _names(data: object) -> list[Hashable]:
    """Names of the columns of a table or of the coordinates of an array."""
    if isinstance(data, pd.DataFrame):
        return list(data.columns)
    return list(data.coords) if _is_array(data) else []


def _is_array(data: object) -> TypeGuard[xr.DataArray]:
    """Whether it is a DataArray; there are none before the caller has imported xarray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(data, xarray.DataArray)


def _check_roles(
    controls: tuple[str, ...],
    time: str,
    replicate: str | None,
    value: str | None,
    error: str | None,
) -> None:
    """Every column has one role, and a name that is text."""
    roles = {"time": time, "replicate": replicate, "value": value, "error": error}
    taken = dict.fromkeys(controls, "a control")
    for role, name in roles.items():
        if name is None and role != "time":
            continue
        if not isinstance(name, str):
            remedy = "names are text; rename the columns first, as by table.rename(columns=str)"
            raise InputError(role, name, remedy)
        if name in taken:
            raise InputError(role, name, f"is {taken[name]} already; name another column")
        taken[name] = f"the {role}"


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    """The values as floats. Dates are refused: their number depends on a unit that nobody gave."""
    shown = values.ravel()[0] if values.size else None
    if values.dtype.kind == "M":
        remedy = "is a date; give the time elapsed, (column - start).dt.total_seconds()"
        raise InputError(name, str(shown), remedy)
    if values.dtype.kind == "m":
        raise InputError(name, str(shown), "has a unit; convert it by column.dt.total_seconds()")
    if values.dtype.kind == "c":
        raise InputError(name, shown, "is complex; give its real part or its modulus")
    if values.dtype == object:
        values = np.where(pd.isna(values), np.nan, values)
    try:
        with np.errstate(over="ignore"):
            return np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        text = next((v for v in values.astype(object).ravel() if not _is_number(v)), shown)
        raise InputError(
            name, text, "is not a number; convert the column or drop such rows"
        ) from None


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _labels(cells: np.ndarray, name: str | None) -> tuple[np.ndarray, tuple[object, ...]]:
    """Codes of the replicates' labels, and the labels by code. A missing label is a label too."""
    try:
        codes, labels = pd.factorize(cells, sort=False, use_na_sentinel=False)
    except TypeError:
        raise InputError(
            "replicate", name, f"holds {cells[0]!r}, which is no label; give numbers or text"
        ) from None
    return codes, tuple(pd.Series(labels).tolist())


def _from_frame(
    frame: pd.DataFrame,
    names: tuple[str, ...],
    time: str,
    replicate: str | None,
    value: str,
    error: str | None,
) -> Table:
    wanted = [*names, time, value] + ([replicate] if replicate is not None else [])
    wanted += [error] if error is not None else []
    columns = list(frame.columns)
    for name in wanted:
        if columns.count(name) > 1:
            remedy = f"names {columns.count(name)} columns of the table; rename or drop the others"
            raise InputError("column", name, remedy)
        if name in frame.index.names:
            raise InputError("column", name, "is in the table's index; call table.reset_index()")
        if name not in columns:
            raise InputError(
                "column",
                name,
                f"is not in the table, which has {columns}; name it with controls=, "
                "time=, value= or replicate= (replicate=None if each curve was recorded once)",
            )
    cells = np.zeros(len(frame), int) if replicate is None else frame[replicate].to_numpy()
    codes, labels = _labels(cells, replicate)
    return Table(
        controls=np.column_stack([_numbers(frame[name].to_numpy(), name) for name in names]),
        time=_numbers(frame[time].to_numpy(), time),
        replicate=codes,
        values=_numbers(frame[value].to_numpy(), value),
        label_names=labels,
        value_name=value,
        long_name=value,
        further={
            name: frame.iloc[:, place].to_numpy()
            for place, name in enumerate(columns)
            if name not in wanted
        },
        errors=None if error is None else _numbers(frame[error].to_numpy(), error),
    )


def _from_array(
    array: xr.DataArray,
    names: tuple[str, ...],
    time: str,
    replicate: str | None,
    error: str | xr.DataArray | None,
) -> Table:
    wanted = [*names, time] + ([replicate] if replicate is not None else [])
    wanted += [error] if isinstance(error, str) else []
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
    codes, labels = _labels(cells, replicate)
    value_name = "value" if array.name is None else str(array.name)
    errors = None
    if error is not None:
        there = array.coords[error] if isinstance(error, str) else error.reindex_like(array)
        there = there.broadcast_like(array)
        if there.sizes != array.sizes:
            remedy = f"differs from the data, {dict(array.sizes)}; give an error for each value"
            raise InputError("error", dict(there.sizes), remedy)
        there = there.transpose(*array.dims)
        errors = _numbers(there.values, "error").ravel()
    return Table(
        controls=np.column_stack([_numbers(flat(name), name) for name in names]),
        time=_numbers(flat(time), time),
        replicate=codes,
        values=_numbers(array.values, value_name).ravel(),
        label_names=labels,
        value_name=value_name,
        long_name=str(array.attrs.get("long_name", value_name)),
        further={},
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
        if name in wanted or is_index or not coord.dims:
            continue
        if not set(coord.dims) <= settings or set(coord.dims) & (time_dims - settings):
            # varies along time only: another clock
            continue
        try:
            distinct = pd.unique(np.asarray(coord.values).ravel())
        except TypeError:
            # Lists and the like are no setting.
            continue
        if 1 < len(distinct) < coord.size:
            raise InputError(
                "coordinate",
                name,
                f"varies ({_some(distinct)}) and is neither a control nor the replicate; select "
                f"one value (data.where(data[{name!r}] == …, drop=True)), make it a control, or "
                f"drop it (data.drop_vars({name!r}))",
            )


def _some(distinct: np.ndarray) -> str:
    """The first few of some values, as text."""
    return ", ".join(map(repr, distinct[:4].tolist())) + (", …" if len(distinct) > 4 else "")


def refuse_other_settings(table: Table, rows: np.ndarray, cell: np.ndarray) -> None:
    """Replicates at one setting of the controls must not differ by another setting.

    A column that stays the same along a run and takes several values at one setting of the controls
    is another setting, unless it labels the runs. So is a text that varies along a run, unless it
    follows the time.
    """
    cell, replicate = cell[rows], table.replicate[rows]
    run, clock = _joint(cell, replicate), pd.factorize(table.time[rows])[0]
    for name, column in table.further.items():
        try:
            code, distinct = pd.factorize(column[rows], use_na_sentinel=False)
        except TypeError:
            # Lists and the like are no setting.
            continue
        of_setting, of_run = _follows(code, cell), _follows(code, run)
        labels = _follows(run, code) or (_follows(code, replicate) and _follows(replicate, code))
        # Numbers that vary along a run are other observables; text that does so may be a phase.
        text = column.dtype.kind in "OUS" and not _follows(code, _joint(cell, clock))
        if (of_run or text) and not (of_setting or labels):
            raise InputError(
                "column",
                name,
                f"varies ({_some(np.asarray(distinct))}) at one setting of the controls "
                "and is neither a control nor the replicate; select one value of it, make it a "
                "control, or drop the column",
            )


def _joint(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One code for each pair of codes that occurs."""
    return pd.factorize(first * (int(second.max(initial=0)) + 1) + second)[0]


def _follows(code: np.ndarray, given: np.ndarray) -> bool:
    """Whether a code is a function of a given one."""
    return int(_joint(given, code).max(initial=0)) == len(pd.unique(given)) - 1
