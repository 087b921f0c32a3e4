"""Verdicts from rows with given numbers, for claimed values of either sign and on either side."""

import pytest

from jthermo.paper import verdicts

FITTED = {"first": 1.0, "last": 0.5, "misfit": 0.01, "collapsed": True}


def fitted(claimed, low, high, **more):
    return verdicts.verdict({**FITTED, "claimed": claimed, "low": low, "high": high, **more})[0]


def measured(relation, low, high, target, **more):
    row = {"quantity": "x", "relation": relation, "low": low, "high": high, "target": target}
    return verdicts.verdict({**row, "value": (low + high) / 2, "tolerance": 0.0, **more})[0]


@pytest.mark.parametrize("claimed", [2.0, 0.4, -0.4, -1.0])
@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.86, 1.14, "reproduced"),
        (0.84, 1.14, "undecided"),
        (0.86, 1.16, "undecided"),
        (0.50, 1.50, "undecided"),
        (0.50, 0.84, "not reproduced"),
        (1.16, 1.50, "not reproduced"),
        (-1.05, -0.95, "not reproduced"),
    ],
)
def test_an_exponent_of_either_sign_is_judged_by_its_share(claimed, low, high, verdict):
    """The interval, in units of the claimed exponent, decides."""
    ends = sorted((low * claimed, high * claimed))
    assert fitted(f"{claimed:g}", *ends) == verdict


def test_an_exponent_that_is_not_identifiable_is_undecided():
    for low, high in ((None, None), (None, 1.0), (-1.0, None)):
        assert fitted("-1", low, high) == fitted("1", low, high) == "undecided"
        assert fitted("> 0", low, high) == "undecided"


def test_a_row_without_an_exponent_supports_that_it_is_undecided():
    for claimed in ("-1", "> 0"):
        row = {**FITTED, "claimed": claimed, "exponent": None, "low": None, "high": None}
        assert verdicts.supported({**row, "verdict": "undecided"})
        assert not verdicts.supported({**row, "verdict": "reproduced"})


@pytest.mark.parametrize("bound", [1.0, 0.0, -1.5])
def test_a_bound_on_an_exponent(bound):
    claimed = f"> {bound:g}"
    assert fitted(claimed, bound + 0.01, bound + 1) == "reproduced"
    assert fitted(claimed, bound - 0.01, bound + 1) == "undecided"
    assert fitted(claimed, bound - 1, bound - 0.01) == "not reproduced"


def test_a_rejected_collapse_counts_only_with_a_misfit():
    ends = {"low": -1.05, "high": -0.95}
    for claimed, share in (("-1", 1), ("1", -1)):
        span = sorted(share * end for end in ends.values())
        assert fitted(claimed, *span, collapsed=False, misfit=0.04) == "reproduced"
        assert fitted(claimed, *span, collapsed=False, misfit=0.06) == "not reproduced"
        # not a rejection: the data can't say
        assert fitted(claimed, *span, collapsed=None, misfit=0.06) == "reproduced"
        assert fitted(claimed, *span, collapsed=True, misfit=0.06) == "reproduced"


def clocks(*ends, collapsed=False):
    """Misfits in per cent, (low, high), on the paper's clock and on its rivals of -0.7 and -1.3."""
    return [
        {
            "exponent": exponent,
            "misfit": (low + high) / 200,
            "low": low / 100,
            "high": high / 100,
            "collapsed": collapsed,
        }
        for exponent, (low, high) in zip((-1, -0.7, -1.3), ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        # closest on the paper's clock
        (((1, 2), (2.1, 3), (4, 5)), "reproduced"),
        # not closer than on one of its rivals
        (((1, 2), (1.9, 3), (4, 5)), "undecided"),
        (((1, 2), (4, 5), (1.9, 3)), "undecided"),
        # flat curves, and too narrow a range of the control: all clocks are alike
        (((0, 1), (0, 1), (0, 1)), "undecided"),
        # closer on a rival
        (((2.1, 3), (1, 2), (4, 5)), "not reproduced"),
        (((2.1, 3), (4, 5), (1, 2)), "not reproduced"),
        # closest on the paper's clock, and far from each other
        (((5.1, 7), (8, 9), (8, 9)), "not reproduced"),
        (((4.9, 7), (8, 9), (8, 9)), "undecided"),
    ],
)
def test_an_interval_beyond_the_tolerance_leaves_the_verdict_to_three_clocks(ends, verdict):
    assert fitted("-1", -1.2, -0.6, clocks=clocks(*ends)) == verdict
    # an interval that decides by itself does so
    assert fitted("-1", -1.1, -0.9, clocks=clocks(*ends)) == "reproduced"
    assert fitted("-1", -0.8, -0.7, clocks=clocks(*ends)) == "not reproduced"


def test_a_misfit_that_noise_explains_rejects_no_clock():
    far = (5.1, 7), (4, 9), (4, 9)
    assert fitted("-1", -1.2, -0.6, clocks=clocks(*far, collapsed=None)) == "undecided"


