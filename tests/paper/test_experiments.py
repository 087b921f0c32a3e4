"""Experiments are short, build, and run from sweep to figures and verdicts at a tiny scale."""

import json
import re

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from jthermo.paper import claims, reproduce
from jthermo.paper.catalogue import about

NAMES = tuple(reproduce.experiments())
FIGURES = {
    "fig2_top": ("C1", "C2", "C4"),
    "fig3_4": ("C1", "C2", "C4"),
    "fig5_6": ("C3", "C5"),
    "fig7_8": ("C1", "C2", "C4"),
    "fig9_10": ("C3", "C5"),
    "label_redraw": (),
}


# The experiments whose own nets, like those of any user, broadcast a vector with a matrix.
BROADCASTING = ("quartic_well", "teacher_student")


@pytest.fixture(autouse=True)
def rank_promotion(request):
    """Allow implicit broadcasting, which raises elsewhere in the tests, in users' own nets."""
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    with jax.numpy_rank_promotion("allow" if name in BROADCASTING else "raise"):
        yield


def test_the_papers_experiments_are_there():
    assert set(FIGURES) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_a_short_file(name):
    # a figure is a sweep, its claims and its panels; other evidence takes more lines
    most = 40 if name in FIGURES else 180
    assert len(reproduce.experiments()[name].read_text().splitlines()) <= most
    module = reproduce.load(name)
    description = reproduce.description(module)
    assert description.endswith(".")
    assert all("\n" not in paragraph for paragraph in description.split("\n\n"))
    # the report and the list read the file instead
    read = about(reproduce.experiments()[name])
    study = hasattr(module, "WINDOWS")
    assert (read.text, read.claims, read.study) == (description, reproduce.tested(module), study)
    if hasattr(module, "SWEEP"):
        assert examples(module.SWEEP.replace(**module.SMALL)) <= examples(module.SWEEP)


def examples(sweep):
    """The number of examples that all runs of a sweep train on, with repetitions."""
    return sum(
        sweep.steps_of(config)[-1] * config.batch_size * len(group.seeds)
        for config, group in sweep.groups.items()
    )


@pytest.mark.parametrize("name", FIGURES)
def test_an_experiment_runs_from_sweep_to_figures(name):
    module = reproduce.load(name)
    tiny = {"seed": range(4), "num_steps.value": 0.5}
    if "model.init" in module.SWEEP.vary:
        tiny["vary"] = {"model.init": ("torch", "he")}
    ds = jt.run(module.SWEEP.replace(**tiny), progress=False)
    fits = claims.fit_claims(ds, module.FIT)
    assert tuple(c.id for c in module.FIT) == FIGURES[name]
    for claim in module.FIT:
        for chosen in fits[claim.variable, claim.control]:
            row = claims.judge(claim, chosen)
            assert row["verdict"] in ("reproduced", "not reproduced", "undecided")
            assert row["num_seeds"] == 4
    drawn = module.figure(ds, fits)
    assert all(fig.axes for fig in drawn.values())
    assert not any(ax.get_legend() is None for fig in drawn.values() for ax in fig.axes[:1])
    plt.close("all")


@pytest.mark.parametrize(
    ("name", "variable", "most"),
    [("teacher_student", "jacobian_rank", 60), ("quartic_well", "alike", 1)],
)
def test_what_goes_beyond_the_paper_runs_from_sweep_to_figure(name, variable, most, monkeypatch):
    """The rank and the fraction are in their ranges, and each panel has a curve for each arm."""
    module = reproduce.load(name)
    tiny = {"seed": range(2), "num_steps": 20, "record.steps": jt.every(4)}
    if name == "quartic_well":
        monkeypatch.setattr(module, "NOISE", np.array([0.0, 1.0, 2.0]))
        tiny["vary"] = {"data.label_noise": (module.NOISE / module.ETA**0.5).tolist()}
    ds = jt.run(module.SWEEP.replace(**tiny), progress=False)
    values = ds[variable].values
    assert values.min() >= 0
    assert 0 < values.max() <= most
    (fig,) = module.figure(ds, {}).values()
    assert [len(ax.get_lines()) for ax in fig.axes] == {
        "teacher_student": [4] * 3,
        "quartic_well": [4, 4, 3],
    }[name]
    plt.close("all")


def test_reproduce_writes_records_figures_and_claims_and_does_nothing_twice(
    tmp_path, monkeypatch, capsys
):
    module = reproduce.load("fig5_6")
    monkeypatch.setattr(reproduce, "load", lambda name: module)
    monkeypatch.setattr(
        module,
        "SMALL",
        {"seed": range(3), "num_steps.value": 0.3, "vary": {"model.init": ("torch",)}},
    )
    jt.reproduce("fig5_6", out=tmp_path)
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "fig5.svg",
        "fig6.svg",
        "fig5_collapse.svg",
    }
    assert (tmp_path / "fig5_6-small" / "manifest.json").exists()
    known = json.loads((tmp_path / "claims.json").read_text())
    assert set(known) == {"C3", "C5"}
    assert (
        known["C3"]["experiments"]["fig5_6"]["command"] == "jthermo reproduce fig5_6 --scale small"
    )
    own = json.loads((tmp_path / "fig5_6-small" / "claims.json").read_text())
    assert own["rows"]["C3"] == known["C3"]["experiments"]["fig5_6"]["rows"]
    assert "C3  activation_rate" in capsys.readouterr().out
    # nothing is trained again
    monkeypatch.setattr("jthermo.execution.placement.programs", None)
    # nor fitted
    monkeypatch.setattr(claims, "fit_claims", None)
    jt.reproduce("fig5_6", out=tmp_path, progress=False)
    assert json.loads((tmp_path / "claims.json").read_text()) == known
    assert capsys.readouterr().out == ""


