"""Results laid out for analysis: grids, clocks, selections, and export to CSV, parquet and NetCDF."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError
from jthermo.results.atomic import write_whole, writing

if TYPE_CHECKING:
    import xarray as xr


if TYPE_CHECKING:
    import xarray as xr


SUFFIX = {"csv": ".csv", "parquet": ".parquet", "netcdf": ".nc"}


def grid(ds: xr.Dataset) -> xr.Dataset:
    """The runs laid out as (learning_rate, batch_size, seed, further axes…, record); combinations not run are NaN.

    >>> import jthermo as jt
    >>> sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2), seed=(0, 1, 2),
    ...                  learning_rate=(0.1, 0.2), num_steps=4, record=jt.Record(steps=jt.every(2), observables=jt.loss()))
    >>> dict(jt.grid(jt.run(sweep, progress=False)).sizes)
    {'learning_rate': 2, 'batch_size': 1, 'seed': 3, 'record': 3}
    """
    axes = axes_of(ds)
    laid = ds.reset_coords("step").set_index(run=axes).unstack("run")
    order = [*axes, *(d for d in laid.dims if d not in axes)]
    laid = laid.transpose(*order)
    step, finite = laid.step, laid.finite
    return laid.assign(finite=finite.fillna(False).astype(bool)).assign_coords(
        step=step.fillna(-1).astype(np.int64)
    )


def axes_of(ds: xr.Dataset) -> list[str]:
    """Names of the swept axes, the coordinates along ``run``."""
    return [str(name) for name, c in ds.coords.items() if c.dims == ("run",)]


def variable(ds: xr.Dataset, name: str, field: str) -> xr.DataArray:
    """A variable or axis of the results, or an error that says which there are."""
    if name not in ds:
        there = ", ".join(map(str, [*ds.data_vars, *ds.coords]))
        raise InputError(field, name, f"is not in the results; there are {there}")
    return ds[name]


def select(ds: xr.Dataset, conditions: Sequence[str]) -> xr.Dataset:
    """Only the runs that meet every condition ``"axis=value"``, such as ``"model.init=torch"``."""
    for text in conditions:
        name, _, wanted = text.partition("=")
        if name not in axes_of(ds):
            raise InputError("where", text, f"name a swept axis: {', '.join(axes_of(ds))}")
        values = ds[name].values
        try:
            ds = ds.isel(run=values == (wanted if values.dtype.kind in "UO" else float(wanted)))
        except ValueError:
            raise InputError("where", text, f"{name} takes numbers") from None
        if not ds.sizes["run"]:
            raise InputError(
                "where",
                text,
                f"leaves no run; {name} takes {', '.join(map(str, np.unique(values)))}",
            )
    return ds


def num_diverged(ds: xr.Dataset) -> int:
    """Number of runs with a non-finite parameter at some record."""
    return int((~ds.finite & (ds.step >= 0)).any("record").sum())


def tau(
    ds: xr.Dataset, learning_rate_power: float = 2.0, batch_size_power: float = -1.0
) -> xr.DataArray:
    """The rescaled clock τ = t η^a B^b (run, record); the paper says a = 2, b = −1.

    Args:
        ds: results.
        learning_rate_power: a.
        batch_size_power: b.
    """
    made = (
        ds.step.where(ds.step >= 0)
        * ds.learning_rate**learning_rate_power
        * ds.batch_size**batch_size_power
    )
    made.attrs = {"long_name": f"t η^{learning_rate_power:g} B^{batch_size_power:g}", "units": "1"}
    return made.rename("tau")


def export(ds: xr.Dataset, path: str | Path, to: str | None = None) -> Path:
    """Write results for other programs, whole or not at all.

    Args:
        ds: results.
        path: the file; its suffix names the format where `to` is None.
        to: ``"csv"`` or ``"parquet"``: a row per (run, record), a column per variable and axis; ``"netcdf"``: as it is.
    """
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
    """A pandas table with one row per (run, record); variables with dims of their own become columns ``name_0`` and on."""
    made = {n: a for name in ds.data_vars for n, a in columns(ds[name]).items()}
    flat = ds.drop_vars(list(ds.data_vars)).assign(made)
    frame = flat.to_dataframe().reset_index()
    return frame[frame.step >= 0].reset_index(drop=True)


def columns(array: xr.DataArray) -> dict[str, xr.DataArray]:
    """A variable by its name; one with dims of its own, such as units or layers, as ``name_0`` and on."""
    own = [d for d in array.dims if d not in ("run", "record")]
    if not own:
        return {str(array.name): array}
    stacked = array.stack(_own=own)
    return {
        f"{array.name}_{i}": stacked.isel(_own=i, drop=True).drop_vars(own, errors="ignore")
        for i in range(stacked.sizes["_own"])
    }


def choices(ds: xr.Dataset, kept: Sequence[str]) -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Every combination of the swept axes that are not `kept` and take several values, with its runs."""
    open_axes = [a for a in axes_of(ds) if a not in kept and len(np.unique(ds[a].values)) > 1]
    found = []
    for combination in itertools.product(*(np.unique(ds[a].values) for a in open_axes)):
        runs = ds
        for axis, value in zip(open_axes, combination, strict=True):
            runs = runs.isel(run=runs[axis].values == value)
        if runs.sizes["run"]:
            found.append(({a: v.item() for a, v in zip(open_axes, combination, strict=True)}, runs))
    return found
