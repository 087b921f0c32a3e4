"""Each kind of verdict from planted curves, and the file and tables of claims."""

import json

import numpy as np
import pytest
import xarray as xr

import jthermo as jt
from jthermo.collapse import Form
from jthermo.errors import InputError
from jthermo.paper import claims, claims_json, claims_tables, verdicts
from jthermo.paper.evidence import above, equals

RATES, SEEDS = (0.05, 0.1, 0.2), 12


def results(power, *, falls=True, bend=0.0, noise=0.003):
    """Runs whose mean is a function of t·η^power, with an η-dependent plateau of height `bend`."""
    rng = np.random.default_rng(1)
    step = np.unique(np.geomspace(1, 4000, 60).astype(int))
    rows, rate, seed = [], [], []
    for value in RATES:
        tau = step * value**power / (np.median(step) * 0.1**power)
        curve = 1 / (1 + tau) + bend * np.log(value / 0.1)
        for s in range(SEEDS):
            offset, points = 0.01 * rng.standard_normal(), noise * rng.standard_normal(len(step))
            rows.append((curve if falls else -curve) + offset + points)
            rate.append(value)
            seed.append(s)
    shape = (len(rows), len(step))
    return xr.Dataset(
        {
            "value": (("run", "record"), np.array(rows)),
            "finite": (("run", "record"), np.ones(shape, bool)),
        },
        {
            "learning_rate": ("run", rate),
            "batch_size": ("run", np.ones(len(rows), int)),
            "seed": ("run", seed),
            "model.init": ("run", ["he"] * len(rows)),
            "step": (("run", "record"), np.broadcast_to(step, shape)),
        },
    )


def drifting(power, drift, draw, *, noise=0.02, walk=0.04):
    """Runs of 8 seeds on t·η^p with p from `power` − `drift` early to `power` + `drift` late.

    Each run has a random walk of size `walk` and noise at each record.
    """
    rng = np.random.default_rng(draw)
    ds = results(power).isel(record=slice(None, None, 2))
    ds = ds.isel(run=ds.seed.values < 8)
    step = ds.step.values
    local = power + drift * np.linspace(-1, 1, step.shape[1])
    tau = 2 * step / np.median(step) * (ds.learning_rate.values[:, None] / 0.1) ** local
    wandering = np.cumsum(rng.standard_normal(step.shape), 1) / np.sqrt(step.shape[1])
    value = 1 / (1 + tau) + noise * rng.standard_normal(step.shape) + walk * wandering
    return ds.assign(value=(("run", "record"), value))


def judged(power, claimed, drift, draw, **noise):
    claim = jt.Claim("C2", "value", "learning_rate", exponent=claimed)
    (chosen,) = claims.fit_choices(drifting(power, drift, draw, **noise), "value", (RATE,))
    return claims.judge(claim, chosen)


RATE = "learning_rate"
C2 = jt.Claim("C2", "value", "learning_rate", exponent=2)
C1 = jt.Claim("C1", "value", "learning_rate", above=1)
# claimed exponents may be negative, as that of the batch size
C3 = jt.Claim("C3", "value", "learning_rate", exponent=-1)


@pytest.mark.parametrize(
    ("claim", "ds", "verdict", "why"),
    [
        (C2, results(2), "reproduced", "within 15 % of 2"),
        (C2, results(1), "not reproduced", "excludes 2"),
        (C2, results(0), "not reproduced", "excludes 2"),
        (C2, results(2, falls=False), "not reproduced", "does not fall"),
        (C2, results(2, bend=0.15), "not reproduced", "(curves miss|excludes 2)"),
        (C2, results(2, noise=1.0), "undecided", "too wide; .* seeds would decide it"),
        (C1, results(2), "reproduced", "above 1"),
        (C1, results(0.5), "not reproduced", "below 1"),
        (C1, results(1), "undecided", "too wide"),
        (C3, results(-1), "reproduced", "within 15 % of -1"),
        (C3, results(-2), "not reproduced", "excludes -1"),
    ],
)
def test_a_verdict_follows_from_the_curves(claim, ds, verdict, why):
    (chosen,) = claims.fit_choices(ds, "value", ("learning_rate",))
    row = claims.judge(claim, chosen)
    assert row["verdict"] == verdict
    import re

    assert re.search(why, row["why"])
    assert row["num_seeds"] == SEEDS
    assert row["num_runs"] == SEEDS * len(RATES)


