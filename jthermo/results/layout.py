"""The format of a results folder: the names of its files. Change the format here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass


SWEEP, MANIFEST, RECORDS = "sweep.json", "manifest.json", "records"


MANIFESTS = "manifest*.json"  # one for each shard


CHECKPOINTS = "checkpoints"
