"""What a fit says: exponents with intervals, the verdict, what is not identifiable, and notes with codes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from jthermo.collapse.read import Curves, LeftOut
from jthermo.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jthermo.collapse.advice import Advice
    from jthermo.collapse.averages import Correction, Directions, Prepared
    from jthermo.collapse.exponent_drift import Local
    from jthermo.collapse.likelihood import Model, Solution


@dataclass(frozen=True)
class Exponent:
    """The power p of one control in τ = t·Π controlᵖ, with its interval (infinite where nothing is known)."""

    value: float
    low: float
    high: float
    standard_error: float

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "not identifiable"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Combination:
    """Controls that only vary together: Σ weights·exponents is known although the exponents are not."""

    weights: dict[str, float]
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Note:
    """A caveat with a code to act on and a sentence to read."""

    code: str
    message: str


@dataclass(frozen=True)
class TestResult:
    """Outcome of :meth:`CollapseFit.test`."""

    p_value: float
    statistic: float
    degrees: tuple[int, float]


@dataclass(frozen=True)
class CollapseFit:
    """The answer of :func:`fit_collapse`.

    Attributes:
        exponents: control → :class:`Exponent`; also ``value_<control>`` of the value's scale, ``correction_<control>``
            and ``power_<control>`` of a correction.
        collapsed: True, False where the p-value is below 0.01, None when the data cannot say.
        p_value: of the lack-of-fit test; uniform when the curves do collapse.
        misfit: root mean square distance of the curves from the common one beyond their noise, in units of
            its range.
        identifiable: control → whether its exponent is determined.
        combinations: what is known where single exponents are not.
        confidence: of the intervals.
        window: (first, last) time used.
        num_replicates: used, smallest and largest number over the conditions.
        left_out: replicates not used, with the reason.
        notes: caveats.
        covariance: of the free exponents, with `degrees` of freedom, at the fitted power of a correction.
        free: names of the exponents that were fitted.
        log_tau: grid of the curve, with its `curve` and `curve_error`.
        curves: the data that were used.
        model: the objective that was minimised, with its `solution`, in the fit's own units.
        ready: the averaged data behind it, with `ways`, the directions of its unknowns.
        corrections: leading corrections that were fitted, with the power that was used.
        drift: effective exponents between neighbouring values of each control and in windows of τ.
        drift_p_values: control → p-value of its effective exponents being equal.
        common_noise: standard deviation, in units of the curve's range, of scatter that all replicates share and no
            curve explains (a staircase, rounding); 0 where there is none to be seen.
    """

    exponents: dict[str, Exponent]
    collapsed: bool | None
    p_value: float
    misfit: float
    identifiable: dict[str, bool]
    combinations: tuple[Combination, ...]
    confidence: float
    window: tuple[float, float]
    num_replicates: tuple[int, int]
    left_out: tuple[LeftOut, ...]
    notes: tuple[Note, ...]
    covariance: np.ndarray
    degrees: float
    free: tuple[str, ...]
    log_tau: np.ndarray = field(repr=False)
    curve: np.ndarray = field(repr=False)
    curve_error: np.ndarray = field(repr=False)
    curves: Curves = field(repr=False)
    model: Model = field(repr=False)
    solution: Solution = field(repr=False)
    ready: Prepared = field(repr=False)
    ways: Directions = field(repr=False)
    corrections: tuple[Correction, ...] = field(repr=False)
    drift: tuple[Local, ...] = field(repr=False)
    drift_p_values: dict[str, float] = field(repr=False)
    common_noise: float = field(repr=False)

    @property
    def fitted(self) -> tuple[str, ...]:
        """Names of all exponents that were not held: those in `free`, and a correction's power where it was fitted."""
        return self.free + tuple(c.power_name for c in self.corrections if c.power_name in self.exponents)

    def test(self, **exponents: float) -> TestResult:
        """Are these the exponents? Wald F test, p-value against any other values.

        Args:
            exponents: control = hypothetical power, e.g. ``fit.test(learning_rate=2, batch_size=-1)``.

        Raises:
            InputError: a control is unknown, was held fixed, or is not identifiable.
        """
        if not exponents:
            raise InputError("exponents", {}, "name at least one, such as fit.test(learning_rate=2)")
        for name in exponents:
            self._testable(name)
        number = len(exponents)
        if self.fitted == self.free:
            gap = np.array([self.exponents[name].value - value for name, value in exponents.items()])
            square = float(gap @ np.linalg.solve(self._covariance(tuple(exponents)), gap))
        else:
            from jthermo.collapse.correction_power import joint_statistic

            square = joint_statistic(self, exponents)
        p_value = float(stats.f.sf(square / number, number, self.degrees))
        return TestResult(p_value, square / number, (number, self.degrees))

    def region(self, first: str, second: str, num_points: int = 200) -> np.ndarray:
        """Boundary of the joint confidence region of two exponents, (num_points, 2).

        The ellipse on which :meth:`test` of both gives p = 1 − confidence.
        """
        for name in (first, second):
            self._testable(name)
        if self.fitted != self.free:
            remedy = "has no ellipse beside a fitted power; use test, or give the correction one power"
            raise InputError("region", (first, second), remedy)
        centre = [self.exponents[first].value, self.exponents[second].value]
        radius = np.sqrt(2 * stats.f.ppf(self.confidence, 2, self.degrees))
        angle = np.linspace(0, 2 * np.pi, num_points)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        return centre + (radius * np.linalg.cholesky(self._covariance((first, second))) @ circle).T

    def profile(self, name: str, values: np.ndarray) -> np.ndarray:
        """Log likelihood lost when one exponent is held at each of the values and all else is fitted again.

        The power of a correction stays as it is, unless it is the one that is held.
        """
        from jthermo.collapse.correction_power import follow

        self._testable(name)
        for each in self.corrections:
            if name == each.power_name:
                found = [
                    follow(self.model, self.solution, self.ways, self.curves, each, float(v)) for v in values
                ]
                return np.array([other.objective for other in found]) - self.solution.objective
        position = self.ways.position(name)
        rest = np.delete(self.solution.theta, position)
        lost = []
        for value in np.asarray(values, dtype=float):
            held = replace(self.model, means=self.model.means.holding(position, value))
            start = held.solve(rest)
            wide = np.stack([rest - 10, rest + 10], axis=-1).reshape(-1, 2)
            lost.append(held.minimise(start, wide).objective - self.solution.objective)
        return np.array(lost)

    def advice(self) -> tuple[Advice, ...]:
        """What would narrow the intervals: replicates, a further value of a control, later or denser records."""
        from jthermo.collapse.advice import advice

        return advice(self)

    def _testable(self, name: str) -> None:
        if name not in self.fitted:
            raise InputError("exponents", name, f"is not one of the fitted exponents {list(self.fitted)}")
        if not math.isfinite(self.exponents[name].standard_error):
            raise InputError(
                "exponents", name, "is not identifiable, so no value of it can be tested; see combinations"
            )

    def _covariance(self, names: tuple[str, ...]) -> np.ndarray:
        index = [self.free.index(name) for name in names]
        return self.covariance[np.ix_(index, index)]

    def tau(self, time: np.ndarray, **controls: float) -> np.ndarray:
        """τ = t·Π controlᵖ with the fitted exponents (0 for those that are not identifiable) and corrections."""
        out = np.asarray(time, dtype=float)
        for name, value in controls.items():
            out = out * value ** self._power(name)
        for each in self.corrections:
            if each.control in controls:
                out = out * np.exp(self._power(each.name) * each.size(controls[each.control]))
        return out

    def rescaled(self, values: np.ndarray, **controls: float) -> np.ndarray:
        """The values over Π control^q: what falls on the curve when the controls scale the value too."""
        out = np.asarray(values, dtype=float)
        for name, value in controls.items():
            out = out / value ** self._power(f"value_{name}")
        return out

    def _power(self, name: str) -> float:
        found = self.exponents.get(name)
        return found.value if found is not None and math.isfinite(found.value) else 0.0

    def symbol(self, name: str) -> str:
        """How an exponent is written: p(c), q(c) of the value, a(c) and w(c) of a correction."""
        kind, _, control = name.partition("_")
        letter = {"value": "q", "correction": "a", "power": "w"}.get(kind)
        return f"p({name})" if name in self.curves.controls or letter is None else f"{letter}({control})"

    def summary(self) -> str:
        """The fit in a few lines of text."""
        verdict = {True: "collapse", False: "NO collapse", None: "cannot be said"}[self.collapsed]
        scaled = [c for c in self.curves.controls if f"value_{c}" in self.exponents]
        value = "/".join([self.curves.value, *(f"{c}^q" for c in scaled)])
        clock = "·".join([self.curves.time, *(f"{c}^p" for c in self.curves.controls)])
        grown = "".join(f"·exp(a·({x.control}/{x.reference:.4g})^{x.power:.3g})" for x in self.corrections)
        lines = [f"{value} against τ = {clock}{grown}"]
        for name, exponent in self.exponents.items():
            lines.append(f"  {self.symbol(name)} = {exponent}" + ("" if name in self.fitted else "  (fixed)"))
        for known in self.combinations:
            sum_ = " + ".join(f"{w:.4g}·p({name})" for name, w in known.weights.items())
            lines.append(f"  {sum_} = {known.value:.4g} [{known.low:.4g}, {known.high:.4g}]")
        number, (low, high) = len(self.curves.conditions), self.num_replicates
        used = f"{low}" if low == high else f"{low} to {high}"
        lines.append(
            f"  verdict: {verdict} (p = {self.p_value:.3g}, misfit {100 * self.misfit:.2g} % of the range)"
        )
        lines.append(
            f"  {number} condition{'s' * (number > 1)}, {used} replicate{'s' * (high > 1)} each, "
            f"{self.curves.time} {self.window[0]:g} to {self.window[1]:g}, "
            f"{100 * self.confidence:g} % intervals"
        )
        reasons = Counter(run.reason for run in self.left_out)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
        lines.append(f"  runs left out: {len(self.left_out)} ({told})" if reasons else "  runs left out: 0")
        for name, p_value in self.drift_p_values.items():
            for kind in ("between", "window"):
                part = [row for row in self.drift if row.control == name and row.kind == kind]
                if not part:  # a control of two values has no neighbouring pairs to compare
                    continue
                where = {
                    "between": f"from {name} = {part[0].low:.3g} to {part[-1].high:.3g}",
                    "window": "in thirds of log τ",
                }[kind]
                locals_ = ", ".join(f"{row.value:.3g} ± {row.standard_error:.2g}" for row in part)
                lines.append(f"  local p({name}) {where}: {locals_}")
            lines.append(f"  drift of p({name}): p = {p_value:.2g}")
        lines += [f"  note {note.code}: {note.message}" for note in self.notes]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, unrounded, ready for JSON; what is not known is None."""

        def number(value: float) -> float | None:
            return float(value) if math.isfinite(value) else None

        return {
            "value": self.curves.value,
            "time": self.curves.time,
            "exponents": {
                name: {
                    "value": number(e.value),
                    "low": number(e.low),
                    "high": number(e.high),
                    "standard_error": number(e.standard_error),
                    "fixed": name not in self.fitted,
                    "identifiable": self.identifiable[name],
                }
                for name, e in self.exponents.items()
            },
            "corrections": [
                {"control": c.control, "power": c.power, "reference": c.reference} for c in self.corrections
            ],
            "combinations": [
                {"weights": c.weights, "value": number(c.value), "low": number(c.low), "high": number(c.high)}
                for c in self.combinations
            ],
            "collapsed": self.collapsed,
            "p_value": number(self.p_value),
            "misfit": number(self.misfit),
            "common_noise": self.common_noise,
            "confidence": self.confidence,
            "degrees": number(self.degrees),
            "window": list(self.window),
            "drift": [
                {
                    "control": row.control,
                    "kind": row.kind,
                    "low": number(row.low),
                    "high": number(row.high),
                    "value": number(row.value),
                    "standard_error": number(row.standard_error),
                }
                for row in self.drift
            ],
            "drift_p_values": {name: number(p) for name, p in self.drift_p_values.items()},
            "num_conditions": len(self.curves.conditions),
            "num_replicates": list(self.num_replicates),
            "left_out": [
                {"controls": r.controls, "replicate": str(r.replicate), "reason": r.reason}
                for r in self.left_out
            ],
            "notes": [{"code": n.code, "message": n.message} for n in self.notes],
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """The collapse: every condition's mean against τ over the fitted curve with its band."""
        from jthermo.collapse.plot import plot_collapse

        return plot_collapse(self, ax)

    def plot_residuals(self, ax: Axes | None = None, *, by: str | None = None) -> Axes:
        """Every condition's mean minus the curve against τ: what does not collapse stands out.

        Args:
            ax: where to draw; a new figure by default.
            by: a control: averages over windows of log τ at each of its values, in which a drift along it shows.

        Raises:
            InputError: `by` is none of the controls.
        """
        if by is not None and by not in self.curves.controls:
            raise InputError("by", by, f"name one of the controls {list(self.curves.controls)}")
        from jthermo.collapse.plot import plot_residuals

        return plot_residuals(self, ax, by)

    def plot_profile(self, name: str, ax: Axes | None = None) -> Axes:
        """Log likelihood lost against one exponent, with its interval."""
        from jthermo.collapse.plot import plot_profile

        return plot_profile(self, name, ax)

    def plot_region(self, first: str, second: str, ax: Axes | None = None) -> Axes:
        """The joint confidence region of two exponents with their single intervals."""
        from jthermo.collapse.plot import plot_region

        return plot_region(self, first, second, ax)
