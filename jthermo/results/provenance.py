"""Provenance of a result: versions of the software and the Git commit."""

from __future__ import annotations

import functools
import importlib.metadata
import subprocess

VERSIONS = ("jthermo", "jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect a result."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


@functools.cache
def git_commit() -> str:
    """The Git commit of the working directory; empty outside a repository."""
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout.strip()
