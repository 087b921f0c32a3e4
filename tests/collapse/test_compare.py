"""`compare` finds the form that the curves obey, and a refused fit names the one worth trying."""

import json

import numpy as np
import pandas as pd
import pytest

from jthermo.collapse import Crossover, Form, compare, fit_collapse
from jthermo.collapse.prediction import Records, predict
from jthermo.collapse.predictive_score import Judge, noise_for_all
from jthermo.collapse.read import read_curves
from jthermo.collapse.settings import DEFAULT
from jthermo.errors import InputError
from scripts.collapse_study.choices import CHOICES, outcome
from scripts.collapse_study.scoring import source

TIMES = np.geomspace(0.02, 50, 40)
SIZES = (1.0, 2.0, 4.0)


def law(curve, sizes=SIZES, replicates=5, noise=0.02, times=TIMES, seed=0, relative=False):
    """Replicates of curve(t, L)."""
    rng, frames = np.random.default_rng(seed), []
    for size in sizes:
        for r in range(replicates):
            clean = curve(times, size)
            error = noise * rng.standard_normal(len(times))
            value = clean * np.exp(error) if relative else clean + error
            columns = {"L": size, "seed": f"{size}-{r}", "step": times, "value": value}
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def one_clock(t, size):
    return 1 / (1 + t * size)


def scaled(t, size):
    return size**0.3 / (1 + t * size)


FORMS = {
    "one clock": Form(),
    "value scaled": Form(rescale=["L"]),
    "theory": Form(fixed={"L": 1.0}),
    "wrong": Form(fixed={"L": 0.5}),
}


@pytest.fixture(scope="module")
def of_one_clock():
    return compare(law(one_clock), ["L"], FORMS)


def test_the_simplest_true_form_is_named_first_and_richer_ones_are_tied(of_one_clock):
    assert of_one_clock.best == "theory"
    assert set(of_one_clock.tied) == {"one clock", "value scaled"}
    assert of_one_clock.rejected == ("wrong",)
    numbers = [form.num_fitted for form in of_one_clock.forms[:3]]
    assert numbers == sorted(numbers)
    assert np.diff(numbers) == pytest.approx(1, abs=0.3)


def test_a_form_that_lacks_what_the_data_show_is_rejected():
    answer = compare(law(scaled), ["L"])
    assert (answer.best, answer.rejected) == ("value scaled", ("one clock",))
    fit = answer["value scaled"].fits[0]
    assert fit.exponents["value_L"].low < 0.3 < fit.exponents["value_L"].high
    assert answer["one clock"].score < -10 * answer["one clock"].standard_error


def test_a_wrong_form_alone_is_rejected_and_noise_alone_chooses_nothing():
    alone = compare(law(one_clock), ["L"], {"wrong": FORMS["wrong"]})
    assert (alone.best, alone.rejected) == ("wrong", ("wrong",))
    assert "none of the forms holds" in alone.summary()
    assert alone.no_law > 0
    nothing = compare(law(lambda t, size: np.full(len(t), 0.3)), ["L"], FORMS)
    assert len(nothing.tied) == 3
    # A law that contains the true one loses no more than the cost of its further unknowns.
    assert "more unknowns than the data need" in nothing["value scaled"].reason


def test_left_out_replicates_are_predicted_as_by_fits_without_them():
    """The linear step from the full fit against fits of all replicates but one."""
    table = law(scaled, replicates=3, noise=0.03, times=TIMES[::2])

    def records(rows):
        curves = read_curves(
            rows,
            ["L"],
            time="step",
            replicate="seed",
            value="value",
            form=Form(),
            settings=DEFAULT,
        )
        return Records.of(curves, Form(), DEFAULT)

    whole = records(table)
    values = whole.averages.means.mean + whole.averages.replicates.deviations
    judge = Judge(whole, *noise_for_all(whole, [whole.own]))
    scores = {}
    for name in ("one clock", "value scaled"):
        rescale = FORMS[name].rescale
        prediction = predict(whole, [fit_collapse(table, ["L"], rescale=rescale)])
        exact = 0.0
        for row, label in enumerate(table.seed.unique()):
            bins = np.flatnonzero(whole.averages.replicates.present[row])
            rest = fit_collapse(table[table.seed != label], ["L"], rescale=rescale)
            error = (values[row] - predict(whole, [rest]).mean)[bins]
            exact -= 0.5 * error @ np.linalg.solve(judge.omega[np.ix_(bins, bins)] * 3, error)
        in_sample = judge.score(type(prediction)(prediction.mean, 0 * prediction.hat))
        scores[name] = (judge.score(prediction), exact, in_sample)
    linear, exact, in_sample = scores["value scaled"]
    assert linear == pytest.approx(exact, abs=0.15 * (in_sample - exact))
    assert exact < in_sample - 5
    linear, exact, _ = scores["one clock"]
    assert linear == pytest.approx(exact, rel=0.15)


