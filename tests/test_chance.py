"""The false-alarm rates of tests/chance.py, by drawing."""

import numpy as np
import pytest

from tests.chance import apart, far, sigmas


@pytest.mark.parametrize("number", [1, 6])
def test_rates_are_those_of_normal_numbers(number):
    assert sigmas(0.0027) == pytest.approx(3, abs=1e-3)
    z = np.random.default_rng(0).standard_normal((2000, number))
    error = 3 * np.sqrt(0.1 * 0.9 / len(z))
    assert np.mean(np.abs(z).max(1) > sigmas(0.1, number)) == pytest.approx(0.1, abs=error)
    assert np.mean([far(row) < 0.1 for row in z]) == pytest.approx(0.1, abs=error)
    # one far number of six, or all of them a little
    assert far(np.r_[5, z[0, 1:]]) < 1e-3
    assert far(1.5 * np.sign(z[:20, 0])) < 1e-2


def test_means_of_correlated_numbers():
    rng = np.random.default_rng(1)

    def drawn(shift=0.0):
        common = rng.standard_normal((30, 1))
        return common + 0.3 * rng.standard_normal((30, 4)) + shift * np.array([1, 0, 0, 0])

    alarms = np.mean([apart(drawn(), drawn()) < 0.1 for _ in range(400)])
    assert alarms == pytest.approx(0.1, abs=3 * np.sqrt(0.1 * 0.9 / 400))
    # two standard errors of a mean, but the others do not move
    assert apart(drawn(), drawn(0.6)) < 1e-4