@pytest.mark.parametrize("power", [2.0, 1.95])
def test_a_drift_about_the_papers_exponent_is_judged_by_the_misfits_on_three_clocks(power):
    """The drift widens the interval beyond the tolerance at any number of seeds."""
    rows = [judged(power, 2, 0.4, [1, draw], noise=0.01, walk=0.02) for draw in range(4)]
    assert {row["verdict"] for row in rows} == {"reproduced"}
    assert any("clocks" in row for row in rows)
    for row in rows:
        assert verdicts.supported(json.loads(json.dumps(row)))
        if "clocks" in row:
            assert [clock["exponent"] for clock in row["clocks"]] == pytest.approx([2, 1.4, 2.6])
            assert "on the paper's clock the curves miss each other by" in row["why"]
            # the same misfits, if another clock were the paper's
            other = {**row, "clocks": row["clocks"][::-1]}
            assert verdicts.verdict(other)[0] == "not reproduced"


@pytest.mark.parametrize(
    ("power", "claimed", "drift", "noise"),
    [
        (1.6, 2, 0.0, {"noise": 0.05, "walk": 0.1}),
        (1.6, 2, 0.3, {}),
        (1.5, 2, 0.4, {}),
        (-0.7, -1, 0.0, {"noise": 0.05, "walk": 0.1}),
        (-0.7, -1, 0.2, {}),
    ],
)
def test_another_exponent_is_never_reproduced(power, claimed, drift, noise):
    """Also where noise or drift widen the interval so far that it reaches the tolerance."""
    rows = [judged(power, claimed, drift, [2, draw], **noise) for draw in range(6)]
    assert "reproduced" not in {row["verdict"] for row in rows}
    assert any("clocks" in row for row in rows)


def test_flat_curves_are_undecided():
    """Noise lies as close together on any clock; the first record is raised so that it falls."""
    ds = drifting(2, 0, [3])
    noise = np.random.default_rng(3).standard_normal(ds.value.shape)
    noise[:, 0] += 1 + noise[:, -1].mean() - noise[:, 0].mean()
    (chosen,) = claims.fit_choices(ds.assign(value=(("run", "record"), noise)), "value", (RATE,))
    row = claims.judge(C2, chosen)
    assert row["verdict"] == "undecided"
    assert "clocks" in row


