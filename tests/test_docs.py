"""The pages keep their word: code runs, commands exist, tables are those of claims.json."""

import json
import re
import shlex
import sys
import types
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import jthermo as jt
from jthermo import claims, cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "experiments" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("readme_code")
    monkeypatch.setitem(sys.modules, "readme_code", module)
    for source in blocks(page, "python"):
        exec(compile(source, str(page), "exec"), module.__dict__)
    plt.close("all")
    for line in "\n".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["jthermo"] and words[1] in ("list", "plan", "fit", "status"):
            cli.main(words[1:])  # the cheap ones run; the others are parsed by their own tests
            assert capsys.readouterr().out


def test_the_claims_on_the_pages_are_those_of_the_json():
    known = json.loads((ROOT / "results" / "claims.json").read_text())
    for page, made in (("README.md", claims.verdicts(known)), ("experiments/README.md", claims.table(known))):
        assert made in (ROOT / page).read_text(), "run: jthermo claims --into README.md experiments/README.md"


def test_pictures_and_links_of_the_pages_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), target


def test_the_costs_of_the_table_are_those_that_are_counted():
    rows = re.findall(
        r"^\| `(jt\.[^`]+)` .*? \| ([\d.]+) M\b", (ROOT / "docs" / "observables.md").read_text(), re.M
    )
    assert len(rows) == 12
    model, data, size = jt.models.MLP(100), jt.data.Gaussian(dim=100), 256
    for name, stated in rows:
        counted = eval(name, {"jt": jt}).cost(model, data, size) / size
        assert counted == pytest.approx(float(stated), abs=0.006 * max(1.0, 10 * float(stated))), name
