"""The list of experiments is right, and imports none of them."""

import subprocess
import sys

import jax
import pytest

from jthermo.paper import listing, reproduce

WRITE = (
    "from jthermo.paper import listing, reproduce; "
    "(listing.folder() / listing.COUNTS).write_text(listing.counts(reproduce.num_runs))"
)


@pytest.fixture(autouse=True)
def rank_promotion():
    """Allow implicit broadcasting, which raises elsewhere in the tests, in users' own nets."""
    with jax.numpy_rank_promotion("allow"):
        yield


def refuse(name):
    raise AssertionError(f"{name} was imported")


def test_the_counts_are_those_of_the_experiments():
    """An experiment that changed is counted again each time until its count is written."""
    modules = {name: reproduce.load(name) for name in listing.experiments()}
    sweeps = {name: getattr(module, "SWEEP", None) for name, module in modules.items()}
    right = {name: sweep and sweep.num_runs for name, sweep in sweeps.items()}
    kept = (listing.folder() / listing.COUNTS).read_text()
    assert kept == listing.counts(right.__getitem__), f"write them: python -c '{WRITE}'"
    for name, num_runs, title in listing.listed(refuse):
        assert num_runs == right[name]
        assert title == reproduce.description(modules[name]).partition("\n\n")[0]


def test_a_changed_experiment_is_counted_anew(tmp_path, monkeypatch):
    (tmp_path / listing.COUNTS).write_text((listing.folder() / listing.COUNTS).read_text())
    original = listing.experiments()["fig3_4"]
    monkeypatch.setattr(listing, "folder", lambda: tmp_path)
    (tmp_path / "fig3_4.py").write_text(original.read_text().replace("range(256)", "range(8)"))
    assert [(e.name, e.num_runs) for e in listing.listed(lambda _: 96)] == [("fig3_4", 96)]
    # an unchanged one isn't, also with the line ends of another system
    (tmp_path / "fig3_4.py").write_bytes(original.read_bytes().replace(b"\n", b"\r\n"))
    assert [e.num_runs for e in listing.listed(refuse)] == [3072]
    (tmp_path / listing.COUNTS).unlink()
    assert [e.num_runs for e in listing.listed(lambda _: 12)] == [12]


def test_the_list_needs_no_jax():
    code = "import sys, jthermo.cli as cli; cli.main(['list']); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fig3_4" in done.stdout
    loaded = code.replace("cli.main", "import jthermo.engines.xla; cli.main")
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=False)
    assert done.returncode != 0
