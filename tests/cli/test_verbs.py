"""The command line as a user types it: output, files, exit codes, no traceback for a mistake."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import jthermo as jt
from jthermo.cli import verbs
from jthermo.paper import reproduce
from jthermo.paper.catalogue import experiments

OWN = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=4, hidden=4), data=jt.data.Gaussian(dim=4),
    learning_rate=(0.1, 0.2, 0.4), seed=range(24),
    num_steps=jt.RescaledSteps(4.0),
    record=jt.Record(steps=jt.log_steps(40), observables=jt.activation_rate()))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own_sweep_file.py"
    path.write_text(OWN)
    return path


@pytest.fixture(scope="module")
def folder(own):
    out = own.parent / "out"
    verbs.main(["run", str(own), "--out", str(out), "--quiet"])
    return out


def call(capsys, *args):
    """Output, error text and exit code of a command."""
    code = 0
    try:
        verbs.main([str(a) for a in args])
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    return out, err, code


def test_run_writes_what_the_python_call_writes(folder):
    ds = jt.open_results(folder)
    assert ds.sizes["run"] == 72
    sweep = jt.Sweep.from_json(ds.attrs["sweep"])
    np.testing.assert_array_equal(ds.activation_rate, jt.run(sweep, progress=False).activation_rate)


def test_a_reader_that_leaves_early_sees_no_traceback():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "jthermo", "list"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (1, "")


def test_overrides_reach_every_field(own, tmp_path, capsys):
    args = [
        "--learning-rate",
        0.3,
        "--batch-size",
        2,
        "--seed",
        "0:3",
        7,
        "--noise",
        "unbiased",
        "--num-steps",
        9,
    ]
    more = [
        "--loss",
        "squared",
        "--dtype",
        "float64",
        "--set",
        "model.hidden=6",
        "record.probe_size=32",
        "--quiet",
    ]
    _, _, code = call(capsys, "run", own, "--out", tmp_path / "o", *args, *more)
    assert code == 0
    ds = jt.open_results(tmp_path / "o")
    assert ds.attrs["precision"] == "float64"
    sweep = jt.Sweep.from_json(ds.attrs["sweep"])
    assert (sweep.learning_rate, sweep.batch_size, sweep.seed) == ((0.3,), (2,), (0, 1, 2, 7))
    assert (sweep.num_steps, sweep.record.probe_size) == (9, 32)
    (config,) = sweep.configs
    assert (config.model.arguments["hidden"], config.loss, config.noise) == (
        6,
        "squared",
        jt.noise.Unbiased(),
    )


def test_progress_is_line_wise_when_not_a_terminal(own, tmp_path, capsys):
    out, err, _ = call(capsys, "run", own, "--out", tmp_path / "o", "--seed", 0)
    assert re.search(r"3 runs, [\d,]+ run-steps in [\d.]+ s", err)
    assert "\r" not in err
    assert "3 runs, 40 records, 0 diverged" in out


def test_progress_counts_and_forecasts():
    import io

    from jthermo.execution.progress import Progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    bar = Progress(10, 1000, stream=shown)
    bar._printed -= 1
    bar.diverged["cohort"] = 3
    bar.advance(250, 0.5, 25)
    text = shown.getvalue()
    assert text.startswith("\r")
    for words in ("10 runs", "step 25", "25 %", "500 run-steps/s", "0:02 left", "3 diverged"):
        assert words in text
    bar.finish()
    assert shown.getvalue().endswith("3 diverged\n")
    quiet = io.StringIO()
    hidden = Progress(10, 1000, show=False, stream=quiet)
    hidden.advance(1, 1.0, 1)
    hidden.finish()
    assert quiet.getvalue() == ""


def test_fit_prints_exponents_and_json_says_the_same(folder, capsys):
    text, _, code = call(capsys, "fit", folder)
    assert code == 0
    (fitted,) = json.loads(call(capsys, "fit", folder, "--as-json")[0])
    exponent = fitted["exponents"]["learning_rate"]
    assert f"p(learning_rate) = {exponent['value']:.4g}" in text
    direct = jt.fit_collapse(jt.open_results(folder).activation_rate, controls=("learning_rate",))
    assert exponent["value"] == direct.exponents["learning_rate"].value


def test_fit_of_a_table_equals_the_fit_of_the_folder(folder, capsys, tmp_path):
    for to in ("csv", "parquet"):
        path = tmp_path / f"t.{to}"
        assert str(path) in call(capsys, "export", folder, "--to", to, "--out", path)[0]
        args = ["--value", "activation_rate", "--controls", "learning_rate", "--as-json"]
        one, two = (json.loads(call(capsys, "fit", t, *args)[0])[0] for t in (path, folder))
        assert one["exponents"]["learning_rate"]["value"] == pytest.approx(
            two["exponents"]["learning_rate"]["value"], abs=1e-3
        )


def test_fit_of_several_choices_says_which(own, capsys, tmp_path):
    out = tmp_path / "two"
    call(
        capsys, "run", own, "--out", out, "--quiet", "--set", 'vary={"model.init": ["torch", "he"]}'
    )
    text, _, code = call(capsys, "fit", out)
    assert code == 0
    assert text.count("verdict:") == 2
    assert "model.init = he" in text
    assert "model.init = torch" in text
    one = call(capsys, "fit", out, "--where", "model.init=he")[0]
    assert one.count("verdict:") == 1


def test_plot_export_plan_status_list_doctor(folder, own, capsys):
    assert str(folder / "activation_rate.png") in call(capsys, "plot", folder)[0]
    assert (folder / "activation_rate.png").read_bytes().startswith(b"\x89PNG")
    pdf = folder / "rate.pdf"
    args = ("--col", "batch_size", "--powers", "2", "--xscale", "linear", "--out", pdf)
    assert call(capsys, "plot", folder, *args)[0].strip() == str(pdf)
    assert pdf.read_bytes().startswith(b"%PDF")
    rows = int((jt.open_results(folder).step >= 0).sum())
    assert len(pd.read_csv(call(capsys, "export", folder, "--to", "csv")[0].strip())) == rows
    assert "72 in" in call(capsys, "plan", own, "--no-measure")[0]
    state = call(capsys, "status", folder)[0]
    assert re.search(r"state +complete", state)
    assert re.search(r"diverged +0", state)
    assert "fig3_4" in call(capsys, "list")[0]
    # the titles are those of the modules, which are not imported for the list
    listed = dict(line.split(maxsplit=1) for line in call(capsys, "list")[0].splitlines())
    assert list(listed) == list(experiments())
    loaded = reproduce.description(reproduce.load("fig3_4"))
    assert listed["fig3_4"] == loaded.partition("\n\n")[0]
    code = "import sys, jthermo.cli as c; sys.argv = ['jthermo', 'list']; c.main(); "
    code += "print([m for m in ('jax', 'xarray', 'pandas') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr
    out, _, code = call(capsys, "doctor")
    assert ("BAD" in out) == (code == 1)


def test_doctor_names_the_remedy_for_a_full_or_read_only_disk(tmp_path, monkeypatch):
    from jthermo.cli import doctor

    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    disk = jt.doctor(tmp_path)[-1]
    assert not disk.ok
    assert "choose another folder with --out" in disk.text
    monkeypatch.undo()
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "make room" in jt.doctor(tmp_path)[-1].text


def test_claims_are_printed_and_put_into_a_page(tmp_path, capsys):
    row = {
        "choice": {"model.init": "he"}, "variable": "activation_rate",
        "control": "learning_rate", "claimed": "2",
        "exponent": 1.98, "low": 1.9, "high": 2.06, "misfit": 0.01,
        "p_value": 0.3, "first": 0.5, "last": 0.2, "num_seeds": 8,
        "num_runs": 24, "num_left_out": 0, "verdict": "reproduced", "why": "because",
    }  # fmt: skip
    known = {
        "C2": {"text": "falls", "experiments": {"fig3_4": {"rows": [row]}}, "verdict": "reproduced"}
    }
    (tmp_path / "claims.json").write_text(json.dumps(known))
    assert "1.98 [1.90, 2.06]" in call(capsys, "claims", "--results", tmp_path)[0]
    page = tmp_path / "page.md"
    page.write_text("<!-- claims:begin -->\n<!-- claims:end -->")
    call(capsys, "claims", "--results", tmp_path, "--into", page)
    assert "1.98 [1.90, 2.06]" in page.read_text()


MISTAKES = {
    "no such experiment": (["run", "fig99"], "experiment = 'fig99'"),
    "negative rate": (["run", "OWN", "--learning-rate", "-1"], "learning_rate = -1.0"),
    "seed text": (["run", "OWN", "--seed", "a:b"], "seed = 'a:b'"),
    "no equals": (["run", "OWN", "--set", "model.hidden"], "write NAME=VALUE"),
    "no such field": (["run", "OWN", "--set", "model.depth=3"], "has no field 'depth'"),
    "dtype": (["run", "OWN", "--dtype", "double"], "dtype = 'double': use one of float32, fl"),
    "no small scale": (["run", "OWN", "--scale", "small"], "defines no SMALL; add one"),
    "folder in place of a file": (["run", "FOLDER"], "is a results folder; give its Python file"),
    "axis in place of a variable": (["fit", "FOLDER", "--value", "seed"], "value = 'seed': is not"),
    "full batch of fresh data": (["run", "OWN", "--batch-size", "full"], "needs a finite set"),
    "no results": (["fit", "NOWHERE"], "holds no sweep.json"),
    "no variable": (["fit", "FOLDER", "--value", "speed"], "value = 'speed'"),
    "no control": (["fit", "FOLDER", "--controls", "momentum"], "controls = 'momentum'"),
    "no run left": (["fit", "FOLDER", "--where", "seed=99"], "leaves no run"),
    "confidence": (["fit", "FOLDER", "--confidence", "95"], "confidence"),
    "window": (["fit", "FOLDER", "--window", "5", "1"], "window"),
    "fixed": (["fit", "FOLDER", "--fixed", "learning_rate"], "write NAME=POWER"),
    "table kind": (["fit", "OWN"], "give a .csv, .tsv, .dat, .txt or .parquet file"),
    "status": (["status", "NOWHERE"], "holds no sweep.json"),
    "explore nothing": (["explore", "NOWHERE"], "holds no sweep.json"),
    "explore no observable": (["explore", "FOLDER", "--value", "speed"], "value = 'speed'"),
    "explore no table": (["explore", "OWN"], "give a .csv, .tsv, .dat, .txt or .parquet file"),
    "plot": (["plot", "FOLDER", "--by", "momentum"], "by = 'momentum'"),
    "plot column": (["plot", "FOLDER", "--col", "momentum"], "col = 'momentum'"),
    "plot index": (["plot", "FOLDER", "--index", "0"], "index = (0,)"),
    "plot file": (["plot", "FOLDER", "--out", "a.gif"], "ends in .png, .pdf, .svg"),
    "another sweep": (["run", "OWN", "--out", "FOLDER", "--seed", "0"], "holds another sweep"),
    "report": (
        ["report", "--results", "NOWHERE"],
        "is not a folder; run `jthermo reproduce all` first",
    ),
    "claims": (["claims", "--results", "NOWHERE"], "has no claims.json"),
    "verb": (["train"], "Unrecognized options"),
    "option": (["run", "OWN", "--eta", "1"], "Unrecognized"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_users_mistake_is_one_message_and_exit_code_2(case, own, folder, tmp_path, capsys):
    args, words = MISTAKES[case]
    places = {"OWN": own, "FOLDER": folder, "NOWHERE": tmp_path / "nowhere"}
    _, err, code = call(capsys, *(places.get(a, a) for a in args))
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_explore_writes_a_page_for_a_folder_and_for_a_table(folder, tmp_path, capsys):
    out, _, code = call(capsys, "explore", folder)
    assert code == 0
    assert (
        out
        == f"1 collapse of 72 curves; all 72 single curves are drawn\n{folder / 'explore.html'}\n"
    )
    assert f"<h1>{folder}</h1>" in (folder / "explore.html").read_text()
    table = jt.results.tidy(jt.open_results(folder)).rename(
        columns={"step": "hours", "activation_rate": "alive"}
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    names = [
        "--time",
        "hours",
        "--controls",
        "learning_rate",
        "--value",
        "alive",
        "--out",
        tmp_path / "own.html",
    ]
    out, _, code = call(capsys, "explore", tmp_path / "table.csv", *names)
    assert code == 0
    assert "1 collapse of 72 curves" in out
    assert (tmp_path / "own.html").exists()


def test_interruption_exits_75_and_says_how_to_continue(own, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jthermo.execution.runner.run", interrupted)
    _, err, code = call(capsys, "run", own, "--out", tmp_path / "o")
    assert code == 75
    assert "run the same command again to continue" in err


def test_claims_are_printed_by_name(tmp_path, capsys):
    known = {
        name: {"text": f"the text of {name}", "verdict": "undecided", "experiments": {}}
        for name in ("C2", "C3")
    }
    (tmp_path / "claims.json").write_text(json.dumps(known))
    out, _, code = call(capsys, "claims", "--results", tmp_path, "--only", "C3")
    assert code == 0
    assert "the text of C3" in out
    assert "C2" not in out
    _, err, code = call(capsys, "claims", "--results", tmp_path, "--only", "C99")
    assert (code, "only = 'C99'" in err) == (2, True)


def test_a_file_is_read_for_its_sweep_and_never_trains(tmp_path, capsys):
    path, out = tmp_path / "trains_on_import.py", tmp_path / "out"
    path.write_text(f"{OWN}\njt.run(SWEEP, {str(out)!r}, progress=False)\n")
    for verb in ("plan", "run"):
        text, error, code = call(capsys, verb, path)
        assert (text, code) == ("", 2)
        assert "trains when it is imported; put jt.run under `if __name__" in error
        assert len(error.splitlines()) == 1
    assert not out.exists()
    guarded = tmp_path / "trains_as_a_program.py"
    guarded.write_text(f"{OWN}\nif __name__ == '__main__':\n    jt.run(SWEEP, {str(out)!r})\n")
    assert call(capsys, "plan", guarded, "--no-measure")[2] == 0
    assert not out.exists()
    # an import that was refused leaves later calls free to train
    assert jt.run(reproduce.sweep_of(str(guarded), seed=0), progress=False).sizes["run"] == 3


def test_an_interrupted_program_says_once_what_it_saved_and_how_to_go_on(tmp_path):
    path = tmp_path / "interrupted_program.py"
    path.write_text(
        f"{OWN}\nimport os, signal\n"
        "jt.run(SWEEP, 'out', callbacks=[lambda update: os.kill(os.getpid(), signal.SIGINT)])\n"
    )
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == verbs.INTERRUPTED
    words = r"SIGINT at step [\d,]+: saved in out; run the same command to resume"
    assert len(re.findall(words, done.stderr)) == 1
    assert "Traceback" not in done.stderr
