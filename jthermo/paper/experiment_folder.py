"""What an experiment found, as JSON beside the records it was found in, and worth no more than they are. No JAX.

``<out>/<name>-<scale>/`` holds the records, as every results folder does, ``claims.json`` with the rows of this
experiment alone, and its figures as SVG. The JSON names the digest of the records and of each figure: when the records
are gone or changed, it says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.results.atomic import write_whole, writing
from jthermo.results.layout import MANIFESTS, SWEEP
from jthermo.results.reading import read_json, read_manifests, read_record

FINDING, FIGURES = "claims.json", "figures"


def write(folder: Path, found: Mapping[str, Any], drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """Write what was found in the records of a folder.

    Args:
        folder: the results folder.
        found: experiment, scale, rows by claim and what else is to be known.
        drawn: its figures by name, as SVG.

    Returns:
        What was written: `found` with the digests of the records and the figures.
    """
    made = {
        **found,
        "records": digest(folder),
        "figures": {k: _sha256(v) for k, v in drawn.items()},
    }
    draw(folder, drawn)
    with writing(folder):
        write_whole(folder / FINDING, (json.dumps(made, indent=1) + "\n").encode())
    return made


def draw(folder: Path, drawn: Mapping[str, bytes]) -> None:
    """Write figures, SVG by name, below a folder."""
    with writing(folder):
        (folder / FIGURES).mkdir(exist_ok=True)
        for name, body in drawn.items():
            write_whole(folder / FIGURES / f"{name}.svg", body)


def read(folder: Path) -> dict[str, Any]:
    """What was found in the records of a folder.

    Raises:
        InputError: nothing was, or the records are not those it was found in.
    """
    if not (folder / FINDING).exists():
        there = (
            "has records but no verdicts on them"
            if list(folder.glob(MANIFESTS))
            else "holds no records"
        )
        raise InputError("directory", str(folder), there)
    found = read_json(folder / FINDING)
    if digest(folder) != found.get("records"):
        raise InputError(
            "directory", str(folder), "holds other records than its verdicts were found in"
        )
    return found


def figure(folder: Path, found: Mapping[str, Any], name: str) -> str | None:
    """One of its figures as SVG, None where it is not the one that was drawn."""
    path = folder / FIGURES / f"{name}.svg"
    body = path.read_bytes() if path.exists() else b""
    return body.decode() if _sha256(body) == found["figures"][name] else None


def digest(folder: Path) -> str:
    """SHA-256 over the sweep and the names and digests of the record files, each of which is checked; empty for no records.

    Raises:
        InputError: one of them is missing or was altered.
    """
    parts = {
        k: sha256 for manifest in read_manifests(folder) for k, sha256 in manifest["parts"].items()
    }
    for name, sha256 in parts.items():
        read_record(folder, name, sha256)
    sweep = (folder / SWEEP).read_bytes() if (folder / SWEEP).exists() else b""
    return _sha256(json.dumps([_sha256(sweep), *sorted(parts.items())]).encode()) if parts else ""


def description(folder: Path) -> dict[str, Any] | None:
    """The sweep of a folder as plain JSON, None where what it holds is no sweep."""
    return read_json(folder / SWEEP)["sweep"] if (folder / SWEEP).exists() else None


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