def test_the_limits_of_the_tolerance_lie_halfway_to_the_rivals():
    low, high = verdicts.RIVALS
    middles = [(1 + low) / 2, (1 + high) / 2]
    assert middles == pytest.approx([1 - verdicts.TOLERANCE, 1 + verdicts.TOLERANCE])


def test_a_curve_that_does_not_fall_reproduces_nothing():
    for claimed in ("-1", "> -2"):
        assert fitted(claimed, -1.05, -0.95) == "reproduced"
        assert fitted(claimed, -1.05, -0.95, last=1.0) == "not reproduced"


@pytest.mark.parametrize("target", [1.0, 0.0, -2.0])
def test_a_measured_number_agrees_within_three_errors_and_its_tolerance(target):
    error = 0.01
    for sign in (1, -1):
        for distance, verdict in ((0.029, "reproduced"), (0.031, "not reproduced")):
            value = target + sign * distance
            ends = value - 1.96 * error, value + 1.96 * error
            assert measured("=", *ends, target) == verdict
            assert measured("=", *ends, target, tolerance=0.002) == "reproduced"


@pytest.mark.parametrize("target", [1.0, 0.0, -2.0])
def test_a_measured_bound_needs_the_whole_interval(target):
    for relation, sign in ((">", 1), ("<", -1)):
        for near, far, verdict in (
            (0.1, 0.5, "reproduced"),
            (-0.1, 0.5, "undecided"),
            (-0.5, -0.1, "not reproduced"),
        ):
            ends = sorted((target + sign * near, target + sign * far))
            assert measured(relation, *ends, target) == verdict


def test_an_undecided_row_says_how_many_seeds_would_decide_it():
    """The interval of a mean over 100 seeds is to shrink threefold: nine times as many."""
    row = {"quantity": "q", "relation": "<", "target": 0.0, "tolerance": 0.0}
    row |= {"value": -0.1, "low": -0.4, "high": 0.2, "num_seeds": 100}
    assert verdicts.verdict(row)[1].endswith("about 900 seeds would decide it")
    assert "seeds" not in verdicts.verdict({**row, "num_seeds": 0})[1]
    assert verdicts.deciding_half_width({"claimed": "2", "exponent": None}) is None
    assert verdicts.deciding_half_width({"claimed": "> 1", "exponent": 0.7}) == pytest.approx(0.3)


def test_what_is_not_known_decides_nothing():
    """One seed has no standard error, and a fit without a distance is no rival."""
    unknown = float("nan")
    for low, high in ((unknown, unknown), (-float("inf"), float("inf"))):
        for target in (0.0, 5.0):
            assert measured("=", low, high, target, value=0.0) == "undecided"
    for relation in ("=", ">", "<"):
        assert measured(relation, -0.1, 0.1, 5.0, value=unknown) == "undecided"
    # the interval from resamplings of one seed is a point
    for relation, target in (("=", 1.0), (">", 0.0), ("<", 0.0)):
        assert measured(relation, 1.0, 1.0, target, num_seeds=1) == "undecided"
        assert measured(relation, 1.0, 1.0, target, num_seeds=2) != "undecided"
    for ends in ({"first": unknown}, {"last": unknown}):
        assert fitted("-1", -1.05, -0.95, **ends) == "undecided"
    far = clocks((1, 2), (2.1, 3), (4, 5))
    assert fitted("-1", -1.2, -0.6, clocks=far) == "reproduced"
    for number in range(3):
        lost = [dict(clock) for clock in far]
        lost[number] |= dict.fromkeys(("misfit", "low", "high"), unknown)
        assert fitted("-1", -1.2, -0.6, clocks=lost) == "undecided"


def test_a_number_outside_its_interval_supports_no_verdict():
    row = {"quantity": "q", "relation": ">", "target": 1.0, "low": 1.1, "high": 1.3}
    for value, supported in ((1.2, True), (0.5, False), (5.0, False)):
        assert verdicts.supported({**row, "value": value, "verdict": "reproduced"}) == supported
    reversed_ends = {**row, "value": 1.2, "low": 1.3, "high": 1.1, "verdict": "reproduced"}
    assert not verdicts.supported(reversed_ends)
    # an interval that is open on one side, which claims.json writes as null
    open_above = {**FITTED, "claimed": "2", "exponent": 2.0, "low": 1.0, "high": None}
    assert verdicts.supported({**open_above, "verdict": "undecided"})
    assert not verdicts.supported({**open_above, "exponent": 0.5, "verdict": "undecided"})


def test_the_verdict_on_a_claim_with_fits_and_measured_numbers():
    fit = {"control": "batch_size", "choice": {}, "verdict": "reproduced"}
    number = {"quantity": "ratio, at the end", "choice": {}, "verdict": "not reproduced"}
    entry = {"experiments": {"a": {"rows": [fit]}, "b": {"rows": [number]}}}
    answer = "not reproduced for ratio; reproduced for exponent of batch_size"
    assert verdicts.overall(entry) == answer