def test_an_experiment_with_more_seeds_trains_only_those_that_are_missing(tmp_path, monkeypatch):
    module = reproduce.load("fig5_6")
    monkeypatch.setattr(reproduce, "load", lambda name: module)
    tiny = {"num_steps.value": 0.3, "vary": {"model.init": ("torch",)}}
    monkeypatch.setattr(module, "SMALL", {**tiny, "seed": range(3)})
    fewer = jt.reproduce("fig5_6", out=tmp_path, progress=False)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/records/*")}
    monkeypatch.setattr(module, "SMALL", {**tiny, "seed": range(5)})
    more = jt.reproduce("fig5_6", out=tmp_path, progress=False)
    assert np.unique(more.seed).tolist() == list(range(5))
    assert more.isel(run=more.seed < 3).activation_rate.equals(fewer.activation_rate)
    assert written
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    known = json.loads((tmp_path / "claims.json").read_text())
    assert known["C3"]["experiments"]["fig5_6"]["rows"][0]["num_seeds"] == 5


def test_the_study_of_choices_draws_every_combination():
    module = reproduce.load("sensitivity")
    tiny = {"seed": range(4), "vary": {"model.init": ("torch",), "data.num_samples": (None, 100)}}
    ds = jt.run(module.SWEEP.replace(**tiny, **{"num_steps.value": 1.0}), progress=False)
    fits = claims.fit_claims(ds, module.FIT[:1], dict.fromkeys(module.WINDOWS, (0, 1)))
    fits["weight_norm_V", "learning_rate"] = fits["activation_rate", "learning_rate"]
    for chosen in fits["activation_rate", "learning_rate"]:
        # an axis with one value is not a choice, but the figure needs it
        chosen.choice["model.init"] = "torch"
    fig = module.figure(ds, fits)["sensitivity"]
    texts = [t.get_text() for ax in fig.axes for t in (*ax.texts, *ax.get_xticklabels())]
    assert sum("]" in t or "identifiable" in t for t in texts) == 2 * 3 * 2
    assert {"fresh", "n = 100"} <= set(texts)
    plt.close("all")


def test_the_map_of_initialisations_draws_every_gain():
    module = reproduce.load("init_map")
    gains = {module.Y: (module.HE, 2 * module.HE), module.X: (0.3, 1.0)}
    tiny = {"seed": range(4), "vary": gains | {"model.init.paired": (False, True)}}
    ds = jt.run(module.SWEEP.replace(**tiny, **{"num_steps.value": 1.0}), progress=False)
    fits = claims.fit_claims(ds, module.FIT[:1], {"all": (0, 1)})
    fits["weight_norm_V", "learning_rate"] = fits["activation_rate", "learning_rate"]
    drawn = module.figure(ds, fits)
    for fig, cells in ((drawn["init_map"], r"\]|identifiable"), (drawn["init_map_misfit"], r"\d$")):
        texts = [t.get_text() for ax in fig.axes for t in ax.texts]
        assert len([t for t in texts if re.search(cells, t)]) == 2 * 2 * 4
        labels = {t.get_text() for ax in fig.axes for t in ax.get_xticklabels()}
        assert labels == {"0.3", "1"}
    plt.close("all")


def test_the_study_of_small_rates_draws_a_line_for_each_start():
    module = reproduce.load("small_rates")
    tiny = {"seed": range(4), "learning_rate": (0.05, 0.1, 0.2), "num_steps.value": 7.0}
    ds = jt.run(module.SWEEP.replace(**tiny), progress=False)
    (fig,) = module.figure(ds, {}).values()
    for ax in fig.axes:
        assert len(ax.containers) == 4
        assert [t.get_text() for t in ax.get_xticklabels()] == ["100"]
    plt.close("all")


def test_bad_names_are_named(tmp_path):
    with pytest.raises(InputError, match=r"experiment = 'fig99': use one of .*fig2_top"):
        jt.reproduce("fig99")
    with pytest.raises(InputError, match="scale = 'huge'"):
        jt.reproduce("fig3_4", "huge")
    empty = tmp_path / "nothing_here.py"
    empty.write_text("x = 1\n")
    with pytest.raises(InputError, match="defines no SWEEP"):
        reproduce.load(str(empty))
    for number, (text, words) in enumerate(
        (
            ("SWEEP = 3\n", "has SWEEP = 3; give SWEEP = jt.Sweep"),
            ("x = 1\nimport nothing_of_this_name\n", "fails at line 2: ModuleNotFoundError"),
            ("x = 1\ny = (\n", "fails at line 2: SyntaxError"),
            ("def f():\n    return 1 / 0\n\nf()\n", "fails at line 2: ZeroDivisionError"),
        )
    ):
        wrong = tmp_path / f"wrong_file_{number}.py"
        wrong.write_text(text)
        with pytest.raises(InputError, match=words):
            reproduce.load(str(wrong))
    clash = tmp_path / "json.py"
    clash.write_text("SWEEP = 1\n")
    with pytest.raises(InputError, match="rename the file"):
        reproduce.load(str(clash))
