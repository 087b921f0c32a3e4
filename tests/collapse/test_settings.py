"""Settings: a change affects one fit only, and the perturbation study reuses the right stages."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from jthermo.collapse import settings as room
from jthermo.collapse.settings import DEFAULT, Settings
from scripts.collapse_study import perturb
from scripts.collapse_study.families import FAMILIES
from scripts.collapse_study.scoring import ours, source


@pytest.fixture(scope="module")
def draw():
    return FAMILIES["white_2"](source("white_2", 1))


@pytest.fixture(scope="module")
def default(draw):
    return perturb.fit_in_stages(draw, perturb.Traced(**asdict(DEFAULT)))


def test_every_setting_has_a_comment_above_it():
    lines = [line.strip() for line in Path(room.__file__).read_text().splitlines()]
    for field in fields(Settings):
        (place,) = [n for n, line in enumerate(lines) if line.startswith(f"{field.name}: ")]
        assert lines[place - 1].startswith("# ")


def test_a_changed_setting_changes_only_its_own_fit(draw):
    before = ours(draw)
    wider = ours(draw, replace(DEFAULT, model_degrees=2.0))
    assert wider.exponents["rate"].high - wider.exponents["rate"].low != pytest.approx(
        before.exponents["rate"].high - before.exponents["rate"].low
    )
    assert ours(draw).exponents == before.exponents
    assert wider.settings.model_degrees == 2.0


def test_a_fit_in_stages_is_the_fit(draw, default):
    assert default.fit.exponents == ours(draw).exponents
    assert default.fit.p_value == ours(draw).p_value


@pytest.mark.parametrize(
    ("name", "reused"),
    [("prior_strength", False), ("end_parts", True), ("num_starts", False), ("max_records", True)],
)
def test_reused_stages_give_the_fit_of_the_changed_setting(draw, default, name, reused):
    changed = perturb.perturbed(name, 0.5)
    staged = perturb.fit_in_stages(draw, changed, default)
    whole = ours(draw, changed)
    assert staged.fit.exponents == whole.exponents
    assert staged.fit.p_value == whole.p_value
    assert (staged.optimum.best is default.optimum.best) == reused


def test_perturbed_settings_stay_within_their_kind():
    assert perturb.perturbed("window_counts", 0.5).window_counts == (1, 1, 2, 4)
    assert perturb.perturbed("common_degrees", 2.0).common_degrees == 12.0
    assert perturb.perturbed("own_clock_share", 2.0).own_clock_share == pytest.approx(0.8)
    assert perturb.perturbed("outlier_min_spread_replicates", 0.5) is not None
    for name in perturb.NAMES:
        for factor in perturb.FACTORS:
            changed = perturb.perturbed(name, factor)
            if changed is not None and "p_value" in name:
                values = getattr(changed, name)
                values = values if isinstance(values, tuple) else (values,)
                assert all(0 < value < 1 for value in values)


def test_the_study_resumes_and_says_what_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(perturb, "NAMES", frozenset({"model_degrees", "power_rounds"}))
    path = tmp_path / "lines.jsonl"
    perturb.run(path, ["white_2"], 1, 0)
    lines = perturb.read_lines(path)
    assert len(lines) == 5
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + '\n{"setting": "cut')
    perturb.run(path, ["white_2"], 1, 0)
    again = perturb.read_lines(path)
    assert {(x.setting, x.factor) for x in again} == {(x.setting, x.factor) for x in lines}
    text = "\n".join(perturb.table(again))
    assert "model_degrees" in text.partition("not read")[0]
    assert "power_rounds" in text.partition("not read")[2]
