"""What to measure next: by how much more replicates, or a further value of a control, would narrow an interval.

The information of the fit is I = G'Ω⁻¹G − C'M⁻¹C with C = B'Ω⁻¹G; a further condition adds its own rows to
each of these sums. It is taken to be as noisy as the outermost condition of that control and to be recorded at the
same times; where it would look beyond the curve that is known it tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .curve import penalty

if TYPE_CHECKING:
    from .result import CollapseFit

FURTHER = (1.0, 2.0)  # gaps of log c by which a control is moved out


@dataclass(frozen=True)
class Advice:
    """One change of the design.

    Attributes:
        control: whose exponent it concerns.
        change: "replicates" or "value".
        value: replicates at every condition, or the further value of the control.
        ratio: width of the interval afterwards over that at present.
    """

    control: str
    change: str
    value: float
    ratio: float


def advice(fit: CollapseFit) -> tuple[Advice, ...]:
    """For each exponent four times the replicates, which halves any interval, and the best further value."""
    out = []
    for column, name in enumerate(fit.curves.controls):
        if name not in fit.free or not fit.identifiable[name]:
            continue
        out.append(Advice(name, "replicates", 4.0 * fit.num_replicates[1], 0.5))
        logs = np.array([c.log_controls[column] for c in fit.curves.conditions])
        gap = float(np.median(np.diff(np.unique(np.round(logs, 9)))))
        trials = [
            Advice(name, "value", float(np.exp(logs[k] + move)), _ratio(fit, column, k, move))
            for k, sign in ((int(np.argmin(logs)), -1), (int(np.argmax(logs)), 1))
            for move in (sign * gap * step for step in FURTHER)
        ]
        out.append(min(trials, key=lambda trial: trial.ratio))
    return tuple(out)


def _ratio(fit: CollapseFit, column: int, outermost: int, move: float) -> float:
    """Standard error with a further condition, `move` in log c away from the outermost, over the present one."""
    model, best = fit.model, fit.solution
    means, theta = model.means, best.theta
    which = fit.free.index(fit.curves.controls[column])
    rows = means.condition == outermost
    at = means.binned(means.log_tau(theta))
    moved = at[rows] + move * fit.exponents[fit.curves.controls[column]].value
    seen = (moved >= at.min()) & (moved <= at.max())
    height = means.height(theta)[rows][:, None]
    basis = model.lattice.design(moved, best.span) * height
    pace = (model.lattice.design(moved, best.span, slope=True) @ best.beta) * height[:, 0]
    reach = means.binned(means.controls)[rows]
    reach = reach + move * np.eye(len(theta))[which, : model.num_shifts]
    gradient = np.column_stack([pace[:, None] * reach, means.heights[rows] * (basis @ best.beta)[:, None]])
    unit = np.zeros((len(rows), int(rows.sum())))
    unit[rows] = np.eye(int(rows.sum()))
    precision = np.linalg.inv(np.linalg.pinv(model.whiten(unit).T @ model.whiten(unit))[np.ix_(seen, seen)])
    new_basis, new_gradient = basis[seen], gradient[seen]
    old_basis, old_gradient = best.whitened_basis, model.whiten(model.gradient(best))
    normal = old_basis.T @ old_basis + model.stiffness * penalty(best.span[1])
    cross = old_basis.T @ old_gradient
    power = old_gradient.T @ old_gradient
    before = power - cross.T @ np.linalg.solve(normal, cross)
    normal = normal + new_basis.T @ precision @ new_basis
    cross = cross + new_basis.T @ precision @ new_gradient
    power = power + new_gradient.T @ precision @ new_gradient
    after = power - cross.T @ np.linalg.solve(normal, cross)
    return float(np.sqrt(np.linalg.inv(after)[which, which] / np.linalg.inv(before)[which, which]))
