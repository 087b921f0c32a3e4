"""The paper's claims C1 to C13, two beyond it, and the fits that test exponents. No JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jthermo.errors import InputError
from jthermo.paper.evidence import Evidence
from jthermo.paper.verdicts import RIVALS, UNDECIDED, deciding_half_width, seeds_decide, verdict
from jthermo.results.tables import choices, tau

if TYPE_CHECKING:
    import xarray as xr

    from jthermo.collapse import CollapseFit, Crossover, Form

# The claims by id, in the words of claims.json and the report.
CLAIMS = {
    "C1": "the activation rate falls, faster with larger η, also on the clock ηt",
    "C2": "the activation rate collapses on η²t",
    "C3": "the activation rate collapses on t/B",
    "C4": "‖V‖ falls and collapses on η²t",
    "C5": "‖V‖ falls and collapses on t/B",
    "C6": "the gradient variance of the 6-layer fully connected net collapses on η²t",
    "C7": "the gradient variance of the 6-layer CNN on Fashion-MNIST collapses on η²t",
    "C8": "on CIFAR-10 with 300 hidden units, the activation rate falls and collapses on η²t/B",
    "C9": "the force is strongest early, ∝ s² = E(p−y)²",
    "C10": "of two learning rates at equal training error, "
    "the larger has the smaller activation rate and ‖V‖",
    "C11": "Eq. 10, Eq. 11, A.4 and ψ as printed give the flow",
    "C12": "Properties 4.1 and 4.2: h_v, h_w and h_b never fall in V², b and, for x ≥ 0, W",
    "C13": "a smaller activation rate and weight norm give a smaller bound on the Hessian trace",
    "C14": "beyond the paper: with random labels E‖V‖² relaxes on the clock ηt to Nη/(2B)",
    "C15": "beyond the paper: as C8, with Fashion-MNIST in place of CIFAR-10",
}

# What is true of each claim, in a sentence or two for the table of claims and the report. The
# numbers beside it in the tables are computed from claims.json.
TRUTHS = {
    "C1": "The rate falls on a clock near η²t, so it is also faster at equal ηt",
    "C2": "η²t is the clock to leading order in η; most powers lie a little below 2, the lowest "
    "for `unit`, which starts near the edge of stability. With smaller η they rise to 2 "
    "(experiment `small_rates`); early, while f relaxes from its start, they are far lower",
    "C3": "t/B is the clock to leading order; most powers lie a little above −1, farthest for "
    "`unit`",
    "C4": "‖V‖ has two clocks: it relaxes on ηt to a noise floor ∝ √(η/B) (C14), and the floor "
    "itself changes on η²t/B. With `unit` weights, and for x ~ U(0, 1) without bias, it is still "
    "on its way to the floor when the runs end",
    "C5": "As in C4, ‖V‖ has two clocks: only the change of its floor ∝ √(η/B) follows t/B",
    "C6": "The variance follows η²t",
    "C7": "With random labels the variance collapses on η²t up to η²t ≈ 1.5; then it rises again "
    "at the smallest η. With real labels it rises a hundredfold and more at ηt ≈ 1.9 for every η, "
    "so on the clock ηt",
    "C8": "The rate falls; the powers of η and B are smaller for random labels than for real ones",
    "C9": "What makes the fall faster early is plain gradient descent on the clock ηt, which runs "
    "with averaged labels share; what label noise adds is never stronger early than late",
    "C10": "It holds for the activation rate, and for ‖V‖ except late with `he`, where ‖V‖ is near "
    "its noise floor, which grows with η",
    "C11": "The drift of Eq. 10 is right and its diffusion is twice too large; Eq. 11 halves the "
    "drift, A.4 and ψ have the wrong sign, and (V, b) alone do not give the shift of b",
    "C12": "No counter-example was found",
    "C13": "It holds, but the bound exceeds the trace several times, and far more in deeper nets",
    "C14": "It does for Gaussian inputs; for x ~ U(0, 1) without bias most modes are too slow",
    "C15": "At the paper's B = 1000 the rate rises on ηt with real labels, as in plain gradient "
    "descent; with redrawn ones it falls on t·η^1.4·B^−0.5, halfway between ηt and η²t/B; with "
    "kept random ones it turns up where the net begins to learn them. At B = 10, with random "
    "labels, the clock is near η²t/B",
}


# The law found, where it is no exponent of the claimed form.
LAWS = {
    "C4": "E‖V‖² → Nη/2B on ηt, then slowly on η²t/B",
    "C5": "E‖V‖² → Nη/2B on ηt, then slowly on η²t/B",
    "C14": "E‖V‖² → Nη/2B on ηt, then slowly on η²t/B",
}


@dataclass(frozen=True)
class Claim:
    """A claim on how a recorded variable scales with one control c: value = F(t·c^p).

    Args:
        id: its key in `CLAIMS`, such as ``"C2"``.
        variable: the recorded variable.
        control: c.
        exponent: the paper's p; None if the paper only gives a bound.
        above: the paper's lower bound on p, if it gives no exponent.
        forms: rival forms by name, for :func:`jthermo.collapse.compare`. Each fit of the claim then
            says which of them the curves obey.

    Raises:
        InputError: an unknown id, or not exactly one of `exponent` and `above`.

    >>> Claim("C2", "activation_rate", "learning_rate", exponent=2).exponent
    2
    """

    id: str
    variable: str
    control: str
    exponent: float | None = None
    above: float | None = None
    forms: Mapping[str, Form | Crossover] | None = None

    def __post_init__(self) -> None:
        if self.id not in CLAIMS:
            raise InputError("claim", self.id, f"use one of {', '.join(CLAIMS)}")
        if (self.exponent is None) == (self.above is None):
            raise InputError("claim", self.id, "give either exponent= or above=, and not both")


# The name of the form that a claim of the paper states.
STATED = "the paper's clock"


def two_clocks(control: str, early: float, late: float) -> dict[str, Form | Crossover]:
    """Forms of a ‖V‖ that relaxes on t·c^early to a floor, which changes on t·c^late; and rivals.

    Args:
        control: c.
        early: exponent of c in the clock of the relaxation.
        late: exponent of c in the clock of the floor, which is also the paper's; the floor is
            scaled by a fitted power of c.
    """
    from jthermo.collapse import Crossover, Form

    relaxation, floor = {control: early}, {control: late}
    return {
        STATED: Form(fixed=floor),
        "one clock": Form(),
        "one clock, value scaled": Form(rescale=[control]),
        "two clocks": Crossover(Form(fixed=relaxation), Form(fixed=floor, rescale=[control])),
    }


class Chosen(NamedTuple):
    """One combination of the choices that the paper leaves open, with its runs and their fit."""

    choice: dict[str, Any]
    runs: xr.Dataset
    fit: CollapseFit


def fit_choices(
    ds: xr.Dataset, variable: str, controls: Sequence[str], **options: Any
) -> list[Chosen]:
    """Fit the collapse of a variable for every combination of the other swept axes.

    Args:
        ds: results.
        variable: the recorded variable.
        controls: the controls that get an exponent.
        options: further arguments of :func:`jthermo.fit_collapse`.

    Returns:
        One fit per combination of the axes that are neither a control nor the seed.
    """
    # imported here because it loads SciPy, which tables and messages do not need
    from jthermo.collapse import fit_collapse

    return [
        Chosen(choice, runs, fit_collapse(runs[variable], controls=tuple(controls), **options))
        for choice, runs in choices(ds, [*controls, "seed"])
    ]


def fit_claims(
    ds: xr.Dataset,
    claims: Sequence[Claim],
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> dict[tuple[str, str], list[Chosen]]:
    """All fits that the claims need, by (variable, control).

    Args:
        ds: results.
        claims: the claims.
        windows: (low, high) parts of the clock η²t/B by name. Each part is fitted separately, and
            its name is added to the choices as ``"window"``.
    """
    keys = dict.fromkeys((c.variable, c.control) for c in claims)
    if windows is None:
        return {
            (variable, control): fit_choices(ds, variable, (control,)) for variable, control in keys
        }
    clock = tau(ds)
    fits: dict[tuple[str, str], list[Chosen]] = {key: [] for key in keys}
    for (variable, control), chosen in fits.items():
        for name, (low, high) in windows.items():
            part = ds.assign_coords(step=ds.step.where((clock >= low) & (clock <= high), -1))
            for choice, runs, fit in fit_choices(part, variable, (control,)):
                chosen.append(Chosen({**choice, "window": name}, runs, fit))
    return fits


def judge(claim: Claim, chosen: Chosen) -> dict[str, Any]:
    """The row of claims.json for a claim and one fit: numbers, verdict and reason."""
    runs, fit = chosen.runs, chosen.fit
    exponent = fit.exponents[claim.control]
    first, last = _ends(runs, claim.variable)
    row = {
        "choice": chosen.choice,
        "variable": claim.variable,
        "control": claim.control,
        "control_values": np.unique(runs[claim.control].values).tolist(),
        "claimed": f"{claim.exponent:g}" if claim.exponent is not None else f"> {claim.above:g}",
        **{
            k: v if np.isfinite(v) else None
            for k, v in (
                ("exponent", exponent.value),
                ("low", exponent.low),
                ("high", exponent.high),
            )
        },
        "misfit": fit.misfit,
        "p_value": fit.p_value,
        "collapsed": fit.collapsed,
        "first": first,
        "last": last,
        "num_seeds": len(np.unique(runs.seed.values)),
        "num_runs": runs.sizes["run"],
        "num_left_out": len(fit.left_out),
    }
    row["verdict"], row["why"] = verdict(row)
    if row["verdict"] == UNDECIDED and claim.exponent is not None:
        row["clocks"] = clocks(claim, runs)
        row["verdict"], row["why"] = verdict(row)
    if row["verdict"] == UNDECIDED:
        row["why"] += _seeds_to_decide(row, fit)
    if claim.forms is not None:
        row["forms"] = compared(claim, runs)
    return row


def clocks(claim: Claim, runs: xr.Dataset) -> list[dict[str, Any]]:
    """The misfit on the paper's clock and then on its rivals, with intervals, for ``claims.json``.

    Args:
        claim: the claim, which has an exponent.
        runs: the runs of one fit.
    """
    from jthermo.collapse import fit_collapse

    assert claim.exponent is not None
    rows = []
    for share in (1, *RIVALS):
        held = {claim.control: share * claim.exponent}
        fit = fit_collapse(runs[claim.variable], controls=(claim.control,), fixed=held)
        low, high = fit.misfit_interval
        numbers = {"misfit": fit.misfit, "low": low, "high": high, "collapsed": fit.collapsed}
        rows.append({"exponent": held[claim.control], **numbers})
    return rows


def compared(claim: Claim, runs: xr.Dataset) -> list[dict[str, Any]]:
    """The rival forms of a claim for ``claims.json``, in the order of :func:`compare`.

    A score is the log likelihood of replicates left out, minus that of the first form. The power is
    that of c in the value of the form's last law, if it has one, with its interval.
    """
    from jthermo.collapse import compare

    answer = compare(runs[claim.variable], [claim.control], claim.forms)
    rows = []
    for form in answer.forms:
        power = form.fits[-1].exponents.get(f"value_{claim.control}")
        known = power is not None and np.isfinite(power.value)
        rows.append(
            {
                "name": form.name,
                "status": form.status,
                "score": form.score,
                "standard_error": form.standard_error,
                "power": [power.value, power.low, power.high] if power and known else None,
            }
        )
    return rows


def _seeds_to_decide(row: Mapping[str, Any], fit: CollapseFit) -> str:
    """How many seeds would decide a row if its exponent stays where it is, in words."""
    half_width = deciding_half_width(row)
    if half_width is None or None in (row["low"], row["high"]):
        return "; the exponent is not identifiable"
    number = fit.replicates_for(row["control"], half_width)
    if number is None:
        return "; even a thousand times as many seeds would not decide it"
    return seeds_decide(number)


def _ends(runs: xr.Dataset, variable: str) -> tuple[float, float]:
    """Means over the finite runs at their first and at their last record."""
    values, recorded = runs[variable].values, runs.step.values >= 0
    run, last = np.arange(len(values)), values.shape[1] - 1 - recorded[:, ::-1].argmax(1)
    first = recorded.argmax(1)
    return float(np.nanmean(values[run, first])), float(np.nanmean(values[run, last]))


def rows(
    claims: Sequence[Claim],
    fits: Mapping[tuple[str, str], list[Chosen]],
    evidence: Sequence[Evidence] = (),
) -> dict[str, list[dict[str, Any]]]:
    """The rows of an experiment by claim id: first those of its fits, then its other evidence."""
    by_claim: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        by_claim.setdefault(claim.id, []).extend(
            judge(claim, chosen) for chosen in fits[claim.variable, claim.control]
        )
    for piece in evidence:
        by_claim.setdefault(piece.claim, []).append(piece.row())
    return by_claim
