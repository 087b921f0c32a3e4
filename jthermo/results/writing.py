"""Write a results folder (``sweep.json``, records, manifests); refuse or extend an existing one.

Each file is written in full or not at all, and the manifest, which lists the SHA-256 of each record
file, is written last: a file that no manifest names is ignored. Rows belong to runs, identified by
(key, seed), so shards, processes and extended sweeps write into one folder. The layout is in
``jthermo.results.layout``, reading in ``jthermo.results.reading``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.engines.choice import VERSIONS
from jthermo.engines.fingerprint import Parts, changed
from jthermo.errors import InputError, file_path
from jthermo.observables import Variable
from jthermo.results.atomic import write_whole, writing
from jthermo.results.continuing import earlier_keys
from jthermo.results.layout import (
    CHECKPOINTS,
    DATASET,
    MANIFEST,
    MANIFESTS,
    RECORDS,
    START,
    SWEEP,
    SWEEP_COPY,
    encode_records,
    manifest_name,
    record_name,
)
from jthermo.results.reading import assemble, read_manifests, read_part
from jthermo.results.sealed_json import read_json, sealed, set_aside, warn
from jthermo.sweep import stable_names
from jthermo.sweep.run_config import RunConfig
from jthermo.sweep.start import StartArrays
from jthermo.sweep.sweep import Sweep
from jthermo.sweep.user_file import import_file

if TYPE_CHECKING:
    import xarray as xr


# Ends the long name of a variable of a net with batch normalisation, dropout and the like.
EVALUATED = ", of the net in evaluation mode"
# The same for a net whose updates are computed in bfloat16.
IN_FLOAT32 = ", of the net in float32"


class Store:
    """The records of a sweep, in a folder or, without a folder, in memory.

    Args:
        sweep: the sweep. A folder that holds another sweep is refused.
        directory: the results folder; None keeps everything in memory.
        shard: (I, N), the shard whose manifest is written.
        extend: accept a folder that holds a part of this sweep: fewer runs, or fewer steps of them.
        engine: maps the engine that the folder was created with (None for a new folder) to the
            engine that trains.
        widths: maps the engine to W by configuration key; stored when a folder is created.
        code: the fingerprint of the sweep's programs. A folder of other code is refused.
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
        code: Mapping[str, Parts],
        say: Any = print,
    ) -> None:
        self.sweep, self._say, self._widths_by_rule, self._code = sweep, say, widths, code
        self.description = _description(sweep)
        self.directory = None if directory is None else Path(directory)
        self._name = manifest_name(shard)
        self.manifest: dict[str, Any] = {"parts": {}, "attrs": {}}
        # Arrays of each record file, by file name.
        self.parts: dict[str, dict[str, np.ndarray]] = {}
        # W by configuration key; empty without a folder.
        self.widths: dict[str, int] = {}
        # From the keys of runs before they were trained further to their keys in this sweep.
        self.current: dict[str, str] = {}
        if self.directory is not None:
            self._open(self.directory, extend, engine)
        else:
            self.engine = engine(None)

    @property
    def done(self) -> set[tuple[str, int]]:
        """The runs whose records are committed, as (key, seed)."""
        return {run for part in self.parts.values() for run in _runs(part)}

    def renamed(self, part: Mapping[str, np.ndarray]) -> set[tuple[str, int]]:
        """The runs of a file of records that are trained further, as (key, seed) of the sweep."""
        current = self.current
        runs = _runs(part) if current else ()
        return {(current[key], seed) for key, seed in runs if key in current}

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
                write_whole(self.directory / self._name, sealed(self.manifest))

    def dataset(self) -> xr.Dataset:
        """All records known so far, including those of other shards after :meth:`refresh`."""
        parts = list(self.parts.values())
        if self.directory is None:
            return assemble(self.description, parts, [self.manifest])
        # as open_results does, since the folder may be one of an earlier version
        return assemble(read_json(self.directory / SWEEP), parts, read_manifests(self.directory))

    def refresh(self) -> None:
        """Read the records that other shards have committed in the meantime."""
        if self.directory is not None:
            for name, sha256 in _named(read_manifests(self.directory)).items():
                if name not in self.parts:
                    self.parts[name] = read_part(self.directory, name, sha256)

    def drop_earlier(self) -> None:
        """Remove the files of records of runs that have all been trained further by now."""
        assert self.directory is not None
        old = {n for n, p in self.parts.items() if {*p["key"].tolist()} <= self.current.keys()}
        for path in self.directory.glob(MANIFESTS) if old else ():
            content = read_json(path)
            if old & content["parts"].keys():
                kept = {n: digest for n, digest in content["parts"].items() if n not in old}
                write_whole(path, sealed({**content, "parts": kept}))
        for name in old:
            (self.directory / RECORDS / name).unlink(missing_ok=True)
            del self.parts[name]

    def merge_manifests(self) -> None:
        """Replace the manifests of all shards by a single one."""
        assert self.directory is not None
        manifests = read_manifests(self.directory)
        spent = [{k: v for k, v in m["attrs"].items() if k.endswith("_seconds")} for m in manifests]
        seconds = {k: sum(s.get(k, 0.0) for s in spent) for k in {key for s in spent for key in s}}
        merged = {"parts": _named(manifests), "attrs": manifests[0]["attrs"] | seconds}
        with writing(self.directory):
            write_whole(self.directory / MANIFEST, sealed(merged))
            for path in self.directory.glob("manifest-*-of-*.json"):
                path.unlink()

    def _open(self, directory: Path, extend: bool, engine: Callable[[str | None], str]) -> None:
        with writing(directory):
            (directory / RECORDS).mkdir(parents=True, exist_ok=True)
            restore_description(directory, self._say)
            self._set_manifests_aside(directory)
            if not (directory / SWEEP).exists():
                used = any(directory.glob(MANIFESTS)) or (directory / CHECKPOINTS).exists()
                begun_with = self._engine_of_records(directory)
                self._describe(directory, engine(begun_with), {} if used else self._code)
            # If several shards start at once, the file that was written last applies to all.
            stored = read_json(directory / SWEEP)
            extended = stored["id"] != self.description["id"]
            if extended:
                earlier = earlier_keys(directory, stored, self.sweep, self.description, extend)
            else:
                earlier = {run["key"]: run.get("earlier", []) for run in stored["runs"]}
            for run in self.description["runs"]:
                if keys := earlier.get(run["key"]):
                    run["earlier"] = keys
                    self.current |= dict.fromkeys(keys, run["key"])
            refuse_other_code(directory, stored, self._code, self._say)
            _refuse_other_version(directory, stored)
            self.engine = engine(stored.get("engine", "xla"))
            self.widths = {
                self.current.get(run["key"], run["key"]): run["lane_width"]
                for run in stored["runs"]
                if "lane_width" in run
            }
            if extended:
                # the digests of the code that trained the runs in the folder
                code = {**self._code, **stored["code"]} if stored.get("code") else {}
                self._describe(directory, self.engine, code)
        if (directory / self._name).exists():
            self.manifest = read_json(directory / self._name)
        for name, sha256 in _named(read_manifests(directory)).items():
            try:
                self.parts[name] = read_part(directory, name, sha256)
            except InputError as error:
                self._set_aside(directory, name, error)

    def _describe(self, directory: Path, engine: str, code: Mapping[str, Parts]) -> None:
        """Write ``sweep.json`` with the engine and W, which affect rounding and must not change."""
        self.widths = {**self._widths_by_rule(engine), **self.widths}
        runs = [run | {"lane_width": self.widths[run["key"]]} for run in self.description["runs"]]
        version = {"engine": engine, "engine_version": VERSIONS[engine]}
        described = self.description | version | {"runs": runs, "code": code}
        # The copy first: it fits to the records of both sweeps, the one that is replaced does not.
        if isinstance(start := self.sweep.start, StartArrays) and start.arrays is not None:
            write_whole(directory / START, start.encoded())
        for name in (SWEEP_COPY, SWEEP):
            write_whole(directory / name, sealed(described))

    def _engine_of_records(self, directory: Path) -> str | None:
        """The engine of a folder that has lost ``sweep.json``; None if it has no records.

        Raises:
            InputError: the records are not those of this sweep, or of an earlier engine.
        """
        manifests, known = read_manifests(directory), set(self.description["variables"])
        for name, sha256 in _named(manifests).items():
            try:
                part = read_part(directory, name, sha256)
            except InputError:
                # rebuilt below
                continue
            variables = set(part) - {"key", "seed", "step"}
            if not set(_runs(part)) <= self.sweep.runs or variables != known:
                remedy = (
                    "has lost its sweep.json and holds records of another sweep; "
                    "give that sweep, or choose another folder"
                )
                raise InputError("out", str(directory), remedy)
        begun = next((m["attrs"] for m in manifests if "engine" in m["attrs"]), None)
        if begun is None:
            return None
        _refuse_other_version(directory, begun)
        return str(begun["engine"])

    def _set_manifests_aside(self, directory: Path) -> None:
        """Rename damaged manifests, so that their runs are restored from their checkpoints."""
        for path in sorted(directory.glob(MANIFESTS)):
            try:
                read_json(path)
            except InputError as error:
                set_aside(path, error, "its runs are restored from their checkpoints", self._say)

    def _set_aside(self, directory: Path, name: str, error: InputError) -> None:
        """Rename a damaged record file, so that its runs are restored from their checkpoint."""
        set_aside(
            directory / RECORDS / name,
            error,
            "its runs are restored from their checkpoint",
            self._say,
        )
        for manifest in directory.glob(MANIFESTS):
            content = read_json(manifest)
            if content["parts"].pop(name, None) is not None:
                write_whole(manifest, sealed(content))
        self.manifest["parts"].pop(name, None)


