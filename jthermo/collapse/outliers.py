"""Leaves out replicates that lie far from the others with the same controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jthermo.collapse.read import Curves, LeftOut
from jthermo.collapse.settings import Settings


def without_outliers(curves: Curves, settings: Settings) -> Curves:
    """Leave out replicates that got stuck or follow another law.

    The distance of a replicate is the root mean square along the curve of (value − median over
    replicates)/(1.4826·MAD), where the MAD of a condition is pooled with that of the others.
    """
    kept, left_out = [], list(curves.left_out)
    rows = [curves.compared(condition.values) for condition in curves.conditions]
    spreads = [_robust_spread(values, settings) for values in rows]
    pooled = np.nanmedian(spreads) if np.isfinite(spreads).any() else np.nan
    for condition, values, spread in zip(curves.conditions, rows, spreads, strict=True):
        if len(condition.values) < settings.outlier_min_replicates or not np.isfinite(pooled):
            kept.append(condition)
            continue
        far = _far(values, spread, float(pooled), settings)
        if not far.any() or far.mean() > settings.outlier_max_share:
            kept.append(condition)
            continue
        setting = dict(zip(curves.controls, np.exp(condition.log_controls).tolist(), strict=True))
        left_out += [
            LeftOut(setting, curves.label_names[label], "outlier")
            for label in condition.labels[far]
        ]
        kept.append(
            replace(condition, values=condition.values[~far], labels=condition.labels[~far])
        )
    return replace(curves, conditions=tuple(kept), left_out=tuple(left_out))


def _robust_spread(values: np.ndarray, settings: Settings) -> float:
    """Standard deviation of a condition's replicates from their median absolute deviation."""
    if len(values) < settings.outlier_min_spread_replicates:
        return np.nan
    distance = np.abs(values - np.nanmedian(values, axis=0))
    return 1.4826 * np.sqrt(np.nanmean(np.nanmedian(distance, axis=0) ** 2))


def _far(values: np.ndarray, spread: float, pooled: float, settings: Settings) -> np.ndarray:
    """Which replicates of a condition are outliers, (S,)."""
    number, prior = len(values), settings.outlier_pooled_replicates
    distance = values - np.nanmedian(values, axis=0)
    variance = (number * spread**2 + prior * pooled**2) / (number + prior)
    size = np.sqrt(np.nanmean(distance**2, axis=1) / max(variance, 1e-300))
    beyond = size > settings.outlier_distance
    return beyond & (size > settings.outlier_ratio * np.median(size))
