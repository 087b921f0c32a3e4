"""Records as they are written: whole files or none, a digest for each, the manifest last.

A results folder holds ``sweep.json``, ``records/<part>.npz``, ``checkpoints/<part>/`` and a manifest for each shard that
wrote into it; a manifest names record files with their SHA-256, and a record file that none names doesn't exist. Files
hold rows of runs, and a run is (key, seed) whatever grid it stands in: shards, processes and an extended
sweep write into one folder. Reading is :mod:`jthermo.results.reading`.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo.errors import InputError
from jthermo.results.atomic import write_whole, writing
from jthermo.results.layout import DATASET, MANIFEST, MANIFESTS, RECORDS, SWEEP, manifest_name
from jthermo.results.reading import assemble, read_json, read_manifests, read_part
from jthermo.sweep import stable_names
from jthermo.sweep.json_codec import diff
from jthermo.sweep.sweep import Sweep
from jthermo.sweep.user_file import import_file

if TYPE_CHECKING:
    import xarray as xr


class Store:
    """Where a sweep's records go: a folder, or memory where `directory` is None.

    Args:
        sweep: the sweep; a folder that holds another one is refused.
        directory: the results folder.
        shard: (I, N), whose manifest is written.
        extend: accept a folder whose runs are a part of this sweep's.
        engine: the engine that trains, from the engine that the folder was begun with, None for a new one.
        widths: W by key of every configuration, from the engine; kept in a new folder.
        say: prints a line.
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
        # record files by name
        self.parts: dict[str, dict[str, np.ndarray]] = {}
        # W by key of a configuration, where a folder holds it
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
        """Commit the records of some runs in one piece.

        Args:
            name: of the record file, without its suffix.
            part: key and seed (R,), step (R, K), and every variable (R, K, …).
            attrs: what they were made with; those that end in ``_seconds`` are added up.
        """
        name, sha256 = f"{name}.npz", ""
        if self.directory is not None:
            body = io.BytesIO()
            np.savez(body, allow_pickle=False, **part)
            sha256 = hashlib.sha256(body.getvalue()).hexdigest()
            with writing(self.directory):
                write_whole(self.directory / RECORDS / name, body.getvalue())
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
        """Everything recorded so far, by every shard."""
        manifests = [self.manifest] if self.directory is None else read_manifests(self.directory)
        return assemble(self.description, list(self.parts.values()), manifests)

    def refresh(self) -> None:
        """Read what other shards have committed meanwhile."""
        if self.directory is not None:
            for name, sha256 in _named(read_manifests(self.directory)).items():
                if name not in self.parts:
                    self.parts[name] = read_part(self.directory, name, sha256)

    def merge_manifests(self) -> None:
        """Put the manifests of all shards into one."""
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
            # of shards that begin at once the last one's counts for all
            there = read_json(directory / SWEEP)
            if there["id"] != self.description["id"]:
                _refuse_unless_extended(directory, there, self.description, extend)
            self.engine = engine(there.get("engine", "xla"))
            self.widths = {
                run["key"]: run["lane_width"] for run in there["runs"] if "lane_width" in run
            }
            if there["id"] != self.description["id"]:
                self._describe(directory, self.engine)
        if (directory / self._name).exists():
            self.manifest = read_json(directory / self._name)
        for name, sha256 in _named(read_manifests(directory)).items():
            try:
                self.parts[name] = read_part(directory, name, sha256)
            except InputError as error:
                self._set_aside(directory, name, error)

    def _describe(self, directory: Path, engine: str) -> None:
        """Write what is settled once: W and the engine decide a run's rounding, so whoever goes on keeps them."""
        self.widths = {**self._widths_by_rule(engine), **self.widths}
        runs = [run | {"lane_width": self.widths[run["key"]]} for run in self.description["runs"]]
        described = self.description | {"engine": engine, "runs": runs}
        write_whole(directory / SWEEP, json.dumps(described, indent=1).encode())

    def _set_aside(self, directory: Path, name: str, error: InputError) -> None:
        """A damaged record file is kept under another name; its runs are made again from their checkpoint."""
        path = directory / RECORDS / name
        if path.exists():
            path.rename(path.with_name(f"bad-{name}"))
        self._say(
            f"records/{name} {error.remedy.partition(';')[0]}; set aside, its runs are restored"
        )
        for manifest in directory.glob(MANIFESTS):
            known = read_json(manifest)
            if known["parts"].pop(name, None) is not None:
                write_whole(manifest, json.dumps(known, indent=1).encode())
        self.manifest["parts"].pop(name, None)


