"""What does each number in the settings do? Halve it, double it, and fit the same data again.

Every fit is one line of a JSON file, so the study resumes where it stopped. A stage whose code
reads none of the changed settings is not computed again: its default result is reused.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from jthermo.collapse import CollapseFit
from jthermo.collapse.averages import Averages, average
from jthermo.collapse.fit import assemble
from jthermo.collapse.forms import Form
from jthermo.collapse.intervals import infer
from jthermo.collapse.outliers import without_outliers
from jthermo.collapse.read import Curves, read_curves
from jthermo.collapse.search import Basins, Optimum, first_basins, refine
from jthermo.collapse.settings import DEFAULT, Settings
from jthermo.collapse.unknowns import Directions, Unknown, find_directions, list_unknowns
from scripts.collapse_study.families import FAMILIES, Draw
from scripts.collapse_study.scoring import Score, add, kind, source

FACTORS = (0.5, 2.0)

# Relative changes below this are not worth a look: exponents in half widths of their intervals,
# widths, interval scores, p-values.
VISIBLE = 0.005

# One family of each kind of data, so that a perturbation study takes about an hour.
REPRESENTATIVE = (
    "white_1",
    "white_4",
    "memory_3",
    "walks",
    "leads",
    "paired_leads",
    "heavy_tails",
    "physics_first_passage",
    "physics_percolation",
    "false_plateau",
    "false_two_clocks",
    "hidden_flat",
    "hidden_disjoint",
    "correction_value",
)

# Families on which a setting was tuned. For these settings the table says which of the three values
# the other families would choose.
TUNED = {
    "common_noise_gain": ("physics_first_passage",),
    "common_noise_shares": ("physics_first_passage",),
    "min_scattered_bins": ("physics_percolation",),
    "min_count_variance": ("physics_first_passage", "physics_percolation"),
    "memory_ages": ("physics_first_passage",),
    "start_overlap_cost": ("memory_3", "walks"),
    "prior_strength": ("leads", "walks"),
    "max_slope_noise": ("correction_value",),
    "model_degrees": ("physics_first_passage", "physics_percolation"),
    "verdict_p_value": ("physics_percolation", "false_plateau"),
    "distortion_weight": ("false_plateau",),
    "end_parts": ("false_plateau",),
    "failure_shrinkage": ("false_plateau",),
    "window_residue": ("false_plateau",),
    "min_feature_gain": ("hidden_flat",),
    "max_extrapolation": ("hidden_disjoint",),
    "min_overlap": ("hidden_disjoint",),
    "min_mean_overlap": ("correction_value", "hidden_disjoint"),
    "drift_odds_if_refused": ("correction_value",),
    "drift_p_value": ("correction_value",),
    "drift_interval_p_values": ("correction_value",),
}

# Words in the names of settings that are shares or probabilities: they stay below 1.
BELOW_ONE = ("share", "p_value", "component", "fraction", "shrinkage", "ages", "slope_noise")


def perturbed(name: str, factor: float) -> Settings | None:
    """The settings with one of them multiplied by a factor; None if rounding leaves it as it is."""
    old = getattr(DEFAULT, name)
    parts = old if isinstance(old, tuple) else (old,)
    new = tuple(_scaled(name, part, factor) for part in parts)
    if new == parts:
        return None
    change: dict[str, Any] = {name: new if isinstance(old, tuple) else new[0]}
    return replace(DEFAULT, **change)


def _scaled(name: str, value: float, factor: float) -> float:
    """A number times the factor: integers stay integers ≥ 1, shares and probabilities below 1."""
    if isinstance(value, int):
        return max(1, round(value * factor))
    if 0 < value < 1 and any(word in name for word in BELOW_ONE):
        return min(value * factor, 1 - (1 - value) / 2)
    return value * factor


class Traced(Settings):
    """Settings that remember which of them were read."""

    def __getattribute__(self, name: str) -> object:
        if name in NAMES:
            object.__getattribute__(self, "__dict__").setdefault("_read", set()).add(name)
        return object.__getattribute__(self, name)

    def take(self) -> frozenset[str]:
        """Names read since the last call."""
        return frozenset(object.__getattribute__(self, "__dict__").pop("_read", set()))


NAMES = frozenset(f.name for f in fields(Settings))


@dataclass
class Staged:
    """One fit with the results of its stages.

    Attributes:
        curves: after reading, without outliers.
        averages: of the curves.
        basins: minima under point noise.
        optimum: the best exponents.
        fit: the answer.
        seconds: processor time of the four stages: averages, basins, best exponents, inference.
        read: names of the settings that each stage read, if they were traced.
    """

    curves: Curves
    averages: Averages
    basins: Basins
    optimum: Optimum
    fit: CollapseFit
    seconds: list[float]
    read: tuple[frozenset[str], ...] = ()


def _prepare(
    draw: Draw, settings: Settings
) -> tuple[Curves, tuple[Unknown, ...], Directions, Averages]:
    curves = read_curves(
        draw.table,
        draw.controls,
        time="step",
        replicate="seed",
        value="value",
        form=Form(),
        settings=settings,
    )
    curves = without_outliers(curves, settings)
    unknowns = list_unknowns(curves, Form(), ())
    directions = find_directions(unknowns, {})
    return curves, unknowns, directions, average(curves, unknowns, directions, {}, settings)


def _same_averages(one: Averages, other: Averages) -> bool:
    """Whether two fits average to the same numbers."""
    pairs = [(one.replicates.deviations, other.replicates.deviations), (one.share, other.share)]
    pairs += [(getattr(one.means, f.name), getattr(other.means, f.name)) for f in fields(one.means)]
    return all(np.array_equal(a, b) for a, b in pairs)


def _same_basins(one: Basins, other: Basins) -> bool:
    """Whether the search under point noise ended at the same numbers."""
    if one.likelihood.stiffness != other.likelihood.stiffness:
        return False
    if len(one.minima) != len(other.minima):
        return False
    pairs = [(one.bounds, other.bounds), (one.variance, other.variance)]
    pairs += [(a.theta, b.theta) for a, b in zip(one.minima, other.minima, strict=True)]
    return all(np.array_equal(a, b) for a, b in pairs)


def fit_in_stages(draw: Draw, settings: Settings, default: Staged | None = None) -> Staged:
    """The fit of `fit_collapse`, where stages that a changed setting cannot affect are reused.

    Args:
        draw: the data.
        settings: the constants of the fit; a :class:`Traced` records what each stage reads.
        default: the traced fit with the default settings, whose stages may be reused.
    """
    changed = frozenset(n for n in NAMES if getattr(settings, n) != getattr(DEFAULT, n))
    seconds: list[float] = []
    read: list[frozenset[str]] = []
    _taken(settings)
    clock = time.process_time()

    def end_stage(reused: bool) -> None:
        nonlocal clock
        now = time.process_time()
        old = default.seconds[len(seconds)] if default is not None else 0.0
        seconds.append(old if reused else now - clock)
        read.append(_taken(settings))
        clock = now

    with threadpool_limits(1, "blas"):
        curves, unknowns, directions, averages = _prepare(draw, settings)
        end_stage(False)

        same = default is not None and _same_averages(averages, default.averages)
        reuse = default is not None and same and not default.read[1] & changed
        basins = default.basins if default is not None and reuse else first_basins(averages)
        basins = replace(basins, likelihood=replace(basins.likelihood, settings=settings))
        end_stage(reuse)

        same = default is not None and same and _same_basins(basins, default.basins)
        reuse = default is not None and same and not default.read[2] & changed
        optimum = default.optimum if default is not None and reuse else refine(averages, basins)
        optimum = replace(
            optimum,
            likelihood=replace(optimum.likelihood, settings=settings),
            noise=replace(optimum.noise, settings=settings),
        )
        end_stage(reuse)

        inference = infer(averages, directions, optimum, 0.95, np.random.default_rng(0))
        fit = assemble(curves, unknowns, (), {}, 0.95, directions, averages, inference)
        end_stage(False)
    return Staged(curves, averages, basins, optimum, fit, seconds, tuple(read))


def _taken(settings: Settings) -> frozenset[str]:
    """Names of the settings that were read since the last call."""
    return settings.take() if isinstance(settings, Traced) else frozenset()


@dataclass
class Line:
    """One fit.

    Attributes:
        setting: that was changed; "" for the default.
        factor: on the setting.
        family: of the data.
        number: of the draw.
        score: of :class:`Score`, as a dictionary.
        exponents: value, low and high by name.
        same: whether everything that is scored is as with the default.
        read: whether the default fit reads the setting.
    """

    setting: str
    factor: float
    family: str
    number: int
    score: dict = field(default_factory=dict)
    exponents: dict = field(default_factory=dict)
    same: bool = False
    read: bool = True


def _line(setting: str, factor: float, family: str, number: int, draw: Draw, staged) -> Line:
    """The scores of one fit, or of a crash if `staged` is None."""
    score = Score(draws=1)
    exponents = {}
    if staged is None:
        score.crashes = 1
    else:
        score.seconds.append(sum(staged.seconds))
        add(score, draw, staged.fit)
        exponents = {name: [e.value, e.low, e.high] for name, e in staged.fit.exponents.items()}
    return Line(setting, factor, family, number, asdict(score), exponents)


def run(path: Path, families: list[str], draws: int, salt: int) -> None:
    """Fit all draws with all settings, and append the lines that are not in the file yet.

    A setting that visibly changed no fit in the first draw of all families is not tried in later
    draws.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(draws):
        lines = read_lines(path)
        done = {(x.setting, x.factor, x.family, x.number) for x in lines}
        names = visible(lines) if number else NAMES
        wanted = [("", 1.0)] + [(n, factor) for n in sorted(names - {""}) for factor in FACTORS]
        for family in families:
            left = [w for w in wanted if (*w, family, number) not in done]
            if not left:
                continue
            with path.open("a") as file:
                # A line that was cut off must not swallow the next one.
                file.write("\n" if path.stat().st_size else "")
                for line in _lines(family, number, salt, left):
                    file.write(json.dumps(asdict(line), default=float) + "\n")
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)


