"""fit_collapse: the exponents of τ = t·Π controlᵖ at which the curves of all controls fall on one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from threadpoolctl import threadpool_limits

from jthermo.collapse.averages import (
    Correction,
    Directions,
    Prepared,
    Term,
    directions,
    prepare,
    terms,
    without_outliers,
)
from jthermo.collapse.correction_power import best_power, check_power, power_ends, power_interval, with_power
from jthermo.collapse.intervals import Inference, determined, infer
from jthermo.collapse.read import Curves, read_curves
from jthermo.collapse.result import CollapseFit, Combination, Exponent, Note
from jthermo.errors import InputError


def fit_collapse(
    data: xr.DataArray | pd.DataFrame,
    controls: Sequence[str] = ("learning_rate", "batch_size"),
    *,
    time: str = "step",
    replicate: str | None = "seed",
    value: str = "value",
    confidence: float = 0.95,
    seed: int = 0,
    window: tuple[float, float] | None = None,
    fixed: Mapping[str, float] | None = None,
    rescale: Sequence[str] = (),
    correction: Mapping[str, float | tuple[float, float]] | None = None,
) -> CollapseFit:
    """Exponents p of τ = t·Π controlᵖ for which value = F(τ) + noise, with F unknown.

    In log τ this is the registration of curves by shifts Σ p·log control. F is a penalised spline solved
    exactly for every p; the noise covariance of one replicate along t (and across controls, where the same
    replicate appears at several) is estimated from the replicates and weighs the fit; the intervals and the
    verdict are those of a cluster bootstrap over replicates with normal multipliers, moderated by the
    covariance model, in its exact limit of many resamplings.

    Args:
        data: one variable of raw replicates: a DataArray with `controls`, `time` and `replicate` as
            coordinates, or a tidy table with them as columns. Times ≤ 0 and NaN are dropped; runs that
            diverge are left out and counted.
        controls: names of the controls, any number.
        time: name of t.
        replicate: name of what tells replicates apart; the same label at several controls is one paired
            replicate. None when each curve was recorded once.
        value: the table's column of values (a DataArray is its own).
        confidence: of the intervals.
        seed: of the verdict's random draws.
        window: (low, high) times to use, all by default.
        fixed: exponents held at a value, e.g. ``{"batch_size": -1}``.
        rescale: controls c that also scale the value, value = c^q·F(τ), as in finite-size scaling; q is the
            exponent ``"value_<control>"``.
        correction: control → w for a leading correction to its scaling, τ = t·c^p·exp(a·(c/c₀)^w), with c₀ the
            recorded value where (c/c₀)^w is largest; the amplitude a is ``"correction_<control>"``. A pair of
            powers of one sign, e.g. ``{"L": (-4, -0.25)}``, fits w between them as ``"power_<control>"``; this takes
            four values of the control.

    Returns:
        CollapseFit: exponents with intervals, verdict with p-value, what is not identifiable, notes.

    Raises:
        InputError: what is wrong with the input, naming the field, the value and the remedy.

    Guarantees:
        The same data and seed give the same answer; rows in another order, another unit of time, of a
        control or of the value change no exponent beyond rounding.

    Example:
        >>> import numpy as np, pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> rows = [
        ...     {"rate": c, "seed": s, "step": t, "value": 1 / (1 + t * c**2) + 0.01 * rng.normal()}
        ...     for c in (0.05, 0.1, 0.2) for s in range(8) for t in np.geomspace(1, 3000, 60)
        ... ]
        >>> fit = fit_collapse(pd.DataFrame(rows), controls=["rate"])
        >>> print(round(fit.exponents["rate"].value, 1), fit.collapsed)
        2.0 True
    """
    if not 0 < confidence < 1:
        raise InputError("confidence", confidence, "give a number between 0 and 1, such as 0.95")
    curves = read_curves(data, controls, time=time, replicate=replicate, value=value, window=window)
    curves = without_outliers(curves)
    scaled = (rescale,) if isinstance(rescale, str) else tuple(rescale)
    _among("rescale", scaled, curves.controls)
    corrections, ends = _corrections(correction or {}, curves)
    unknown = terms(curves, scaled, corrections)
    held = _powers("fixed", fixed or {}, [term.name for term in unknown])
    ways = directions(unknown, held)
    with threadpool_limits(1, "blas"):  # a few hundred rows: threads gain nothing and stall on a busy machine
        if ends:
            check_power(corrections[-1], ends, ways, curves)
            last = best_power(curves, scaled, corrections[-1], corrections[:-1], held, ends)
            corrections = (*corrections[:-1], last)
            unknown = terms(curves, scaled, corrections)
            ways = directions(unknown, held)
        ready = prepare(curves, unknown, ways, held)
        found = infer(ready, ways, confidence, np.random.default_rng(seed))
        t = float(stats.t.ppf(0.5 + confidence / 2, found.degrees))
        power = (
            power_interval(found.model, found.best, ways, curves, corrections[-1], ends, t) if ends else None
        )
    fit = _result(curves, unknown, corrections, held, confidence, ways, ready, found)
    return fit if power is None else with_power(fit, power, t)


def _among(field: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError(field, name, f"is not one of {list(known)}; name one of them")


def _powers(field: str, given: Mapping[str, float], known: Sequence[str]) -> dict[str, float]:
    _among(field, given, known)
    for name, power in given.items():
        if not isinstance(power, int | float | np.number) or not np.isfinite(power):
            raise InputError(f"{field}[{name!r}]", power, "give a finite exponent")
    return {name: float(power) for name, power in given.items()}


def _corrections(
    given: Mapping[str, float | tuple[float, float]], curves: Curves
) -> tuple[tuple[Correction, ...], tuple[float, float] | None]:
    """The corrections, and the two ends between which the power of the last one is to be fitted."""
    known = {name: power for name, power in given.items() if isinstance(power, int | float | np.number)}
    ranges = {name: power_ends(name, pair) for name, pair in given.items() if name not in known}
    if len(ranges) > 1:
        raise InputError(
            "correction", dict(given), "fit the power of one control only, give those of the others"
        )
    powers = {**known, **{name: low for name, (low, _) in ranges.items()}}
    out = []
    for name, power in _powers("correction", powers, curves.controls).items():
        if power == 0:
            raise InputError(f"correction[{name!r}]", power, "give a power that is not 0, such as -1")
        column = curves.controls.index(name)
        values = np.exp([c.log_controls[column] for c in curves.conditions])
        out.append(Correction(name, power, float(values.max() if power > 0 else values.min())))
    return tuple(out), next(iter(ranges.values()), None)


def _result(
    curves: Curves,
    unknown: tuple[Term, ...],
    corrections: tuple[Correction, ...],
    fixed: dict[str, float],
    confidence: float,
    ways: Directions,
    ready: Prepared,
    found: Inference,
) -> CollapseFit:
    exponents, identifiable = {}, {}
    sure = determined(ways, found.identified)
    for name in (term.name for term in unknown):
        if name in fixed:
            exponents[name] = Exponent(fixed[name], fixed[name], fixed[name], 0.0)
            identifiable[name] = True
            continue
        i = ways.free.index(name)
        identifiable[name] = bool(sure[i])
        if identifiable[name]:
            exponents[name] = found.exponents[i]
        else:
            exponents[name] = Exponent(np.nan, -np.inf, np.inf, np.inf)
    numbers = [len(c.values) for c in curves.conditions]
    centre = dict(
        zip(curves.controls, np.mean([c.log_controls for c in curves.conditions], axis=0), strict=True)
    )
    powers = {name: e.value if np.isfinite(e.value) else 0.0 for name, e in exponents.items()}
    # The fit counts log τ and log heights from the middle of the conditions; users from c = 1.
    ahead = sum(powers[name] * middle for name, middle in centre.items())
    for each in corrections:
        column = curves.controls.index(each.control)
        sizes = each.size(np.exp([c.log_controls[column] for c in curves.conditions]))
        ahead += powers[each.name] * float(sizes.mean())
    lift = np.exp(-sum(powers.get(f"value_{name}", 0.0) * middle for name, middle in centre.items()))
    unit = ready.scale * float(lift)
    return CollapseFit(
        exponents=exponents,
        collapsed=_verdict(curves, found),
        p_value=found.outcome.p_value,
        misfit=found.outcome.misfit,
        identifiable=identifiable,
        combinations=_combinations(ways, found, confidence),
        confidence=confidence,
        window=curves.window,
        num_replicates=(min(numbers), max(numbers)),
        left_out=curves.left_out,
        notes=_notes(curves, ways, found),
        covariance=_covariance(ways, found),
        degrees=found.degrees,
        free=ways.free,
        log_tau=found.grid + ahead,
        curve=ready.centre + unit * found.curve,
        curve_error=unit * found.curve_error,
        curves=curves,
        model=found.model,
        solution=found.best,
        ready=ready,
        ways=ways,
        corrections=corrections,
        drift=tuple(
            row.counted_from(centre[row.control] if row.kind == "between" else ahead)
            for row in found.drift.table
        ),
        drift_p_values=found.drift.p_values,
        common_noise=found.common_noise,
    )


def _covariance(ways: Directions, found: Inference) -> np.ndarray:
    """Of the free exponents, with the drift of those that drift."""
    drifts = np.array([found.drift.spread(name) for name in ways.free])
    return ways.basis @ found.covariance @ ways.basis.T + np.diag(drifts**2)


def _verdict(curves: Curves, found: Inference) -> bool | None:
    if len(curves.conditions) < 2:
        return None
    codes = {note.code for note in found.identified.notes}
    if not found.outcome.refused:
        return None if "poor_overlap" in codes and not found.identified.known.all() else True
    if max(len(c.values) for c in curves.conditions) == 1:
        return None  # one replicate: an offset of its own looks like a curve of its own
    return None if "flat_curve" in codes else False  # exponents that follow the noise leave no law to go by


def _combinations(ways: Directions, found: Inference, confidence: float) -> tuple[Combination, ...]:
    """The known directions Σ basis·p, largest weight 1; none when every exponent is known."""
    if determined(ways, found.identified).all():
        return ()
    t = stats.t.ppf(0.5 + confidence / 2, found.degrees)
    out = []
    for axis in found.identified.axes[:, found.identified.known].T:
        column = ways.basis @ axis
        largest = column[np.argmax(np.abs(column))]
        weights = {n: float(w / largest) for n, w in zip(ways.free, column, strict=True) if abs(w) > 1e-6}
        if len(weights) < 2:
            continue
        centre = axis @ found.best.theta / largest
        half = t * np.sqrt(max(axis @ found.covariance @ axis, 0.0)) / abs(largest)
        out.append(Combination(weights, float(centre), float(centre - half), float(centre + half)))
    return tuple(out)


def _notes(curves: Curves, ways: Directions, found: Inference) -> tuple[Note, ...]:
    notes = []
    fewest = min(len(c.values) for c in curves.conditions)
    for i, name in enumerate(ways.free):
        if name not in curves.controls:
            continue
        if np.ptp([c.log_controls[curves.controls.index(name)] for c in curves.conditions]) < 1e-12:
            notes.append(
                Note("constant_control", f"{name} has one value only, so its exponent is not identifiable")
            )
        elif not ways.known[i]:
            notes.append(Note("ridge", f"{name} only varies together with other controls; see combinations"))
    if fewest < 4:
        notes.append(
            Note(
                "too_few_replicates",
                f"{fewest} replicates at some condition; the noise is known from few, use ≥ 4",
            )
        )
    notes += found.identified.notes
    notes += [
        Note("drifting_exponent", said) for said in map(found.drift.caveat, found.drift.p_values) if said
    ]
    if found.common_noise:
        notes.append(
            Note(
                "common_noise",
                f"the records scatter by {100 * found.common_noise:.2g} % of the curve's range beyond what tells "
                "replicates apart, as steps or rounding do; the intervals count it",
            )
        )
    outliers = sum(run.reason == "outlier" for run in curves.left_out)
    if outliers:
        notes.append(Note("outliers", f"{outliers} replicates lie far from their fellows and were left out"))
    return tuple(notes)
