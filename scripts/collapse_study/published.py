"""Published finite-size data, fitted by jthermo and by the tools that people use today.

* "fssa": the quality S of Houdayer and Hartmann with the settings of fssa 0.7.6: Nelder–Mead from a
  guess until ν, ζ and t_c change by less than 0.01, ζ always fitted, and S twice its least value at
  one standard error.
* "S + 1": the same S, minimised until it converges, with S + 1 at one standard error (autoScale).
* "BSA": the Gaussian process of Harada (Phys. Rev. E 84, 056704, 2011), whose hyperparameters are
  fitted with the exponents, with standard errors from the curvature of its log likelihood.

They are written anew from the papers. fssa itself neither imports under today's NumPy nor reads
files whose sizes have different times. A folder of data is not part of this project.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from jthermo.collapse import fit_collapse
from jthermo.errors import InputError
from scripts.collapse_study.rivals import NORMAL, quality_by_set

# Where fssa stops: change of a parameter and of S.
FSSA_STOP = 1e-2
# Starts of the other rivals around the guess, in units of its distance from a flat fit. Chosen.
STARTS = 6


@dataclass(frozen=True)
class Case:
    """One fit of one file.

    Attributes:
        name: of the row.
        file: in the folder.
        columns: names of its columns, if the file has none.
        control: the size.
        time: t.
        value: the value.
        error: its standard error; None if the file has replicates.
        guess: of t_c, p and q, where the rivals start; those that are missing are not fitted.
        critical: range of t_c.
        window: times to use.
        logs: whether logs of the value are compared.
        keep: rows of the file to use, as a query.
        exact: the known answers, by the names of `guess`.
        stated: answers that were published, but are not exact.
    """

    name: str
    file: str
    control: str
    time: str
    value: str
    guess: dict[str, float]
    error: str | None = "error"
    columns: tuple[str, ...] | None = None
    critical: tuple[float, float] | None = None
    window: tuple[float, float] | None = None
    logs: bool = False
    keep: str | None = None
    exact: dict[str, float] = field(default_factory=dict)
    stated: dict[str, float] = field(default_factory=dict)


T_C = math.log(1 + math.sqrt(2)) / 2
PLAIN = ("L", "x", "value", "error")
ISING = {"control": "L", "time": "x", "value": "value", "columns": PLAIN, "critical": (0.43, 0.45)}
QMC = {"control": "L", "time": "U", "value": "Y", "error": "sigma", "critical": (8.3, 9.0)}
LOSS = {"control": "P", "value": "test_loss", "error": None, "logs": True, "keep": "0.4 <= x <= 1"}
NEAR = (0.435, 0.446)
CASES = (
    *(
        Case(
            f"Ising, Binder ratio{' near t_c' if window else ''}",
            "ising2d_square_B.dat",
            guess={"t_c": 0.442, "p": 1.15},
            exact={"t_c": T_C, "p": 1.0},
            window=window,
            **ISING,
        )
        for window in (None, NEAR)
    ),
    *(
        Case(
            f"Ising, {name}{' near t_c' if window else ''}",
            f"ising2d_square_{letter}.dat",
            guess={"t_c": 0.442, "p": 1.15, "q": 0.9 * q},
            exact={"t_c": T_C, "p": 1.0, "q": q},
            window=window,
            **ISING,
        )
        for letter, name, q in (("M", "magnetisation", -0.125), ("X", "susceptibility", 1.75))
        for window in (None, NEAR)
    ),
    *(
        Case(
            f"percolation, cluster size{' near p_c' if window else ''}",
            "percolation2d.txt",
            guess={"t_c": 0.505, "p": 0.85, "q": 1.6},
            exact={"t_c": 0.5, "p": 0.75, "q": 43 / 24},
            window=window,
            **{**ISING, "critical": (0.45, 0.55)},
        )
        for window in (None, (0.45, 0.55))
    ),
    *(
        Case(
            f"quantum Monte Carlo, {name}",
            "qmc_crossing.csv",
            guess={"t_c": 8.6, "p": 1.0},
            stated={"t_c": 8.67, "p": 1.19},
            keep=keep,
            **QMC,
        )
        for name, keep in (("all L", None), ("L > 7", "L > 7"))
    ),
    *(
        Case(
            f"loss curves in {clock}",
            "supercollapse_mlp.csv",
            time=clock,
            guess={"p": p + 0.1, "q": -0.25},
            stated={"p": p, "q": -0.310},
            **LOSS,
        )
        for clock, p in (("x", 0.0), ("t", -1.04))
    ),
)


@dataclass(frozen=True)
class Answer:
    """Numbers with standard errors, by the names of `Case.guess`, and the seconds it took.

    Attributes:
        values: of t_c, p and q.
        errors: their standard errors.
        hits: whether the 95 % interval holds the exact value, where there is one.
        seconds: processor time.
        verdict: of the collapse, if the method gives one.
    """

    values: dict[str, float]
    errors: dict[str, float]
    hits: dict[str, bool]
    seconds: float = math.nan
    verdict: str = ""


@dataclass(frozen=True)
class Averaged:
    """Means and standard errors per size, times in order, as the rivals take them.

    Attributes:
        log_sizes: relative to the largest, (K,).
        sets: t, value and error of each size.
        logs: whether the values are logs.
        signed: whether times count from a critical point.
    """

    log_sizes: np.ndarray
    sets: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    logs: bool
    signed: bool

    def scaled(self, at: dict[str, float]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """x, y and dy of each size at some exponents."""
        out = []
        for log_size, (t, y, dy) in zip(self.log_sizes, self.sets, strict=True):
            shift, height = at["p"] * log_size, at.get("q", 0.0) * log_size
            x = (t - at["t_c"]) * np.exp(shift) if self.signed else np.log(t) + shift
            if self.logs:
                out.append((x, y - height, dy))
            else:
                out.append((x, y * np.exp(-height), dy * np.exp(-height)))
        return out


def read(case: Case, folder: Path) -> pd.DataFrame:
    """The rows of the file of a case that are used."""
    path = folder / case.file
    if not path.is_file():
        raise InputError("published", str(path), "no such file; name the folder of the data")
    if case.columns is None:
        table = pd.read_csv(path)
    else:
        table = pd.read_csv(path, sep=r"\s+", header=None, names=list(case.columns))
    table = table if case.keep is None else table.query(case.keep)
    if case.window is not None:
        table = table[table[case.time].between(*case.window)]
    used = [case.control, case.time, case.value]
    return table[[*used, case.error or "seed"]]


def averaged(case: Case, table: pd.DataFrame) -> Averaged:
    """The means of a table; replicates are averaged, of logs if logs are compared."""
    sets, sizes = [], []
    for size, part in table.groupby(case.control):
        part = part.sort_values(case.time)
        if case.error is None:
            values = part.assign(y=np.log(part[case.value]) if case.logs else part[case.value])
            rows = values.groupby(case.time).y.agg(["mean", "sem"]).dropna()
            t, y, dy = rows.index.to_numpy(float), rows["mean"].to_numpy(), rows["sem"].to_numpy()
        else:
            t, y, dy = part[[case.time, case.value, case.error]].to_numpy(float).T
            y, dy = (np.log(y), dy / y) if case.logs else (y, dy)
        sizes.append(float(size))
        sets.append((t, y, dy))
    return Averaged(np.log(np.array(sizes) / max(sizes)), sets, case.logs, "t_c" in case.guess)


# ---- the methods


def jthermo(case: Case, table: pd.DataFrame) -> Answer:
    """The fit of this project, from its defaults."""
    fit = fit_collapse(
        table,
        [case.control],
        time=case.time,
        value=case.value,
        error=case.error,
        critical_point=case.critical,
        rescale=[case.control] if "q" in case.guess else (),
        scale="log" if case.logs else "linear",
    )
    names = {"t_c": "critical_point", "p": case.control, "q": f"value_{case.control}"}
    exponents = {name: fit.exponents[names[name]] for name in case.guess}
    return Answer(
        {name: e.value for name, e in exponents.items()},
        {name: e.standard_error for name, e in exponents.items()},
        {name: exponents[name].low <= x <= exponents[name].high for name, x in case.exact.items()},
        verdict={True: "collapse", False: "no collapse", None: "cannot be said"}[fit.collapsed],
    )


def curvature(score: Callable, corners: np.ndarray, rise: float) -> np.ndarray:
    """Half the Hessian of a function, from a quadratic through a simplex and its midpoints.

    Every corner but the first is moved away from it until the function is `rise` higher, so that
    kinks of the function matter less (Nelder and Mead, 1965).
    """
    best, corners = corners[0], corners.copy()
    least = score(best)
    for i in range(1, len(corners)):
        for _ in range(60):
            if abs(score(corners[i]) - least) >= rise:
                break
            corners[i] = best + 2 * (corners[i] - best)
    edges = corners[1:] - best
    number = len(edges)
    half = np.array([score(best + 0.5 * edge) for edge in edges])
    pairs = np.array([[score(best + 0.5 * (a + b)) for b in edges] for a in edges])
    quadratic = np.empty((number, number))
    for i in range(number):
        for j in range(number):
            quadratic[i, j] = 2 * (pairs[i, j] + least - half[i] - half[j])
    inverse = np.linalg.inv(edges)
    return inverse @ quadratic @ inverse.T


def by_fssa(case: Case, table: pd.DataFrame) -> Answer:
    """As fssa 0.7.6 fits: t_c, ν = 1/p and ζ = q/p, all three free."""
    data = averaged(case, table)
    guess = {"t_c": 0.0, "q": 0.0, **case.guess}
    nu = 1 / guess["p"]
    names = (["t_c"] if data.signed else []) + ["nu", "zeta"]
    start = [guess["t_c"]] * data.signed + [nu, guess["q"] * nu]

    def exponents(x: np.ndarray) -> dict[str, float]:
        known = {"t_c": 0.0, **dict(zip(names, x, strict=True))}
        return {"t_c": known["t_c"], "p": 1 / known["nu"], "q": known["zeta"] / known["nu"]}

    def score(x: np.ndarray) -> float:
        return size_mean(data.scaled(exponents(x)))

    options = {"xatol": FSSA_STOP, "fatol": FSSA_STOP}
    found = minimize(score, start, method="Nelder-Mead", options=options)
    half = curvature(score, found.final_simplex[0], 0.01)
    covariance = found.fun * np.linalg.inv(half)
    at = exponents(found.x)
    # ∂(t_c, p, q)/∂(t_c, ν, ζ)
    nu = 1 / at["p"]
    rows = np.array([[-1 / nu**2, 0.0], [-at["q"] / nu, 1 / nu]])
    jacobian = np.eye(len(names))
    jacobian[-2:, -2:] = rows
    return answer(case, data, at, jacobian @ covariance @ jacobian.T, every="q")


def by_quality(case: Case, table: pd.DataFrame) -> Answer:
    """The least S, from several starts, with S + 1 at one standard error."""
    data = averaged(case, table)
    score, starts = prepared(case, data, size_mean)
    options = {"xatol": 1e-6, "fatol": 1e-8, "maxiter": 2000}
    found = [minimize(score, x, method="Nelder-Mead", options=options) for x in starts]
    best = min(found, key=lambda result: result.fun)
    half = curvature(score, np.vstack([best.x, best.x + 0.01 * np.eye(len(best.x))]), 1.0)
    return answer(case, data, named(case, best.x), units(case) @ np.linalg.inv(half) @ units(case))


def by_process(case: Case, table: pd.DataFrame) -> Answer:
    """The most likely Gaussian process through the rescaled values."""
    data = averaged(case, table)
    _, starts = prepared(case, data, size_mean)
    spread = np.ptp(np.concatenate([y for _, y, _ in data.scaled(named(case, starts[0]))]))
    number = len(case.guess)

    def loss(theta: np.ndarray) -> float:
        sets = data.scaled(named(case, theta[:number]))
        x, y, dy = (np.concatenate(part) for part in zip(*sets, strict=True))
        x = x / np.std(np.concatenate([part[0] for part in base]))
        height, length, noise = np.exp(2 * np.clip(theta[number:], -12, 12))
        y, dy = (y - y.mean()) / spread, dy / spread
        kernel = height * np.exp(-0.5 * (x[:, None] - x) ** 2 / length)
        kernel[np.diag_indices(len(x))] += dy**2 + noise + 1e-10 * height
        try:
            factor = cho_factor(kernel, lower=True)
        except np.linalg.LinAlgError:
            return 1e10
        return float(0.5 * y @ cho_solve(factor, y) + np.log(np.diag(factor[0])).sum())

    base = data.scaled(named(case, starts[0]))
    found = [
        minimize(loss, np.r_[x, 0.0, width, -6.0], method="L-BFGS-B")
        for x in starts[:2]
        for width in (-1.0, 0.0)
    ]
    best = min(found, key=lambda result: result.fun)
    # From steps of about one standard error, in which the log likelihood falls by ½.
    simplex = np.vstack([best.x, best.x + 1e-4 * np.eye(len(best.x))])
    covariance = 0.5 * np.linalg.inv(curvature(loss, simplex, 0.5))[:number, :number]
    return answer(case, data, named(case, best.x), units(case) @ covariance @ units(case))


METHODS: dict[str, Callable[[Case, pd.DataFrame], Answer]] = {
    "jthermo": jthermo,
    "fssa": by_fssa,
    "S + 1": by_quality,
    "BSA": by_process,
}


def size_mean(sets: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """S as fssa computes it: the mean over sizes of the mean over the points of each."""
    terms = quality_by_set(sets)
    known = [total / number for total, number in terms if number]
    return float(np.mean(known)) if known else 1e10


def units(case: Case) -> np.ndarray:
    """Natural changes of t_c, p and q as a diagonal matrix."""
    reach = 0.05 * (case.critical[1] - case.critical[0]) if case.critical else 1.0
    return np.diag([{"t_c": reach, "p": 0.1, "q": 0.1}[name] for name in case.guess])


def named(case: Case, x: np.ndarray) -> dict[str, float]:
    """t_c, p and q at a point given in natural units from the guess."""
    steps = np.diag(units(case))
    values = np.array(list(case.guess.values())) + steps * x[: len(steps)]
    return {"t_c": 0.0, "q": 0.0, **dict(zip(case.guess, values.tolist(), strict=True))}


def prepared(case: Case, data: Averaged, measure: Callable) -> tuple[Callable, list[np.ndarray]]:
    """A function of the point in natural units, and the points from which to minimise it."""

    def score(x: np.ndarray) -> float:
        return measure(data.scaled(named(case, x)))

    rng = np.random.default_rng(0)
    number = len(case.guess)
    starts = [np.zeros(number), *rng.uniform(-2, 2, (STARTS - 1, number))]
    return score, starts


def answer(
    case: Case, data: Averaged, at: dict[str, float], covariance: np.ndarray, every: str = ""
) -> Answer:
    """An answer with the errors of a covariance, whose rows are t_c, p and q as far as fitted."""
    names = [n for n in ("t_c", "p", "q") if n in case.guess or n == every]
    # A function that is not a minimum there has no error.
    variances = np.diag(covariance)
    errors = dict(zip(names, np.sqrt(np.where(variances > 0, variances, np.nan)), strict=True))
    values = {name: at[name] for name in names}
    hits = {
        name: abs(values[name] - truth) <= NORMAL * errors[name]
        for name, truth in case.exact.items()
    }
    return Answer(values, errors, hits)


# ---- the table


def table(folder: Path) -> Iterator[str]:
    """One line of Markdown per quantity of every case; a value whose interval misses is marked."""
    yield "| data | quantity | exact | " + " | ".join(METHODS) + " |"
    yield "|---|---|---|" + "---|" * len(METHODS)
    for case in CASES:
        rows = read(case, folder)
        answers = {name: timed(method, case, rows) for name, method in METHODS.items()}
        symbol = {"t_c": "t_c", "p": f"p({case.control})", "q": f"q({case.control})"}
        for name in case.guess:
            exact = case.exact.get(name)
            known = f"{exact:.6g}" if exact is not None else f"({case.stated[name]:g})"
            cells = [cell(result, name) for result in answers.values()]
            yield f"| {case.name} | {symbol[name]} | {known} | " + " | ".join(cells) + " |"
        seconds = [f"{result.seconds:.2g} s" for result in answers.values()]
        seconds[0] += f", {answers['jthermo'].verdict}"
        yield f"| | time | | {' | '.join(seconds)} |"


def timed(method: Callable[[Case, pd.DataFrame], Answer], case: Case, rows: Any) -> Answer:
    """The answer of a method; one without numbers if it fails."""
    begun = time.process_time()
    try:
        result = method(case, rows)
    except (InputError, ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        nothing = dict.fromkeys(case.guess, math.nan)
        result = Answer(nothing, nothing, {}, verdict=type(error).__name__)
    return replace(result, seconds=time.process_time() - begun)


def cell(result: Answer, name: str) -> str:
    """A value ± its standard error, marked if the 95 % interval misses the exact value."""
    value, error = result.values[name], result.errors[name]
    if not (math.isfinite(value) and math.isfinite(error)):
        return "none" if not math.isfinite(value) else f"{value:.4g} ± ?"
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 6
    missed = " ✗" if not result.hits.get(name, True) else ""
    return f"{value:.{digits}f} ± {error:.{digits}f}{missed}"
