"""Results as an xarray.Dataset: open a folder, lay the runs on their grid, rescale the clock, export. No JAX here."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError
from jthermo.results.layout import DATASET, MANIFESTS, RECORDS, SWEEP
from jthermo.results.tables import axes_of, num_diverged

if TYPE_CHECKING:
    import xarray as xr

if TYPE_CHECKING:
    import xarray as xr

_UNITS = {
    "learning_rate": ("learning rate η", "1"),
    "batch_size": ("batch size B", "1"),
    "seed": ("seed", "1"),
}


def open_results(directory: str | Path) -> xr.Dataset:
    """The recorded runs of a results folder, verified against the digests in its manifest.

    Args:
        directory: a folder that ``jt.run`` wrote.

    Returns:
        Dims ``run`` and ``record``. Coordinates on ``run``: every swept axis; ``step`` (run, record) counts updates
        and is −1 where a run has fewer records than the longest. Variables are NaN there and where ``finite`` is False.
        Of an unfinished sweep it holds the runs whose records are committed, from every shard that wrote into the
        folder, and ``attrs["complete"]`` is 0.

    Raises:
        InputError: no results there, or a record file that is missing or altered.
    """
    folder = Path(directory)
    if not (folder / SWEEP).exists():
        raise InputError(
            "directory", str(directory), "holds no sweep.json; give a folder that jthermo run wrote"
        )
    manifests = read_manifests(folder)
    parts = [
        read_part(folder, name, digest) for m in manifests for name, digest in m["parts"].items()
    ]
    if not parts:
        raise InputError(
            "directory",
            str(directory),
            "has no finished records yet; run the same sweep again to continue it",
        )
    return assemble(read_json(folder / SWEEP), parts, manifests)


def status(directory: str | Path) -> dict[str, str]:
    """What a results folder holds, in words: finished or not, runs, records, diverged runs, time, device."""
    ds = open_results(directory)
    axes = ", ".join(f"{len(np.unique(ds[name].values))} {name}" for name in axes_of(ds))
    return {
        "state": "complete"
        if ds.attrs["complete"]
        else "unfinished; run the same sweep again to continue it",
        "runs": f"{ds.sizes['run']:,} ({axes})",
        "records": f"{ds.sizes['record']} up to step {int(ds.step.max()):,}",
        "variables": ", ".join(str(v) for v in ds.data_vars),
        "diverged": str(num_diverged(ds)),
        "made on": f"{ds.attrs['num_devices']} × {ds.attrs['device']} in {ds.attrs['wall_seconds']:.1f} s",
        "sweep": ds.attrs["id"],
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a results folder."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise InputError(
            "directory",
            str(path),
            "is not valid JSON; it was altered, so remove the folder and run again",
        ) from None


def read_manifests(directory: Path) -> list[dict[str, Any]]:
    """The manifests of a folder, one for each shard that wrote into it."""
    return [read_json(path) for path in sorted(directory.glob(MANIFESTS))]


def read_record(directory: Path, name: str, digest: str) -> bytes:
    """A record file that a manifest names, checked against its digest."""
    path = directory / RECORDS / name
    body = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(body).hexdigest() != digest:
        state = "was altered since it was written" if body else "is missing"
        raise InputError(
            "records",
            str(path),
            f"{state}; run the same sweep again to rebuild it from its checkpoint",
        )
    return body


def read_part(directory: Path, name: str, digest: str) -> dict[str, np.ndarray]:
    """The arrays of a record file that a manifest names."""
    with np.load(io.BytesIO(read_record(directory, name, digest)), allow_pickle=False) as part:
        return dict(part)


def assemble(
    description: Mapping[str, Any],
    parts: Sequence[Mapping[str, np.ndarray]],
    manifests: Sequence[Mapping[str, Any]],
) -> xr.Dataset:
    """One Dataset in the order of the sweep from parts whose runs may differ in records and in sizes of own dims."""
    import xarray as xr

    runs, columns = _columns(description)
    place = {run: i for i, run in enumerate(runs)}
    order = np.concatenate(
        [
            [place[run] for run in zip(p["key"].tolist(), p["seed"].tolist(), strict=True)]
            for p in parts
        ]
    ).astype(np.int64)
    # there is one row for a run, whoever wrote it
    order, rows = np.unique(order, return_index=True)
    coords: dict[str, Any] = {}
    for name, column in columns.items():
        long_name, units = _UNITS.get(name, (name, "1"))
        coords[name] = ("run", column[order], {"long_name": long_name, "units": units})
    coords["step"] = (
        ("run", "record"),
        _join([p["step"] for p in parts], -1)[rows],
        {
            "long_name": "number of updates t; -1 where the run has fewer records",
            "units": "updates",
        },
    )
    data: dict[str, Any] = {}
    for name, (long_name, units, own) in description["variables"].items():
        fill = False if name == "finite" else np.nan
        joined = _join([p[name] if name in p else _absent(p, len(own), fill) for p in parts], fill)
        data[name] = (
            ("run", "record", *own),
            joined[rows],
            {"long_name": long_name, "units": units},
        )
    seconds = {
        k: sum(m["attrs"].get(k, 0.0) for m in manifests)
        for k in ("wall_seconds", "checkpoint_seconds")
    }
    attrs = {
        "sweep": json.dumps(description["sweep"]),
        "id": description["id"],
        "complete": int(len(order) == len(runs)),
        **{k: v for m in manifests for k, v in m["attrs"].items()},
        **seconds,
    }
    return xr.Dataset(data, coords, attrs)


def _columns(description: Mapping[str, Any]) -> tuple[list[tuple[str, int]], dict[str, np.ndarray]]:
    """Every run as (key, seed) in the order of the sweep, and every swept axis as a column over them."""
    runs: list[tuple[str, int]] = []
    columns: dict[str, list[Any]] = {name: [] for name in description["axes"]}
    for group in description["runs"]:
        seeds = [s for first, end in group["seeds"] for s in range(first, end)]
        runs += [(group["key"], seed) for seed in seeds]
        for name, column in columns.items():
            column += seeds if name == "seed" else [group["at"][name]] * len(seeds)
    return runs, {name: _column(column) for name, column in columns.items()}


def _column(values: list[Any]) -> np.ndarray:
    """A NumPy column; one that mixes None or strings with numbers is written as strings, so that it can be selected by."""
    numeric = all(isinstance(v, int | float) for v in values)
    return np.array(
        values if numeric or all(isinstance(v, str) for v in values) else [str(v) for v in values]
    )


def _absent(part: Mapping[str, np.ndarray], own: int, fill: Any) -> np.ndarray:
    """A variable that a cohort doesn't record."""
    return np.full((*part["step"].shape, *(1,) * own), fill, np.float32)


def _join(arrays: Iterable[np.ndarray], fill: Any) -> np.ndarray:
    """Concatenate along runs, padding every other dim to the largest."""
    arrays = list(arrays)
    shape = np.max([a.shape[1:] for a in arrays], axis=0)
    padded = [
        np.pad(
            a,
            [(0, 0), *((0, int(n) - m) for n, m in zip(shape, a.shape[1:], strict=True))],
            constant_values=fill,
        )
        for a in arrays
    ]
    return np.concatenate(padded)


def read_dataset(folder: Path) -> xr.Dataset:
    """What :func:`jthermo.results.writing.write_dataset` wrote."""
    import xarray as xr

    return xr.load_dataset(folder / RECORDS / DATASET, engine="scipy")
