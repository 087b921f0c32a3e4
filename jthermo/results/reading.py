"""Read a results folder into an xarray.Dataset and check it against its manifests, without JAX."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError, file_path, one_line
from jthermo.npz import check_expansion
from jthermo.results.atomic import reading
from jthermo.results.layout import (
    DATASET,
    MANIFESTS,
    PART_SUFFIX,
    RECORDS,
    RUNNING,
    SWEEP,
    decode_part,
    decode_records,
)
from jthermo.results.sealed_json import read_json
from jthermo.results.tables import axes_of, num_diverged

if TYPE_CHECKING:
    import xarray as xr

# Long name and unit of the built-in axes.
_UNITS = {
    "learning_rate": ("learning rate η", "1"),
    "batch_size": ("batch size B", "1"),
    "seed": ("seed", "1"),
    "data_seed": ("seed of the order of the data", "1"),
}


def open_results(directory: str | Path) -> xr.Dataset:
    """Open a results folder, checking every record file against its SHA-256 in the manifest.

    Args:
        directory: a folder that ``jt.run`` wrote.

    Returns:
        Dims ``run`` and ``record``. Every swept axis is a coordinate on ``run``. The coordinate
        ``step`` (run, record) counts updates; it is −1, and variables are NaN, where a run has
        fewer records than the longest. Variables are also NaN once a run has diverged. For an
        unfinished sweep, ``attrs["complete"]`` is 0, and there are only the runs whose records are
        committed, from all shards in the folder, and ``attrs["running"]`` runs in training, with
        the records that they have so far.

    Raises:
        InputError: the folder holds no results, or a record file is missing or altered.
    """
    folder = file_path("directory", directory)
    with reading("directory", folder):
        described = (folder / SWEEP).is_file()
    if not described:
        raise InputError(
            "directory",
            str(directory),
            "holds no sweep.json; give a folder that `jthermo run` wrote",
        )
    manifests = read_manifests(folder)
    parts = [
        read_part(folder, name, digest) for m in manifests for name, digest in m["parts"].items()
    ]
    running = read_running(folder)
    if not parts and not running:
        raise InputError(
            "directory",
            str(directory),
            "has no finished records yet; run the same sweep again to continue it",
        )
    return assemble(read_json(folder / SWEEP), parts, manifests, running)


def read_running(folder: Path) -> list[dict[str, np.ndarray]]:
    """The records of runs in training, the most advanced first; damaged files are left out."""
    parts = []
    for path in sorted((folder / RUNNING).glob(f"*{PART_SUFFIX}")):
        with contextlib.suppress(OSError, InputError):
            parts.append(decode_part(path.read_bytes()))
    return sorted(parts, key=lambda part: -int(part["step"].max()))


def summary(ds: xr.Dataset) -> dict[str, str]:
    """The state, runs, records, variables, diverged runs, device and id of results, as texts."""
    axes = ", ".join(f"{len(np.unique(ds[name].values))} {name}" for name in axes_of(ds))
    running = ds.attrs["running"]
    partly = f", {running:,} of them with a part of their records" if running else ""
    made = {}
    # known once a group of runs is finished
    if "device" in ds.attrs:
        devices = f"{ds.attrs['num_devices']} × {ds.attrs['device']}"
        made["made on"] = f"{devices} in {ds.attrs['wall_seconds']:.1f} s"
    return {
        "state": "complete"
        if ds.attrs["complete"]
        else "unfinished; run the same sweep again to continue it",
        "runs": f"{ds.sizes['run']:,} ({axes}){partly}",
        "records": f"{int((ds.step >= 0).any('run').sum())} up to step {int(ds.step.max()):,}",
        "variables": ", ".join(str(v) for v in ds.data_vars),
        "diverged": str(num_diverged(ds)),
        **made,
        "sweep": ds.attrs["id"],
    }


def read_manifests(directory: Path) -> list[dict[str, Any]]:
    """The manifests of a folder, one per shard that wrote into it.

    Raises:
        InputError: one is damaged, or names a file outside the folder of records.
    """
    manifests = [read_json(path) for path in sorted(directory.glob(MANIFESTS))]
    for name in (name for manifest in manifests for name in manifest["parts"]):
        if name in ("", "..") or Path(name).name != name:
            remedy = "is no file of records; restore the manifest from a copy"
            raise InputError("directory", str(directory / RECORDS / name), remedy)
    return manifests


def read_record(directory: Path, name: str, digest: str) -> bytes:
    """The bytes of a record file, checked against the SHA-256 in its manifest.

    Raises:
        InputError: the file is missing or altered.
    """
    path = directory / RECORDS / name
    with reading("records", path):
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
    """The arrays of a record file, checked against the SHA-256 in its manifest."""
    return decode_records(read_record(directory, name, digest))


def assemble(
    description: Mapping[str, Any],
    parts: Sequence[Mapping[str, np.ndarray]],
    manifests: Sequence[Mapping[str, Any]],
    running: Sequence[Mapping[str, np.ndarray]] = (),
) -> xr.Dataset:
    """Join record files into one dataset whose runs are in the order of the sweep.

    Args:
        description: the content of ``sweep.json``.
        parts: arrays of each record file, with leading axis runs. Parts may differ in the number of
            records and in the sizes of further dims; shorter ones are padded.
        manifests: all manifests; their attributes become those of the dataset, and their seconds
            are added up.
        running: arrays of runs in training; those of a run in `parts` are left out.

    Raises:
        InputError: the records do not fit to the description.
    """
    try:
        return _joined(description, [*parts, *running], manifests, sum(map(_num_runs, parts)))
    except (LookupError, TypeError, ValueError) as error:
        remedy = (
            f"its records do not fit to its sweep.json ({type(error).__name__}: {one_line(error)});"
            " restore the folder from a copy, or remove it and run again"
        )
        raise InputError("sweep", description["id"], remedy) from None


def _joined(
    description: Mapping[str, Any],
    parts: Sequence[Mapping[str, np.ndarray]],
    manifests: Sequence[Mapping[str, Any]],
    num_committed: int,
) -> xr.Dataset:
    """The dataset of :func:`assemble`; the first rows of the parts are committed."""
    import xarray as xr

    places = [_positions(description["runs"], p["key"], p["seed"]) for p in parts]
    order, age = (np.concatenate(column) for column in zip(*places, strict=True))
    # Two shards of different layouts may have written the same run, and a run that was trained
    # further has an earlier row too: keep the newest row of each.
    newest = np.lexsort((age, order))
    order, first = np.unique(order[newest], return_index=True)
    rows = newest[first]
    # Rows that are in order already, as those of one part, are not copied: there may be gigabytes.
    in_order = len(rows) == len(newest) and bool((np.diff(rows) > 0).all())
    picked: np.ndarray | slice = slice(None) if in_order else rows
    seeds = np.concatenate([p["seed"] for p in parts])[rows]
    firsts = _firsts(description["runs"])
    group = np.searchsorted(firsts, order, side="right") - 1
    coords: dict[str, Any] = {}
    for name in description["axes"]:
        long_name, units = _UNITS.get(name, (name, "1"))
        values = (
            seeds
            if name == "seed"
            else _column([r["at"][name] for r in description["runs"]])[group]
        )
        coords[name] = ("run", values, {"long_name": long_name, "units": units})
    coords["step"] = (
        ("run", "record"),
        _join([p["step"] for p in parts], -1)[picked],
        {
            "long_name": "number of updates t; -1 where the run has fewer records",
            "units": "updates",
        },
    )
    data: dict[str, Any] = {}
    known = description.get("coords", {})
    own_coords = {
        key: {**known, **run.get("coords", {})} for run in description["runs"] for key in _keys(run)
    }
    for name, (long_name, units, own) in description["variables"].items():
        fill = False if name == "finite" else np.nan
        arrays = [
            _aligned(p[name], own, own_coords[str(p["key"][0])], known)
            if name in p
            else _absent(p, len(own), fill)
            for p in parts
        ]
        joined = _join(arrays, fill)
        coords |= {dim: (dim, np.array(known[dim])) for dim in own if dim in known}
        data[name] = (
            ("run", "record", *own),
            joined[picked],
            {"long_name": long_name, "units": units},
        )
    seconds = {
        k: sum(m["attrs"].get(k, 0.0) for m in manifests)
        for k in ("wall_seconds", "checkpoint_seconds")
    }
    attrs = {
        "sweep": json.dumps(description["sweep"]),
        "id": description["id"],
        "complete": int((rows < num_committed).sum() == firsts[-1] and not age[rows].any()),
        "running": int((rows >= num_committed).sum()),
        **{k: v for m in manifests for k, v in m["attrs"].items()},
        **seconds,
    }
    return xr.Dataset(data, coords, attrs)


def _keys(group: Mapping[str, Any]) -> tuple[str, ...]:
    """The key of a group of runs, and those that it had before it was trained further."""
    return (group["key"], *group.get("earlier", ()))


def _num_runs(part: Mapping[str, np.ndarray]) -> int:
    return len(part["seed"])


def _firsts(groups: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The position of the first run of each group, and the number of all runs.

    A sweep can have millions of seeds, given as ranges; they are never listed.
    """
    sizes = [sum(end - first for first, end in group["seeds"]) for group in groups]
    return np.cumsum([0, *sizes])


