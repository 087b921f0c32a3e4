"""The families of data sets on which a collapse fitter is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from scripts.collapse_study.planted import Planted, PlantedNoise, plant
from scripts.percolation import simulate as percolation


@dataclass(frozen=True)
class Draw:
    """One data set and the truth about it.

    Attributes:
        table: tidy, with the columns of `controls`, seed, step and value.
        controls: names of the controls.
        truth: exponents that the data determine.
        bound: least standard deviation of each, if it is known.
        collapses: whether the curves are one.
        hidden: controls whose exponent the data do not determine.
        corrected: whether the exponents hold only in a limit, so that the curves deviate.
        options: of the fit.
    """

    table: pd.DataFrame
    controls: tuple[str, ...]
    truth: dict[str, float]
    bound: dict[str, float]
    collapses: bool | None = True
    hidden: tuple[str, ...] = ()
    corrected: bool = False
    options: dict[str, Any] = field(default_factory=dict)


Family = Callable[[np.random.Generator], Draw]
FAMILIES: dict[str, Family] = {}


def family(make: Family) -> Family:
    """Register a family under its name."""
    FAMILIES[make.__name__] = make
    return make


def drawn(plan: Planted, rng: np.random.Generator, **facts) -> Draw:
    """One data set of a plan with its truth and bound."""
    truth = dict(zip(plan.names, plan.exponents.tolist(), strict=True))
    bound = dict(zip(plan.names, plan.bound().tolist(), strict=True))
    return Draw(plan.table(rng), plan.names, truth, bound, **facts)


def _plain(name: str, **settings) -> None:
    def make(rng: np.random.Generator) -> Draw:
        return drawn(plant(rng, **settings), rng)

    FAMILIES[name] = make


def _level(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(0.01), np.log(0.05))))


def _noisy(name: str, noise: Callable[[float], PlantedNoise], **settings) -> None:
    def make(rng: np.random.Generator) -> Draw:
        return drawn(plant(rng, noise=noise(_level(rng)), **settings), rng)

    FAMILIES[name] = make


_plain("clean", relative=0.02)
for number in (1, 2, 3, 4, 8, 16):
    _plain(f"white_{number}", replicates=number)
_plain("uneven_replicates", replicates=(2, 10))
_plain("linear_steps", steps="linear", replicates=6)
_plain("ragged_steps", steps="ragged", replicates=6)
_plain("loud", relative=3.0, replicates=6)
_noisy("memory_1", lambda s: PlantedNoise(point=s / 2, memory=s), replicates=1)
_noisy("memory_3", lambda s: PlantedNoise(point=s / 2, memory=s), replicates=3)
_noisy("memory_8", lambda s: PlantedNoise(point=s / 2, memory=s), replicates=8)
_noisy("growing", lambda s: PlantedNoise(point=s / 2, memory=s / 2, growth=6.0), replicates=6)
_noisy("offsets", lambda s: PlantedNoise(point=s / 2, offset=1.5 * s), replicates=6)
_noisy("walks", lambda s: PlantedNoise(point=s / 2, walk=2 * s), replicates=6)
_noisy("leads", lambda s: PlantedNoise(point=s / 2, lead=4 * s), replicates=8)
_noisy("paired_leads", lambda s: PlantedNoise(point=s / 2, lead=5 * s, shared=1.0), replicates=8)
_noisy(
    "paired_offsets", lambda s: PlantedNoise(point=s / 2, offset=2 * s, shared=0.8), replicates=5
)
_plain("two_controls", num_controls=2, replicates=4)
_noisy(
    "two_controls_memory",
    lambda s: PlantedNoise(point=s / 2, memory=s),
    num_controls=2,
    replicates=4,
)


@family
def outliers(rng: np.random.Generator) -> Draw:
    """Two of ten replicates of some condition are stuck or jump."""
    plan = plant(rng, replicates=10)
    whole = drawn(plan, rng)
    table = whole.table.copy()
    for label in rng.choice(table.seed.unique(), 2, replace=False):
        rows = table.seed == label
        if rng.random() < 0.5:
            # stuck where it started
            table.loc[rows, "value"] = table.value[rows].iloc[0]
            table.loc[rows, "value"] += 0.5 * rng.choice([-1, 1])
        else:
            late = rows & (table.step > np.sqrt(table.step.max()))
            table.loc[late, "value"] += rng.choice([-1, 1]) * rng.uniform(0.6, 2.0)
    return replace(whole, table=table)


@family
def divergences(rng: np.random.Generator) -> Draw:
    """A few replicates become infinite, and some records are missing."""
    whole = drawn(plant(rng, replicates=8), rng)
    table = whole.table.copy()
    for label in rng.choice(table.seed.unique(), 3, replace=False):
        rows = table.seed == label
        late = rows & (table.step > np.exp(rng.uniform(0.3, 0.9) * np.log(table.step.max())))
        table.loc[late, "value"] = rng.choice([np.nan, np.inf, -np.inf])
    table.loc[rng.random(len(table)) < 0.01, "value"] = np.nan
    return replace(whole, table=table)


@family
def heavy_tails(rng: np.random.Generator) -> Draw:
    """Point noise of Student's t with 3 degrees of freedom."""
    plan = plant(rng, replicates=8)
    quiet = replace(plan, noise=PlantedNoise(point=1e-9))
    table = quiet.table(rng)
    table["value"] += plan.noise.point * rng.standard_t(3, len(table)) / np.sqrt(3)
    whole = drawn(plan, rng)
    return replace(whole, table=table)


