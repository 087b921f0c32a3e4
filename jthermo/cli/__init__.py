"""The command line: its verbs and options, cluster jobs, and doctor."""

from jthermo.cli.verbs import main

__all__ = ["main"]
