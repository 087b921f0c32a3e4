"""An experiment's own claims.json and figures, stored in its results folder. No JAX.

``<out>/<name>-<scale>/`` is a results folder with records. It also holds ``claims.json``, with the
rows of this experiment alone, and its figures as SVG. The JSON contains the digests of the records
and of each figure, and is ignored once the records are gone or changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.paper import claims_schema
from jthermo.results import json_schema
from jthermo.results.atomic import reading, write_whole, writing
from jthermo.results.layout import MANIFESTS, SWEEP
from jthermo.results.reading import read_manifests, read_record
from jthermo.results.sealed_json import read_json, sealed, set_aside

# The names of the file and of the subfolder.
FINDING, FIGURES = "claims.json", "figures"
REMEDY = "run the same `jthermo reproduce` again to compute the verdicts from the records"


def write(
    folder: Path, findings: Mapping[str, Any], figures: Mapping[str, bytes]
) -> dict[str, Any]:
    """Write the findings and figures of an experiment into its results folder.

    Args:
        folder: the results folder.
        findings: experiment, scale, rows by claim, and everything else known about it.
        figures: its figures as SVG, by name.

    Returns:
        The JSON written: `findings` with the digests of the records and of the figures.
    """
    written = {
        **findings,
        "records": digest(folder),
        "figures": {name: _sha256(body) for name, body in figures.items()},
    }
    draw(folder, figures)
    with writing(folder):
        write_whole(folder / FINDING, sealed(written))
    return written


def draw(folder: Path, figures: Mapping[str, bytes]) -> None:
    """Write figures, SVG by name, into the subfolder ``figures`` of a folder."""
    with writing(folder):
        (folder / FIGURES).mkdir(exist_ok=True)
        for name, body in figures.items():
            write_whole(folder / FIGURES / f"{name}.svg", body)


def read(folder: Path) -> dict[str, Any]:
    """The findings of an experiment from its results folder.

    Raises:
        InputError: there are none, they were altered, or the records have changed since they were
            computed.
    """
    if not (folder / FINDING).exists():
        missing = (
            "has records but no verdicts" if list(folder.glob(MANIFESTS)) else "holds no records"
        )
        raise InputError("directory", str(folder), missing)
    path = folder / FINDING
    findings = json_schema.fitting(path, read_json(path, REMEDY), claims_schema.FINDINGS)
    if digest(folder) != findings.get("records"):
        raise InputError(
            "directory", str(folder), "has records that changed after its verdicts were computed"
        )
    return findings


def set_damaged_aside(folder: Path) -> None:
    """Rename damaged findings, so that they are computed again from the records."""
    if (folder / FINDING).exists():
        try:
            read_json(folder / FINDING, REMEDY)
        except InputError as error:
            set_aside(folder / FINDING, error, "the verdicts are computed again")


def figure(folder: Path, findings: Mapping[str, Any], name: str) -> str | None:
    """A figure of an experiment as SVG; None if it is missing or was changed."""
    path = folder / FIGURES / f"{name}.svg"
    body = path.read_bytes() if path.exists() else b""
    return body.decode() if _sha256(body) == findings["figures"][name] else None


def digest(folder: Path) -> str:
    """SHA-256 of the sweep and of the names and digests of the record files; empty for no records.

    Raises:
        InputError: a record file is missing or does not match its digest.
    """
    parts = {
        k: sha256 for manifest in read_manifests(folder) for k, sha256 in manifest["parts"].items()
    }
    for name, sha256 in parts.items():
        read_record(folder, name, sha256)
    with reading("directory", folder / SWEEP):
        sweep = (folder / SWEEP).read_bytes() if (folder / SWEEP).exists() else b""
    return _sha256(json.dumps([_sha256(sweep), *sorted(parts.items())]).encode()) if parts else ""


def description(folder: Path) -> dict[str, Any] | None:
    """The sweep of a results folder as plain JSON; None if the folder holds no sweep."""
    return read_json(folder / SWEEP)["sweep"] if (folder / SWEEP).exists() else None


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
