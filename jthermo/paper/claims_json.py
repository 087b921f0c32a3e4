"""The file claims.json: the rows of every experiment by claim, and the verdict on each claim.

The entry of each claim contains its SHA-256, which also covers the list of all claims.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.paper import claims_schema
from jthermo.paper.claims import CLAIMS
from jthermo.paper.verdicts import overall
from jthermo.results import json_schema
from jthermo.results.atomic import write_whole
from jthermo.results.sealed_json import SEAL, json_digest, read_json, set_aside

REMEDY = "restore it from a copy, or run `jthermo reproduce all` to add the rows again"
# For each kind of rows that an experiment has, the key of a claim's entry that holds them.
PLACES = {"rows": "experiments", "sensitivity": "sensitivity"}
# What stays out of the file: rows are split by claim, and digests belong to the results folder.
NOT_COMMON = ("rows", "sensitivity", "code", "records")


def update(path: Path, name: str, findings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the rows of one experiment in ``claims.json`` and renew the verdicts.

    If the experiment has the same rows as before, to six significant digits, its entry is left
    unchanged, including when and with what it was made. An experiment without its data
    (``not_run``) keeps the rows that another machine computed.

    Args:
        path: the file; it is created if needed.
        name: the experiment.
        findings: its rows by claim and everything else known about it, such as its command. For an
            experiment that could not run, ``not_run`` holds the reason.

    Returns:
        The new content of the file.
    """
    known = _intact(path)
    for part, place in PLACES.items():
        entries = _by_claim(findings, part)
        for claim in dict.fromkeys([*known, *entries]):
            known.setdefault(claim, {"text": CLAIMS[claim], "experiments": {}})
            _replace(known[claim], place, name, entries.get(claim), keep="not_run" in findings)
    known = dict(sorted(known.items(), key=lambda item: int(item[0][1:])))
    sealed = {name: {SEAL: _digest(known, name), **known[name]} for name in known}
    write_whole(path, (json.dumps(sealed, indent=1) + "\n").encode())
    return sealed


def read(path: Path) -> dict[str, Any]:
    """The content of ``claims.json``, without its digests.

    Raises:
        InputError: it was altered since it was written.
    """
    known, damaged = _read(path)
    if damaged:
        raise _altered(path, damaged)
    return known


def _intact(path: Path) -> dict[str, Any]:
    """The undamaged entries of the file, which is set aside if there are others."""
    if not path.exists():
        return {}
    try:
        known, damaged = _read(path)
    except InputError as error:
        known, damaged = {}, ["all of it"]
        set_aside(path, error, "written anew")
    else:
        if damaged:
            set_aside(path, _altered(path, damaged), "the other entries are kept")
    return {name: entry for name, entry in known.items() if name not in damaged}


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The entries without their digests, and the names of those that are altered or no claims."""
    known = read_json(path, REMEDY)
    json_schema.fitting(path, known, {"*": {"*": object}})
    seals = {name: entry.pop(SEAL, None) for name, entry in known.items()}
    damaged = [
        name
        for name in known
        if name not in CLAIMS or seals[name] not in (None, _digest(known, name))
    ]
    intact = {name: entry for name, entry in known.items() if name not in damaged}
    json_schema.fitting(path, intact, claims_schema.JOINED)
    return known, damaged


def _altered(path: Path, damaged: Sequence[str]) -> InputError:
    if unknown := [name for name in damaged if name not in CLAIMS]:
        what = f"has entries that are no claims: {', '.join(map(repr, unknown))}"
    else:
        what = f"doesn't have the SHA-256 of {', '.join(damaged)}"
    return InputError("results", str(path), f"{what}, so it was altered; {REMEDY}")


def _digest(known: Mapping[str, Any], name: str) -> str:
    return json_digest([sorted(known), name, known[name]])


def _by_claim(findings: Mapping[str, Any], part: str) -> dict[str, dict[str, Any]]:
    """An experiment's entry for each claim that it has rows for."""
    common = {key: value for key, value in findings.items() if key not in NOT_COMMON}
    common["figures"] = list(findings.get("figures", ()))
    return {claim: {**common, "rows": rows} for claim, rows in findings.get(part, {}).items()}


def _replace(
    claim: dict[str, Any], place: str, name: str, new: dict[str, Any] | None, keep: bool
) -> None:
    """Replace one experiment's entry of a claim, or remove it (None), and renew the verdict."""
    old = claim.get(place, {}).get(name)
    if keep and old and old.get("rows"):
        return
    if new is None:
        if old:
            del claim[place][name]
    elif old is None or _comparable(old) != _comparable(new):
        # sorted, so that the order in which experiments run does not show
        claim[place] = dict(sorted({**claim.get(place, {}), name: new}.items()))
    claim["verdict"] = overall(claim)


def _comparable(entry: Mapping[str, Any]) -> str:
    """An entry as text, without when and on what machine it was made, and without rounding errors.

    Another processor changes the last digits of a fit. Six significant digits are far below every
    interval, so an entry that agrees to them holds the same findings.
    """
    return json.dumps(_rounded({**entry, "made": None}), sort_keys=True)


def _rounded(value: Any) -> Any:
    """JSON data with every float at six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
