"""The pages' code runs and prints what they state, commands exist, verdicts match claims.json."""

import contextlib
import functools
import html.parser
import inspect
import json
import os
import pydoc
import re
import shlex
import subprocess
import sys
import types
import urllib.parse
import zlib
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest

import jthermo as jt
from jthermo.cli import verbs
from jthermo.paper import claims_tables
from jthermo.sweep import user_file

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "experiments/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CHEAP = ("list", "plan", "fit", "status", "plot", "export")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
notebook = user_file.import_file(ROOT / "scripts" / "notebook.py", "notebook_script", "script")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys, request):
    monkeypatch.chdir(tmp_path)
    # Tables that belong to a page are read from the repository.
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    # Pages and the experiments they name are users' code, which may promote ranks.
    stack = contextlib.ExitStack()
    stack.enter_context(jax.numpy_rank_promotion("allow"))
    request.addfinalizer(stack.close)
    module = types.ModuleType("readme_code")
    monkeypatch.setitem(sys.modules, "readme_code", module)
    printed, prose, num_compared = "", "", 0
    for language, text in notebook.pieces(page):
        if language == "python":
            capsys.readouterr()
            exec(compile(text, str(page), "exec"), module.__dict__)
            printed = capsys.readouterr().out
        elif language == "":
            prose = text.strip()
        elif language == "text" and prose == "It prints:":
            assert same_to_rounding(text, printed), printed
            num_compared += 1
        elif language == "sh":
            for line in text.splitlines():
                run(shlex.split(line, comments=True), monkeypatch)
        else:
            assert language == "text" or language.startswith("{"), (
                "a block of this kind is not tested"
            )
    plt.close("all")
    assert num_compared or page != ROOT / "README.md"


def same_to_rounding(stated, printed):
    """Whether two texts agree up to one unit in the last decimal of each number."""
    if NUMBER.sub("#", stated.strip()) != NUMBER.sub("#", printed.strip()):
        return False
    for expected, actual in zip(NUMBER.findall(stated), NUMBER.findall(printed), strict=True):
        mantissa, _, exponent = expected.partition("e")
        decimals = len(mantissa.partition(".")[2])
        unit = 10.0 ** (int(exponent or 0) - decimals) if decimals or exponent else 0.0
        if abs(float(expected) - float(actual)) > 1.001 * unit:
            return False
    return True


def test_a_different_output_is_detected():
    assert same_to_rounding(
        "p = 1.92 [-0.5, 2e-05], 16 seeds\n", "p = 1.93 [-0.6, 3e-05], 16 seeds"
    )
    for other in (
        "p = 1.94 [-0.5, 2e-05], 16 seeds",
        "p = 1.92 [-0.5, 2e-05], 17 seeds",
        "p = 1.92",
        "",
    ):
        assert not same_to_rounding("p = 1.92 [-0.5, 2e-05], 16 seeds", other)


def run(words, monkeypatch):
    """Run a command of a page if it is cheap, else only parse it; its scripts have to exist."""
    assert all((ROOT / word).exists() for word in words if word.startswith("scripts/"))
    if words[:1] != ["jthermo"]:
        return
    made_elsewhere = words[2:] and words[2].startswith("results/") and not Path(words[2]).exists()
    with monkeypatch.context() as patched:
        if "--print" not in words and (words[1] not in CHEAP or made_elsewhere):
            stubs = {
                name: functools.wraps(verb)(lambda *_, **__: None)
                for name, verb in verbs.VERBS.items()
            }
            patched.setattr(verbs, "VERBS", stubs)
        verbs.main(words[1:])


def test_a_command_that_does_not_parse_is_detected(monkeypatch, capsys):
    run(["jthermo", "resume", "somewhere", "--quiet"], monkeypatch)
    for words in (["jthermo", "resume", "somewhere", "--slowly"], ["jthermo", "walk"]):
        with pytest.raises(SystemExit):
            run(words, monkeypatch)
    with pytest.raises(AssertionError):
        run(["python", "scripts/nothing.py"], monkeypatch)


def test_the_notebook_is_the_first_page_and_runs(tmp_path):
    path = ROOT / "docs" / "quickstart.ipynb"
    assert path.read_text() == notebook.notebook(ROOT / "docs" / "start.md"), (
        "run: python scripts/notebook.py"
    )
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    resources = {"metadata": {"path": str(tmp_path)}}
    notebook_file = nbformat.read(path, as_version=4)
    # the same number of devices as the tests, so that compiled programs are found in the cache
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "2"}
    nbclient.NotebookClient(notebook_file, timeout=300, resources=resources).execute(
        env=environment
    )
    kinds = {
        output.output_type for cell in notebook_file.cells for output in cell.get("outputs", ())
    }
    assert {"stream", "display_data"} <= kinds
    assert jt.open_results(tmp_path / "results" / "first").sizes["run"] == 48


