"""Keys and types of both files ``claims.json``, as :mod:`jthermo.results.json_schema` checks them.

One file has the rows of all experiments by claim, the other the rows of one experiment. Only the
keys that are read are listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = float | int
_KNOWN = float | int | None
_COMMON: dict[str, Any] = {
    "choice": {"*": object},
    # a number, or the bound that the paper gives
    "claimed": re.compile(r"([<>] )?(-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?|-?inf|nan)"),
    "num_seeds": int | None,
    "verdict": str,
    "why": str,
    "*": object,
}
_FORM = {
    **dict.fromkeys(("name", "status"), str),
    **dict.fromkeys(("score", "standard_error"), _NUMBER),
    "*": object,
}
_CLOCK = {
    **dict.fromkeys(("exponent", "misfit", "low", "high"), _NUMBER),
    "collapsed": object,
}
_EXPONENT = {
    **_COMMON,
    "variable": str,
    "control": str,
    **dict.fromkeys(("exponent", "low", "high"), _KNOWN),
    **dict.fromkeys(("misfit", "first", "last", "num_runs", "num_left_out"), _NUMBER),
    "clocks?": [_CLOCK],
    "forms?": [_FORM],
}
_EVIDENCE = {**_COMMON, "quantity": str, **dict.fromkeys(("value", "low", "high"), _NUMBER)}


def _row(plain: Any) -> dict[str, Any]:
    """The schema of a row: a fitted exponent, or other evidence, which names its quantity."""
    return _EVIDENCE if isinstance(plain, Mapping) and "quantity" in plain else _EXPONENT


_MADE = {
    **dict.fromkeys(("date?", "device?"), str),
    "num_devices?": int,
    "wall_seconds?": _NUMBER,
    "versions?": {"*": str},
    "*": object,
}
_ENTRY = {
    "rows": [_row],
    "made?": _MADE,
    "figures?": [str],
    "command?": str,
    "sweep_id?": str,
    "scale?": str,
    "shows?": {"*": str},
    "windows?": {"*": object},
    "not_run?": str,
    "*": object,
}
# results/claims.json
JOINED = {
    "*": {
        "text": str,
        "verdict": str,
        "experiments": {"*": _ENTRY},
        "sensitivity?": {"*": _ENTRY},
        "*": object,
    }
}
# results/NAME-SCALE/claims.json
FINDINGS = {
    "command": str,
    "sweep_id": str,
    "code": str,
    "records": str,
    "rows": {"*": [_row]},
    "sensitivity": {"*": [_row]},
    "figures": {"*": str},
    "made": {**_MADE, "date": str, "wall_seconds": _NUMBER},
    "shows?": {"*": str},
    "windows?": {"*": object},
    "*": object,
}