def restore_description(directory: Path, say: Callable[[str], None]) -> None:
    """Restore a lost or damaged ``sweep.json`` from its copy, if that is intact."""
    path, copy = directory / SWEEP, directory / SWEEP_COPY
    try:
        if path.exists():
            read_json(path)
            return
    except InputError as error:
        set_aside(path, error, "rebuilt", say)
    if copy.exists():
        with contextlib.suppress(InputError):
            read_json(copy)
            write_whole(path, copy.read_bytes())


def refuse_other_code(
    directory: Path,
    stored: Mapping[str, Any],
    code: Mapping[str, Parts],
    say: Callable[[str], None],
) -> None:
    """Raise unless the programs of a folder are those of the sweep, as far as both are known.

    Args:
        directory: the results folder.
        stored: the content of its ``sweep.json``.
        code: the fingerprint of the sweep.
        say: prints a line if the two can't be compared.

    Raises:
        InputError: the folder holds results of other code; names the parts that changed.
    """
    parts, versions = changed(stored.get("code", {}), code)
    if parts:
        remedy = (
            f"holds results of other code: since they were computed, {_listed(parts)} changed. "
            "Restore that code, choose another folder, or delete this one to train again"
        )
        raise InputError("out", str(directory), remedy)
    if not stored.get("code"):
        versions = ["a version of jthermo that did not record its programs"]
    if versions:
        say(
            f"{directory} was created with {_listed(versions)}, so jthermo can't check whether "
            "your code has changed since"
        )


