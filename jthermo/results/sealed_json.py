"""JSON files that carry the SHA-256 of their own content, so that damage is noticed on reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jthermo.errors import InputError

SEAL = "sha256"
REBUILD = (
    "give the same `jthermo run` or `jthermo resume` again, which sets it aside and rebuilds it"
)


def sealed(content: Mapping[str, Any]) -> bytes:
    """The JSON text of `content` with its digest as the first field."""
    plain = json.loads(json.dumps(content))
    return (json.dumps({SEAL: _digest(plain), **plain}, indent=1) + "\n").encode()


def read_json(path: Path, remedy: str = REBUILD) -> dict[str, Any]:
    """The content of a JSON file, without its digest. A file of an older version may have none.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file.

    Raises:
        InputError: the file isn't JSON, or doesn't have its digest.
    """
    try:
        content = json.loads(path.read_text())
        damage = None if isinstance(content, dict) else "isn't a JSON object"
    except ValueError:
        damage = "isn't valid JSON"
    if damage is None:
        seal = content.pop(SEAL, None)
        damage = None if seal in (None, _digest(content)) else "doesn't have its SHA-256"
    if damage is not None:
        raise InputError("directory", str(path), f"{damage}, so it was altered; {remedy}")
    return content


def _digest(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
