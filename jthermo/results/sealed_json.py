"""JSON files that carry the SHA-256 of their own content, so that damage is noticed on reading."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jthermo.errors import InputError
from jthermo.results import json_schema

SEAL = "sha256"
REBUILD = (
    "give the same `jthermo run` or `jthermo resume` again, which sets it aside and rebuilds it"
)


def sealed(content: Mapping[str, Any]) -> bytes:
    """The JSON text of `content` with its digest as the first field."""
    plain = json.loads(json.dumps(content))
    return (json.dumps({SEAL: json_digest(plain), **plain}, indent=1) + "\n").encode()


def read_json(path: Path, remedy: str = REBUILD) -> dict[str, Any]:
    """The content of a JSON file, without its digest. A file of an older version may have none.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file.

    Raises:
        InputError: the file isn't JSON, doesn't have its digest, or lacks a key that it needs.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        # half of a surrogate pair, which no file or terminal could show
        if re.search(r"\\u[dD]", text):
            json.dumps(content, ensure_ascii=False).encode()
        damage = None if isinstance(content, dict) else "isn't a JSON object"
    except (ValueError, RecursionError):
        damage = "isn't valid JSON"
    except OSError as error:
        raise InputError("directory", str(path), f"cannot be read ({error.strerror})") from None
    if damage is None:
        seal = content.pop(SEAL, None)
        damage = None if seal in (None, json_digest(content)) else "doesn't have its SHA-256"
    if damage is not None:
        raise InputError("directory", str(path), f"{damage}, so it was altered; {remedy}")
    return json_schema.checked(path, content)


def json_digest(plain: Any) -> str:
    """SHA-256 of JSON data, independent of the order of keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def warn(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr)


def set_aside(path: Path, error: InputError, then: str, say: Callable[[str], None] = warn) -> None:
    """Rename a damaged file to ``bad-NAME`` and say so.

    Args:
        path: the file.
        error: what is wrong with it.
        then: what happens next, after "and".
        say: prints a line.
    """
    if path.exists():
        path.replace(path.with_name(f"bad-{path.name}"))
    say(f"{path} {error.remedy.partition(';')[0]}; it is set aside as bad-{path.name}, and {then}")