def _refuse_other_version(directory: Path, begun: Mapping[str, Any]) -> None:
    """Raise unless the engine of a folder rounds as it does now; `begun` names it."""
    engine = begun.get("engine", "xla")
    if begun.get("engine_version", 1) != VERSIONS.get(engine, 1):
        remedy = (
            f"holds results of other code: since they were computed, engine {engine!r} changed its "
            "rounding. Restore that version of jthermo to continue, or choose another folder; "
            "jt.open_results reads the records that are there"
        )
        raise InputError("out", str(directory), remedy)


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def resumable(directory: str | Path, say: Callable[[str], None] = warn) -> Sweep:
    """The sweep of a results folder; Python files of the user that define parts of it are imported.

    Args:
        directory: a folder that ``jt.run`` wrote.
        say: prints a line if the description of the sweep was damaged.

    Raises:
        InputError: the folder holds no sweep, or a user's file is missing.
    """
    path = file_path("directory", directory) / SWEEP
    with writing(directory):
        restore_description(Path(directory), say)
    if not path.is_file():
        raise InputError(
            "directory",
            str(directory),
            "holds no sweep.json, so there is nothing to resume; start with `jthermo run`",
        )
    if (start := path.with_name(START)).is_file():
        # a damaged one is needed only by runs that have not begun
        with contextlib.suppress(Exception):
            StartArrays.decode(start)
    description = read_json(path)
    text = json.dumps(description["sweep"])
    for name in _modules(text):
        known = stable_names.loaded(name) or name.partition(".")[0] in sys.stdlib_module_names
        if not known:
            try:
                importlib.import_module(name)
            except ImportError:
                _import_from_file(name, description["files"].get(name))
    return Sweep.from_json(text)


