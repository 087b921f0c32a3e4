"""The form of a scaling law: which of its numbers are fitted, and on which axes curves compare.

    (value − v₀) = Π c^q · F(τ),   τ = (t − t_c)·Π cᵖ·exp(a·(c/c₀)ʷ)

`Form` holds what the user says; `Clock` is the axis of time that follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jthermo.errors import InputError, is_finite, is_number

# A number that is given, or the range in which it is fitted.
Given = float | tuple[float, float]


@dataclass(frozen=True)
class Form:
    """A scaling law as the options of :func:`fit_collapse` describe it.

    Attributes:
        fixed: exponents held at a value.
        rescale: controls that also scale the value.
        correction: control → power of its leading correction, or a range of powers.
        critical_point: t_c, or the range in which it is fitted; None for a clock of times > 0.
        branches: 1 if F is smooth through τ = 0, 2 if it is another function on either side.
        offset: v₀, or the range in which it is fitted.
        scale: "linear", or "log" if the noise is in proportion to the value.
        window: (first, last) time to use.
        clock_window: (first, last) τ to use, with the exponents of `fixed`, or with those that
            follow as a mapping: ``(1, inf, {"learning_rate": 2})``.
    """

    fixed: Mapping[str, float] = field(default_factory=dict)
    rescale: Sequence[str] = ()
    correction: Mapping[str, Given] = field(default_factory=dict)
    critical_point: Given | None = None
    branches: int = 1
    offset: Given | None = None
    scale: str = "linear"
    window: tuple[float, float] | None = None
    clock_window: tuple | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        if isinstance(self.rescale, str):
            set_(self, "rescale", (self.rescale,))
        fixed = dict(self.fixed)
        for name in ("critical_point", "offset"):
            given = getattr(self, name)
            if isinstance(given, tuple | list) and name in fixed:
                given = fixed.pop(name)
            set_(self, name, _given(name, given))
        set_(self, "fixed", fixed)
        if self.scale not in ("linear", "log"):
            remedy = 'give "linear", or "log" if the noise is in proportion to the value'
            raise InputError("scale", self.scale, remedy)
        if self.branches not in (1, 2):
            remedy = "give 1 if the curve is smooth through τ = 0, or 2 if it is not"
            raise InputError("branches", self.branches, remedy)
        if self.branches == 2 and self.critical_point is None:
            remedy = "two branches meet at a critical point; give critical_point"
            raise InputError("branches", 2, remedy)
        if isinstance(self.offset, tuple) and not self.rescale:
            remedy = (
                "without rescale it is part of the curve and cannot be fitted; name in rescale the "
                "control that scales the value, or give one number"
            )
            raise InputError("offset", self.offset, remedy)

    @property
    def log_above(self) -> float | None:
        """The number v₀ whose distance to the value is compared on a log scale, if one is."""
        if self.scale == "linear":
            return None
        return self.offset if isinstance(self.offset, float) else 0.0

    @property
    def origin(self) -> float:
        """The time from which τ counts: t_c, or the middle of the range in which it is fitted."""
        if self.critical_point is None:
            return 0.0
        return float(np.mean(self.critical_point))

    def clock_powers(self, controls: Sequence[str]) -> tuple[float, float, np.ndarray] | None:
        """First and last τ to use, and the exponents of the clock in which they are given."""
        if self.clock_window is None:
            return None
        remedy = (
            "give (low, high) with low < high, and the exponents in fixed or as a third entry, "
            'such as (1, 1000, {"learning_rate": 2})'
        )
        try:
            low, high, *rest = self.clock_window
            low, high = float(low), float(high)
            powers = {**self.fixed, **(rest[0] if rest else {})}
            known = np.array([float(powers.get(name, 0.0)) for name in controls])
        except (TypeError, ValueError):
            raise InputError("clock_window", self.clock_window, remedy) from None
        strange = [name for name in (rest[0] if rest else {}) if name not in controls]
        if not low < high or len(rest) > 1 or strange or not np.isfinite(known).all():
            raise InputError("clock_window", self.clock_window, remedy)
        if isinstance(self.critical_point, tuple):
            remedy = "it is measured from the critical point, which is fitted; give one number"
            raise InputError("critical_point", self.critical_point, remedy)
        return low, high, known


@dataclass(frozen=True)
class Crossover:
    """One law of early records and another of late ones, each with a clock and a curve of its own.

    A record between the two laws, where one goes over into the other, obeys neither.

    Attributes:
        early: the law up to the crossover.
        late: the law after it.
        at: τ of the early clock where the crossover is, or the range (low, high) that it takes. The
            clock has the exponents of ``early.fixed``, and 0 for others. None if clock windows of
            both laws say where they hold; without those, :func:`compare` searches the range that
            predicts best.
    """

    early: Form
    late: Form
    at: Given | None = None

    def __post_init__(self) -> None:
        for name in ("early", "late"):
            if not isinstance(form := getattr(self, name), Form):
                raise InputError(name, form, 'give a Form, such as Form(rescale=["L"])')
        object.__setattr__(self, "at", _given("at", self.at))
        windows = [form.clock_window is not None for form in (self.early, self.late)]
        if windows[0] != windows[1] or (self.at is not None and any(windows)):
            remedy = "give at, or a clock_window of both laws, or neither to search the crossover"
            raise InputError("at", self.at, remedy)
        if not any(windows) and isinstance(self.early.critical_point, tuple):
            remedy = "the crossover is measured from it; give one number, or clock windows"
            raise InputError("critical_point", self.early.critical_point, remedy)

    @property
    def laws(self) -> tuple[Form, Form] | None:
        """Both laws with the clock windows in which they hold; None if these are searched."""
        if self.early.clock_window is not None:
            return self.early, self.late
        if self.at is None:
            return None
        low, high = self.at if isinstance(self.at, tuple) else (self.at, self.at)
        return self.parted(low, high, self.early.fixed)

    def parted(self, low: float, high: float, powers: Mapping[str, float]) -> tuple[Form, Form]:
        """The laws below and above a range of the clock with these exponents."""
        early = replace(self.early, clock_window=(-np.inf, low, powers))
        return early, replace(self.late, clock_window=(high, np.inf, powers))


def _given(name: str, given: object) -> Given | None:
    """A number, a range of two increasing numbers, or None."""
    if given is None:
        return None
    if is_number(given) and is_finite(given):
        return float(given)  # type: ignore[arg-type]
    try:
        low, high = (float(end) for end in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        remedy = "give a number, or a range (low, high) in which to fit it"
        raise InputError(name, given, remedy)
    return low, high


@dataclass(frozen=True)
class Clock:
    """Where a time stands on the axis of the curve, before controls rescale it.

    Attributes:
        origin: t_c, or the middle of the range in which it is fitted.
        unit: time below which a signed clock is linear; far above it is logarithmic.
        signed: whether the axis is asinh((t − t_c)/unit) instead of log(t − t_c).
        given: t_c or its range; None if times count from 0.
        broken: whether the curve has a branch on either side of t_c.
    """

    origin: float = 0.0
    unit: float = 1.0
    signed: bool = False
    given: Given | None = None
    broken: bool = False

    @classmethod
    def of(cls, form: Form, times: np.ndarray, inner: float, core: float, slow: float) -> Clock:
        """The clock of these times.

        Args:
            form: of the law.
            times: recorded times.
            inner: share of the records that lie within `unit` of t_c.
            core: the same with two branches, or if all records lie on one side.
            slow: share of that `unit` which is used if all records lie on one side.
        """
        given = form.critical_point
        if given is None:
            # Times on both sides of 0, or before it, are measured from a critical point at 0.
            if len(np.unique(times[times < 0])) < 2:
                return cls()
            given = 0.0
        low, high = given if isinstance(given, tuple) else (given, given)
        origin = form.origin
        broken = form.branches == 2
        if low == high and not broken and (times > high).all():
            return cls(origin, given=given)
        # Records that are all on one side are as far from t_c as from the end of its range.
        after, before = (times >= high).all(), (times <= low).all()
        distance = np.abs(times - (high if after else low if before else origin))
        sided = broken or after or before
        away = distance[distance > 0]
        unit = float(np.quantile(away, core if sided else inner)) if len(away) else 1.0
        if after or before:
            # A curve that is slower than others has smaller τ, which the axis must tell apart too.
            unit *= slow
        return cls(origin, unit, True, given, broken)

    def place(self, time: np.ndarray) -> np.ndarray:
        """Log of the time since t_c, or asinh of it."""
        since = np.asarray(time, dtype=float) - self.origin
        return np.arcsinh(since / self.unit) if self.signed else np.log(since)

    def since(self, place: np.ndarray) -> np.ndarray:
        """T − t_c at a place."""
        return self.unit * np.sinh(place) if self.signed else np.exp(place)

    def time(self, place: np.ndarray) -> np.ndarray:
        """T at a place."""
        return self.origin + self.since(place)
