"""The report covers the experiments with unchanged records; a failure stops no other experiment."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import jthermo as jt
from jthermo import figures
from jthermo.cli import verbs
from jthermo.errors import InputError
from jthermo.figures.colours import on_dark
from jthermo.figures.svg import for_page
from jthermo.paper import claims_json, experiment_folder, reproduce
from jthermo.paper.report import report
from jthermo.results import layout, reading, writing
from jthermo.results.sealed_json import read_json, sealed

PLANTED = '''"""Planted curves <script>alert(1)</script> & a number."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import jthermo as jt
from jthermo.paper import evidence

CLAIMS = ("C9",)
FIT = (jt.Claim("C2", "value", "learning_rate", exponent=2),)


def run(scale):
    rate, seed = np.repeat([0.05, 0.1, 0.2], 6), np.tile(range(6), 3)
    step = np.unique(np.geomspace(1, 4000, 40).astype(int))
    noise = np.random.default_rng(0).standard_normal((18, len(step)))
    value = 1 / (1 + step * rate[:, None] ** 2) + 0.003 * noise
    return xr.Dataset(
        {
            "value": (("run", "record"), value),
            "finite": (("run", "record"), np.ones(value.shape, bool)),
        },
        {
            "learning_rate": ("run", rate),
            "seed": ("run", seed),
            "step": (("run", "record"), np.tile(step, (18, 1))),
        },
    )


def judge(ds):
    return [evidence.above("C9", "ratio <of> two", 1, 1.5, 1.25, 1.75)]


def figure(ds, fits):
    return {"planted": jt.figures.clocks(ds, "value", powers=(2,), ylabel="a < b")}
'''
NET = '''"""A net of two units."""

import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2),
    learning_rate=(0.1, 0.2), seed=range(3), num_steps=4,
    record=jt.Record(steps=jt.every(2), observables=jt.loss()),
)
SMALL = {"seed": range(2)}


def figure(ds, fits):
    return {"net_of_two": jt.figures.clocks(ds, "loss", powers=(0,))}
'''
ABSENT = '''"""Data that nobody has."""

from jthermo.errors import MissingData

CLAIMS = ("C8",)


def run(scale):
    raise MissingData("data", "cifar99", "put it there")
