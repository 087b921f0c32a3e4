"""Data sets that obey one of several forms: does `compare` find which?

Every draw has fresh exponents, curves, grids and noise. The right form is named; every other one
is wrong, by much or by little, or richer than necessary.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from jthermo.collapse import Comparison, Crossover, Form, compare
from scripts.collapse_study.forms import Plan, decay, order
from scripts.collapse_study.forms import crossover as bent
from scripts.collapse_study.planted import Planted, PlantedNoise, plant, random_curve
from scripts.collapse_study.scoring import source


@dataclass(frozen=True)
class Choice:
    """One data set with the forms among which to choose.

    Attributes:
        table: tidy.
        controls: names of the controls.
        forms: name → form.
        right: name of the form that the data obey.
        options: further ones of `compare`.
    """

    table: pd.DataFrame
    controls: tuple[str, ...]
    forms: dict[str, Form | Crossover]
    right: str
    options: dict[str, Any] = field(default_factory=dict)

    def answer(self) -> Comparison:
        """What `compare` says."""
        return compare(self.table, self.controls, self.forms, **self.options)


def _noise(rng: np.random.Generator) -> PlantedNoise:
    level = float(np.exp(rng.uniform(np.log(0.01), np.log(0.04))))
    kinds = (
        PlantedNoise(point=level),
        PlantedNoise(point=level / 2, memory=level),
        PlantedNoise(point=level / 2, offset=level),
    )
    return kinds[rng.integers(len(kinds))]


def _plan(rng: np.random.Generator, **settings) -> Planted:
    return plant(rng, noise=_noise(rng), replicates=int(rng.integers(4, 11)), **settings)


def _scaled(plan: Planted, rng: np.random.Generator) -> Planted:
    """The same with values in proportion to a power of the control."""
    c = plan.log_controls[:, 0] - plan.log_controls[:, 0].mean()
    size = rng.choice([-1, 1]) * rng.uniform(0.05, 1.0) / np.ptp(c)
    return replace(plan, bend=lambda k, u, y: y * np.exp(size * c[k]))


TWO_CLOCKS = Crossover(Form(), Form(rescale=["rate"]))
SEVERAL: dict[str, Form | Crossover] = {
    "one clock": Form(),
    "value scaled": Form(rescale=["rate"]),
    "correction": Form(correction={"rate": -1.0}),
    "two clocks": TWO_CLOCKS,
}


def one_clock(rng: np.random.Generator) -> Choice:
    """The simplest form, in all of the others."""
    return Choice(_plan(rng).table(rng), ("rate",), SEVERAL, "one clock")


def paired_clock(rng: np.random.Generator) -> Choice:
    """Replicates that share what runs ahead at every control."""
    noise = PlantedNoise(point=0.01, lead=0.1, shared=1.0)
    forms = {name: SEVERAL[name] for name in ("one clock", "value scaled", "correction")}
    return Choice(plant(rng, noise=noise).table(rng), ("rate",), forms, "one clock")


def single_clock(rng: np.random.Generator) -> Choice:
    """One replicate per condition, at exponents that are held."""
    noise = PlantedNoise(point=float(rng.uniform(0.01, 0.03)))
    plan = plant(rng, noise=noise, replicates=1)
    away = rng.uniform(0.01, 0.25) * np.ptp(plan.log_times[0]) / np.ptp(plan.log_controls)
    p = plan.exponents[0]
    forms: dict[str, Form | Crossover] = {
        "held": Form(fixed={"rate": p}),
        "held above": Form(fixed={"rate": p + away}),
        "held below": Form(fixed={"rate": p - away}),
        "value scaled": Form(rescale=["rate"]),
    }
    return Choice(plan.table(rng), ("rate",), forms, "held")


def value_scaled(rng: np.random.Generator) -> Choice:
    """A control that scales the value too."""
    return Choice(_scaled(_plan(rng), rng).table(rng), ("rate",), SEVERAL, "value scaled")


def two_clocks(rng: np.random.Generator) -> Choice:
    """Early records on one clock, late ones on another with a scaled value."""
    number, points, p = int(rng.integers(3, 6)), 80, rng.uniform(0.6, 1.4)
    logs = np.linspace(0, 1, number) * rng.uniform(1.5, 2.2)
    other, q = p + rng.choice([-1, 1]) * rng.uniform(0.1, 0.8), rng.uniform(-0.6, 0.0)
    times = np.linspace(0, 9, points)
    cut = 4.5 + p * logs.mean()
    early = random_curve(rng, cut - 2.2, 4.5)
    late = random_curve(rng, cut + 2.2 + (other - p) * logs.mean(), 4.5)

    def bend(k: int, u: np.ndarray, y: np.ndarray) -> np.ndarray:
        share = 1 / (1 + np.exp(-6 * (u - cut)))
        second = late(u + (other - p) * logs[k]) * np.exp(q * (logs[k] - logs.mean()))
        return (1 - share) * y + share * second

    plan = Planted(
        curve=early,
        exponents=np.array([p]),
        log_controls=logs[:, None],
        log_times=(times,) * number,
        num_replicates=(int(rng.integers(5, 11)),) * number,
        noise=_noise(rng),
        names=("rate",),
        bend=bend,
    )
    return Choice(plan.table(rng), ("rate",), SEVERAL, "two clocks")


def correction(rng: np.random.Generator) -> Choice:
    """A clock with a leading correction at small sizes."""
    sizes = np.array([8.0, 12.0, 16.0, 32.0, 64.0])
    p, a = rng.uniform(-1, 1), rng.choice([-1, 1]) * rng.uniform(0.05, 1.0)
    log_tau = p * np.log(sizes) + a * 8 / sizes
    plan = Planted(
        curve=random_curve(rng, log_tau.mean() + 3.5, 7.0),
        exponents=np.ones(1),
        log_controls=log_tau[:, None],
        log_times=(np.linspace(0, 7, 50),) * len(sizes),
        num_replicates=(int(rng.integers(5, 11)),) * len(sizes),
        noise=_noise(rng),
        names=("shift",),
    )
    table = plan.table(rng)
    nearest = np.abs(np.log(table["shift"].to_numpy())[:, None] - log_tau).argmin(axis=1)
    forms: dict[str, Form | Crossover] = {
        "one clock": Form(),
        "correction": Form(correction={"rate": -1.0}),
        "value scaled": Form(rescale=["rate"]),
    }
    return Choice(table.assign(rate=sizes[nearest]), ("rate",), forms, "correction")


def late_law(rng: np.random.Generator) -> Choice:
    """Only late records obey the law: before them the value depends on the control."""
    plan = _plan(rng)
    p, c = plan.exponents[0], plan.log_controls[:, 0] - plan.log_controls[:, 0].mean()
    cut = float(np.mean([plan.log_tau(k)[0] for k in range(len(c))])) + 0.3 * np.ptp(
        plan.log_times[0]
    )
    size = rng.choice([-1, 1]) * rng.uniform(0.02, 0.4) / np.abs(c).max()
    early = replace(plan, bend=lambda k, u, y: y + size * c[k] * np.clip((cut - u) / 2, 0, 1))
    forms: dict[str, Form | Crossover] = {
        "whole": Form(),
        "late": Form(clock_window=(float(np.exp(cut)), np.inf, {"rate": float(p)})),
        "value scaled": Form(rescale=["rate"]),
    }
    return Choice(early.table(rng), ("rate",), forms, "late")


def two_controls(rng: np.random.Generator) -> Choice:
    """The exponents of a theory among those of others."""
    plan = _plan(rng, num_controls=2)
    a, b = map(float, plan.exponents)
    away = float(rng.uniform(0.01, 0.5))
    forms: dict[str, Form | Crossover] = {
        "theory": Form(fixed={"rate": a, "size": b}),
        "another": Form(fixed={"rate": a + away, "size": b}),
        "a third": Form(fixed={"rate": a, "size": b - away}),
        "free": Form(),
    }
    return Choice(plan.table(rng), plan.names, forms, "theory")


def _options(plan: Plan, rng: np.random.Generator) -> tuple[pd.DataFrame, Form, dict[str, Any]]:
    """A draw of a scaling form, the form, and the columns."""
    draw = plan(rng)
    columns = {name: draw.options[name] for name in ("time", "error") if name in draw.options}
    law = {name: value for name, value in draw.options.items() if name not in columns}
    return draw.table, Form(**law), columns


def critical(rng: np.random.Generator) -> Choice:
    """A critical point with published errors: is it where they say, and does the value scale?"""
    table, right, columns = _options(Plan(order, value=-0.5), rng)
    low, high = np.broadcast_to(right.critical_point, 2)
    forms: dict[str, Form | Crossover] = {
        "fitted": right,
        "value not scaled": replace(right, rescale=()),
        "elsewhere": replace(right, critical_point=float(high)),
        "below": replace(right, critical_point=float(low)),
    }
    return Choice(table, ("L",), forms, "fitted", columns)


def irreducible(rng: np.random.Generator) -> Choice:
    """A value that falls to an offset."""
    plan = Plan(decay, "clock", (-1.0, 1.0), None, offset="fitted", errors=False)
    table, right, columns = _options(plan, rng)
    forms: dict[str, Form | Crossover] = {
        "offset": right,
        "none": replace(right, offset=None),
        "one clock": Form(),
    }
    return Choice(table, ("L",), forms, "offset", columns)


def decades(rng: np.random.Generator) -> Choice:
    """Values over decades with noise in proportion to them."""
    plan = Plan(bent, "clock", (-1.0, 1.0), None, logs=True, errors=False)
    table, right, columns = _options(plan, rng)
    forms: dict[str, Form | Crossover] = {
        "value scaled": right,
        "one clock": replace(right, rescale=()),
        "both": replace(right, correction={"L": -1.0}),
    }
    return Choice(table, ("L",), forms, "value scaled", columns)


CHOICES: dict[str, Callable[[np.random.Generator], Choice]] = {
    choice.__name__: choice
    for choice in (
        one_clock,
        paired_clock,
        single_clock,
        value_scaled,
        two_clocks,
        correction,
        late_law,
        two_controls,
        critical,
        irreducible,
        decades,
    )
}


def outcome(choice: Choice, answer: Comparison) -> str:
    """The right form is "best" or "tied", another is best "beyond" error, or "none" holds."""
    if answer[choice.right].status in ("best", "tied"):
        return answer[choice.right].status
    return "none" if answer[answer.best].status == "rejected" else "beyond"


def tally(names: Sequence[str], draws: int, salt: int) -> Iterator[str]:
    """A line per kind of data with the outcomes of all draws, then the shares of all."""
    outcomes = ("best", "tied", "beyond", "none")
    yield (
        f"{'right form':<14}" + "".join(f"{o:>8}" for o in outcomes) + "   wrong rejected   seconds"
    )
    whole: Counter[str] = Counter()
    for name in names:
        counts: Counter[str] = Counter()
        rejected = wrong = 0
        start = time.perf_counter()
        for number in range(draws):
            choice = CHOICES[name](source(name, number, salt))
            answer = choice.answer()
            counts[outcome(choice, answer)] += 1
            wrong += len(choice.forms) - 1
            rejected += len([form for form in answer.rejected if form != choice.right])
        each = (time.perf_counter() - start) / draws
        numbers = "".join(f"{counts[o]:>8}" for o in outcomes)
        yield f"{name:<14}{numbers}{f'{rejected} of {wrong}':>17}{each:>10.1f}"
        whole += counts
    total = sum(whole.values())
    yield f"the right form is best or tied in {whole['best'] + whole['tied']} of {total}"
    yield f"another one is best beyond error in {whole['beyond']}, none holds in {whole['none']}"
