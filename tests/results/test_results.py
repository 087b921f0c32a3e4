"""Results folders: layout, verification on reading, grid, clock, selection and export."""

import json
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import jthermo as jt
from jthermo.errors import InputError
from jthermo.results import atomic, reading, tables
from jthermo.results.sealed_json import read_json
from jthermo.results.writing import resumable
from jthermo.sweep import json_codec
from scripts import flips


def sweep_of(**changes):
    fields = {
        "model": jt.models.TwoLayer(inputs=3, hidden=4),
        "data": jt.data.Gaussian(dim=3),
        "learning_rate": (0.1, 0.2),
        "batch_size": (1, 2),
        "seed": range(3),
        "num_steps": jt.RescaledSteps(0.5),
        "record": jt.Record(
            steps=jt.log_steps(5), observables=(jt.activation_rate(), jt.unit_activation())
        ),
    }
    return jt.Sweep(**{**fields, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "sweep"
    jt.run(sweep_of(), out, progress=False)
    return out


@pytest.fixture(scope="module")
def ds(folder):
    return jt.open_results(folder)


def test_a_folder_holds_what_memory_holds(ds):
    memory = jt.run(sweep_of(), progress=False)
    xr.testing.assert_equal(ds.drop_attrs(), memory.drop_attrs())


def test_dataset_has_the_documented_dims_coordinates_and_attributes(ds):
    assert set(ds.dims) == {"run", "record", "unit"}
    assert ds.sizes["run"] == 12
    for name in ("learning_rate", "batch_size", "seed"):
        assert ds[name].dims == ("run",)
    assert ds.step.dims == ("run", "record")
    for name, variable in ds.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name
    # The last step is 0.5·B/η², rounded up.
    steps = {(0.1, 1): 50, (0.1, 2): 100, (0.2, 1): 13, (0.2, 2): 25}
    for rate, batch, last in zip(
        ds.learning_rate.values, ds.batch_size.values, ds.step.max("record").values, strict=True
    ):
        assert last == steps[rate, batch]
    attrs = ds.attrs
    assert jt.Sweep.from_json(attrs["sweep"]) == sweep_of()
    assert attrs["id"] == sweep_of().id
    assert {"jax", "jthermo", "numpy"} <= set(json.loads(attrs["versions"]))
    assert re.fullmatch("[0-9a-f]{40}|", attrs["git_commit"])
    assert attrs["engine"] in ("xla", "fused")
    assert attrs["wall_seconds"] > 0
    assert attrs["complete"] == 1


def test_grid_puts_every_run_at_its_coordinates(ds):
    grid = jt.grid(ds)
    assert grid.activation_rate.dims == ("learning_rate", "batch_size", "seed", "record")
    for i in range(ds.sizes["run"]):
        at = {k: ds[k].values[i] for k in ("learning_rate", "batch_size", "seed")}
        np.testing.assert_array_equal(grid.activation_rate.sel(at), ds.activation_rate[i])
        np.testing.assert_array_equal(grid.step.sel(at), ds.step[i])
    points = jt.run(
        sweep_of(
            learning_rate=None,
            batch_size=None,
            points=[
                {"learning_rate": 0.1, "batch_size": 1},
                {"learning_rate": 0.2, "batch_size": 2},
            ],
        ),
        progress=False,
    )
    sparse = jt.grid(points)
    assert np.isnan(sparse.activation_rate.sel(learning_rate=0.1, batch_size=2)).all()
    assert not sparse.finite.sel(learning_rate=0.1, batch_size=2).any()
    assert (sparse.step.sel(learning_rate=0.1, batch_size=2) == -1).all()
    assert (sparse.step.dtype, sparse.finite.dtype) == (np.int64, bool)


def test_tau_is_the_rescaled_clock(ds):
    expected = (
        ds.step.values * ds.learning_rate.values[:, None] ** 2 / ds.batch_size.values[:, None]
    )
    np.testing.assert_allclose(jt.tau(ds), np.where(ds.step >= 0, expected, np.nan))
    # each power counts, also where the paper's is another
    other = ds.step.values * ds.learning_rate.values[:, None] * ds.batch_size.values[:, None] ** 0.5
    np.testing.assert_allclose(jt.tau(ds, 1, 0.5), np.where(ds.step >= 0, other, np.nan))
    with pytest.raises(InputError, match="learning_rate_power = '2': give a finite number"):
        jt.tau(ds, "2")
    np.testing.assert_allclose(jt.tau(ds, 0, 0).where(ds.step >= 0), ds.step.where(ds.step >= 0))


def test_runs_shorter_than_the_longest_are_padded():
    record = jt.Record(steps=jt.every(1), observables=jt.activation_rate())
    ragged = jt.run(
        sweep_of(batch_size=1, num_steps=jt.RescaledSteps(0.05), record=record), progress=False
    )
    short = ragged.isel(run=ragged.learning_rate.values == 0.2)
    assert ragged.sizes["record"] == 6
    assert (short.step.values == [0, 1, 2, -1, -1, -1]).all()
    assert np.isnan(short.activation_rate.values[:, 3:]).all()
    assert jt.results.num_diverged(ragged) == 0


@pytest.mark.parametrize("to", ["csv", "parquet", "netcdf"])
def test_export_writes_the_same_numbers(ds, tmp_path, to):
    path = jt.export(ds, tmp_path / f"table.{to}", to)
    if to == "netcdf":
        again = xr.load_dataset(path, engine="scipy")
        np.testing.assert_array_equal(again.activation_rate, ds.activation_rate)
        assert again.activation_rate.attrs == ds.activation_rate.attrs
        return
    table = pd.read_csv(path) if to == "csv" else pd.read_parquet(path)
    assert len(table) == (ds.step >= 0).sum()
    row = table[
        (table.learning_rate == 0.2) & (table.batch_size == 2) & (table.seed == 1)
    ].sort_values("step")
    run = ds.isel(
        run=(ds.learning_rate.values == 0.2) & (ds.batch_size.values == 2) & (ds.seed.values == 1)
    )
    np.testing.assert_array_equal(row.step, run.step[0])
    np.testing.assert_allclose(row.activation_rate, run.activation_rate[0], rtol=1e-6)
    np.testing.assert_allclose(row.unit_activation_3, run.unit_activation[0, :, 3], rtol=1e-6)


def test_seeds_need_not_be_a_range(tmp_path):
    seeds = (0, 2, 3, 7)
    for out in (None, tmp_path):
        gaps = jt.run(sweep_of(seed=seeds, learning_rate=0.1, batch_size=1), out, progress=False)
        assert gaps.attrs["complete"] == 1
        assert gaps.seed.values.tolist() == list(seeds)
    assert jt.open_results(tmp_path).seed.values.tolist() == list(seeds)


def test_choices_are_those_that_have_runs(ds):
    """Two axes that vary together give two choices, not four."""
    together = ds.assign_coords(
        {
            "model.init": ("run", np.where(ds.learning_rate.values < 0.15, "he", "torch")),
            "data.scale": ("run", np.where(ds.learning_rate.values < 0.15, 1.0, 2.0)),
        }
    )
    parts = tables.choices(together, ("learning_rate", "batch_size", "seed"))
    assert [values for values, _ in parts] == [
        {"model.init": "he", "data.scale": 1.0},
        {"model.init": "torch", "data.scale": 2.0},
    ]
    assert [set(runs.learning_rate.values) for _, runs in parts] == [{0.1}, {0.2}]


def test_an_unknown_format_is_refused(ds, tmp_path):
    with pytest.raises(InputError, match="to = 'xlsx': use one of csv, parquet, netcdf"):
        jt.export(ds, tmp_path / "table.xlsx", "xlsx")


def test_the_same_call_again_returns_the_records_without_training(folder, monkeypatch):
    from jthermo.execution import placement

    # Training would fail.
    monkeypatch.setattr(placement, "programs", None)
    xr.testing.assert_identical(jt.run(sweep_of(), folder, progress=False), jt.open_results(folder))


def test_a_folder_with_another_sweep_is_refused(folder):
    with pytest.raises(
        InputError, match=r"holds another sweep.*learning_rate: \[0.1, 0.2\] → \[0.3\]"
    ):
        jt.run(sweep_of(learning_rate=0.3), folder, progress=False)
    # fewer seeds and other observables are told as such
    for change in ({"seed": range(2)}, {"record": jt.Record(jt.log_steps(5), jt.loss())}):
        with pytest.raises(InputError, match="holds another sweep") as refused:
            jt.run(sweep_of(**change), folder, progress=False)
        assert "the code of your functions" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ({"seed": [*range(64)]}, {"seed": [*range(70)]}, "seed: 0:64 → 0:70"),
        ({"seed": [0, 1, 5]}, {"seed": [0, 1]}, "seed: [0, 1, 5] → [0, 1]"),
        ({"x": {"type": "A", "k": 1, "m": 2}}, {"x": {"type": "A", "k": 1, "m": 3}}, "x.m: 2 → 3"),
        (
            {"x": {"type": "A", "k": 1}},
            {"x": {"type": "B", "k": 1}},
            'x: {"type": "A", "k": 1} → {"type": "B", "k": 1}',
        ),
    ],
)
def test_another_sweep_is_told_by_the_fields_that_differ(old, new, line):
    assert json_codec.diff({"same": 0, **old}, {"same": 0, **new}) == [line]


