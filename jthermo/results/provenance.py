"""What a result was made with: versions and the commit of the working directory."""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess

VERSIONS = ("jthermo", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


@functools.cache
def git_commit() -> str:
    """The commit of the working directory, empty outside a repository."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()