def test_the_example_of_an_own_model_is_as_short_as_the_readme_says():
    (stated,) = re.findall(r"\[(\d+) lines\]", (ROOT / "README.md").read_text())
    first = next(
        text
        for language, text in notebook.pieces(ROOT / "docs" / "own_model.md")
        if language == "python"
    )
    assert len(first.splitlines()) == int(stated) <= 40


def test_the_claims_on_the_pages_are_those_of_the_json():
    known = json.loads((ROOT / "results" / "claims.json").read_text())
    for table in (claims_tables.verdict_table(known), claims_tables.table(known)):
        text = (ROOT / "experiments" / "README.md").read_text()
        assert table in text, "run: jthermo claims --into experiments/README.md"


def test_the_readme_sums_up_the_verdicts_of_the_json():
    known = json.loads((ROOT / "results" / "claims.json").read_text())
    rows = {
        c: [row for e in entry["experiments"].values() for row in e["rows"]]
        for c, entry in known.items()
    }
    counts = {
        c: (sum(row["verdict"] == "reproduced" for row in rows[c]), len(rows[c])) for c in rows
    }
    text = (ROOT / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("- ") and "**C" in line]
    assert len(lines) == 6
    stated = re.findall(r"\*\*(C\d+)\*\* (\d+)/(\d+)", "\n".join(lines))
    assert {c: (int(n), int(of)) for c, n, of in stated} == counts
    assert len(stated) == len(counts)
    (example,) = re.findall(
        r"^(\d+)/(\d+) means: reproduced in (\d+) of the (\d+) cases", text, re.M
    )
    assert example[:2] == example[2:] == tuple(map(str, counts["C3"]))
    for c, symbol in (("C2", "a"), ("C3", "b"), ("C6", "a")):
        fits = [("", row["exponent"]) for row in rows[c] if row["exponent"] is not None]
        span = claims_tables.reach(fits).partition(" (")[0]
        assert f"**{c}** {counts[c][0]}/{counts[c][1]} ({symbol} = {span})" in text


def test_the_readme_is_one_page():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert not [line for line in lines if len(line) > 120]


def test_pictures_and_links_of_the_pages_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), target


def test_the_costs_of_the_table_are_those_that_are_counted():
    rows = re.findall(
        r"^\| `(jt\.[^`]+)` .*? \| ([\d.]+) M\b",
        (ROOT / "docs" / "observables.md").read_text(),
        re.M,
    )
    assert len(rows) == 12
    model, data, size = jt.models.MLP(100), jt.data.Gaussian(dim=100), 256
    for name, stated in rows:
        counted = eval(name, {"jt": jt}).cost(model, data, size) / size
        assert counted == pytest.approx(float(stated), abs=0.006 * max(1.0, 10 * float(stated))), (
            name
        )


def test_the_site_builds_without_a_warning_and_is_complete(tmp_path):
    pytest.importorskip("sphinx")
    (line,) = (x for x in (ROOT / "scripts" / "docs").read_text().splitlines() if "-m sphinx" in x)
    command = [sys.executable, *shlex.split(line)[1:-1], str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert not broken_links(tmp_path)
    body = zlib.decompress((tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    entries = {line.split(" ")[0] for line in body.splitlines() if " py:" in line}
    assert not without_entry(entries), "give them an entry in docs/api/"
    # an entry also has an alias: the path of the file that defines it
    others = {entry for entry in entries if entry.rpartition(".")[2] not in ("run", "CNN")}
    assert without_entry(others) == {"jthermo.run", "jthermo.models.CNN"}


def without_entry(entries):
    """Public names that no entry of the site documents, under this name or another."""
    documented = {id(found) for entry in entries if (found := pydoc.locate(entry)) is not None}
    return {
        name
        for name, found in public_names()
        if name not in entries and id(found) not in documented
    }


def public_names(module=jt):
    """The public names and objects of a module and of its public submodules."""
    own = [n for n, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]
    for name in getattr(module, "__all__", [n for n in own if not n.startswith("_")]):
        value = getattr(module, name)
        yield f"{module.__name__}.{name}", value
        if inspect.ismodule(value):
            yield from public_names(value)


class Page(html.parser.HTMLParser):
    """Links and anchors of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value)
            elif name in ("id", "name"):
                self.anchors.add(value)


def broken_links(folder):
    """Links of a site whose page, file or anchor does not exist."""
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (
                (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            )
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists() or (target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.name}: {link}")
    return broken


def test_a_broken_link_is_detected(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here"></a><a href="#x"></a><h1 id="x"></h1>')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="a.html#y"></a><img src="none.png">')
    assert broken_links(tmp_path) == ["b.html: a.html#y", "b.html: none.png"]
