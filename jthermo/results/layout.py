"""The format of a results folder: the names of its files.

::

    sweep.json             the sweep, its runs and the labels of its variables
    manifest.json          SHA-256 of each record file, versions, device; written last
    manifest-I-of-N.json   the same for shard I of N
    records/PART.npz       the records of some runs
    checkpoints/I-of-N/    the states of runs in training and of finished runs
    locks/                 one lock file per writer

A record file that no manifest names is ignored. Each row belongs to a run, which is identified by
(key, seed) whatever the grid of the sweep.
"""

SWEEP = "sweep.json"
MANIFEST = "manifest.json"
MANIFESTS = "manifest*.json"
RECORDS = "records"
CHECKPOINTS = "checkpoints"
LOCKS = "locks"
# Record file of an experiment that trains no sweep, written by write_dataset.
DATASET = "results.nc"


def shard_name(shard: tuple[int, int]) -> str:
    """The part of a file name that stands for shard (I, N); ``"0-of-1"`` without shards."""
    return f"{shard[0]}-of-{shard[1]}"


def manifest_name(shard: tuple[int, int]) -> str:
    """The file name of the manifest that shard (I, N) writes."""
    return MANIFEST if shard[1] == 1 else f"manifest-{shard_name(shard)}.json"