# Physics: stochastic processes whose clock is known exactly


def _process(
    rng: np.random.Generator, power: float, path: Callable, start: float, length: float
) -> Draw:
    number = int(rng.integers(3, 6))
    levels = 10 ** rng.uniform(-2, 1) * np.exp(rng.uniform(0.5, 0.9) * np.arange(number))
    times = (
        np.exp(np.linspace(0, length, 60)) * np.exp(start) / np.exp(power * np.log(levels).mean())
    )
    replicates = int(rng.choice([3, 5, 8]))
    frames = []
    for k, rate in enumerate(levels):
        for r in range(replicates):
            value = path(times * rate**power)
            frames.append(
                pd.DataFrame(
                    {"rate": rate, "seed": k * replicates + r, "step": times, "value": value}
                )
            )
    return Draw(pd.concat(frames, ignore_index=True), ("rate",), {"rate": power}, {})


@family
def physics_dephasing(rng: np.random.Generator) -> Draw:
    """Mean cos of the angles of M rotors with diffusivity rate²: the clock is t·rate²."""
    rotors = int(rng.integers(100, 600))

    def path(clock: np.ndarray) -> np.ndarray:
        steps = np.sqrt(2 * np.diff(np.r_[0.0, clock]))[:, None] * rng.standard_normal(
            (len(clock), rotors)
        )
        return np.cos(np.cumsum(steps, axis=0)).mean(axis=1)

    return _process(rng, 2.0, path, -4.0, 6.0)


@family
def physics_decay(rng: np.random.Generator) -> Draw:
    """Survivors of M nuclei that decay at rate⁻¹: the clock is t/rate."""
    nuclei = int(rng.integers(100, 600))

    def path(clock: np.ndarray) -> np.ndarray:
        lifetimes = rng.exponential(size=nuclei)
        return (lifetimes[:, None] > clock).mean(axis=0)

    return _process(rng, -1.0, path, -4.0, 5.5)


@family
def physics_relaxation(rng: np.random.Generator) -> Draw:
    """Energy of M Ornstein–Uhlenbeck particles that start far out; friction √rate."""
    particles = int(rng.integers(50, 300))

    def path(clock: np.ndarray) -> np.ndarray:
        x = np.full(particles, 2.5)
        out = []
        for gap in np.diff(np.r_[0.0, clock]):
            x = x * np.exp(-gap) + np.sqrt(1 - np.exp(-2 * gap)) * rng.standard_normal(particles)
            out.append(np.mean(x**2) / 5)
        return np.array(out)

    return _process(rng, 0.5, path, -4.0, 6.5)


