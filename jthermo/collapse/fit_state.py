"""The numbers of a finished fit from which its tests, figures and advice are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jthermo.collapse.averages import Averages
from jthermo.collapse.exponent_drift import Local
from jthermo.collapse.likelihood import CurveLikelihood, Solution
from jthermo.collapse.read import Curves, LeftOut
from jthermo.collapse.result_types import Combination, Exponent, Note
from jthermo.collapse.settings import Settings
from jthermo.collapse.unknowns import Correction, Directions
from jthermo.errors import InputError


@dataclass(frozen=True)
class FitState:
    """The answer of :func:`fit_collapse`.

    Attributes:
        exponents: control → :class:`Exponent`; also ``value_<control>`` of the value's scale,
            ``correction_<control>`` and ``power_<control>`` of a correction, and the numbers
            ``critical_point`` and ``offset``.
        collapsed: True; False if the p-value is below 0.01; None if the data cannot say.
        p_value: of the lack-of-fit test; uniform if the curves do collapse.
        misfit: root mean square distance of the curves from the common one beyond their noise, in
            units of its range.
        misfit_interval: its limits.
        identifiable: control → whether its exponent is determined.
        combinations: sums of exponents that are known although the single ones are not.
        confidence: of the intervals.
        window: (first, last) time used.
        num_replicates: smallest and largest number of replicates used per condition.
        left_out: replicates not used, with the reason.
        notes: caveats.
        covariance: of the free exponents, with `degrees` of freedom, at the fitted power of a
            correction, (P, P).
        degrees: degrees of freedom of the intervals.
        free: names of the exponents that were fitted.
        curve_tau: τ on a grid along the curve, (200,).
        curve: the common curve F there, (200,).
        curve_error: its standard error, (200,).
        curves: the data that were used.
        likelihood: the objective that was minimised, in the fit's own units.
        solution: its minimum.
        averages: the averaged data behind it.
        directions: of the unknowns.
        corrections: leading corrections that were fitted, with the power that was used.
        drift: local exponents between neighbouring values of each control and in windows of τ.
        drift_p_values: control → p-value of its local exponents being equal.
        common_noise: standard deviation of one record, in units of the curve's range, of scatter
            that all replicates share and no curve explains (a staircase, rounding); 0 if there is
            none.
        common_noise_interval: its limits, by the likelihood at the fitted exponents.
    """

    exponents: dict[str, Exponent]
    collapsed: bool | None
    p_value: float
    misfit: float
    misfit_interval: tuple[float, float]
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
    curve_tau: np.ndarray = field(repr=False)
    curve: np.ndarray = field(repr=False)
    curve_error: np.ndarray = field(repr=False)
    curves: Curves = field(repr=False)
    likelihood: CurveLikelihood = field(repr=False)
    solution: Solution = field(repr=False)
    averages: Averages = field(repr=False)
    directions: Directions = field(repr=False)
    corrections: tuple[Correction, ...] = field(repr=False)
    drift: tuple[Local, ...] = field(repr=False)
    drift_p_values: dict[str, float] = field(repr=False)
    common_noise: float = field(repr=False)
    common_noise_interval: tuple[float, float] = field(repr=False)

    @property
    def log_tau(self) -> np.ndarray:
        """Log of `curve_tau`, (200,); NaN where τ ≤ 0."""
        return np.log(np.where(self.curve_tau > 0, self.curve_tau, np.nan))

    @property
    def settings(self) -> Settings:
        """The constants of the fit."""
        return self.averages.settings

    @property
    def fitted(self) -> tuple[str, ...]:
        """Names of all exponents that were not held: `free`, and a correction's power if fitted."""
        powers = (correction.power_name for correction in self.corrections)
        return self.free + tuple(name for name in powers if name in self.exponents)

    def require_testable(self, name: str) -> None:
        """Raise InputError unless the exponent was fitted and is identifiable."""
        if name not in self.fitted:
            remedy = f"is not one of the fitted exponents {list(self.fitted)}"
            raise InputError("exponents", name, remedy)
        if not math.isfinite(self.exponents[name].standard_error):
            remedy = "is not identifiable, so no value of it can be tested; see combinations"
            raise InputError("exponents", name, remedy)

    def covariance_of(self, names: tuple[str, ...]) -> np.ndarray:
        """Covariance of some of the free exponents."""
        index = [self.free.index(name) for name in names]
        return self.covariance[np.ix_(index, index)]

    def tau(self, time: np.ndarray, **controls: float) -> np.ndarray:
        """τ = (t − t_c)·Π controlᵖ with the fitted exponents and corrections.

        Exponents that are not identifiable count as 0.
        """
        self._require_setting(controls)
        out = np.asarray(time, dtype=float) - self._exponent("critical_point")
        for name, value in controls.items():
            out = out * value ** self._exponent(name)
        for correction in self.corrections:
            if correction.control in controls:
                size = correction.size(controls[correction.control])
                out = out * np.exp(self._exponent(correction.name) * size)
        return out

    def rescaled(self, values: np.ndarray, **controls: float) -> np.ndarray:
        """(value − offset)/Π control^q, which lies on the curve."""
        self._require_setting(controls)
        out = np.asarray(values, dtype=float) - self._exponent("offset")
        for name, value in controls.items():
            out = out / value ** self._exponent(f"value_{name}")
        return out

    def _require_setting(self, controls: Mapping[str, Any]) -> None:
        """Raise InputError unless each control of the fit, and nothing else, has values > 0."""
        names = self.curves.controls
        if set(controls) != set(names):
            example = ", ".join(f"{name}=…" for name in names)
            raise InputError("controls", [*controls], f"give a value of each control: {example}")
        for name, value in controls.items():
            numbers = np.asarray(value)
            if numbers.dtype.kind not in "iuf" or not np.all((numbers > 0) & np.isfinite(numbers)):
                raise InputError(name, value, "give a finite number > 0")

    def _exponent(self, name: str) -> float:
        exponent = self.exponents.get(name)
        known = exponent is not None and math.isfinite(exponent.value)
        return exponent.value if exponent is not None and known else 0.0

    def symbol(self, name: str) -> str:
        """How an exponent is written: p(c), q(c) of the value, a(c) and w(c) of a correction."""
        if name in ("critical_point", "offset") and name not in self.curves.controls:
            return {"critical_point": "t_c", "offset": "offset"}[name]
        kind, _, control = name.partition("_")
        letter = {"value": "q", "correction": "a", "power": "w"}.get(kind)
        if name in self.curves.controls or letter is None:
            return f"p({name})"
        return f"{letter}({control})"