def test_choices_get_a_fit_each_and_the_claim_says_what_it_depends_on(tmp_path):
    two = xr.concat(
        [results(2), results(1).assign_coords({"model.init": ("run", ["unit"] * 36)})], "run"
    )
    path = tmp_path / "claims.json"
    fits = claims.fit_claims(two, [C2])
    assert [c.choice for c in fits["value", "learning_rate"]] == [
        {"model.init": "he"},
        {"model.init": "unit"},
    ]
    known = claims_json.update(path, "fig3_4", {"command": "x", "rows": claims.rows([C2], fits)})
    assert json.loads(path.read_text()) == known
    verdict = known["C2"]["verdict"]
    counts = "reproduced in 1 of 2 fits, not reproduced in 1 of 2 fits"
    cases = "it depends on model.init: reproduced for he, not reproduced for unit"
    assert verdict == f"{counts}; {cases}"
    # an experiment that maps the choice is named
    findings = {"rows": {}, "sensitivity": claims.rows([C2], fits)}
    mapped = claims_json.update(path, "init_map", findings)["C2"]["verdict"]
    assert mapped == f"{verdict} (mapped by init_map)"
    claims_json.update(path, "init_map", {"rows": {}})
    rows = claims.rows([C2], claims.fit_claims(results(2), [C2]))
    again = claims_json.update(path, "fig3_4", {"command": "x", "rows": rows})
    # the new rows have replaced the old ones
    assert again["C2"]["verdict"] == "reproduced"
    assert len(again["C2"]["experiments"]["fig3_4"]["rows"]) == 1
    summary = claims_tables.summary(again)
    assert "C2  the activation rate collapses on η²t: reproduced" in summary
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- claims:begin -->\nold\n<!-- claims:end -->\nafter\n")
    claims_tables.write_tables(path, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    row = again["C2"]["experiments"]["fig3_4"]["rows"][0]
    assert f"| {row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |" in text
    (tmp_path / "bare.md").write_text("no markers")
    with pytest.raises(InputError, match="has no lines"):
        claims_tables.write_tables(path, tmp_path / "bare.md")


def test_a_fit_says_which_form_its_curves_obey(tmp_path):
    forms = {claims.STATED: Form(fixed={"learning_rate": 2}), "one clock": Form()}
    claim = jt.Claim("C4", "value", "learning_rate", exponent=2, forms=forms)
    rows = claims.rows([claim], claims.fit_claims(results(1), [claim]))["C4"]
    best, other = rows[0]["forms"]
    assert (best["name"], best["status"], best["score"]) == ("one clock", "best", 0)
    assert (other["name"], other["status"]) == (claims.STATED, "rejected")
    assert other["score"] < -3 * other["standard_error"] < 0
    assert best["power"] is None
    path = tmp_path / "claims.json"
    known = claims_json.update(path, "fig3_4", {"command": "x", "rows": {"C4": rows}})
    said = (
        f"“one clock” holds; log likelihood relative to it: {claims.STATED} {other['score']:.0f} ± "
    )
    assert said in claims_tables.table(known)
    counted = "the paper's clock holds in 0 of 1 fits; the form that holds and predicts best is"
    assert f"{counted} “one clock” in 1." in claims_tables.verdict_table(known)
    # a floor scaled by a power of the control, and a case in which no form holds
    power = {"name": "two clocks", "status": "rejected", "score": 0.0, "standard_error": 0.0}
    rows[0]["forms"] = [{**power, "power": [0.5, 0.4, 0.6]}, other]
    known = claims_json.update(path, "fig3_4", {"command": "x", "rows": {"C4": rows}})
    said = "no form tried holds; “two clocks” (value ∝ η^0.50 [0.40, 0.60]) predicts best"
    assert said in claims_tables.summary(known) or said in claims_tables.table(known)
    assert "is none of those tried in 1." in claims_tables.verdict_table(known)


def test_the_two_clocks_of_a_norm_are_told_from_one():
    """A relaxation on ηt to a floor ∝ √η that changes on η²t, and its rivals."""
    rng = np.random.default_rng(2)
    ds = results(2)
    step, rate = ds.step.values[0], ds.learning_rate.values[:, None]
    floor = np.sqrt(rate) / (1 + step * rate**2 / 20)
    value = np.where(step * rate < 8, 2 * np.exp(-step * rate / 2), floor)
    value += 0.01 * rng.standard_normal(value.shape)
    forms = claims.two_clocks("learning_rate", 1, 2)
    claim = jt.Claim("C4", "value", "learning_rate", exponent=2, forms=forms)
    first, *others = claims.compared(claim, ds.assign(value=(("run", "record"), value)))
    assert (first["name"], first["status"]) == ("two clocks", "best")
    assert {form["status"] for form in others} == {"rejected"}
    assert first["power"][0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("factor", "kept"), [(1 + 1e-12, True), (1 + 1e-4, False)])
def test_rounding_errors_change_no_byte_and_other_findings_do(tmp_path, factor, kept):
    """A rerun on another processor differs in the last digits of its fits."""
    path = tmp_path / "claims.json"
    rows = claims.rows([C2], claims.fit_claims(results(2), [C2]))
    claims_json.update(path, "fig3_4", {"command": "x", "rows": rows, "made": {"date": "then"}})
    before = path.read_bytes()
    (row,) = rows["C2"]
    again = {"C2": [{**row, "exponent": row["exponent"] * factor}]}
    claims_json.update(path, "fig3_4", {"command": "x", "rows": again, "made": {"date": "now"}})
    assert (path.read_bytes() == before) == kept


def test_a_claim_names_its_row_and_one_statement():
    for bad in ({"exponent": 2, "above": 1}, {}):
        with pytest.raises(InputError, match="give either exponent= or above=, and not both"):
            jt.Claim("C2", "value", "learning_rate", **bad)
    with pytest.raises(InputError, match="claim = 'C99'"):
        jt.Claim("C99", "value", "learning_rate", exponent=2)


def test_an_experiment_without_its_data_is_not_run_and_keeps_the_rows_of_another_machine(tmp_path):
    path, absent = (
        tmp_path / "claims.json",
        {"rows": {"C8": []}, "not_run": "cifar10 is not available"},
    )
    known = claims_json.update(path, "fig11_12", absent)
    assert known["C8"]["verdict"] == "fig11_12 not run: cifar10 is not available"
    for text in (
        claims_tables.table(known),
        claims_tables.summary(known),
        claims_tables.verdict_table(known),
    ):
        assert "not run: cifar10 is not available" in text
        assert "**reproduced**" not in text
    row = {
        "choice": {},
        "variable": "activation_rate",
        "control": "learning_rate",
        "verdict": "undecided",
        "claimed": "2",
        "why": "because",
        **dict.fromkeys(("exponent", "low", "high")),
        **dict.fromkeys(("misfit", "first", "last", "num_seeds", "num_runs", "num_left_out"), 0),
    }
    claims_json.update(path, "fig11_12", {"rows": {"C8": [row]}})
    known = claims_json.update(path, "fig11_12", absent)
    assert known["C8"]["verdict"] == "undecided"
    # it no longer tests this claim
    known = claims_json.update(path, "fig11_12", {"rows": {}})
    assert known["C8"]["verdict"] == "not run"


def test_a_verdict_is_supported_by_the_numbers_of_its_row_or_it_is_not():
    (chosen,) = claims.fit_choices(results(2), "value", ("learning_rate",))
    fitted = claims.judge(C2, chosen)
    measured = above("C9", "ratio", 1, 1.4, 1.2, 1.6).row()
    agreeing = equals("C11", "flux", -1.0, -1.01, 0.004, tolerance=0.002).row()
    for row, tampered in (
        (fitted, {"low": 0.9, "exponent": 1.0, "high": 1.1}),
        (fitted, {"exponent": 2.4}),
        (fitted, {"misfit": 0.2, "collapsed": False}),
        (fitted, {"last": 2.0}),
        (fitted, {"claimed": "3"}),
        (fitted, {"verdict": "not reproduced"}),
        (fitted, {"low": "a"}),
        (measured, {"low": 0.9}),
        (measured, {"relation": "<"}),
        (agreeing, {"value": -1.02, "low": -1.021, "high": -1.019}),
        (agreeing, {"target": -0.5}),
    ):
        assert row["verdict"] == "reproduced"
        assert verdicts.supported(json.loads(json.dumps(row)))
        assert not verdicts.supported({**row, **tampered}), tampered
    del fitted["first"]
    assert not verdicts.supported(fitted)


def test_windows_are_one_more_choice_and_hold_only_their_part_of_the_clock():
    ds = results(2)
    fits = claims.fit_claims(ds, [C2], {"all": (0, 1e9), "early": (0, 4), "late": (4, 1e9)})
    assert [c.choice for c in fits["value", "learning_rate"]] == [
        {"window": "all"}, {"window": "early"}, {"window": "late"}
    ]  # fmt: skip
    ends = [claims.judge(C2, c) for c in fits["value", "learning_rate"]]
    assert (
        ends[0]["first"] == ends[1]["first"] > ends[1]["last"] > ends[2]["last"] == ends[0]["last"]
    )
    assert all(row["exponent"] == pytest.approx(2, abs=0.1) for row in ends)


def test_a_flipped_digit_of_claims_json_is_noticed_and_other_claims_are_kept(tmp_path, capsys):
    path = tmp_path / "claims.json"
    for name in ("C2", "C3"):
        row = {"quantity": "q", "value": 1.25, "low": 1.0, "high": 1.5, "verdict": "undecided"}
        row |= {"choice": {}, "claimed": "1", "num_seeds": 2, "why": ""}
        claims_json.update(path, "fig3_4", {"rows": {c: [row] for c in ("C2", name)}})
        claims_json.update(path, "fig5_6", {"rows": {"C3": [row]}})
    body = path.read_bytes()
    assert claims_json.read(path)["C2"]["experiments"]["fig3_4"]["rows"][0]["value"] == 1.25
    for old, new, damaged in (
        (b"1.25", b"1.35", "C2"),
        (b'"C3"', b'"C1"', "C2, C1"),
        (b'"undecided"', b'"undesided"', "C2"),
    ):
        path.write_bytes(body.replace(old, new, 1))
        words = rf"doesn't have the SHA-256 of {damaged}, so it was altered; restore it"
        with pytest.raises(InputError, match=words):
            claims_json.read(path)
        with pytest.raises(InputError, match=words):
            claims_tables.write_tables(path, tmp_path / "page.md")
    path.write_bytes(body.replace(b"1.25", b"1.35", 1))
    known = claims_json.update(path, "label_redraw", {"rows": {}})
    assert "set aside as bad-claims.json, and the other entries are kept" in capsys.readouterr().err
    assert set(known) == {"C3"}
    assert claims_json.read(path) == {"C3": {k: v for k, v in known["C3"].items() if k != "sha256"}}
    # a file of an earlier version, without digests
    plain = {claim: {"text": "", "experiments": {}, "verdict": ""} for claim in ("C2", "C2x")}
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError, match="has entries that are no claims: 'C2x', so it was"):
        claims_json.read(path)
    path.write_text(json.dumps({"C2": {**plain["C2"], "experiments": {"f": {"rows": [row]}}}}))
    assert set(claims_json.read(path)) == {"C2"}
    row["claimed"] = "> x"
    path.write_text(json.dumps({"C2": {**plain["C2"], "experiments": {"f": {"rows": [row]}}}}))
    with pytest.raises(InputError, match=r"rows\[0\].claimed is '> x' instead of text like"):
        claims_json.read(path)
    path.write_bytes(body[:-20])
    with pytest.raises(InputError, match="isn't valid JSON"):
        claims_json.read(path)
