"""Cholesky factorisation, solution and inverse by LAPACK.

A fit factors a few hundred small matrices, and SciPy's own checks would take as long as the work.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs


def factor(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor. The part above the diagonal is not cleared."""
    lower, failed = dpotrf(matrix, lower=1, clean=0)
    if failed:
        raise np.linalg.LinAlgError("matrix is not positive definite")
    return lower


def solve(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A⁻¹·right from the factor of A."""
    return dpotrs(lower, right, lower=1)[0]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """A⁻¹ of a symmetric positive definite A."""
    half = np.tril(dpotri(factor(matrix), lower=1)[0])
    return half + np.tril(half, -1).T