def test_two_clocks_are_found_with_their_exponents():
    choice = CHOICES["two_clocks"](source("two_clocks", 0, salt=3))
    answer = choice.answer()
    assert (answer.best, len(answer.rejected)) == ("two clocks", 3)
    early, late = answer["two clocks"].fits
    assert early.window[1] <= late.window[1]
    assert late.collapsed is not False
    assert "value_rate" in late.exponents
    assert "value_rate" not in early.exponents


def test_laws_in_their_windows_may_leave_a_range_to_neither():
    def curve(t, size):
        early, late = np.exp(-t * size), 0.3 * size**-0.5 / (1 + t * size**2 / 40)
        share = 1 / (1 + (t * size / 2) ** 8)
        between = 0.2 * np.log(size) * np.exp(-(np.log(t * size / 2) ** 2) / 0.1)
        return share * early + (1 - share) * late + between

    table = law(curve, replicates=8)
    theory = {"early": Form(fixed={"L": 1}), "late": Form(rescale=["L"])}
    forms = {
        "gap": Crossover(**theory, at=(0.5, 6.0)),
        "no gap": Crossover(**theory, at=2.0),
        "windows": Crossover(
            Form(clock_window=(0, 0.5, {"L": 1})),
            Form(rescale=["L"], clock_window=(6, np.inf, {"L": 1})),
        ),
    }
    answer = compare(table, ["L"], forms)
    assert (answer.best, answer.tied, answer.rejected) == ("gap", ("windows",), ("no gap",))
    _, late = answer["gap"].fits
    assert late.exponents["L"].low < 2 < late.exponents["L"].high
    assert late.exponents["value_L"].low < -0.5 < late.exponents["value_L"].high


def test_laws_of_logs_and_of_values_predict_the_same_numbers():
    table = law(lambda t, size: size**0.4 / (1 + t * size) ** 1.5, noise=0.05, relative=True)
    linear, logs = Form(rescale=["L"]), Form(rescale=["L"], scale="log")
    both = compare(table, ["L"], {"linear": linear, "logs": logs, "wrong": Form(scale="log")})
    assert both.best == "logs"
    assert abs(both["linear"].score) < 3 * both["linear"].standard_error < 15
    first, second = (both[name].fits[0] for name in ("linear", "logs"))
    assert first.exponents["value_L"].value == pytest.approx(
        second.exponents["value_L"].value, abs=0.02
    )
    only = compare(table, ["L"], {"logs": logs, "wrong": Form(scale="log")})
    assert (only.best, only.rejected) == ("logs", ("wrong",))


@pytest.mark.parametrize("error", [None, "sigma"])
def test_without_replicates_the_noise_is_published_or_that_of_the_residuals(error):
    table = law(one_clock, replicates=1, seed=3).assign(sigma=0.02)
    answer = compare(table, ["L"], FORMS, error=error, replicate=None)
    assert not answer.replicates
    assert answer["theory"].status in ("best", "tied")
    assert answer["wrong"].status == "rejected"
    assert answer["wrong"].score < -20


def test_an_answer_can_be_printed_saved_and_drawn(of_one_clock):
    text = str(of_one_clock)
    assert text == of_one_clock.summary()
    assert "theory is best; the data cannot tell it from" in text
    assert "its curves miss each other (p = " in text
    plain = json.loads(json.dumps(of_one_clock.to_dict()))
    assert [form["name"] for form in plain["forms"]] == [f.name for f in of_one_clock.forms]
    assert plain["forms"][1]["fits"][0]["collapsed"] is True
    axes = of_one_clock.plot()
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "theory (best)"
    with pytest.raises(InputError, match=r"name = 'none': is none of the forms \['theory'"):
        of_one_clock["none"]


