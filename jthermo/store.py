"""Records as they are written: whole files or none, a digest for each, the manifest last.

A results folder holds ``sweep.json``, ``records/<cohort>.npz`` and ``manifest.json``, which names the record files
with their SHA-256. A record file that the manifest doesn't name doesn't exist. Reading is :mod:`jthermo.results`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jthermo import values
from jthermo.errors import InputError
from jthermo.files import write_whole
from jthermo.planning import Cohort
from jthermo.results import COORDINATE, MANIFEST, RECORDS, SWEEP, assemble, read_json, read_parts
from jthermo.spec import Sweep, diff

if TYPE_CHECKING:
    import xarray as xr


class Store:
    """Where a sweep's records go: a folder, or memory where `directory` is None.

    Args:
        sweep: the sweep; a folder that holds another one is refused.
        directory: the results folder.
    """

    def __init__(self, sweep: Sweep, directory: str | Path | None) -> None:
        self.description = {"id": sweep.id, "sweep": json.loads(sweep.to_json()), "variables": _labels(sweep)}
        self.directory = None if directory is None else Path(directory)
        self.manifest: dict[str, Any] = {"id": sweep.id, "complete": False, "parts": {}, "attrs": {}}
        self._parts: dict[str, dict[str, np.ndarray]] = {}
        if self.directory is not None:
            self._open(self.directory)

    @property
    def complete(self) -> bool:
        """Whether every record is there."""
        return self.manifest["complete"]

    def has(self, cohort: Cohort) -> bool:
        """Whether a cohort's records are there already."""
        return _name(cohort) in self.manifest["parts"]

    def add(
        self,
        cohort: Cohort,
        recorded: Mapping[str, np.ndarray],
        coordinates: Mapping[str, np.ndarray],
        attrs: Mapping[str, Any],
    ) -> None:
        """Commit a cohort's records, each (R, K, …), in one piece."""
        part = {"position": cohort.position, "step": cohort.steps, **recorded}
        part |= {f"{COORDINATE}{k}": v[cohort.position] for k, v in coordinates.items()}
        name, digest = _name(cohort), ""
        if self.directory is None:
            self._parts[name] = part
        else:
            body = io.BytesIO()
            np.savez(body, allow_pickle=False, **part)
            write_whole(self.directory / RECORDS / name, body.getvalue())
            digest = hashlib.sha256(body.getvalue()).hexdigest()
        self.manifest["parts"][name] = digest
        self.manifest["attrs"] = dict(attrs)
        self._commit()

    def finish(self) -> None:
        """Mark the sweep as complete."""
        self.manifest["complete"] = True
        self._commit()

    def dataset(self) -> xr.Dataset:
        """Everything recorded so far."""
        parts = (
            list(self._parts.values())
            if self.directory is None
            else read_parts(self.directory, self.manifest)
        )
        return assemble(self.description, parts, self.manifest)

    def _open(self, directory: Path) -> None:
        if directory.exists() and not directory.is_dir():
            raise InputError("out", str(directory), "is a file; give a folder")
        try:
            (directory / RECORDS).mkdir(parents=True, exist_ok=True)
            if (directory / SWEEP).exists():
                there = read_json(directory / SWEEP)
                if there["id"] != self.description["id"]:
                    changes = (
                        "; ".join(diff(there["sweep"], self.description["sweep"]))
                        or "the code of its own functions"
                    )
                    raise InputError(
                        "out",
                        str(directory),
                        f"holds another sweep; it differs in {changes}. Choose "
                        "another folder, or remove this one",
                    )
            write_whole(directory / SWEEP, json.dumps(self.description, indent=1).encode())
        except OSError as error:
            raise InputError(
                "out", str(directory), f"can't be written ({error.strerror}); choose another folder"
            ) from None
        if (directory / MANIFEST).exists():
            self.manifest = read_json(directory / MANIFEST)

    def _commit(self) -> None:
        if self.directory is not None:
            write_whole(self.directory / MANIFEST, json.dumps(self.manifest, indent=1).encode())


def coordinates(sweep: Sweep) -> dict[str, np.ndarray]:
    """Every swept axis as a column over the sweep's runs."""
    columns: dict[str, list[Any]] = {name: [] for name in sweep.axes}
    for at, seeds in sweep.groups.values():
        for seed in seeds:
            for name, column in columns.items():
                column.append(seed if name == "seed" else at[name])
    return {name: _column(column) for name, column in columns.items()}


def _column(values: list[Any]) -> np.ndarray:
    """A NumPy column; one that mixes None or strings with numbers is written as strings, so that it can be selected by."""
    numeric = all(isinstance(v, int | float) for v in values)
    return np.array(
        values if numeric or all(isinstance(v, str) for v in values) else [str(v) for v in values]
    )


def _labels(sweep: Sweep) -> dict[str, list[Any]]:
    """Long name, units and own dims of every recorded variable."""
    found: dict[str, list[Any]] = {"finite": ["whether every parameter is finite", "1", []]}
    for config in sweep.configs:
        for observable in sweep.record.observables:
            for name, label in observable.variables(config.model, config.data).items():
                found[name] = [label.long_name, label.units, list(label.dims)]
    return found


def _name(cohort: Cohort) -> str:
    """A cohort's file: its program and which runs it holds."""
    what = [values.canonical(cohort.program), values.canonical(cohort.model), cohort.position.tolist()]
    return f"{values.digest(what)[:16]}.npz"
