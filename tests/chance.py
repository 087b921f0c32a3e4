"""How often a right program fails a test that draws random numbers with one key.

A test says the rate where it draws: ``abs(z) < sigmas(1e-4)`` fails for one key in 10,000. Several
numbers are compared by one statistic, :func:`far` or :func:`apart`, not by the largest of them.
"""

import numpy as np
from scipy import stats


def sigmas(rate, number=1):
    """The size that the largest of `number` independent normal |z| exceeds at this rate."""
    return float(stats.norm.isf(-np.expm1(np.log1p(-rate) / number) / 2))


def far(z):
    """The p-value of independent normal numbers being 0 on average, from Σz²."""
    z = np.ravel(np.asarray(z, float))
    return float(stats.chi2.sf(z @ z, z.size))


def apart(one, other):
    """The p-value of two samples (n, K) having the same means, by Hotelling's T²."""
    number, (size, rest) = one.shape[1], (len(one), len(other))
    pooled = (np.cov(one.T) * (size - 1) + np.cov(other.T) * (rest - 1)) / (size + rest - 2)
    gap = one.mean(0) - other.mean(0)
    square = gap @ np.linalg.solve(pooled.reshape(number, number), gap) / (1 / size + 1 / rest)
    left = size + rest - number - 1
    return float(stats.f.sf(square * left / (size + rest - 2) / number, number, left))