@pytest.mark.parametrize(
    ("forms", "words"),
    [
        ({}, "forms = {}: give Forms by name"),
        ([Form()], "forms = .*give Forms by name"),
        ({"a": {"rescale": ["L"]}}, r"forms\['a'\] = .*give Forms by name"),
        ({"a": Form(rescale=["M"])}, r"forms\['a'\].rescale = 'M': is not one of"),
        ({"a": Form(clock_window=(1e8, 1e9))}, r"forms\['a'\].clock_window = .*no record lies"),
        ({"a": Crossover(Form(), Form(), at=1e9)}, r"forms\['a'\].clock_window = .*no record"),
    ],
)
def test_forms_that_cannot_be_compared_are_refused_by_name(forms, words):
    with pytest.raises(InputError, match=words) as refused:
        compare(law(one_clock, replicates=2), ["L"], forms)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"early": "ηt", "late": Form()}, "early = 'ηt': give a Form"),
        ({"early": Form(clock_window=(0, 1)), "late": Form()}, "at = None: give at"),
        ({"early": Form(critical_point=(0, 1)), "late": Form()}, "the crossover is measured"),
        ({"early": Form(), "late": Form(), "at": (2, 1)}, "at = .2, 1.: give a number"),
    ],
)
def test_a_crossover_that_cannot_be_is_refused_in_one_line(parts, words):
    with pytest.raises(InputError, match=words):
        Crossover(**parts)


# Those of the study that take little time.
QUICK = ("paired_clock", "single_clock", "correction", "late_law", "two_controls", "critical")


def test_the_right_form_of_the_study_is_best_or_tied():
    answers = {name: CHOICES[name](source(name, 1, salt=2)) for name in (*QUICK, "irreducible")}
    found = {name: outcome(choice, choice.answer()) for name, choice in answers.items()}
    assert set(found.values()) <= {"best", "tied"}


# ---- the form worth trying


def late_clock(t, size):
    share = 1 / (1 + (t * size / 2) ** 6)
    return share * np.exp(-t * size / 3) + (1 - share) * 0.5 / (1 + t * size**1.6 / 20)


PATTERNS = {
    "rescale=['L']": law(scaled),
    "rescale=['L'] and scale=\"log\"": law(
        lambda t, size: size**0.5 / (1 + t * size), noise=0.05, relative=True
    ),
    "correction={'L': (-4.0, -0.25)}": law(
        lambda t, size: 1 / (1 + t * size * np.exp(1.5 / size)), sizes=(1.0, 2.0, 4.0, 8.0)
    ),
    "correction={'L': (0.25, 4.0)}": law(
        lambda t, size: 1 / (1 + t * size * np.exp(0.15 * size)), sizes=(1.0, 2.0, 4.0, 8.0)
    ),
    "clock_window, or compare with Crossover": law(late_clock, replicates=8),
}


@pytest.mark.parametrize("words", PATTERNS)
def test_a_refused_collapse_names_the_form_worth_trying(words):
    fit = fit_collapse(PATTERNS[words], ["L"])
    assert fit.collapsed is False
    assert fit.worth_trying().split(": ", 1)[1].startswith(words)
    assert f"worth trying: {fit.worth_trying()}" in fit.summary()


def test_no_form_is_named_for_one_odd_curve_or_for_a_collapse():
    def odd(t, size):
        return one_clock(t, size) + 0.1 * (size == 4.0) * np.sin(3 * np.log(t))

    refused = fit_collapse(law(odd, sizes=(1.0, 2.0, 4.0, 8.0, 16.0)), ["L"])
    assert refused.collapsed is False
    assert refused.worth_trying() is None
    true = fit_collapse(law(one_clock), ["L"])
    assert true.worth_trying() is None
    for fit in (refused, true):
        assert "worth trying" not in fit.summary()


def test_controls_that_are_equal_to_rounding_leave_nothing_to_try():
    """Found by scripts/fuzz: a control of 10⁹ and the next larger number."""
    rng = np.random.default_rng(3)
    steps = np.geomspace(1, 100, 20)
    frames = [
        pd.DataFrame(
            {
                "c": c,
                "seed": f"{number}-{seed}",
                "step": steps,
                "value": (1 + number) / (1 + steps) + 0.001 * rng.normal(size=20),
            }
        )
        for number, c in enumerate((1e9, np.nextafter(1e9, 2e9)))
        for seed in range(3)
    ]
    fit = fit_collapse(pd.concat(frames), ["c"])
    assert not fit.worth_trying()
    assert "worth trying" not in fit.summary()
