"""Seconds of several shards are added up, in the dataset and in the merged manifest."""

import json
from types import SimpleNamespace

import numpy as np

from jthermo.results import layout, reading
from jthermo.results.writing import Store

DESCRIPTION = {
    "sweep": {},
    "id": "0",
    "axes": ["learning_rate", "batch_size", "seed"],
    "runs": [
        {"key": key, "at": {"learning_rate": rate, "batch_size": 1}, "seeds": [[0, 1]]}
        for key, rate in (("a", 0.1), ("b", 0.2))
    ],
    "variables": {"finite": ["finite", "1", []], "loss": ["loss", "nat", []]},
}
SECONDS = ({"wall_seconds": 3.0, "checkpoint_seconds": 0.25}, {"wall_seconds": 5.0})
TOTAL = {"wall_seconds": 8.0, "checkpoint_seconds": 0.25}


def part(key, value):
    return {
        "key": np.array([key]),
        "seed": np.array([0]),
        "step": np.array([[0, 4]]),
        "finite": np.array([[True, True]]),
        "loss": np.full((1, 2), value, np.float32),
    }


def manifests():
    return [
        {"parts": {name: name * 64}, "attrs": {"device": "cpu", **seconds}}
        for name, seconds in zip("ab", SECONDS, strict=True)
    ]


def test_a_dataset_has_the_seconds_of_all_shards():
    # the second shard's runs come first in its file order
    ds = reading.assemble(DESCRIPTION, [part("b", 2.0), part("a", 1.0)], manifests())
    assert {name: ds.attrs[name] for name in TOTAL} == TOTAL
    assert ds.attrs["device"] == "cpu"
    assert ds.attrs["complete"] == 1
    np.testing.assert_array_equal(ds.loss.values[:, 0], [1.0, 2.0])
    half = reading.assemble(DESCRIPTION, [part("b", 2.0)], manifests()[1:])
    assert {name: half.attrs[name] for name in TOTAL} == {**SECONDS[1], "checkpoint_seconds": 0.0}
    assert half.attrs["complete"] == 0


def test_a_merged_manifest_has_the_parts_and_the_seconds_of_all_shards(tmp_path):
    for shard, manifest in enumerate(manifests()):
        (tmp_path / layout.manifest_name((shard, 2))).write_text(json.dumps(manifest))
    Store.merge_manifests(SimpleNamespace(directory=tmp_path))
    (path,) = tmp_path.iterdir()
    assert path.name == layout.MANIFEST
    merged = json.loads(path.read_text())
    assert merged["parts"] == {"a": "a" * 64, "b": "b" * 64}
    assert merged["attrs"] == {"device": "cpu", **TOTAL}
