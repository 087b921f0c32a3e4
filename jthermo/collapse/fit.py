"""`fit_collapse`, the public entry: reads the data, runs the search, assembles the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special
from threadpoolctl import threadpool_limits

from jthermo.collapse.averages import Averages, average
from jthermo.collapse.correction_power import (
    best_power,
    check_power,
    power_ends,
    power_interval,
    with_power,
)
from jthermo.collapse.forms import Form, Given
from jthermo.collapse.intervals import Inference, determined, infer, influence
from jthermo.collapse.outliers import without_outliers
from jthermo.collapse.read import Curves, in_whole_steps, read_curves, with_resolution
from jthermo.collapse.result import CollapseFit
from jthermo.collapse.result_types import Combination, Exponent, Note
from jthermo.collapse.search import check_range, search
from jthermo.collapse.settings import DEFAULT, Settings
from jthermo.collapse.unknowns import (
    Correction,
    Directions,
    Unknown,
    find_directions,
    list_unknowns,
)
from jthermo.errors import InputError, is_number, whole_number

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

# Largest logarithm of a factor of τ or of the values, with room below the largest number, e⁷⁰⁹.
LARGEST_LOG = 600.0
# Largest power of a correction. Safe bound: (c/c₀)^w of a control extended tenfold stays finite.
MAX_POWER = 50


def fit_collapse(
    data: xr.DataArray | pd.DataFrame,
    controls: Sequence[str] = ("learning_rate", "batch_size"),
    *,
    time: str = "step",
    replicate: str | None = "seed",
    value: str = "value",
    confidence: float = 0.95,
    seed: int = 0,
    error: str | xr.DataArray | None = None,
    window: tuple[float, float] | None = None,
    clock_window: tuple | None = None,
    fixed: Mapping[str, float] | None = None,
    rescale: Sequence[str] = (),
    correction: Mapping[str, Given] | None = None,
    critical_point: Given | None = None,
    branches: int = 1,
    offset: Given | None = None,
    scale: str = "linear",
    time_resolution: float | None = None,
    settings: Settings = DEFAULT,
) -> CollapseFit:
    """Exponents p of τ = t·Π controlᵖ for which value = F(τ) + noise, with F unknown.

    In log τ the curves differ by shifts Σ p·log control. F is a penalised spline that is solved
    exactly for every p. The noise covariance of one replicate, along t and between controls if the
    same replicate appears at several, is estimated from the replicates and weights the fit.
    Intervals and verdict are those of a cluster bootstrap over replicates with normal multipliers,
    in its exact limit of many resamplings, combined with the covariance model.

    Args:
        data: one variable of raw replicates: a DataArray with `controls`, `time` and `replicate` as
            coordinates, or a tidy table with them as columns. NaN is left out, and so are times ≤ 0
            unless there is a critical point. Runs that diverge are left out. All are counted.
        controls: names of the controls, any number.
        time: name of t.
        replicate: name of the replicate's label. The same label at several controls is one paired
            replicate. None if each curve was recorded once.
        value: the table's column of values (a DataArray has its own).
        confidence: of the intervals.
        seed: of the verdict's random draws.
        error: published standard errors, as the name of their column (of their coordinate for a
            DataArray) or as a second DataArray. Without replicates they are the noise.
        window: (low, high) times to use, as if there were no others; all by default.
        clock_window: (low, high) values of τ to use, with the exponents of `fixed` or of a third
            entry, e.g. ``(1, np.inf, {"learning_rate": 2, "batch_size": -1})``; an exponent that is
            not given is 0. It cuts each curve at a time of its own.
        fixed: exponents held at a value, e.g. ``{"batch_size": -1}``.
        rescale: controls c that also scale the value, value = c^q·F(τ), as in finite-size scaling.
            q is the exponent ``"value_<control>"``.
        correction: control → power w of a leading correction to its scaling,
            τ = t·c^p·exp(a·(c/c₀)^w), with c₀ the recorded value at which (c/c₀)^w is largest. The
            amplitude a is ``"correction_<control>"``. A range of powers of one sign, e.g.
            ``{"L": (-4, -0.25)}``, fits w within it as ``"power_<control>"``; this takes four
            values of the control.
        critical_point: t_c of τ = (t − t_c)·Π c^p, with records on both sides; a range (low, high)
            fits it as ``"critical_point"``. None stands for 0 if some times are negative.
        branches: 1 if F is smooth through τ = 0; 2 fits another F on either side.
        offset: v₀ of value − v₀ = Π c^q·F(τ); a range (low, high) fits it as ``"offset"``, which
            takes `rescale`.
        scale: "log" compares the logs of the values, for noise in proportion to the value.
        time_resolution: step Δ of a discrete or coarse clock, in units of time. Each time is then
            known within a step only, so records at which F changes within a few steps weigh less,
            and the intervals include where in its step a time lies.
        settings: the constants of the fit. The published calibration holds for the defaults only.

    Returns:
        CollapseFit: exponents with intervals, verdict with p-value, what is not identifiable,
        notes.

    Raises:
        InputError: the input is wrong. The message names the field, the value and the remedy.

    Guarantees:
        The same data and seed give the same answer. Rows in another order, or another unit of time,
        of a control or of the value, change no exponent beyond rounding.

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
    if not is_number(confidence) or not 0 < confidence < 1:
        raise InputError("confidence", confidence, "give a number between 0 and 1, such as 0.95")
    seed = whole_number("seed", seed, least=0)
    if not isinstance(settings, Settings):
        raise InputError("settings", settings, "give a Settings, such as replace(DEFAULT, …)")
    form = Form(
        fixed=_mapping("fixed", fixed),
        rescale=rescale,
        correction=_mapping("correction", correction),
        critical_point=critical_point,
        branches=branches,
        offset=offset,
        scale=scale,
        window=window,
        clock_window=clock_window,
    )
    curves = read_curves(
        data,
        controls,
        time=time,
        replicate=replicate,
        value=value,
        error=error,
        form=form,
        settings=settings,
    )
    curves = without_outliers(with_resolution(curves, time_resolution), settings)
    scaled = dict.fromkeys(_among("rescale", form.rescale, curves.controls))
    form = replace(form, rescale=tuple(scaled))
    corrections, ends = _corrections(form.correction, curves)
    unknowns = list_unknowns(curves, form, corrections)
    held = _checked_exponents("fixed", form.fixed, [unknown.name for unknown in unknowns])
    held |= {u.name: u.origin for u in unknowns if u.kind not in ("shift", "height") and not u.ends}
    shifts = {u.name: held[u.name] for u in unknowns if u.name in held and u.kind == "shift"}
    directions = find_directions(unknowns, held)
    # The matrices have a few hundred rows: more threads gain nothing and stall on a busy machine.
    with threadpool_limits(1, "blas"):
        if ends:
            last = corrections[-1]
            check_power(last, ends, directions, curves, settings)
            last = best_power(curves, form, last, corrections[:-1], held, ends, settings)
            corrections = (*corrections[:-1], last)
            unknowns = list_unknowns(curves, form, corrections)
            directions = find_directions(unknowns, held)
        averages = average(curves, unknowns, directions, held, settings)
        check_range(averages, curves, shifts)
        optimum = search(averages)
        inference = infer(averages, directions, optimum, confidence, np.random.default_rng(seed))
        t = float(special.stdtrit(inference.degrees, 0.5 + confidence / 2))
        power = None
        if ends:
            likelihood, best = inference.likelihood, inference.best
            power = power_interval(likelihood, best, directions, curves, corrections[-1], ends, t)
    fit = assemble(curves, unknowns, corrections, held, confidence, directions, averages, inference)
    return fit if power is None else with_power(fit, power, t)