def test_long_values_that_differ_at_the_end_are_told_apart():
    (line,) = json_codec.diff({"steps": [*range(0, 900, 9)]}, {"steps": [*range(0, 990, 9)]})
    old, new = line.removeprefix("steps: ").split(" → ")
    assert old.endswith("882, 891]")
    assert new.endswith("972, 981]")
    assert len(line) < 260


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_records_are_never_read(tmp_path, damage):
    out = tmp_path / "sweep"
    jt.run(sweep_of(), out, progress=False)
    path = max(
        (p for p in (out / "records").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    body = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(body[: len(body) // 2])
    else:
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
    with pytest.raises(InputError, match=r"records = .*(is missing|was altered)"):
        jt.open_results(out)


def test_a_path_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no sweep.json"):
        jt.open_results(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file; give a folder"):
        jt.run(sweep_of(), file, progress=False)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic.write_whole(path, b"old")

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        atomic.write_whole(path, b"new, longer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_select_picks_runs_and_an_error_lists_axes_and_values(ds):
    assert jt.results.select(ds, ["learning_rate=0.1", "seed=2"]).sizes["run"] == 2
    for condition, words in (
        ("eta=1", "names no swept axis; use one of learning_rate, batch_size, seed"),
        ("seed=x", "seed takes numbers"),
        ("seed=9", "leaves no run; seed has the values 0, 1, 2"),
    ):
        with pytest.raises(InputError, match=words):
            jt.results.select(ds, [condition])


def altered(path, old, new):
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new, 1))


def test_an_axis_without_values_is_refused_in_a_folder_without_digests(folder, tmp_path):
    out = tmp_path / "sweep"
    shutil.copytree(folder, out)
    described = json.loads((out / "sweep.json").read_text())
    del described["sha256"]
    (out / "sweep.json").write_text(json.dumps(described))
    assert jt.open_params(out, 0)
    described["sweep"]["data_seed"] = 0
    (out / "sweep.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="no values of the axis data_seed, so it was altered"):
        jt.open_params(out, 0)


@pytest.mark.parametrize(
    ("name", "old", "new", "damage"),
    [
        ("sweep.json", b"0.1", b"0.3", "doesn't have its SHA-256"),
        ("sweep.json", b"{", b"[", "isn't valid JSON"),
        ("sweep.json", b'"seed"', b'"se\xe4d"', "isn't valid JSON"),
        ("sweep.json", b'"seed"', b'"se\\ud800d"', "isn't valid JSON"),
        ("manifest.json", b'"device"', b'"devise"', "doesn't have its SHA-256"),
        ("manifest.json", b'.npz": "', b'.npz": "0', "doesn't have its SHA-256"),
    ],
)
def test_a_damaged_description_is_refused_by_readers_and_rebuilt_by_the_same_command(
    folder, tmp_path, capsys, name, old, new, damage
):
    out = tmp_path / "sweep"
    shutil.copytree(folder, out)
    before = {n: (out / n).read_bytes() for n in ("sweep.json", "manifest.json")}
    expected = jt.open_results(out).drop_attrs()
    altered(out / name, old, new)
    for reader in (jt.open_results, jt.status, lambda path: jt.open_params(path, 0)):
        with pytest.raises(InputError, match=rf"{damage}, so it was altered; give the same"):
            reader(out)
    xr.testing.assert_identical(jt.run(sweep_of(), out).drop_attrs(), expected)
    err = capsys.readouterr().err
    assert f"{damage}, so it was altered; it is set aside as bad-{name}, and" in err
    assert (out / f"bad-{name}").exists()
    assert (out / "sweep.json").read_bytes() == before["sweep.json"]
    assert (
        json.loads((out / "manifest.json").read_text())["parts"]
        == json.loads(before["manifest.json"])["parts"]
    )


def test_resume_restores_a_damaged_sweep_and_says_so(folder, tmp_path, capsys):
    out = tmp_path / "sweep"
    shutil.copytree(folder, out)
    body = (out / "sweep.json").read_bytes()
    altered(out / "sweep.json", b"0.1", b"0.3")
    assert resumable(out) == sweep_of()
    assert "set aside as bad-sweep.json" in capsys.readouterr().err
    assert (out / "sweep.json").read_bytes() == body
    # without its copy, the command that names the sweep rebuilds it
    altered(out / "sweep.json", b"0.1", b"0.3")
    (out / "sweep-copy.json").unlink()
    with pytest.raises(InputError, match=r"start with `jthermo run`"):
        resumable(out)
    assert jt.run(sweep_of(), out, progress=False).attrs["id"] == sweep_of().id


def test_flipped_bits_of_any_file_are_noticed_or_harmless(tmp_path):
    counts, faults = flips.flip_all(tmp_path, 60, seed=1)
    assert not faults
    assert sum(counts.values()) == 60
    # a script that flips nothing would find no fault either
    noticed = sum(n for (_, ended), n in counts.items() if ended == flips.NOTICED)
    assert noticed > 20


def test_an_unsealed_description_would_be_a_silent_difference(tmp_path):
    """The negative control of the flips: without its digest, a changed η is believed."""
    original = flips.folders(tmp_path)[0]
    content = read_json(original / "sweep.json")
    expected, _ = flips.answers(original)
    (original / "sweep.json").write_text(json.dumps(content).replace("0.05", "0.45"))
    given, said = flips.answers(original)
    assert flips.outcome(expected, given, said) in (flips.SILENT, flips.CRASHED)


@pytest.mark.parametrize("name", ["../../mine.npz", "/etc/passwd", "..", "a/../b"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path, monkeypatch, name):
    (tmp_path / "manifest.json").touch()
    for part, refused in ((name, True), ("mine.npz", False)):
        manifest = {"parts": {part: "0" * 64}, "attrs": {}}
        monkeypatch.setattr(reading, "read_json", lambda path, content=manifest: content)
        with pytest.raises(InputError, match="no file of") if refused else nullcontext():
            assert reading.read_manifests(tmp_path) == [manifest]