@family
def physics_first_passage(rng: np.random.Generator) -> Draw:
    """Share of M random walkers that have not yet left (−L, L): the clock is t/L²."""
    walkers, replicates = int(rng.integers(100, 400)), int(rng.choice([3, 5, 8]))
    frames = []
    for k, size in enumerate((8, 12, 18, 27)[: rng.integers(3, 5)]):
        times = np.unique(np.geomspace(0.1, 5.0, 50) * size**2 // 1).astype(int)
        for r in range(replicates):
            steps = rng.choice(np.array([-1, 1], np.int8), (walkers, times[-1]))
            gone = np.abs(np.cumsum(steps, axis=1, dtype=np.int32)) >= size
            passage = np.where(gone.any(axis=1), gone.argmax(axis=1) + 1, times[-1] + 1)
            frames.append(
                pd.DataFrame(
                    {
                        "size": size,
                        "seed": k * replicates + r,
                        "step": times,
                        "value": (passage[:, None] > times).mean(axis=0),
                    }
                )
            )
    return Draw(pd.concat(frames, ignore_index=True), ("size",), {"size": -2.0}, {})


@family
def physics_percolation(rng: np.random.Generator) -> Draw:
    """Spanning probability of 2-D site percolation: the clock is |p − p_c|·L^(3/4)."""
    table = percolation(
        (16, 32, 64), replicates=6, lattices=15, points=14, seed=int(rng.integers(2**31))
    )
    table = table.rename(columns={"distance": "step", "spanned": "value"})
    return Draw(table, ("L",), {"L": 0.75}, {})


# Curves that do not collapse


def _bent(name: str, bend: Callable[[Planted, np.random.Generator], Callable]) -> None:
    def make(rng: np.random.Generator) -> Draw:
        level = _level(rng)
        noise = (
            PlantedNoise(point=level)
            if rng.random() < 0.5
            else PlantedNoise(point=level / 2, memory=level)
        )
        plan = plant(rng, replicates=int(rng.integers(4, 13)), noise=noise)
        if bend is _plateau:
            plan = replace(plan, curve=_saturating(plan))
        return Draw(
            replace(plan, bend=bend(plan, rng)).table(rng), plan.names, {}, {}, collapses=False
        )

    FAMILIES[name] = make


def _ramp(plan: Planted) -> np.ndarray:
    """A number from −1 to 1 per condition that increases with its control."""
    c = plan.log_controls[:, 0]
    return 2 * (c - c.min()) / np.ptp(c) - 1


def _saturating(plan: Planted) -> Callable:
    """A decay that is over by the last third of every record."""
    starts = [plan.log_tau(k)[0] for k in range(len(plan.log_times))]
    length = np.ptp(plan.log_times[0])
    return lambda u: 1 / (1 + np.exp((u - np.mean(starts) - 0.3 * length) / (0.05 * length)))


def _plateau(plan: Planted, rng: np.random.Generator) -> Callable:
    """The plateau drifts with the control, by 5 standard errors from first to last."""
    k = len(plan.log_times) // 2
    weight = 1 - plan.curve(plan.log_tau(k))
    weight = weight / weight.sum()
    error = np.sqrt(2 * weight @ plan.covariance(k, k) @ weight / plan.num_replicates[k])
    ramp = _ramp(plan)
    return lambda k, u, y: y + 2.5 * error * ramp[k] * (1 - y)


def _amplitude(plan: Planted, rng: np.random.Generator) -> Callable:
    ramp, size = _ramp(plan), rng.uniform(0.15, 0.4)
    return lambda k, u, y: y * (1 + size * ramp[k])


def _stretch(plan: Planted, rng: np.random.Generator) -> Callable:
    ramp, size = _ramp(plan), rng.uniform(0.2, 0.4)
    middle = np.mean([plan.log_tau(k).mean() for k in range(len(plan.log_times))])
    return lambda k, u, y: plan.curve(middle + (u - middle) * (1 + size * ramp[k]))


def _two_clocks(plan: Planted, rng: np.random.Generator) -> Callable:
    """A second process, half as strong, runs on another power of the control."""
    c = plan.log_controls[:, 0] - plan.log_controls[:, 0].mean()
    other = rng.choice([-1, 1]) * rng.uniform(1.0, 2.0) / np.ptp(c)
    middle = np.mean([plan.log_tau(k).mean() for k in range(len(plan.log_times))])
    return lambda k, u, y: y + 0.5 / (1 + np.exp(-3 * (u - middle - other * c[k])))


def _odd_one(plan: Planted, rng: np.random.Generator) -> Callable:
    odd, size = int(rng.integers(len(plan.log_times))), rng.choice([-1, 1]) * rng.uniform(0.1, 0.3)
    return lambda k, u, y: y + (k == odd) * size * np.exp(-0.5 * (u - np.median(u)) ** 2)


_bent("false_plateau", _plateau)
_bent("false_amplitude", _amplitude)
_bent("false_stretch", _stretch)
_bent("false_two_clocks", _two_clocks)
_bent("false_odd_one", _odd_one)


# Controls that the data do not determine


@family
def hidden_ridge(rng: np.random.Generator) -> Draw:
    """A second control that is a power of the first."""
    whole = drawn(plant(rng, replicates=6), rng)
    table = whole.table.assign(size=lambda t: 7 * t.rate ** rng.uniform(-2, 2))
    return Draw(table, ("rate", "size"), {}, {}, hidden=("rate", "size"))


@family
def hidden_flat(rng: np.random.Generator) -> Draw:
    """A curve without features."""
    plan = replace(
        plant(rng, replicates=int(rng.integers(3, 9))), curve=lambda u: np.full_like(u, 0.3)
    )
    return Draw(plan.table(rng), ("rate",), {}, {}, hidden=("rate",))


@family
def hidden_constant(rng: np.random.Generator) -> Draw:
    """A second control with one value."""
    whole = drawn(plant(rng, replicates=4), rng)
    return replace(
        whole, table=whole.table.assign(size=64.0), controls=("rate", "size"), hidden=("size",)
    )


@family
def hidden_disjoint(rng: np.random.Generator) -> Draw:
    """Each condition records another stretch of the curve, with gaps between."""
    plan = plant(rng, replicates=6)
    number = len(plan.log_times)
    shift = (plan.log_controls @ plan.exponents) - (plan.log_controls @ plan.exponents).min()
    shuffled = np.argsort(plan.log_controls[:, 0])
    width = np.ptp(plan.log_times[0]) / number
    times = tuple(
        width * (shuffled[k] * 1.15 + np.linspace(0, 1, 40)) - (shift[k] if number else 0)
        for k in range(number)
    )
    plan = replace(plan, log_times=times)
    return Draw(plan.table(rng), ("rate",), {}, {}, collapses=None, hidden=("rate",))


# Corrections to scaling: the exponent holds only in the limit


def _correction(name: str, bend: Callable[[Planted, np.random.Generator], Callable]) -> None:
    def make(rng: np.random.Generator) -> Draw:
        plan = plant(rng, replicates=int(rng.integers(4, 13)))
        table = replace(plan, bend=bend(plan, rng)).table(rng)
        truth = dict(zip(plan.names, plan.exponents.tolist(), strict=True))
        return Draw(table, plan.names, truth, {}, collapses=None, corrected=True)

    FAMILIES[name] = make


def _vanishing(plan: Planted, rng: np.random.Generator) -> np.ndarray:
    """c^w, 1 at the largest correction, falling by a factor 3 to 30 over the controls."""
    ramp = (_ramp(plan) + 1) / 2
    if rng.random() < 0.5:
        ramp = 1 - ramp
    return np.exp(-np.log(rng.uniform(3, 30)) * ramp)


def _shifted(plan: Planted, rng: np.random.Generator) -> Callable:
    """The clock is t·c^p·(1 + a·c^w)."""
    small, size = _vanishing(plan, rng), rng.choice([-1, 1]) * rng.uniform(0.15, 0.6)
    return lambda k, u, y: plan.curve(u + np.log1p(size * small[k]))


def _added(plan: Planted, rng: np.random.Generator) -> Callable:
    """Value = F(τ) + a·c^w·G(τ)."""
    small, size = _vanishing(plan, rng), rng.choice([-1, 1]) * rng.uniform(0.05, 0.25)
    middle = np.mean([plan.log_tau(k).mean() for k in range(len(plan.log_times))])
    return lambda k, u, y: y + size * small[k] / (1 + np.exp(u - middle))


_correction("correction_clock", _shifted)
_correction("correction_value", _added)