def visible(lines: list[Line]) -> frozenset[str]:
    """Settings that changed some fit by more than rounding and the last digits of the search."""
    default = {(x.family, x.number): x for x in lines if not x.setting}
    moving = set()
    for line in lines:
        if line.same or not line.setting:
            continue
        e = effect([line], default)
        p, old = (np.sum(x.score["p_values"]) for x in (line, default[line.family, line.number]))
        sizes = (abs(e.shift), abs(e.width - 1), abs(e.score - 1), abs(p - old))
        if max(sizes) > VISIBLE or e.answers_changed:
            moving.add(line.setting)
    return frozenset(moving)


def _lines(family: str, number: int, salt: int, wanted: list[tuple[str, float]]) -> Iterator[Line]:
    """The fits of one data set."""
    draw = FAMILIES[family](source(family, number, salt))
    default = fit_in_stages(draw, Traced(**asdict(DEFAULT)))
    default = replace(default, averages=replace(default.averages, settings=DEFAULT))
    used = frozenset().union(*default.read)
    plain = _line("", 1.0, family, number, draw, default)
    for setting, factor in wanted:
        settings = perturbed(setting, factor) if setting in used else None
        if settings is None:
            read = not setting or setting in used
            yield replace(plain, setting=setting, factor=factor, same=bool(setting), read=read)
            continue
        try:
            staged = fit_in_stages(draw, settings, default)
        except Exception:
            staged = None
        line = _line(setting, factor, family, number, draw, staged)
        yield replace(line, same=line.exponents == plain.exponents and _verdicts(line, plain))