'''
BROKEN = '"""Broken."""\n\nCLAIMS = ("C10",)\n\n\ndef run(scale):\n    return 1 / 0\n'


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """The results folder and the outcomes of the experiments in this file."""
    folder = tmp_path_factory.mktemp("experiments")
    sources = {"a_broken": BROKEN, "absent": ABSENT, "net_of_two": NET, "planted": PLANTED}
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        known = {name: folder / f"{name}.py" for name in sources}
        patch.setattr(reproduce, "experiments", lambda: known)
        patch.setattr("jthermo.paper.report.experiments", lambda: known)
        yield folder / "results", reproduce.reproduce_all(out=folder / "results", progress=False)
    plt.close("all")


@pytest.fixture
def results(reproduced, tmp_path):
    """A copy of the results that a test may change."""
    shutil.copytree(reproduced[0], tmp_path / "results")
    return tmp_path / "results"


def page_of(results, **options):
    report(results, results.parent / "page.html", **options)
    return (results.parent / "page.html").read_text()


def section(page, claim):
    return re.search(f'<section id="{claim}">.*?</section>', page, re.DOTALL)[0]


def test_the_report_of_records_loads_no_jax(reproduced, results, tmp_path):
    # the package's own experiments, one of which has records
    shutil.copytree(results / "net_of_two-small", tmp_path / "own" / "fig3_4-small")
    code = "import sys; from jthermo.paper.report import report\n"
    code += f"names = report({str(tmp_path / 'own')!r}, {str(tmp_path / 'page.html')!r})\n"
    code += "print(names['found'], {'jax', 'flax', 'xarray', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fig3_4'] set()"


def test_a_rerun_changes_no_byte_of_what_is_published(reproduced, results, monkeypatch):
    def published():
        files = [results / "claims.json", *sorted((results / "figures").iterdir())]
        return {path.name: path.read_bytes() for path in files}

    before = published()
    assert set(before) == {"claims.json", "planted.svg", "net_of_two.svg"}
    later = {
        **experiment_folder.read(results / "planted-small")["made"],
        "date": "later",
        "wall_seconds": 99.0,
    }
    monkeypatch.setattr(reproduce, "_made", lambda *_: later)
    shutil.rmtree(results / "planted-small")
    reproduce.reproduce("planted", out=results, progress=False)
    # the results folder has the new date
    assert experiment_folder.read(results / "planted-small")["made"] == later
    assert published() == before
    known = json.loads(before["claims.json"])["C2"]["experiments"]["planted"]
    assert not {"code", "records"} & set(known)
    # with another number the entry is replaced
    known["rows"][0]["misfit"] += 1e-9
    claims_json.update(
        results / "claims.json",
        "planted",
        {**known, "rows": {"C2": known["rows"]}, "made": {"date": "now"}},
    )
    assert b'"now"' in published()["claims.json"]


def test_one_that_fails_or_lacks_its_data_stops_no_other(reproduced, capsys):
    results, outcomes = reproduced
    assert {o.name: o.state for o in outcomes} == {
        "a_broken": "failed", "absent": "not run", "net_of_two": "done", "planted": "done"
    }  # fmt: skip
    assert "division by zero" in outcomes[0].why
    assert "cifar99" in outcomes[1].why
    assert (results / "figures" / "planted.svg").exists()
    with pytest.raises(SystemExit) as stopped:
        verbs.main(["reproduce", "all", "--out", str(results)])
    printed = capsys.readouterr()
    # not bad input
    assert stopped.value.code == 1
    assert "1 of 4 experiments failed: a_broken: ZeroDivisionError" in printed.err
    assert "4 experiments at small scale: 2 done before, 2 to do" in printed.out
    assert re.search(r"^\[2/2\] absent: .* elapsed, ", printed.out, re.MULTILINE)
    assert re.search(r"^planted +done before +reproduced$", printed.out, re.MULTILINE)


def test_a_forecast_uses_the_times_of_its_own_scale(tmp_path):
    known = {
        "C1": {
            "text": "",
            "verdict": "",
            "experiments": {
                "small": {"rows": [], "scale": "small", "made": {"wall_seconds": 3.0}},
                "paper": {"rows": [], "scale": "paper", "made": {"wall_seconds": 500.0}},
                "absent": {"rows": [], "scale": "small", "not_run": "no data"},
            },
        }
    }
    assert reproduce._last_time("small", tmp_path) == {}
    (tmp_path / "claims.json").write_text(json.dumps(known))
    assert reproduce._last_time("small", tmp_path) == {"small": 3.0}
    assert reproduce._last_time("paper", tmp_path) == {"paper": 500.0}


def test_findings_of_other_code_are_computed_again(reproduced, results, monkeypatch):
    assert reproduce.done("planted", "small", results)
    assert reproduce.done("planted", "paper", results) is None
    monkeypatch.setattr(reproduce, "_identity", lambda *_: {"sweep_id": "", "code": "other"})
    assert reproduce.done("planted", "small", results) is None


def test_the_page_has_the_findings_and_the_commands(reproduced, results):
    page = page_of(results)
    (row,) = experiment_folder.read(results / "planted-small")["rows"]["C2"]
    assert row["verdict"] == "reproduced"
    c2 = section(page, "C2")
    assert f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in c2
    assert "jthermo reproduce planted --scale small" in c2
    assert "18 runs, 6 seeds" in c2
    assert "<svg" in c2
    assert "1.5 [1.25, 1.75]" in section(page, "C9")
    for claim, name in (("C8", "absent"), ("C10", "a_broken")):
        assert "not run" in section(page, claim)
        assert f"<pre>jthermo reproduce {name}</pre>" in section(page, claim)
    assert "TwoLayer(inputs=2, hidden=2, bias=True, init=torch, activation=relu, " in page
    # a list of two seeds is not shortened
    assert "0 … 1" not in page
    assert jt.__version__ in section(page, "made")


def test_the_page_needs_no_network_and_takes_no_markup_from_outside(reproduced, results):
    page = page_of(results)
    assert "alert(1)" in page
    assert "<script" not in page
    assert "ratio &lt;of&gt; two" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert not re.findall(
        r"url\((?!#)|@import|https?://(?!www\.w3\.org/(?:2000/svg|1999/xlink)\b)", page
    )

    class Checker(HTMLParser):
        """Checks that tags are closed in order, and collects the ids."""

        def __init__(self):
            super().__init__()
            self.open, self.ids = [], []

        def handle_starttag(self, tag, attrs):
            self.ids += [value for name, value in attrs if name == "id"]
            if tag not in ("meta", "br", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert len(set(checker.ids)) == len(checker.ids)


@pytest.mark.parametrize("harm", ["folder", "json", "record", "records", "manifest"])
def test_results_that_are_deleted_or_changed_count_as_not_run(reproduced, results, harm):
    folder = results / "planted-small"
    record = folder / "records" / layout.DATASET
    if harm == "folder":
        shutil.rmtree(folder)
    elif harm == "json":
        (folder / "claims.json").unlink()
    elif harm == "record":
        record.write_bytes(record.read_bytes().replace(b"learning", b"lEarning"))
    elif harm == "records":
        shutil.rmtree(folder / "records")
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "parts": {}}))
    page = page_of(results)
    assert "1.5 [1.25, 1.75]" not in page
    for claim in ("C2", "C9"):
        assert 'class="chip not-run"' in section(page, claim)
        assert "<pre>jthermo reproduce planted</pre>" in section(page, claim)
        assert "chip reproduced" not in section(page, claim)
    assert reproduce.done("planted", "small", results) is None


def test_records_of_other_runs_do_not_carry_the_old_verdicts(reproduced, results):
    folder = results / "planted-small"
    # intact, but other records
    writing.write_dataset(folder, reading.read_dataset(folder).isel(record=slice(20)))
    with pytest.raises(
        InputError, match="has records that changed after its verdicts were computed"
    ):
        experiment_folder.read(folder)


@pytest.mark.parametrize("name", ["claims.json", "figures/planted.svg", "../figures/planted.svg"])
def test_a_flipped_digit_is_noticed_and_the_same_command_rebuilds_the_file(
    reproduced, results, capsys, name
):
    folder = results / "planted-small"
    before, path = read_json(folder / "claims.json"), folder / name
    body = path.read_bytes()
    # a digit of a row, or of a coordinate, becomes another one
    at = body.index(b"1.25") if name == "claims.json" else body.index(b"0.5")
    path.write_bytes(body[:at] + bytes([body[at] ^ 2]) + body[at + 1 :])
    assert reproduce.done("planted", "small", results) is None
    if name == "claims.json":
        assert "its SHA-256, so it was altered" in section(page_of(results), "C2")
    reproduce.reproduce("planted", out=results, progress=False)
    assert path.read_bytes() == body or name == "claims.json"
    assert read_json(folder / "claims.json")["rows"] == before["rows"]
    said = capsys.readouterr().err
    assert ("set aside as bad-claims.json" in said) == (name == "claims.json")


def test_a_changed_sweep_or_figure_is_not_that_of_the_findings(reproduced, results):
    folder = results / "net_of_two-small"
    findings = experiment_folder.read(folder)
    assert experiment_folder.figure(folder, findings, "net_of_two")
    drawn = folder / "figures" / "net_of_two.svg"
    drawn.write_bytes(drawn.read_bytes().replace(b"<svg", b"<svg ", 1))
    assert experiment_folder.figure(folder, findings, "net_of_two") is None
    # the records are intact, but sweep.json says that other settings gave them
    text = (folder / layout.SWEEP).read_text()
    (folder / layout.SWEEP).write_text(text.replace('"num_steps": 4', '"num_steps": 5', 1))
    assert (folder / layout.SWEEP).read_text() != text
    with pytest.raises(InputError, match="has records that changed"):
        experiment_folder.read(folder)
    assert reproduce.done("net_of_two", "small", results) is None


def test_a_verdict_that_its_numbers_do_not_give_is_flagged(reproduced, results):
    path = results / "planted-small" / "claims.json"
    findings = read_json(path)
    findings["rows"]["C2"][0] |= {"exponent": 1.0, "low": 0.9, "high": 1.1}
    path.write_bytes(sealed(findings))
    page = page_of(results)
    assert "chip unsupported" in section(page, "C2")
    reason = "the stated verdict, reproduced, does not follow from the numbers of the row"
    assert reason in section(page, "C2")
    assert "chip reproduced" not in section(page, "C2")
    # the other rows are unchanged
    assert "chip reproduced" in section(page, "C9")


def test_the_published_page_says_that_it_is(reproduced, results):
    for folder in results.glob("*-small"):
        shutil.rmtree(folder)
    assert "1.5 [1.25, 1.75]" not in page_of(results)
    page = page_of(results, published=True)
    assert "<strong>Published results.</strong>" in page
    assert "1.5 [1.25, 1.75]" in section(page, "C9")
    assert "<svg" in section(page, "C2").partition("<figure>")[2]
    assert jt.__version__ in section(page, "made")
    assert "cifar99 is not available" in section(page, "C8")
    # an experiment that tests no claim, with a figure
    assert "<svg" in section(page, "beyond")
    (results / "figures" / "net_of_two.svg").unlink()
    assert "It has no published results" in section(page_of(results, published=True), "beyond")
    (results / "claims.json").unlink()
    with pytest.raises(InputError, match=r"has no claims\.json"):
        page_of(results, published=True)


def test_a_figure_in_a_page_keeps_its_text_and_has_a_shade_for_dark_pages():
    fig, ax = plt.subplots()
    ax.plot([0, 1.23456], [0, 1], color="#440154", label="<η>")
    ax.set_title("1.2345")
    ax.legend()
    drawn = figures.svg(fig, 'a "name"').decode()
    plt.close(fig)
    assert ">&lt;η&gt;</text>" in drawn
    # only positions are rounded
    assert ">1.2345</text>" in drawn
    assert not re.search(r' d="[^"]*\.\d\d', drawn)
    assert 'aria-label="a &quot;name&quot;"' in drawn
    assert '<path d="' in drawn
    # a plain attribute, and another colour for dark pages alone
    assert drawn.count('stroke="#440154"') > drawn.count('[stroke="#440154"]')
    light_part, _, dark_part = drawn.partition("@media (prefers-color-scheme:dark)")
    assert "440154" not in light_part
    (dark,) = re.findall(r'\[stroke="#440154"\]\{stroke:#(\w{6})\}', dark_part)
    assert sum(bytes.fromhex(dark)) > 2 * sum(bytes.fromhex("440154"))
    assert on_dark("#000000") > "#e0"
    assert on_dark("#ffffff") < "#30"


# Each can run a script, load something, leave its frame or restyle the page.
HARMFUL = {
    "script": "<script>alert(1)</script>",
    "event": '<rect onclick="alert(1)"/>',
    "link": '<a xlink:href="https://example.org"><text>x</text></a>',
    "javascript": '<use xlink:href="javascript:alert(1)"/>',
    "other file": '<use xlink:href="https://example.org/a.svg#b"/>',
    "plain href": '<use href="#a"/>',
    "picture from elsewhere": '<image xlink:href="https://example.org/a.png"/>',
    "picture that is SVG": '<image xlink:href="data:image/svg+xml;base64,PHN2Zy8+"/>',
    "html inside": '<foreignObject><body xmlns="http://www.w3.org/1999/xhtml"/></foreignObject>',
    "style sheet": "<style>body { display: none }</style>",
    "style sheet with an element": "<style><g/></style>",
    "style that loads": '<rect style="fill: url(https://example.org/a)"/>',
    "style that loads, escaped": '<rect style="fill: u\\72l(#a)"/>',
    "style that leaves": '<rect style="position: fixed"/>',
    "animation": '<set attributeName="href" to="javascript:alert(1)"/>',
    "comment": "<!-- <script> -->",
    "cdata": "<text><![CDATA[<script>alert(1)</script>]]></text>",
    "instruction": "<?xml-stylesheet href='a.css'?>",
    "not closed": "<g>",
    "unknown prefix": "<x:script>alert(1)</x:script>",
    "own prefix": '<s:g xmlns:s="http://www.w3.org/2000/svg"/>',
    "html": '<p xmlns="http://www.w3.org/1999/xhtml">x</p>',
    "title": "<title>x</title>",
}
ROOT = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{}</svg>'
DRAWING = ROOT.format('<g style="fill: url(#a); stroke: var(--c000000)"><path d="M 0 1"/></g>')


def test_an_svg_with_more_than_a_drawing_stays_out_of_the_page():
    assert for_page(DRAWING) == DRAWING
    for case, inside in HARMFUL.items():
        assert for_page(ROOT.format(inside)).startswith("<p>This figure is not shown"), case
    bomb = "<!DOCTYPE svg [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]>" + ROOT.format("&b;")
    for text in (bomb, "", "<p>x</p>", "\0", "<svg/>"):
        assert for_page(text) != text


def test_every_published_figure_and_every_panel_is_a_drawing():
    published = sorted((Path(__file__).parents[2] / "results" / "figures").glob("*.svg"))
    assert len(published) > 30
    for path in published:
        assert for_page(path.read_text()) == path.read_text(), path.name
    fig, (left, right) = plt.subplots(1, 2)
    left.imshow([[0.0, 1.0]])
    left.set_title("<a> & $x^2$", style="italic", weight="bold")
    right.bar([0, 1], [1, 2], hatch="/")
    right.fill_between([0, 1], [1, 2], alpha=0.3)
    right.errorbar([0, 1], [1, 2], yerr=0.1, ls="--")
    right.text(0, 0, "rotated", rotation=40)
    drawn = figures.svg(fig, "a & b <c>").decode()
    plt.close(fig)
    assert for_page(drawn) == drawn


def test_a_harmful_figure_of_a_folder_is_replaced_by_a_sentence(results):
    folder = next(path for path in results.iterdir() if path.name.startswith("planted-"))
    path = folder / "figures" / "planted.svg"
    harmful = path.read_text().replace("</svg>", "<script>alert(7)</script></svg>").encode()
    path.write_bytes(harmful)
    claims = json.loads((folder / "claims.json").read_text())
    claims["figures"]["planted"] = hashlib.sha256(harmful).hexdigest()
    # as one who means harm would write it
    del claims["sha256"]
    (folder / "claims.json").write_text(json.dumps(claims))
    page = page_of(results)
    assert "This figure is not shown" in page
    assert "alert(7)" not in page
