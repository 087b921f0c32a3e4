"""Arrange and export results: grids, the clock τ, selections, CSV, parquet and NetCDF."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError, finite_number
from jthermo.results.atomic import write_whole, writing

if TYPE_CHECKING:
    import xarray as xr


# File suffix of each export format.
SUFFIX = {"csv": ".csv", "parquet": ".parquet", "netcdf": ".nc"}


def grid(ds: xr.Dataset) -> xr.Dataset:
    """Replace the dim ``run`` by one dim per swept axis.

    Args:
        ds: results, with dims ``run`` and ``record``.

    Returns:
        Dims learning_rate, batch_size, seed, further axes, record, and the dims that a variable has
        of its own. Combinations that were not run have NaN, ``finite = False`` and ``step = -1``.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(
    ...     model=jt.models.TwoLayer(inputs=2, hidden=2),
    ...     data=jt.data.Gaussian(dim=2),
    ...     learning_rate=(0.1, 0.2),
    ...     seed=(0, 1, 2),
    ...     num_steps=4,
    ...     record=jt.Record(steps=jt.every(2), observables=jt.loss()),
    ... )
    >>> dict(jt.grid(jt.run(sweep, progress=False)).sizes)
    {'learning_rate': 2, 'batch_size': 1, 'seed': 3, 'record': 3}
    """
    require_dataset(ds)
    axes = axes_of(ds)
    # with fills of their own, whole numbers and booleans do not become floats and objects between
    fills = {str(name): np.nan for name in ds.data_vars} | {"step": -1, "finite": False}
    indexed = ds.reset_coords("step").set_index(run=axes)
    unstacked = indexed.unstack("run", fill_value=fills).set_coords("step")
    return unstacked.transpose(*axes, *(d for d in unstacked.dims if d not in axes))


def require_dataset(ds: Any) -> None:
    """Raise InputError unless `ds` is a dataset and not, for example, one of its variables."""
    if not {"run", "record"} <= set(getattr(ds, "dims", ())) or not hasattr(ds, "data_vars"):
        remedy = "give the whole dataset that jt.run or jt.open_results returned"
        raise InputError("ds", type(ds).__name__, remedy)


def axes_of(ds: xr.Dataset) -> list[str]:
    """Names of the swept axes, which are the coordinates along ``run``."""
    return [str(name) for name, c in ds.coords.items() if c.dims == ("run",)]


def variable(ds: xr.Dataset, name: str, field: str) -> xr.DataArray:
    """A variable of the results by its name.

    Args:
        ds: results.
        name: the variable.
        field: the argument in which the user gave `name`, for the error message.

    Raises:
        InputError: the results have no such variable; the message lists those they have.
    """
    if name not in ds.data_vars:
        names = ", ".join(map(str, ds.data_vars))
        raise InputError(field, name, f"is not in the results, which hold {names}")
    return ds[name]


def select(ds: xr.Dataset, conditions: Sequence[str]) -> xr.Dataset:
    """The runs that fulfil every condition.

    Args:
        ds: results.
        conditions: texts ``"axis=value"``, such as ``"model.init=torch"``.

    Raises:
        InputError: no such axis, a value that is not a number on an axis of numbers, or no run
            left.
    """
    for text in conditions:
        name, _, wanted = text.partition("=")
        if name not in axes_of(ds):
            raise InputError(
                "where", text, f"names no swept axis; use one of {', '.join(axes_of(ds))}"
            )
        values = ds[name].values
        try:
            ds = ds.isel(run=values == (wanted if values.dtype.kind in "UO" else float(wanted)))
        except ValueError:
            raise InputError("where", text, f"{name} takes numbers; give a number") from None
        if not ds.sizes["run"]:
            raise InputError(
                "where",
                text,
                f"leaves no run; {name} has the values {', '.join(map(str, np.unique(values)))}",
            )
    return ds


def num_diverged(ds: xr.Dataset) -> int:
    """Number of runs with a non-finite parameter at one record or more."""
    return int((~ds.finite & (ds.step >= 0)).any("record").sum())


def tau(
    ds: xr.Dataset, learning_rate_power: float = 2.0, batch_size_power: float = -1.0
) -> xr.DataArray:
    """The rescaled clock τ = t·η^a·B^b; the paper claims a = 2, b = −1.

    Args:
        ds: results.
        learning_rate_power: a.
        batch_size_power: b.

    Returns:
        (run, record); NaN where a run has no record.
    """
    finite_number("learning_rate_power", learning_rate_power)
    finite_number("batch_size_power", batch_size_power)
    clock = (
        ds.step.where(ds.step >= 0)
        * ds.learning_rate**learning_rate_power
        * ds.batch_size**batch_size_power
    )
    clock.attrs = {"long_name": f"t η^{learning_rate_power:g} B^{batch_size_power:g}", "units": "1"}
    return clock.rename("tau")


def export(ds: xr.Dataset, path: str | Path, to: str | None = None) -> Path:
    """Write results to a file for other programs, in full or not at all.

    Args:
        ds: results.
        path: the file. If `to` is None, its suffix decides the format.
        to: ``"csv"`` or ``"parquet"`` for a table with one row per (run, record) and one column
            per variable and axis; ``"netcdf"`` for the dataset as it is.

    Returns:
        The path.

    Raises:
        InputError: an unknown format.
        StorageError: the disk is full or fails.
    """
    require_dataset(ds)
    path = Path(path)
    kind = to or next((name for name, suffix in SUFFIX.items() if suffix == path.suffix), str(path))
    if kind not in SUFFIX:
        raise InputError("to", kind, f"use one of {', '.join(SUFFIX)}")
    if kind == "netcdf":
        body = bytes(ds.to_netcdf(engine="scipy"))
    else:
        table, frame = io.BytesIO(), tidy(ds)
        (frame.to_csv if kind == "csv" else frame.to_parquet)(table, index=False)
        body = table.getvalue()
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, body)
    return path


def tidy(ds: xr.Dataset) -> Any:
    """A pandas table with one row per (run, record).

    A variable with further dims, such as units or layers, becomes columns ``name_0``, ``name_1``
    and so on.
    """
    scalars = {n: a for name in ds.data_vars for n, a in columns(ds[name]).items()}
    flat = ds.drop_vars(list(ds.data_vars)).assign(scalars)
    frame = flat.to_dataframe().reset_index()
    return frame[frame.step >= 0].reset_index(drop=True)


def columns(array: xr.DataArray) -> dict[str, xr.DataArray]:
    """The columns (run, record) of a variable by name: itself, or ``name_0``, ``name_1`` etc."""
    own = [d for d in array.dims if d not in ("run", "record")]
    if not own:
        return {str(array.name): array}
    stacked = array.stack(_own=own)
    return {
        f"{array.name}_{i}": stacked.isel(_own=i, drop=True).drop_vars(own, errors="ignore")
        for i in range(stacked.sizes["_own"])
    }


def choices(ds: xr.Dataset, kept: Sequence[str]) -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Split results by every swept axis that has several values and is not in `kept`.

    Returns:
        One pair per combination of values that has runs: the values by axis, and the runs.
    """
    split_axes = [a for a in axes_of(ds) if a not in kept and len(np.unique(ds[a].values)) > 1]
    parts = []
    for combination in itertools.product(*(np.unique(ds[a].values) for a in split_axes)):
        runs = ds
        for axis, value in zip(split_axes, combination, strict=True):
            runs = runs.isel(run=runs[axis].values == value)
        if runs.sizes["run"]:
            values = {a: v.item() for a, v in zip(split_axes, combination, strict=True)}
            parts.append((values, runs))
    return parts
