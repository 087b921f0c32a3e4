"""The answer of `compare`: every form with its score, as text, numbers and a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jthermo.collapse.plot import plot_scores
from jthermo.collapse.result import CollapseFit
from jthermo.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What a form is called: it predicts best, or not worse than that beyond error, or it does not hold.
STATUSES = ("best", "tied", "rejected")


@dataclass(frozen=True)
class FormScore:
    """How well one form predicts.

    Attributes:
        name: of the form.
        status: "best", "tied" or "rejected".
        reason: why, in words.
        score: log likelihood of the replicates left out, minus that of the best form.
        standard_error: of `score`.
        num_fitted: effective number of fitted numbers, those of the curves included.
        p_value: of the curves being one, the least of its laws', times their number.
        fits: one per law: two of a crossover.
    """

    name: str
    status: str
    reason: str
    score: float
    standard_error: float
    num_fitted: float
    p_value: float
    fits: tuple[CollapseFit, ...] = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """The answer of :func:`compare`.

    Attributes:
        forms: one per form: the best, then those tied with it, simplest first, then the rejected.
        no_law: score of a smooth curve for each condition, minus that of the best form.
        no_law_error: its standard error.
        num_no_law: effective number of its numbers.
        replicates: whether replicates were left out; if not, S is the expected score of a second
            measurement.
        confidence: with which a worse score rejects.
    """

    forms: tuple[FormScore, ...]
    no_law: float
    no_law_error: float
    num_no_law: float
    replicates: bool
    confidence: float

    def __getitem__(self, name: str) -> FormScore:
        for form in self.forms:
            if form.name == name:
                return form
        raise InputError("name", name, f"is none of the forms {[f.name for f in self.forms]}")

    @property
    def best(self) -> str:
        """Name of the form that predicts best, or as well with fewer numbers."""
        return self.forms[0].name

    @property
    def tied(self) -> tuple[str, ...]:
        """Names of the others that predict as well within error."""
        return tuple(form.name for form in self.forms if form.status == "tied")

    @property
    def rejected(self) -> tuple[str, ...]:
        """Names of those that do not hold; the best one is among them if none does."""
        return tuple(form.name for form in self.forms if form.status == "rejected")

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """The comparison in a few lines of text."""
        wide = max(len(form.name) for form in self.forms) + 2
        left_out = "replicates left out" if self.replicates else "a second measurement"
        lines = [
            f"score: log likelihood of {left_out}, minus that of the best; numbers: fitted ones"
        ]
        for form in self.forms:
            score = f"{form.score:+.1f} ± {form.standard_error:.1f}"
            lines.append(
                f"  {form.status:<9}{form.name:<{wide}}{score:>18}  {form.num_fitted:5.1f} numbers"
                f"  {form.reason}"
            )
            for fit in form.fits:
                known = (f"{fit.symbol(name)} = {e}" for name, e in fit.exponents.items())
                window = f"{fit.curves.time} {fit.window[0]:.4g} to {fit.window[1]:.4g}"
                lines.append(f"{'':11}{', '.join(known)}; {window}")
        score = f"{self.no_law:+.1f} ± {self.no_law_error:.1f}"
        lines.append(
            f"  {'':<9}{'(no law)':<{wide}}{score:>18}  {self.num_no_law:5.1f} numbers"
            "  a smooth curve for each condition"
        )
        return "\n".join([*lines, f"  {self._conclusion()}"])

    def _conclusion(self) -> str:
        best = self.forms[0]
        if best.status == "rejected":
            return f"none of the forms holds; {best.name} predicts best"
        if self.tied:
            return f"{best.name} is best; the data cannot tell it from {', '.join(self.tied)}"
        return f"{best.name} is best"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, unrounded, ready for JSON. Unknown numbers are None."""

        def number(value: float) -> float | None:
            return float(value) if math.isfinite(value) else None

        return {
            "best": self.best,
            "tied": list(self.tied),
            "rejected": list(self.rejected),
            "confidence": self.confidence,
            "replicates": self.replicates,
            "no_law": {
                "score": number(self.no_law),
                "standard_error": number(self.no_law_error),
                "num_fitted": number(self.num_no_law),
            },
            "forms": [
                {
                    "name": form.name,
                    "status": form.status,
                    "reason": form.reason,
                    "score": number(form.score),
                    "standard_error": number(form.standard_error),
                    "num_fitted": number(form.num_fitted),
                    "p_value": number(form.p_value),
                    "fits": [fit.to_dict() for fit in form.fits],
                }
                for form in self.forms
            ],
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """The scores with their standard errors, the best form at 0."""
        rows = [(f"{f.name} ({f.status})", f.score, f.standard_error) for f in self.forms]
        return plot_scores([*rows, ("no law", self.no_law, self.no_law_error)], ax)