def _positions(
    groups: Sequence[Mapping[str, Any]], keys: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The position of each run in the order of the sweep, and how often it was trained further."""
    index = {
        key: (i, age) for i, group in enumerate(groups) for age, key in enumerate(_keys(group))
    }
    names, which = np.unique(keys, return_inverse=True)
    known, firsts = np.array([index.get(str(name), (-1, 0)) for name in names]), _firsts(groups)
    numbers, ages = known.T
    positions = np.full(len(keys), -1, np.int64)
    for number in numbers[numbers >= 0]:
        rows = np.flatnonzero(numbers[which] == number)
        starts, ends = np.array(groups[number]["seeds"], np.int64).T
        span = np.maximum(np.searchsorted(starts, seeds[rows], side="right") - 1, 0)
        inside = (starts[span] <= seeds[rows]) & (seeds[rows] < ends[span])
        before = np.cumsum([0, *(ends - starts)])[span]
        places = firsts[number] + before + seeds[rows] - starts[span]
        positions[rows] = np.where(inside, places, -1)
    if len(positions) and positions.min() < 0:
        lost = int(np.argmin(positions))
        raise InputError(
            "records", f"{keys[lost]}, seed {seeds[lost]}", "is no run of the sweep in sweep.json"
        )
    return positions, ages[which]


def _column(values: list[Any]) -> np.ndarray:
    """A NumPy column; a mixture of numbers with None or strings becomes strings."""
    numeric = all(isinstance(v, int | float) for v in values)
    return np.array(
        values if numeric or all(isinstance(v, str) for v in values) else [str(v) for v in values]
    )


def _aligned(
    array: np.ndarray, dims: Sequence[str], own: Mapping[str, Any], known: Mapping[str, Any]
) -> np.ndarray:
    """The values of runs with their `own` names along dims, at the places of the `known` ones."""
    for axis, dim in enumerate(dims, 2):
        if dim in known and own[dim] != known[dim]:
            shape = (*array.shape[:axis], len(known[dim]), *array.shape[axis + 1 :])
            wide = np.full(shape, np.nan, array.dtype)
            places = [known[dim].index(name) for name in own[dim]]
            wide[(slice(None),) * axis + (places,)] = array
            array = wide
    return array


def _absent(part: Mapping[str, np.ndarray], own: int, fill: Any) -> np.ndarray:
    """Fill values for a variable that the runs of this part do not record."""
    return np.full((*part["step"].shape, *(1,) * own), fill, np.float32)


def _join(arrays: Iterable[np.ndarray], fill: Any) -> np.ndarray:
    """Concatenate along runs, padding every other dim to the largest."""
    arrays = list(arrays)
    shape = np.max([a.shape[1:] for a in arrays], axis=0)
    runs, sizes = sum(len(a) for a in arrays), [int(n) for n in shape]
    try:
        check_expansion(
            sum(a.nbytes for a in arrays), runs * math.prod(sizes) * arrays[0].dtype.itemsize
        )
    except ValueError as error:
        raise InputError(
            "records", (runs, *sizes), f"are too unequal to be joined: {error}"
        ) from None
    if len(arrays) == 1:
        return arrays[0]
    padded = [
        np.pad(
            a,
            [(0, 0), *((0, int(n) - m) for n, m in zip(shape, a.shape[1:], strict=True))],
            constant_values=fill,
        )
        if a.shape[1:] != tuple(sizes)
        else a
        for a in arrays
    ]
    return np.concatenate(padded)


def read_dataset(folder: Path) -> xr.Dataset:
    """Read the file that :func:`jthermo.results.writing.write_dataset` wrote into `folder`."""
    import xarray as xr

    return xr.load_dataset(folder / RECORDS / DATASET, engine="scipy")