def resumable(directory: str | Path) -> Sweep:
    """The sweep of a results folder; files of the user that it needs are loaded again.

    Raises:
        InputError: the folder holds no sweep.
    """
    path = Path(directory) / SWEEP
    if not path.exists():
        raise InputError(
            "directory",
            str(directory),
            "holds no sweep.json, so there is nothing to resume; use `jthermo run`",
        )
    description = read_json(path)
    for name, file in description["files"].items():
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except ImportError:
                if not Path(file).is_file():
                    remedy = f"held the user's own {name} and is gone; put it back"
                    raise InputError("directory", file, remedy) from None
                import_file(Path(file), name, "directory")
    return Sweep.from_json(json.dumps(description["sweep"]))


def _description(sweep: Sweep) -> dict[str, Any]:
    """What ``sweep.json`` holds: the sweep, its runs and the labels of its variables; readable without JAX."""
    text = sweep.to_json()
    runs = [
        {"key": sweep.key_of(config), "at": group.at, "seeds": _spans(group.seeds)}
        for config, group in sweep.groups.items()
    ]
    own = {m: _file(m) for m in re.findall(r'"(?:type|function)": "([\w.]+):', text)}
    return {
        "id": sweep.id,
        "law": sweep.law,
        "sweep": json.loads(text),
        "axes": list(sweep.axes),
        "runs": runs,
        "variables": _labels(sweep),
        "files": {name: file for name, file in own.items() if file},
    }


def _file(module: str) -> str:
    """Where a module of the user's is; empty for those of installed packages."""
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
    """Long name, units and own dims of every recorded variable."""
    found: dict[str, list[Any]] = {"finite": ["whether every parameter is finite", "1", []]}
    for config in sweep.configs:
        for observable in sweep.record.observables:
            for name, label in observable.variables(config.model, config.data).items():
                found[name] = [label.long_name, label.units, list(label.dims)]
    return found


def _refuse_unless_extended(
    directory: Path, there: Mapping[str, Any], wanted: Mapping[str, Any], extend: bool
) -> None:
    """Only a sweep that has every run of the old one may take its folder, and only if that is asked for."""
    changes = "; ".join(diff(there["sweep"], wanted["sweep"])) or "the code of its own functions"
    old, new = (
        {(g["key"], s) for g in d["runs"] for a, b in g["seeds"] for s in range(a, b)}
        for d in (there, wanted)
    )
    contained = (
        old <= new and there["law"] == wanted["law"] and set(there["axes"]) == set(wanted["axes"])
    )
    if contained and extend:
        return
    remedy = (
        f"holds another sweep; it differs in {changes}. Choose another folder, or remove this one"
    )
    if contained:
        remedy = f"holds a part of this sweep; it differs in {changes}. Give --extend (extend=True) to run only what is new"
    elif extend:
        remedy += "; only a sweep that has every run of the old one extends it"
    raise InputError("out", str(directory), remedy)


def _named(manifests: list[dict[str, Any]]) -> dict[str, str]:
    return {name: sha256 for m in manifests for name, sha256 in m["parts"].items()}


def _runs(part: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
    return list(zip(part["key"].tolist(), part["seed"].tolist(), strict=True))


def write_dataset(folder: Path, ds: xr.Dataset) -> None:
    """The records of an experiment that is no sweep: one NetCDF file, named in a manifest as all records are."""
    body = bytes(ds.to_netcdf(engine="scipy"))
    with writing(folder):
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        write_whole(folder / RECORDS / DATASET, body)
        manifest = {"parts": {DATASET: hashlib.sha256(body).hexdigest()}, "attrs": {}}
        write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