def _verdicts(one: Line, other: Line) -> bool:
    """Whether two fits have the same verdict, p-value, hits and notes that are scored."""
    ignored = {"seconds"}
    return all(one.score[k] == other.score[k] for k in one.score if k not in ignored)


def read_lines(path: Path) -> list[Line]:
    """All fits of a file; an unfinished last line is ignored."""
    if not path.exists():
        return []
    lines = []
    for text in filter(None, path.read_text().splitlines()):
        try:
            lines.append(Line(**json.loads(text)))
        except json.JSONDecodeError:
            continue
    return lines


@dataclass
class Effect:
    """What one change of one setting does, in comparison with the default on the same data.

    Attributes:
        fits: data sets.
        changed: fits in which anything that is scored changed.
        shift: root mean square change of the exponents, in half widths of their intervals.
        width: geometric mean of the ratio of the widths.
        hits: intervals that hold the truth, gained or lost.
        score: mean interval score over that with the default, where a bound is known.
        accepted: true collapses accepted, gained or lost.
        refused: false collapses refused, gained or lost.
        admitted: undetermined controls admitted, gained or lost.
        silent: corrections missed without a note, gained or lost.
        crashes: fits that raised an error.
        time: processor time over that with the default.
    """

    fits: int
    changed: int
    shift: float
    width: float
    hits: int
    score: float
    accepted: int
    refused: int
    admitted: int
    silent: int
    crashes: int
    time: float

    @property
    def answers_changed(self) -> bool:
        """Whether coverage, a verdict, an admission or a note changed."""
        counts = (self.hits, self.accepted, self.refused, self.admitted, self.silent, self.crashes)
        return any(counts)