def _among(field: str, names: Iterable[str], known: Sequence[str]) -> Iterable[str]:
    """The names, all of which must be known."""
    if not isinstance(names, Collection):
        raise InputError(field, names, f"give names out of {list(known)}")
    for name in names:
        if name not in known:
            raise InputError(field, name, f"is not one of {list(known)}; name one of them")
    return names


def _mapping(field: str, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not isinstance(given or {}, Mapping):
        raise InputError(field, given, f"give numbers by name, such as {field}={{'dose': -1}}")
    return given or {}


def _checked_exponents(
    field: str, given: Mapping[str, float], known: Sequence[str]
) -> dict[str, float]:
    """The numbers given for some names, which must be known and finite."""
    _among(field, given, known)
    for name, exponent in given.items():
        if not is_number(exponent) or not math.isfinite(exponent):
            raise InputError(f"{field}[{name!r}]", exponent, "give a finite exponent")
    return {name: float(exponent) for name, exponent in given.items()}


def _corrections(
    given: Mapping[str, float | tuple[float, float]], curves: Curves
) -> tuple[tuple[Correction, ...], tuple[float, float] | None]:
    """The corrections, and the range in which the power of the last one is to be fitted."""
    known: dict[str, Any] = {name: power for name, power in given.items() if is_number(power)}
    ranges = {name: power_ends(name, pair) for name, pair in given.items() if name not in known}
    if len(ranges) > 1:
        remedy = "only one power can be fitted; give one power for each of the other controls"
        raise InputError("correction", dict(given), remedy)
    powers = {**known, **{name: low for name, (low, _) in ranges.items()}}
    corrections = []
    for name, power in _checked_exponents("correction", powers, curves.controls).items():
        if not 0 < abs(power) <= MAX_POWER:
            remedy = f"give a power that is not 0 and at most {MAX_POWER} in size, such as -1"
            raise InputError(f"correction[{name!r}]", power, remedy)
        column = curves.controls.index(name)
        values = np.exp([c.log_controls[column] for c in curves.conditions])
        reference = values.max() if power > 0 else values.min()
        corrections.append(Correction(name, power, float(reference)))
    return tuple(corrections), next(iter(ranges.values()), None)


def assemble(
    curves: Curves,
    unknowns: tuple[Unknown, ...],
    corrections: tuple[Correction, ...],
    fixed: dict[str, float],
    confidence: float,
    directions: Directions,
    averages: Averages,
    inference: Inference,
) -> CollapseFit:
    """The result in the user's units."""
    names = [unknown.name for unknown in unknowns]
    exponents, identifiable = _exponents(names, fixed, directions, inference, averages.settings)
    numbers = [len(c.values) for c in curves.conditions]
    logs = np.mean([c.log_controls for c in curves.conditions], axis=0)
    centre = dict(zip(curves.controls, logs, strict=True))
    values = {name: e.value if np.isfinite(e.value) else 0.0 for name, e in exponents.items()}
    # The fit measures log τ and log heights from the middle of the conditions, users from c = 1.
    ahead = sum(values[name] * middle for name, middle in centre.items())
    for correction in corrections:
        column = curves.controls.index(correction.control)
        sizes = correction.size(np.exp([c.log_controls[column] for c in curves.conditions]))
        ahead += values[correction.name] * float(sizes.mean())
    sunk = sum(values.get(f"value_{name}", 0.0) * mid for name, mid in centre.items())
    for scale, kind in ((ahead, ""), (sunk, "value_")):
        if not abs(scale) < LARGEST_LOG:
            far = max(centre, key=lambda name: abs(values.get(f"{kind}{name}", 0.0) * centre[name]))
            remedy = "puts the curve beyond the largest numbers; divide it by a typical value"
            raise InputError(far, float(np.exp(centre[far])), remedy)
    clock = curves.clock
    base = 0.0 if averages.scaled else averages.centre - values.get("offset", 0.0)
    curve, curve_error = _curve(curves, averages, inference, base, -float(sunk))
    noise_unit = averages.means.noise_unit(inference.best.fitted)
    low, high = (noise / noise_unit for noise in inference.common_noise_interval)
    return CollapseFit(
        exponents=exponents,
        collapsed=_verdict(curves, inference),
        p_value=inference.outcome.p_value,
        misfit=inference.outcome.misfit,
        misfit_interval=inference.outcome.misfit_interval,
        identifiable=identifiable,
        combinations=_combinations(directions, inference, confidence, averages.settings),
        confidence=confidence,
        window=curves.window,
        num_replicates=(min(numbers), max(numbers)),
        left_out=curves.left_out,
        notes=_notes(curves, directions, inference, averages),
        covariance=_covariance(directions, inference),
        degrees=inference.degrees,
        free=directions.free,
        curve_tau=clock.since(inference.grid) * np.exp(ahead),
        curve=curve,
        curve_error=curve_error,
        curves=curves,
        likelihood=inference.likelihood,
        solution=inference.best,
        averages=averages,
        directions=directions,
        corrections=corrections,
        drift=tuple(
            row.counted_from(
                centre[row.control] if row.kind == "between" else ahead + np.log(clock.unit)
            )
            for row in inference.drift.table
        ),
        drift_p_values=inference.drift.p_values,
        common_noise=inference.common_noise / noise_unit,
        common_noise_interval=(low, high),
    )


def _curve(
    curves: Curves, averages: Averages, inference: Inference, base: float, log_lift: float
) -> tuple[np.ndarray, np.ndarray]:
    """F and its standard error in the user's units, at controls of 1, (200,) each."""
    unit, lift = averages.scale, float(np.exp(log_lift))
    if curves.log_above is not None:
        # At controls of 1, far from those of the data, a value can be larger than any float.
        with np.errstate(over="ignore"):
            curve = averages.of_log(inference.curve) * lift
            return curve, averages.per_log(inference.curve) * lift * inference.curve_error
    return base + unit * lift * inference.curve, unit * lift * inference.curve_error


def _exponents(
    names: list[str],
    fixed: dict[str, float],
    directions: Directions,
    inference: Inference,
    settings: Settings,
) -> tuple[dict[str, Exponent], dict[str, bool]]:
    """All exponents, and which are identifiable."""
    exponents, identifiable = {}, {}
    sure = determined(directions, inference.identified, settings)
    for name in names:
        if name in fixed:
            exponents[name] = Exponent(fixed[name], fixed[name], fixed[name], 0.0)
            identifiable[name] = True
            continue
        i = directions.free.index(name)
        identifiable[name] = bool(sure[i])
        unknown = Exponent(np.nan, -np.inf, np.inf, np.inf)
        exponents[name] = inference.exponents[i] if identifiable[name] else unknown
    return exponents, identifiable


def _covariance(directions: Directions, inference: Inference) -> np.ndarray:
    """Of the free exponents, with the drift of those that drift, (P, P)."""
    drifts = np.array([inference.drift.spread(name) for name in directions.free])
    return directions.basis @ inference.covariance @ directions.basis.T + np.diag(drifts**2)


def _verdict(curves: Curves, inference: Inference) -> bool | None:
    """True, False, or None if the data cannot say."""
    if len(curves.conditions) < 2:
        return None
    codes = {note.code for note in inference.identified.notes}
    if not inference.outcome.refused:
        identified = inference.identified
        unsure = "poor_overlap" in codes and not (identified.known.all() and identified.compared)
        return None if unsure else True
    # With one replicate, an offset of its own looks like a curve of its own.
    single = max(len(c.values) for c in curves.conditions) == 1
    if single and curves.conditions[0].errors is None:
        return None
    # If a constant fits as well, the exponents follow the noise and no law was tested.
    return None if "flat_curve" in codes else False


def _combinations(
    directions: Directions, inference: Inference, confidence: float, settings: Settings
) -> tuple[Combination, ...]:
    """The known sums Σ basis·p, with largest weight 1; none if every exponent is known."""
    identified = inference.identified
    if determined(directions, identified, settings).all():
        return ()
    t = special.stdtrit(inference.degrees, 0.5 + confidence / 2)
    combinations = []
    known, unknown = (identified.axes[:, mask] for mask in (identified.known, ~identified.known))
    # The unknown directions are held: whatever they are, these sums are known.
    cross = known.T @ inference.covariance @ unknown
    open_ = np.linalg.pinv(unknown.T @ inference.covariance @ unknown, hermitian=True)
    variances = np.diag(known.T @ inference.covariance @ known - cross @ open_ @ cross.T)
    for axis, variance in zip(known.T, variances, strict=True):
        column = directions.basis @ axis
        largest = column[np.argmax(np.abs(column))]
        pairs = zip(directions.free, column, strict=True)
        weights = {name: float(w / largest) for name, w in pairs if abs(w) > 1e-6}
        if len(weights) < 2:
            continue
        centre = (axis @ inference.best.theta + column @ directions.origin) / largest
        half = t * np.sqrt(max(variance, 0.0)) / abs(largest)
        low, high = float(centre - half), float(centre + half)
        combinations.append(Combination(weights, float(centre), low, high))
    return tuple(combinations)


def _notes(
    curves: Curves, directions: Directions, inference: Inference, averages: Averages
) -> tuple[Note, ...]:
    """The caveats, in a fixed order."""
    settings = averages.settings
    notes = []
    for i, name in enumerate(directions.free):
        if name not in curves.controls:
            continue
        column = curves.controls.index(name)
        if np.ptp([c.log_controls[column] for c in curves.conditions]) < 1e-12:
            message = f"{name} has only one value, so its exponent is not identifiable"
            notes.append(Note("constant_control", message))
        elif not directions.known[i]:
            message = f"{name} varies only together with other controls; see combinations"
            notes.append(Note("ridge", message))
    fewest = min(len(c.values) for c in curves.conditions)
    published = averages.errors is not None
    if fewest < settings.few_replicates and not published:
        message = (
            f"{fewest} replicate{'s' * (fewest > 1)} at some condition, too few to know the noise "
            f"well; use at least {settings.few_replicates}"
        )
        notes.append(Note("too_few_replicates", message))
    records = np.median([len(c.log_time) for c in curves.conditions])
    if records < settings.few_records:
        message = (
            f"{records:g} records per curve show it so coarsely that intervals miss more often "
            f"than they say; use at least {settings.few_records}"
        )
        notes.append(Note("few_records", message))
    notes += _coarse_clock(curves, directions, inference, settings)
    notes += inference.identified.notes
    caveats = map(inference.drift.caveat, inference.drift.p_values)
    notes += [Note("drifting_exponent", caveat) for caveat in caveats if caveat]
    if inference.common_noise:
        unit = averages.means.noise_unit(inference.best.fitted)
        size = f"{100 * inference.common_noise / unit:.2g} %"
        message = (
            f"all replicates share scatter of {size} of the curve's range that no smooth curve "
            "explains, such as steps or rounding; the intervals include it"
        )
        notes.append(Note("common_noise", message))
    if curves.published and not published:
        message = "there are replicates, so the published errors are not used"
        notes.append(Note("errors_not_used", message))
    reasons = Counter(run.reason for run in curves.left_out)
    outliers = reasons["outlier"]
    if outliers:
        message = f"{outliers} replicates lie far from the others and were left out"
        notes.append(Note("outliers", message))
    if reasons["copy"]:
        message = (
            "the replicates of every setting are equal, so one of each is used, and the noise is "
            "estimated from the residuals"
        )
        notes.append(Note("copies", message))
    if curves.negative:
        message = (
            f"{curves.negative} of {curves.num_records} records have {curves.time} < 0 or none; "
            "they are not used, since τ needs log t"
        )
        notes.append(Note("times_left_out", message))
    return tuple(notes)


def _coarse_clock(
    curves: Curves, directions: Directions, inference: Inference, settings: Settings
) -> Iterator[Note]:
    """The caveat that half a step of a clock of whole numbers moves an exponent."""
    if curves.time_resolution is not None or not in_whole_steps(curves):
        return
    likelihood, best = inference.likelihood, inference.best
    later = likelihood.pace(best) * 0.5 / curves.clock.since(likelihood.means.log_time)
    moved = directions.basis @ influence(likelihood, best, inference.identified) @ later
    for name, change, exponent in zip(directions.free, moved, inference.exponents, strict=True):
        if abs(change) > settings.coarse_clock_errors * exponent.standard_error:
            message = (
                f"{curves.time} counts whole steps, and half a step moves {name} by {change:+.2g}; "
                "if the clock is discrete, give time_resolution=1 or a window that begins later"
            )
            yield Note("coarse_clock", message)
            return
