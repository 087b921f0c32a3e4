"""Write a results folder (``sweep.json``, records, manifests); refuse or extend an existing one.

Each file is written in full or not at all, and the manifest, which lists the SHA-256 of each record
file, is written last: a file that no manifest names is ignored. Rows belong to runs, identified by
(key, seed), so shards, processes and extended sweeps write into one folder. The layout is in
``jthermo.results.layout``, reading in ``jthermo.results.reading``.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError, file_path
from jthermo.results.atomic import write_whole, writing
from jthermo.results.layout import (
    DATASET,
    MANIFEST,
    MANIFESTS,
    RECORDS,
    SWEEP,
    encode_records,
    manifest_name,
    record_name,
)
from jthermo.results.reading import assemble, read_json, read_manifests, read_part
from jthermo.sweep import stable_names
from jthermo.sweep.json_codec import diff
from jthermo.sweep.sweep import Sweep
from jthermo.sweep.user_file import import_file

if TYPE_CHECKING:
    import xarray as xr


class Store:
    """The records of a sweep, in a folder or, without a folder, in memory.

    Args:
        sweep: the sweep. A folder that holds another sweep is refused.
        directory: the results folder; None keeps everything in memory.
        shard: (I, N), the shard whose manifest is written.
        extend: accept a folder whose runs are a subset of the runs of this sweep.
        engine: maps the engine that the folder was created with (None for a new folder) to the
            engine that trains.
        widths: maps the engine to W by configuration key; stored when a folder is created.
        say: prints a line.

    Raises:
        InputError: the folder holds another sweep or cannot be written.
        StorageError: the disk is full or fails.
    """

    def __init__(
        self,
        sweep: Sweep,
        directory: str | Path | None,
        shard: tuple[int, int] = (0, 1),
        *,
        extend: bool = False,
        engine: Callable[[str | None], str],
        widths: Callable[[str], Mapping[str, int]],
        say: Any = print,
    ) -> None:
        self.sweep, self._say, self._widths_by_rule = sweep, say, widths
        self.description = _description(sweep)
        self.directory = None if directory is None else Path(directory)
        self._name = manifest_name(shard)
        self.manifest: dict[str, Any] = {"parts": {}, "attrs": {}}
        # Arrays of each record file, by file name.
        self.parts: dict[str, dict[str, np.ndarray]] = {}
        # W by configuration key; empty without a folder.
        self.widths: dict[str, int] = {}
        if self.directory is not None:
            self._open(self.directory, extend, engine)
        else:
            self.engine = engine(None)

    @property
    def done(self) -> set[tuple[str, int]]:
        """The runs whose records are committed, as (key, seed)."""
        return {run for part in self.parts.values() for run in _runs(part)}

    def add(self, name: str, part: Mapping[str, np.ndarray], attrs: Mapping[str, Any]) -> None:
        """Commit the records of some runs together.

        Args:
            name: file name of the records, without suffix.
            part: arrays by name, for R runs and K records: key and seed (R,), step (R, K), and
                every variable (R, K, …).
            attrs: provenance; values whose name ends in ``_seconds`` are summed over calls.

        Raises:
            StorageError: the disk is full or fails.
        """
        name, sha256 = record_name(name), ""
        if self.directory is not None:
            body = encode_records(part)
            sha256 = hashlib.sha256(body).hexdigest()
            with writing(self.directory):
                write_whole(self.directory / RECORDS / name, body)
        self.parts[name] = dict(part)
        spent = {
            k: v + self.manifest["attrs"].get(k, 0.0)
            for k, v in attrs.items()
            if k.endswith("_seconds")
        }
        self.manifest["parts"][name] = sha256
        self.manifest["attrs"] = {**attrs, **spent}
        if self.directory is not None:
            with writing(self.directory):
                write_whole(
                    self.directory / self._name, json.dumps(self.manifest, indent=1).encode()
                )

    def dataset(self) -> xr.Dataset:
        """All records known so far, including those of other shards after :meth:`refresh`."""
        manifests = [self.manifest] if self.directory is None else read_manifests(self.directory)
        return assemble(self.description, list(self.parts.values()), manifests)

    def refresh(self) -> None:
        """Read the records that other shards have committed in the meantime."""
        if self.directory is not None:
            for name, sha256 in _named(read_manifests(self.directory)).items():
                if name not in self.parts:
                    self.parts[name] = read_part(self.directory, name, sha256)

    def merge_manifests(self) -> None:
        """Replace the manifests of all shards by a single one."""
        assert self.directory is not None
        manifests = read_manifests(self.directory)
        spent = [{k: v for k, v in m["attrs"].items() if k.endswith("_seconds")} for m in manifests]
        seconds = {k: sum(s.get(k, 0.0) for s in spent) for k in {key for s in spent for key in s}}
        merged = {"parts": _named(manifests), "attrs": manifests[0]["attrs"] | seconds}
        with writing(self.directory):
            write_whole(self.directory / MANIFEST, json.dumps(merged, indent=1).encode())
            for path in self.directory.glob("manifest-*-of-*.json"):
                path.unlink()

    def _open(self, directory: Path, extend: bool, engine: Callable[[str | None], str]) -> None:
        with writing(directory):
            (directory / RECORDS).mkdir(parents=True, exist_ok=True)
            if not (directory / SWEEP).exists():
                self._describe(directory, engine(None))
            # If several shards start at once, the file that was written last applies to all.
            stored = read_json(directory / SWEEP)
            if stored["id"] != self.description["id"]:
                _refuse_unless_extended(directory, stored, self.description, extend)
            self.engine = engine(stored.get("engine", "xla"))
            self.widths = {
                run["key"]: run["lane_width"] for run in stored["runs"] if "lane_width" in run
            }
            if stored["id"] != self.description["id"]:
                self._describe(directory, self.engine)
        if (directory / self._name).exists():
            self.manifest = read_json(directory / self._name)
        for name, sha256 in _named(read_manifests(directory)).items():
            try:
                self.parts[name] = read_part(directory, name, sha256)
            except InputError as error:
                self._set_aside(directory, name, error)

    def _describe(self, directory: Path, engine: str) -> None:
        """Write ``sweep.json`` with the engine and W, which affect rounding and must not change."""
        self.widths = {**self._widths_by_rule(engine), **self.widths}
        runs = [run | {"lane_width": self.widths[run["key"]]} for run in self.description["runs"]]
        described = self.description | {"engine": engine, "runs": runs}
        write_whole(directory / SWEEP, json.dumps(described, indent=1).encode())

    def _set_aside(self, directory: Path, name: str, error: InputError) -> None:
        """Rename a damaged record file, so that its runs are restored from their checkpoint."""
        path = directory / RECORDS / name
        if path.exists():
            path.rename(path.with_name(f"bad-{name}"))
        self._say(
            f"records/{name} {error.remedy.partition(';')[0]}; "
            "it is set aside, and its runs are restored from their checkpoint"
        )
        for manifest in directory.glob(MANIFESTS):
            content = read_json(manifest)
            if content["parts"].pop(name, None) is not None:
                write_whole(manifest, json.dumps(content, indent=1).encode())
        self.manifest["parts"].pop(name, None)


def resumable(directory: str | Path) -> Sweep:
    """The sweep of a results folder; Python files of the user that define parts of it are imported.

    Args:
        directory: a folder that ``jt.run`` wrote.

    Raises:
        InputError: the folder holds no sweep, or a user's file is missing.
    """
    path = file_path("directory", directory) / SWEEP
    if not path.is_file():
        raise InputError(
            "directory",
            str(directory),
            "holds no sweep.json, so there is nothing to resume; start with `jthermo run`",
        )
    description = read_json(path)
    for name, file in description["files"].items():
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except ImportError:
                if not Path(file).is_file():
                    remedy = f"defined the module {name} of this sweep and is missing; restore it"
                    raise InputError("directory", file, remedy) from None
                import_file(Path(file), name, "directory")
    return Sweep.from_json(json.dumps(description["sweep"]))


def _description(sweep: Sweep) -> dict[str, Any]:
    """The content of ``sweep.json``, which is enough to read the records without JAX."""
    text = sweep.to_json()
    runs = [
        {"key": sweep.key_of(config), "at": group.at, "seeds": _spans(group.seeds)}
        for config, group in sweep.groups.items()
    ]
    files = {m: _file(m) for m in re.findall(r'"(?:type|function)": "([\w.]+):', text)}
    return {
        "id": sweep.id,
        "law": sweep.law,
        "sweep": json.loads(text),
        "axes": list(sweep.axes),
        "runs": runs,
        "variables": _labels(sweep),
        "files": {name: file for name, file in files.items() if file},
    }


def _file(module: str) -> str:
    """Path of a module that the user wrote; empty for a module of an installed package."""
    file = getattr(stable_names.loaded(module), "__file__", None)
    return (
        ""
        if file is None or "site-packages" in file or module.startswith("jthermo")
        else str(Path(file).resolve())
    )


def _spans(seeds: tuple[int, ...]) -> list[list[int]]:
    """Sorted seeds as half-open ranges."""
    cuts = [0, *(i for i in range(1, len(seeds)) if seeds[i] != seeds[i - 1] + 1), len(seeds)]
    return [[seeds[a], seeds[b - 1] + 1] for a, b in itertools.pairwise(cuts)]


def _labels(sweep: Sweep) -> dict[str, list[Any]]:
    """Long name, unit and further dims of every recorded variable."""
    labels: dict[str, list[Any]] = {"finite": ["whether every parameter is finite", "1", []]}
    for config in sweep.configs:
        for observable in sweep.record.observables:
            for name, label in observable.variables(config.model, config.data).items():
                labels[name] = [label.long_name, label.units, list(label.dims)]
    return labels


def _refuse_unless_extended(
    directory: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any], extend: bool
) -> None:
    """Raise unless `extend` is set and the wanted sweep contains every run of the stored one."""
    changes = "; ".join(diff(stored["sweep"], wanted["sweep"])) or "the code of your functions"
    old, new = (
        {(g["key"], s) for g in d["runs"] for a, b in g["seeds"] for s in range(a, b)}
        for d in (stored, wanted)
    )
    contained = (
        old <= new and stored["law"] == wanted["law"] and set(stored["axes"]) == set(wanted["axes"])
    )
    if contained and extend:
        return
    if contained:
        remedy = (
            f"holds only a part of this sweep; it differs in {changes}. "
            "Give --extend (extend=True) to train the new runs only"
        )
    else:
        remedy = (
            f"holds another sweep; it differs in {changes}. "
            "Choose another folder, or delete this one"
        )
        if extend:
            remedy += ". Only a sweep that contains every run in the folder can extend it"
    raise InputError("out", str(directory), remedy)


def _named(manifests: list[dict[str, Any]]) -> dict[str, str]:
    return {name: sha256 for m in manifests for name, sha256 in m["parts"].items()}


def _runs(part: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
    return list(zip(part["key"].tolist(), part["seed"].tolist(), strict=True))


def write_dataset(folder: Path, ds: xr.Dataset) -> None:
    """Write the records of an experiment that trains no sweep: one NetCDF file and its manifest."""
    body = bytes(ds.to_netcdf(engine="scipy"))
    with writing(folder):
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        write_whole(folder / RECORDS / DATASET, body)
        manifest = {"parts": {DATASET: hashlib.sha256(body).hexdigest()}, "attrs": {}}
        write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
