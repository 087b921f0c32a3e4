"""The result of a fit: exponents with intervals, the verdict, notes, tests and pictures."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from jthermo.collapse.advice import Advice, advise, replicates_for
from jthermo.collapse.fit_state import FitState
from jthermo.collapse.other_form import worth_trying
from jthermo.collapse.plot import plot_collapse, plot_profile, plot_region, plot_residuals
from jthermo.collapse.regions import joint_region, joint_test, likelihood_profile
from jthermo.collapse.result_types import TestResult
from jthermo.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class CollapseFit(FitState):
    """The answer of :func:`fit_collapse`: a :class:`FitState` with tests, advice and pictures.

    The most used attributes are `exponents`, `collapsed`, `p_value`, `misfit`, `identifiable`,
    `combinations`, `drift`, `notes` and `left_out`. :class:`FitState` describes all of them.
    """

    def test(self, **exponents: float) -> TestResult:
        """Test whether these are the exponents: a Wald F test against any other values.

        Args:
            exponents: control = hypothetical exponent, e.g.
                ``fit.test(learning_rate=2, batch_size=-1)``.

        Raises:
            InputError: a control is unknown, was held fixed, or is not identifiable.
        """
        return joint_test(self, exponents)

    def region(self, first: str, second: str, num_points: int = 200) -> np.ndarray:
        """Boundary of the joint confidence region of two exponents, (num_points, 2).

        It is the ellipse on which :meth:`test` of both gives p = 1 − confidence.
        """
        return joint_region(self, first, second, num_points)

    def profile(self, name: str, values: np.ndarray) -> np.ndarray:
        """Log likelihood lost if one exponent is held at each value and all else is refitted.

        The power of a correction stays as it is, unless it is the exponent that is held.
        """
        return likelihood_profile(self, name, values)

    def advice(self) -> tuple[Advice, ...]:
        """What would narrow the intervals: replicates, a further value, later or denser records."""
        return advise(self)

    def replicates_for(self, control: str, half_width: float) -> int | None:
        """How many replicates per condition would give an interval of this half-width.

        Args:
            control: whose exponent.
            half_width: half the width of its interval.

        Returns:
            The number; None if even very many would not do.

        Raises:
            InputError: the exponent is not fitted or not identifiable, or the fit has a form whose
                noise is not predicted.
        """
        return replicates_for(self, control, half_width)

    def worth_trying(self) -> str | None:
        """Where a collapse is refused: the form that would explain most of the misfit, if one does.

        ``rescale`` if the misfit follows the value, ``correction`` if it fades along a control,
        ``clock_window`` or two clocks if the law changes along τ.
        """
        with threadpool_limits(1, "blas"):
            return worth_trying(self)

    def summary(self) -> str:
        """The fit in a few lines of text."""
        lines = [self._law()]
        for name, exponent in self.exponents.items():
            fixed = "" if name in self.fitted else "  (fixed)"
            lines.append(f"  {self.symbol(name)} = {exponent}{fixed}")
        for known in self.combinations:
            sum_ = " + ".join(f"{w:.4g}·{self.symbol(name)}" for name, w in known.weights.items())
            lines.append(f"  {sum_} = {known.value:.4g} [{known.low:.4g}, {known.high:.4g}]")
        lines += self._verdict_lines()
        for name in self.drift_p_values:
            lines += self._drift_lines(name)
        if (form := self.worth_trying()) is not None:
            lines.append(f"  worth trying: {form}")
        lines += [f"  note {note.code}: {note.message}" for note in self.notes]
        lines.append(
            "  p: how often curves that do collapse miss each other by as much; below "
            f"{self.settings.verdict_p_value:g} noise does not explain it. ±: one standard error"
        )
        return "\n".join(lines)

    def _law(self) -> str:
        """The value and the clock, such as ``alive against τ = hours·dose^p``."""
        scaled = [c for c in self.curves.controls if f"value_{c}" in self.exponents]
        value, time = self.curves.value, self.curves.time
        value = f"({value} − offset)" if "offset" in self.exponents else value
        time = f"({time} − t_c)" if "critical_point" in self.exponents else time
        value = "/".join([value, *(f"{c}^q" for c in scaled)])
        value = value if self.curves.log_above is None else f"log of {value}"
        clock = "·".join([time, *(f"{c}^p" for c in self.curves.controls)])
        grown = "".join(
            f"·exp(a·({c.control}/{c.reference:.4g})^{c.power:.3g})" for c in self.corrections
        )
        return f"{value} against τ = {clock}{grown}"

    def _verdict_lines(self) -> list[str]:
        """The verdict, the data and the replicates left out."""
        number, (low, high) = len(self.curves.conditions), self.num_replicates
        used = f"{low}" if low == high else f"{low} to {high}"
        reasons = Counter(run.reason for run in self.left_out)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        return [
            f"  verdict: {self._verdict()}",
            f"  {number} condition{'s' * (number > 1)}, {used} replicate{'s' * (high > 1)} each, "
            f"{self.curves.time} {self.window[0]:g} to {self.window[1]:g}, "
            f"{100 * self.confidence:g} % intervals",
            f"  runs left out: {len(self.left_out)}" + (f" ({told})" if told else ""),
            *self._records_line(),
        ]

    def _records_line(self) -> list[str]:
        """How many records have no time > 0, if any."""
        curves = self.curves
        if not curves.not_positive:
            return []
        return [
            f"  records left out: {curves.not_positive:,} of {curves.num_records:,} "
            f"({curves.time} ≤ 0 or missing)"
        ]

    def _verdict(self) -> str:
        """How far the curves are from one, and whether noise explains it."""
        miss = f"the curves miss each other by {100 * self.misfit:.2g} % of their range"
        p_value = f"p = {self.p_value:.3g}"
        if self.collapsed is None:
            return f"cannot be said; {miss} beyond noise ({p_value})"
        if self.collapsed:
            return f"collapse; {miss} beyond noise ({p_value})"
        small = self.misfit < self.settings.small_misfit
        words = "a collapse for most purposes, but not within the noise" if small else "NO collapse"
        return f"{miss} ({p_value}): {words}"

    def _drift_lines(self, name: str) -> list[str]:
        """The local exponents of one control and the p-value of their being equal."""
        lines = []
        for kind in ("between", "window"):
            part = [row for row in self.drift if row.control == name and row.kind == kind]
            # A control of two values has no neighbouring pairs to compare.
            if not part:
                continue
            where = {
                "between": f"from {name} = {part[0].low:.3g} to {part[-1].high:.3g}",
                "window": "in thirds of log τ",
            }[kind]
            exponents = ", ".join(f"{row.value:.3g} ± {row.standard_error:.2g}" for row in part)
            lines.append(f"  local p({name}) {where}: {exponents}")
        return [*lines, f"  drift of p({name}): p = {self.drift_p_values[name]:.2g}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, unrounded, ready for JSON. Unknown numbers are None."""

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
                {"control": c.control, "power": c.power, "reference": c.reference}
                for c in self.corrections
            ],
            "combinations": [
                {
                    "weights": c.weights,
                    "value": number(c.value),
                    "low": number(c.low),
                    "high": number(c.high),
                }
                for c in self.combinations
            ],
            "collapsed": self.collapsed,
            "p_value": number(self.p_value),
            "misfit": number(self.misfit),
            "misfit_interval": [number(end) for end in self.misfit_interval],
            "common_noise": self.common_noise,
            "common_noise_interval": [number(end) for end in self.common_noise_interval],
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
            "num_records": self.curves.num_records,
            "num_records_left_out": self.curves.not_positive,
            "notes": [{"code": n.code, "message": n.message} for n in self.notes],
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """The collapse: every condition's mean against τ, over the fitted curve with its band."""
        return plot_collapse(self, ax)

    def plot_residuals(self, ax: Axes | None = None, *, by: str | None = None) -> Axes:
        """Every condition's mean minus the curve against τ, which shows what does not collapse.

        Args:
            ax: where to draw; a new figure by default.
            by: a control. At each of its values the residuals are averaged over windows of log τ,
                which shows a drift along it.

        Raises:
            InputError: `by` is none of the controls.
        """
        if by is not None and by not in self.curves.controls:
            raise InputError("by", by, f"name one of the controls {list(self.curves.controls)}")
        return plot_residuals(self, ax, by)

    def plot_profile(self, name: str, ax: Axes | None = None) -> Axes:
        """Log likelihood lost against one exponent, with its interval."""
        return plot_profile(self, name, ax)

    def plot_region(self, first: str, second: str, ax: Axes | None = None) -> Axes:
        """The joint confidence region of two exponents with their single intervals."""
        return plot_region(self, first, second, ax)
