"""The tools that the study compares with: they find a planted law, and misses are marked."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jthermo.errors import InputError
from scripts.collapse_study import published

CASE = published.Case(
    "planted",
    "planted.dat",
    control="L",
    time="x",
    value="value",
    columns=("L", "x", "value", "error"),
    critical=(0.9, 1.1),
    guess={"t_c": 1.01, "p": 1.1, "q": -0.2},
    exact={"t_c": 1.0, "p": 1.0, "q": -0.25},
)


def planted():
    """Value = L^−0.25·F((x − 1)·L) with standard errors."""
    rng = np.random.default_rng(0)
    x = np.linspace(0.9, 1.1, 30)
    frames = []
    for size in (16.0, 32.0, 64.0):
        value = size**-0.25 / (1 + np.exp((1 - x) * size)) + 0.002 * rng.standard_normal(30)
        frames.append(pd.DataFrame({"L": size, "x": x, "value": value, "error": 0.002}))
    return pd.concat(frames)


def slow_quality(sets):
    """S of Houdayer and Hartmann, averaged within each size first, by numpy.polyfit."""
    rows = []
    for i, (x, y, dy) in enumerate(sets):
        terms = []
        for n in range(len(x)):
            near = []
            for j, (other, height, error) in enumerate(sets):
                k = np.searchsorted(other, x[n])
                if j != i and 0 < k < len(other):
                    near += [(other[m], height[m], error[m]) for m in (k - 1, k)]
            if not near:
                continue
            at, level, error = map(np.array, zip(*near, strict=True))
            line, cov = np.polyfit(at - x[n], level, 1, w=1 / error, cov="unscaled")
            terms.append((y[n] - line[1]) ** 2 / (dy[n] ** 2 + cov[1, 1]))
        rows.append(np.mean(terms))
    return np.mean(rows)


def test_the_quality_of_fssa_is_that_of_its_definition():
    data = published.averaged(CASE, planted())
    # fssa 0.7.6 gives the same numbers, to 11 digits, under a NumPy that it still runs on.
    for at in ({"t_c": 1.0, "p": 1.0, "q": -0.25}, {"t_c": 1.01, "p": 0.8, "q": 0.1}):
        sets = data.scaled(at)
        assert published.size_mean(sets) == pytest.approx(slow_quality(sets), rel=1e-9)


@pytest.mark.parametrize("name", published.METHODS)
def test_every_method_finds_a_planted_law(name):
    answer = published.timed(published.METHODS[name], CASE, planted())
    for number, truth in CASE.exact.items():
        # fssa stops before it converges.
        assert answer.values[number] == pytest.approx(truth, abs=0.03)
        if name != "fssa":
            assert answer.hits[number]
            assert 0 < answer.errors[number] < 0.2


def test_a_miss_is_marked_and_a_failure_is_no_number(tmp_path, monkeypatch):
    planted().to_csv(tmp_path / "planted.dat", sep=" ", header=False, index=False)
    wrong = replace(CASE, exact={"t_c": 1.0, "p": 1.3, "q": -0.25})
    monkeypatch.setattr(published, "CASES", (CASE, wrong, replace(CASE, keep="L > 99")))
    monkeypatch.setattr(published, "METHODS", {"jthermo": published.jthermo})
    lines = list(published.table(tmp_path))
    marked = [line.endswith("✗ |") for line in lines]
    assert marked == [False] * 2 + [False] * 4 + [False, True, False, False] + [False] * 4
    assert lines[4].startswith("| planted | q(L) | -0.25 | -0.2")
    assert [line.split("|")[-2].strip() for line in lines[-4:-1]] == ["none"] * 3
    with pytest.raises(InputError, match="no such file; name the folder of the data"):
        list(published.table(tmp_path / "nowhere"))


def test_a_curvature_is_that_of_a_quadratic():
    half = np.array([[2.0, 0.5], [0.5, 1.0]])

    def score(x):
        return float((x - 1) @ half @ (x - 1)) + 3.0

    corners = np.array([[1.0, 1.0], [1.001, 1.0], [1.0, 1.002]])
    np.testing.assert_allclose(published.curvature(score, corners, 0.5), half, rtol=1e-9)
    assert math.isclose(score(np.ones(2)), 3.0)