def effect(lines: list[Line], default: dict[tuple[str, int], Line]) -> Effect:
    """The effect of one change, from its fits and the default ones of the same data."""
    pairs = [(line, default[line.family, line.number]) for line in lines]
    shifts, widths = [], []
    for line, plain in pairs:
        for name, (value, low, high) in line.exponents.items():
            old, old_low, old_high = plain.exponents[name]
            if np.isfinite([value, low, high, old, old_low, old_high]).all():
                shifts.append(2 * (value - old) / (old_high - old_low))
                widths.append(np.log((high - low) / (old_high - old_low)))
    ratio = [np.sum([np.sum(x.score["scores"]) for x in side]) for side in zip(*pairs, strict=True)]
    seconds = [
        np.sum([np.sum(x.score["seconds"]) for x in side]) for side in zip(*pairs, strict=True)
    ]

    def gained(name: str, *kinds: str) -> int:
        chosen = [(a, b) for a, b in pairs if not kinds or kind(a.family) in kinds]
        return int(sum(np.sum(a.score[name]) - np.sum(b.score[name]) for a, b in chosen))

    return Effect(
        fits=len(pairs),
        changed=sum(not line.same for line, _ in pairs),
        shift=float(np.sqrt(np.mean(np.square(shifts)))) if shifts else 0.0,
        width=float(np.exp(np.mean(widths))) if widths else 1.0,
        hits=gained("hits"),
        score=float(ratio[0] / ratio[1]) if ratio[1] else 1.0,
        accepted=gained("accepted", "true"),
        refused=gained("refused", "false"),
        admitted=gained("admitted"),
        silent=gained("silent_misses", "correction"),
        crashes=gained("crashes"),
        time=float(seconds[0] / seconds[1]),
    )


def effects(lines: list[Line]) -> dict[tuple[str, float], Effect]:
    """The effect of every change in the file."""
    default = {(x.family, x.number): x for x in lines if not x.setting}
    by_change: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        if line.setting:
            by_change.setdefault((line.setting, line.factor), []).append(line)
    return {change: effect(part, default) for change, part in sorted(by_change.items())}


def choice_of_others(lines: list[Line], setting: str) -> str:
    """The value that the families choose on which the setting was not tuned: "½", "1" or "2".

    They choose the least number of wrong answers (misses, verdicts, admissions), then the least
    interval score.
    """
    others = [x for x in lines if x.family not in TUNED[setting]]
    default = {(x.family, x.number): x for x in others if not x.setting}
    losses = {"1": (0, 1.0)}
    for label, factor in (("½", 0.5), ("2", 2.0)):
        part = [x for x in others if (x.setting, x.factor) == (setting, factor)]
        if part:
            e = effect(part, default)
            right = e.hits + e.accepted + e.refused + e.admitted - e.silent - e.crashes
            losses[label] = (-right, round(e.score, 3))
    return min(losses, key=lambda label: (losses[label], label != "1"))


def table(lines: list[Line]) -> Iterator[str]:
    """One row per change that visibly moves something, then the names of the other settings."""
    lines = [line for line in lines if not line.setting or line.setting in NAMES]
    by_change = effects(lines)
    moving = visible(lines)
    yield (
        f"{'setting':<30}{'×':>3}{'fits':>6}{'moved':>6}{'shift':>7}{'width':>7}{'score':>7}"
        f"{'hits':>6}{'true':>6}{'false':>6}{'admit':>6}{'silent':>7}{'crash':>6}{'time':>6}"
        f"{'others':>8}"
    )
    for (setting, factor), e in by_change.items():
        if setting not in moving:
            continue
        others = choice_of_others(lines, setting) if setting in TUNED else ""
        yield (
            f"{setting:<30}{'½' if factor < 1 else '2':>3}{e.fits:>6}{e.changed:>6}{e.shift:>7.3f}"
            f"{e.width:>7.3f}{e.score:>7.3f}{e.hits:>+6}{e.accepted:>+6}{e.refused:>+6}"
            f"{e.admitted:>+6}{e.silent:>+7}{e.crashes:>6}{e.time:>6.2f}{others:>8}"
        )
    changing = {setting for (setting, _), e in by_change.items() if e.changed}
    read = {line.setting for line in lines if line.read}
    tried = {setting for setting, _ in by_change}
    yield ""
    yield f"moved by less than {VISIBLE}: " + ", ".join(sorted(changing - moving))
    yield "read, and no fit changed: " + ", ".join(sorted((tried & read) - changing))
    yield "not read by these fits: " + ", ".join(sorted(tried - read))