def _import_from_file(name: str, file: str | None) -> None:
    """Import the module `name` of a sweep from the user's file."""
    if file is not None:
        if not Path(file).is_file():
            remedy = f"defined the module {name} of this sweep and is missing; restore it"
            raise InputError("directory", file, remedy)
        import_file(Path(file), name, "directory")


def _modules(text: str) -> list[str]:
    """The modules of the classes and functions in the JSON of a sweep."""
    return list(dict.fromkeys(re.findall(r'"(?:type|function)": "([\w.]+):', text)))


def _description(sweep: Sweep) -> dict[str, Any]:
    """The content of ``sweep.json``, which is enough to read the records without JAX."""
    text = sweep.to_json()
    labels = {config: _labels_of(sweep, config) for config in sweep.groups}
    coords = _joined_coords(labels.values())
    runs = []
    for config, group in sweep.groups.items():
        run = {"key": sweep.key_of(config), "at": group.at, "seeds": _spans(group.seeds)}
        own = _joined_coords([labels[config]])
        # only where they differ from those of the dataset
        other = {dim: names for dim, names in own.items() if names != coords[dim]}
        runs.append(run | ({"coords": other} if other else {}))
    files = {m: _file(m) for m in _modules(text)}
    return {
        "id": sweep.id,
        "law": sweep.law,
        "sweep": json.loads(text),
        "axes": list(sweep.axes),
        "runs": runs,
        "variables": _plain(labels.values()),
        "coords": coords,
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


def _plain(labels: Iterable[Mapping[str, Variable]]) -> dict[str, list[Any]]:
    """Long name, unit and further dims of every recorded variable."""
    plain = {
        name: [v.long_name, v.units, list(v.dims)] for own in labels for name, v in own.items()
    }
    return {"finite": ["whether every parameter is finite", "1", []], **plain}


def _labels_of(sweep: Sweep, config: RunConfig) -> dict[str, Variable]:
    """The labels of the variables that runs with these settings record."""
    bound = [o.of_optimizer(config.optimizer) for o in sweep.record.observables]
    labels = {k: v for o in bound for k, v in o.variables(config.model, config.data).items()}
    note = EVALUATED if config.model.has_modes else ""
    note += IN_FLOAT32 if config.dtype == "bfloat16" else ""
    return {k: v._replace(long_name=v.long_name + note) for k, v in labels.items()}


def _joined_coords(labels: Iterable[Mapping[str, Variable]]) -> dict[str, list[str]]:
    """The names along each dim that has some: those of the longest list, with others put in."""
    lists: dict[str, dict[tuple[str, ...], None]] = {}
    for variable in (v for own in labels for v in own.values()):
        for dim, names in variable.coords.items():
            lists.setdefault(dim, {})[names] = None
    joined: dict[str, list[str]] = {}
    for dim, several in lists.items():
        order = joined.setdefault(dim, [])
        for names in sorted(several, key=len, reverse=True):
            place = 0
            for name in names:
                if name not in order:
                    order.insert(place, name)
                place = order.index(name) + 1
    return joined


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
        write_whole(folder / MANIFEST, sealed(manifest))
