"""Cholesky factorisation, solution and inverse by LAPACK.

A fit factors a few hundred small matrices, and SciPy's own checks would take as long as the work.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs


def factor(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor. The part above the diagonal is not cleared.

    If rounding has made the matrix indefinite, its diagonal is lifted by the least of 1, 100,
    10⁴, … roundings of the mean of the diagonal that helps.

    Raises:
        LinAlgError: the matrix is not finite, or far from positive definite.
    """
    lower, failed = dpotrf(matrix, lower=1, clean=0)
    if not failed:
        return lower
    lift = np.finfo(float).eps * float(np.trace(matrix)) / len(matrix)
    for _ in range(9):
        lower, failed = dpotrf(matrix + lift * np.eye(len(matrix)), lower=1, clean=0)
        if not failed:
            break
        lift *= 100
    if failed:
        raise np.linalg.LinAlgError("matrix is not positive definite")
    return lower


def cholesky(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor, lifted like that of :func:`factor`, and 0 above the diagonal."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return np.tril(factor(matrix))


def solve(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A⁻¹·right from the factor of A."""
    return dpotrs(lower, right, lower=1)[0]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """A⁻¹ of a symmetric positive definite A."""
    half = dpotri(factor(matrix), lower=1)[0]
    return np.where(_below(len(half)), half, half.T)


@lru_cache(maxsize=16)
def _below(number: int) -> np.ndarray:
    """Where a matrix is on or below its diagonal. It is shared: do not write to it."""
    return np.tri(number, dtype=bool)
