"""What deceives a fitter: the noise of its own curve's slope looks like information on the exponents."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from jthermo.collapse import fit_collapse
from jthermo.collapse.curve import Whitener


def test_the_noise_of_the_slope_is_told_from_information():
    """The information of a curve fitted to noise is too large by what `slope_noise` says."""
    sd, rng = 0.6, np.random.default_rng(11)
    rows = []
    for control, seed in product((1.0, 2.0, 4.0), (0, 1)):
        t = np.geomspace(1, 300, 40)
        value = 1 / (1 + t * control / 20) + 0.1 * rng.standard_normal(40)
        rows.append(pd.DataFrame({"c": control, "seed": seed, "step": t, "value": value}))
    fit = fit_collapse(pd.concat(rows), ("c",))
    means, theta = fit.model.means, fit.solution.theta
    blocks = [sd**2 * np.eye(int(number)) for number in np.bincount(means.condition)]
    model = replace(fit.model, whiten=Whitener.of(blocks))
    true = model.curve(fit.solution, means.binned(means.log_tau(theta)))

    def seen(mean):
        known = replace(model, means=replace(means, mean=mean))
        solution = known.solve(theta)
        return known.information(solution)[0][0, 0], known.slope_noise(solution)[0, 0]

    def pair(error):
        """Mean over an error and its opposite, so that what is linear in it cancels."""
        return (seen(true + error)[0] + seen(true - error)[0]) / 2

    exact, said = seen(true)
    drawn = np.array([pair(sd * rng.standard_normal(len(true))) for _ in range(100)])
    error = drawn.std() / np.sqrt(len(drawn))
    assert abs(drawn.mean() - exact - said) < 4 * error
    assert drawn.mean() - exact > 8 * error  # without the term the information would be believed too large
