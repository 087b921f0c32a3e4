"""Leaves out replicates that lie far from the others with the same controls, and mere copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jthermo.collapse.read import Curves, LeftOut
from jthermo.collapse.settings import Settings
from jthermo.errors import InputError


def without_outliers(curves: Curves, settings: Settings) -> Curves:
    """Leave out replicates that got stuck or follow another law.

    The distance of a replicate is the root mean square along the curve of (value − median over
    replicates)/(1.4826·MAD), where the MAD of a condition is pooled with that of the others. If
    most replicates are equal, the MAD is 0 and no distance is known.

    Raises:
        InputError: all values that are left are equal, or only one curve is left.
    """
    kept, left_out = [], list(curves.left_out)
    rows = [curves.compared(condition.values) for condition in curves.conditions]
    spreads = [_robust_spread(values, settings) for values in rows]
    pooled = np.nanmedian(spreads) if np.isfinite(spreads).any() else np.nan
    for condition, values, spread in zip(curves.conditions, rows, spreads, strict=True):
        if len(condition.values) < settings.outlier_min_replicates or not pooled > 0:
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
    curves = replace(curves, conditions=tuple(kept), left_out=tuple(left_out))
    _refuse_flat(curves, settings)
    curves = _without_copies(curves, settings)
    if len(curves.conditions) == 1 and len(curves.conditions[0].labels) == 1:
        names = ", ".join(curves.controls)
        remedy = f"there is no other to compare it with; give several values of {names}"
        raise InputError("data", "one curve", remedy)
    return curves


def _refuse_flat(curves: Curves, settings: Settings) -> None:
    highest = max(float(np.nanmax(c.values)) for c in curves.conditions)
    lowest = min(float(np.nanmin(c.values)) for c in curves.conditions)
    rounding = settings.flat_roundings * np.finfo(float).eps
    if highest - lowest <= rounding * max(abs(highest), abs(lowest)):
        remedy = f"is flat: all its values are {highest:g}, so there is nothing to fit"
        raise InputError("value", curves.value, remedy)


def _without_copies(curves: Curves, settings: Settings) -> Curves:
    """If the replicates of every condition are equal, the fullest one of each.

    They were copied, or computed without noise, so they say nothing about the noise. The residuals
    of the fit do.
    """
    means = [np.nanmean(c.values, axis=0) for c in curves.conditions]
    least = settings.min_scatter * float(np.ptp(np.concatenate(means)))
    pairs = zip(curves.conditions, means, strict=True)
    scatter = max(float(np.nanmax(np.abs(c.values - mean))) for c, mean in pairs)
    if scatter > least or max(len(c.labels) for c in curves.conditions) == 1:
        return curves
    conditions, left_out = [], list(curves.left_out)
    for c in curves.conditions:
        finite = np.isfinite(c.values)
        fullest = int(np.argmax(finite.sum(axis=1)))
        setting = dict(zip(curves.controls, np.exp(c.log_controls).tolist(), strict=True))
        left_out += [
            LeftOut(setting, curves.label_names[label], "copy")
            for label in np.delete(c.labels, fullest)
        ]
        seen = finite[fullest]
        conditions.append(
            replace(
                c,
                log_time=c.log_time[seen],
                values=c.values[[fullest]][:, seen],
                labels=c.labels[[fullest]],
            )
        )
    return replace(curves, conditions=tuple(conditions), left_out=tuple(left_out))


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
