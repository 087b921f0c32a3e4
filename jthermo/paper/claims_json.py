"""The file claims.json: what every experiment found, by claim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jthermo.paper.claims import CLAIMS
from jthermo.paper.verdicts import overall
from jthermo.results.atomic import write_whole


def update(path: Path, name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """Put what an experiment has found into ``claims.json``, in place of what it found earlier.

    Who finds the same again changes nothing: ``made``, when and on what it was found, is that of the first time, and the
    digests of records and code stay with the records.

    Args:
        path: the file.
        name: the experiment.
        made: its command, its rows by claim, and what else is to be known of it; with ``not_run``, why it has no rows,
            those that it has from a machine that could run it stay.
    """
    known = json.loads(path.read_text()) if path.exists() else {}
    common = {k: v for k, v in made.items() if k not in ("rows", "sensitivity", "code", "records")}
    common["figures"] = list(made.get("figures", ()))
    for part, place in (("rows", "experiments"), ("sensitivity", "sensitivity")):
        rows = made.get(part, {})
        for claim in dict.fromkeys([*known, *rows]):
            entry = known.setdefault(claim, {"text": CLAIMS[claim], "experiments": {}})
            there = entry.get(place, {}).get(name)
            if "not_run" in made and (there or {}).get("rows"):
                continue
            if claim in rows:
                new = {**common, "rows": rows[claim]}
                if there is None or _found(there) != _found(new):
                    made_by = entry.get(place, {}) | {name: new}
                    # whatever was run first
                    entry[place] = dict(sorted(made_by.items()))
            elif there:
                del entry[place][name]
            entry["verdict"] = overall(entry)
    known = dict(sorted(known.items(), key=lambda item: int(item[0][1:])))
    write_whole(path, (json.dumps(known, indent=1) + "\n").encode())
    return known


def _found(entry: Mapping[str, Any]) -> str:
    """What an experiment found, without when and on what, so that it can be compared."""
    return json.dumps({**entry, "made": None}, sort_keys=True)
