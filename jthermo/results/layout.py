"""The format of a results folder: the names of its files. Change the format here.

::

    sweep.json             the sweep, its runs and the labels of its variables
    manifest.json          the record files with their SHA-256, and what they were made with; written last
    manifest-I-of-N.json   the same for shard I of N
    records/PART.npz       the records of some runs
    checkpoints/I-of-N/    the states of runs that are being trained, and of finished ones
    locks/                 a lock file for each writer

A record file that no manifest names does not exist. Rows belong to runs, and a run is (key, seed) in whatever grid.
"""

SWEEP = "sweep.json"
MANIFEST = "manifest.json"
MANIFESTS = "manifest*.json"
RECORDS = "records"
CHECKPOINTS = "checkpoints"
LOCKS = "locks"
# The record file of an experiment that is not a sweep.
DATASET = "results.nc"


def shard_name(shard: tuple[int, int]) -> str:
    """The name of shard (I, N) in file names: ``"0-of-1"`` for a sweep that is not sharded."""
    return f"{shard[0]}-of-{shard[1]}"


def manifest_name(shard: tuple[int, int]) -> str:
    """The manifest that shard (I, N) writes."""
    return MANIFEST if shard[1] == 1 else f"manifest-{shard_name(shard)}.json"
