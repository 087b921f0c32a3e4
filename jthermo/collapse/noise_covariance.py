"""How much each record weighs in a fit: the covariance of a replicate around the curve.

The unit of information is the replicate, not the point. Its deviation is modelled as

    Ω = Σ_m a_m K_m,   a_m ≥ 0,

with these components K_m:

* point noise, independent from record to record;
* memory in log t, exp(−|Δ log t|/ℓ), with several ℓ;
* memory in τ, min(σ², σ′²)·exp(−|Δτ|/T), as of anything that relaxes; it grows by independent steps
  while it is younger than T;
* a constant offset, and a random walk in log t;
* a lead, ∝ F′(log τ): the replicate runs ahead of the others;
* the noise of counts, if F is the share of many things that have changed by τ: min(F, F′) − F·F′ if
  F goes from none to all, with min(F, F′) or min(1 − F, 1 − F′) in addition if it ends at none or
  at all only;
* if the same replicate appears at several controls, the same kinds shared between controls, as a
  function of τ (shared start) or of t (shared data).

Memory is scaled by the local standard deviation of the replicates, point noise by that of their
local differences. The a_m maximise the Gaussian likelihood of the replicates' deviations from their
own mean, so that a misfit of the curve does not enter. A single replicate has no such deviations;
the residuals of the fit take their place (REML).

Weights are constrained to be ≥ 0, so pure chance makes them positive, and a lead or an offset that
is there by chance widens an interval far more than it helps the likelihood. So the likelihood
carries the prior Π (s_m/(s_m + a_m))^κ on every component except point noise and memory, where s_m
is the standard error of a_m under point noise alone. It holds a weight of the size of chance at 0,
and lowers a larger one by less than its standard error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jthermo.collapse import linalg
from jthermo.collapse.averages import Replicates
from jthermo.collapse.settings import Settings

# Components whose weights have no prior against them.
PLAIN = ("point", "memory")


@dataclass(frozen=True)
class NoiseCovariance:
    """The estimated covariance of one replicate and the uncertainty of its weights.

    Attributes:
        names: of the components.
        weights: a_m.
        blocks: rows of each block of Ω.
        components: K_m of each block, (m, n, n).
        information: Fisher information of the weights, (m, m).
        settings: the constants of the fit.
        common: standard deviation of noise that all replicates share, independent from record to
            record.
        held: number of weights, the first, that are known and not estimated.
        timing: covariance of each block by the resolution of time, which all replicates share;
            none if times are exact.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    blocks: tuple[np.ndarray, ...]
    components: tuple[np.ndarray, ...]
    information: np.ndarray
    settings: Settings
    common: float = 0.0
    held: int = 0
    timing: tuple[np.ndarray, ...] = ()

    @property
    def of_means(self) -> float:
        """Variance of every mean in addition to that of its replicates."""
        return self.settings.min_error**2 + self.common**2

    def covariances(self, share: list[np.ndarray]) -> list[np.ndarray]:
        """Blocks of the covariance of the means: Ω ∘ share, share_ij = n_ij/(n_i n_j)."""
        return self.around(self.of_replicates(share))

    def of_replicates(self, share: list[np.ndarray]) -> list[np.ndarray]:
        """The part of :meth:`covariances` that the replicates' own noise makes up."""
        return [omega * part for omega, part in zip(self.of_one, share, strict=True)]

    @cached_property
    def of_one(self) -> list[np.ndarray]:
        """Ω of one replicate, by block."""
        return [np.tensordot(self.weights, kernel, axes=1) for kernel in self.components]

    def around(self, of_replicates: list[np.ndarray]) -> list[np.ndarray]:
        """:meth:`covariances`, from the part that :meth:`of_replicates` gives."""
        out = [omega.copy() for omega in of_replicates]
        for omega in out:
            omega[np.diag_indices(len(omega))] += self.of_means
        for omega, known in zip(out, self.timing, strict=False):
            omega += known
        return out

    def shared_by_all(self, directions: np.ndarray) -> np.ndarray:
        """g'Ωg of what all replicates share, for rows g of `directions`, (G, G)."""
        total = self.common**2 * directions @ directions.T
        for rows, known in zip(self.blocks, self.timing, strict=False):
            total += directions[:, rows] @ known @ directions[:, rows].T
        return total

    def active(self) -> np.ndarray:
        """Indices of the weights that were estimated and are not negligible."""
        large = self.weights > self.settings.active_weight * self.weights.sum()
        return np.flatnonzero(large & (np.arange(len(large)) >= self.held))

    def uncertainty(self, active: np.ndarray) -> np.ndarray:
        """Covariance of the active weights."""
        return np.linalg.pinv(self.information[np.ix_(active, active)], hermitian=True)

    def degrees(self, directions: np.ndarray, share: list[np.ndarray]) -> np.ndarray:
        """Satterthwaite degrees of freedom of g'Ωg for rows g of `directions` (G, N): 2V²/var V."""
        active = self.active()
        if not len(active):
            return np.full(len(directions), np.inf)
        # the first row is Ω itself, the others are the components with active weights
        forms = np.zeros((1 + len(active), len(directions)))
        for rows, omega, kernel, part in zip(
            self.blocks, self.of_one, self.components, share, strict=True
        ):
            piece = directions[:, rows]
            for form, matrix in zip(forms, (omega, *kernel[active]), strict=True):
                form += np.einsum("gi,gi->g", piece @ (matrix * part), piece)
        variance = np.einsum("mg,mk,kg->g", forms[1:], self.uncertainty(active), forms[1:])
        return 2 * forms[0] ** 2 / np.maximum(variance, 1e-300)


def profiles(
    reps: Replicates,
    condition: np.ndarray,
    log_tau: np.ndarray,
    log_time: np.ndarray,
    floor: float,
    settings: Settings,
) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of a replicate along each curve, and that of its point noise, (N,) each.

    Point noise comes from local differences. Few replicates say little about a variance, so both
    are smoothed along the curve and shrunk towards the course that all conditions share.

    Args:
        reps: the replicates.
        condition: of each mean, (N,).
        log_tau: of each mean, (N,).
        log_time: of each mean, (N,).
        floor: least variance.
        settings: the constants of the fit.
    """
    deviations = reps.unbiased
    total = np.empty(len(condition))
    point = np.empty(len(condition))
    count = np.ones(len(condition))
    for k in np.unique(condition):
        rows = np.flatnonzero(condition == k)
        here = reps.present[:, rows].any(axis=1)
        part = deviations[np.ix_(here, rows)]
        count[rows] = max(here.sum(), 1)
        total[rows] = np.mean(part**2, axis=0)
        many = len(rows) > settings.local_noise_bins
        point[rows] = local_noise(part) if many else total[rows]
    sds = []
    for smooth in _smooth_courses((total, point), count, condition, log_tau, log_time, settings):
        least = max(settings.min_variance_share * smooth.mean(), floor)
        sds.append(np.sqrt(np.maximum(smooth, least)))
    return sds[0], sds[1]


def _smooth_courses(
    variances: Sequence[np.ndarray],
    count: np.ndarray,
    condition: np.ndarray,
    log_tau: np.ndarray,
    log_time: np.ndarray,
    settings: Settings,
) -> Iterator[np.ndarray]:
    """The raw variances smoothed: each condition's own course, shrunk towards the common one, (N,).

    A course estimated from few replicates is mostly chance, and a fit that trusts it puts its
    weight on points that happen to agree. More replicates give the own course more weight, and
    more degrees of freedom in all draw the result less towards a constant.
    """
    number = condition.max() + 1
    length = np.median([np.ptp(log_time[condition == k]) for k in range(number)]) or 1.0
    raws = [np.maximum(variance, 1e-12 * variance.mean() + 1e-300) for variance in variances]
    trust = np.maximum(count - 1, settings.single_trust)
    clocks = [log_tau] if log_tau is log_time else [log_tau, log_time]
    commons = _common_courses(raws, trust, condition, clocks, length, settings)
    owns = _own_courses(raws, condition, log_time, length, settings)
    size = np.bincount(condition)
    believed = (trust - settings.single_trust) / (trust + settings.level_degrees)
    first = np.unique(condition, return_index=True)[1]
    pull = settings.common_degrees / (settings.common_degrees + trust)
    degrees = float(np.sum(np.bincount(condition, trust) / size))
    for common, own in zip(commons, owns, strict=True):
        level = np.bincount(condition, own / common) / size
        shared = common * (level ** believed[first])[condition]
        course = pull * np.log(shared) + (1 - pull) * np.log(own)
        level = (np.bincount(condition, course) / size)[condition]
        yield np.exp(level + (course - level) * degrees / (degrees + settings.flat_degrees))


def _common_courses(
    raws: Sequence[np.ndarray],
    trust: np.ndarray,
    condition: np.ndarray,
    clocks: Sequence[np.ndarray],
    length: float,
    settings: Settings,
) -> list[np.ndarray]:
    """The course of each variance that all conditions share, as a function of τ or of t, (N,).

    The clock and the width of the smoothing are those that best predict the course of a condition
    that was left out.
    """
    curves = [condition == k for k in range(condition.max() + 1)]
    best, commons = [np.inf] * len(raws), list(raws)
    elsewhere = condition[:, None] != condition[None, :]
    for clock in clocks:
        apart = (clock[:, None] - clock[None, :]) / length
        for width in settings.course_widths:
            near = np.exp(-0.5 * (apart / width) ** 2) * trust
            others = near * elsewhere + 1e-9 * trust
            whole = others.sum(axis=1)
            for i, raw in enumerate(raws):
                ahead = np.log(others @ raw / whole)
                level = raw * np.exp(-ahead)
                score = sum(ahead[k].mean() + np.log(level[k].mean()) for k in curves)
                if score < best[i] - settings.course_gain * len(curves):
                    best[i], commons[i] = score, near @ raw / near.sum(axis=1)
    return commons


def _own_courses(
    raws: Sequence[np.ndarray],
    condition: np.ndarray,
    log_time: np.ndarray,
    length: float,
    settings: Settings,
) -> list[np.ndarray]:
    """Each condition's variances smoothed along log t, (N,) each."""
    apart = log_time[:, None] - log_time[None, :]
    near = np.exp(-0.5 * (apart / (length * settings.own_course_width)) ** 2)
    near *= condition[:, None] == condition[None, :]
    whole = near.sum(axis=1)
    return [near @ raw / whole for raw in raws]


def local_noise(rows: np.ndarray) -> np.ndarray:
    """Variance of point noise: mean of (d_j − (d_{j−1} + d_{j+1})/2)²·⅔ over replicates.

    Empty below three records.
    """
    if rows.shape[1] < 3:
        return np.zeros(0)
    bend = rows[:, 1:-1] - 0.5 * (rows[:, :-2] + rows[:, 2:])
    inner = np.mean(bend**2, axis=0) * (2 / 3)
    return np.r_[inner[:1], inner, inner[-1:]]


def ages_of(log_tau: np.ndarray, settings: Settings) -> np.ndarray:
    """Log of the times T of the kernels with memory in τ: fixed fractions of the range of log τ."""
    return log_tau.min() + np.ptp(log_tau) * np.array(settings.memory_ages)


@dataclass(frozen=True)
class Bins:
    """Where the covariance is wanted, with what is known of the noise and the curve there.

    Attributes:
        log_time: log t, (n,).
        log_tau: log τ, (n,).
        condition: index of the condition, (n,).
        sd: standard deviation of a replicate, (n,).
        point_sd: standard deviation of its point noise, (n,).
        slope: F′(log τ), (n,).
        progress: F on a scale from 0 to 1, (n,).
    """

    log_time: np.ndarray
    log_tau: np.ndarray
    condition: np.ndarray
    sd: np.ndarray
    point_sd: np.ndarray
    slope: np.ndarray
    progress: np.ndarray

    def at(self, rows: np.ndarray) -> Bins:
        """Some of them."""
        return Bins(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def kernels(
    bins: Bins,
    *,
    ages: np.ndarray,
    paired: bool,
    settings: Settings,
    unit: tuple[float, float] | None = None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The components K_m of one block, (m, n, n), with their names.

    Args:
        bins: where they are wanted.
        ages: log T of memory in τ.
        paired: whether replicates are shared between conditions.
        settings: the constants of the fit.
        unit: length of a curve and variance that set the scale; those of `bins` if None.
    """
    x, condition = bins.log_time, bins.condition
    length = np.median([np.ptp(x[condition == k]) for k in np.unique(condition)]) or 1.0
    level = np.mean(bins.sd**2)
    if unit is not None:
        length, level = unit
    same = condition[:, None] == condition[None, :]
    scale = np.outer(bins.sd, bins.sd)
    apart = np.abs(x[:, None] - x[None, :]) / length
    start = np.array([x[condition == k].min() for k in condition]) if len(x) else x
    walked = (x - start) / length
    out: dict[str, np.ndarray] = {
        "point": np.diag(bins.point_sd**2),
        "point_scaled": np.diag(bins.sd**2),
    }
    along_time = {m: scale * np.exp(-apart / m) for m in settings.memory_lengths}
    for memory, kernel in along_time.items():
        out[f"memory_{memory}"] = kernel * same
    grown = np.minimum.outer(bins.sd**2, bins.sd**2) * same
    for place, age in zip(settings.memory_ages, ages, strict=True):
        # τ in units of T; beyond e⁵⁰ everything is forgotten
        tau = np.exp(np.minimum(bins.log_tau - age, 50.0))
        out[f"age_{place}"] = grown * np.exp(-np.abs(tau[:, None] - tau[None, :]))
    out["offset"] = level * same
    out["offset_scaled"] = scale * same
    out["walk"] = level * np.minimum(walked[:, None], walked[None, :]) * same
    out["lead"] = np.outer(bins.slope, bins.slope) * same
    out |= {name: kernel * same + rare for name, kernel, rare in _counts(bins.progress, settings)}
    if paired:
        apart_tau = np.abs(bins.log_tau[:, None] - bins.log_tau[None, :]) / length
        for memory in settings.memory_lengths[1:]:
            out[f"shared_tau_{memory}"] = scale * np.exp(-apart_tau / memory)
        for memory in settings.memory_lengths[::2]:
            out[f"shared_time_{memory}"] = along_time[memory]
        out["shared_lead"] = np.outer(bins.slope, bins.slope)
        out["shared_offset"] = np.full_like(scale, level)
        out["shared_offset_scaled"] = scale
    return tuple(out), np.array(list(out.values()))


def misfit_kernels(
    bins: Bins, known: np.ndarray, settings: Settings
) -> tuple[tuple[str, ...], np.ndarray]:
    """The components of the noise if that of every record is published, (m, n, n), with names.

    The first is the published one, (n, n). The others are what records may differ by beyond it:
    independently, smoothly along each curve, and by an offset of each curve.
    """
    same = bins.condition[:, None] == bins.condition[None, :]
    x = bins.log_time
    length = np.median([np.ptp(x[bins.condition == k]) for k in np.unique(bins.condition)]) or 1.0
    apart = np.abs(x[:, None] - x[None, :]) / length
    level = np.mean(np.diag(known))
    out = {"published": known, "excess": known}
    for reach in settings.memory_lengths[1:]:
        out[f"misfit_{reach}"] = level * np.exp(-apart / reach) * same
    out["misfit_offset"] = level * same
    return tuple(out), np.array(list(out.values()))


def _counts(
    progress: np.ndarray, settings: Settings
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name and covariance of counts, and what lifts their smallest variances."""
    fewer = np.minimum.outer(progress, progress)
    covariances = {
        "counts": fewer - np.outer(progress, progress),
        "counts_low": fewer,
        "counts_high": np.minimum.outer(1 - progress, 1 - progress),
    }
    for name, kernel in covariances.items():
        own = np.diag(kernel)
        least = settings.min_count_variance * own.mean()
        yield name, kernel, np.diag(np.maximum(least - own, 0.0))


@dataclass(frozen=True)
class Sample:
    """What one block of bins says about the weights.

    Attributes:
        kernel: components K_m, (m, n, n).
        covariance: sample covariance of the deviations, (n, n).
        degrees: its degrees of freedom.
    """

    kernel: np.ndarray
    covariance: np.ndarray
    degrees: float


def estimate_weights(
    samples: list[Sample],
    names: tuple[str, ...],
    settings: Settings,
    start: np.ndarray | None = None,
    held: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The most likely weights a ≥ 0 and the information on them.

    The step a ← a · Σν tr(Ω⁻¹KΩ⁻¹E) / (Σν tr(Ω⁻¹K) + 2κ/(s + a)), with the last term only for
    weights that have a prior, keeps a ≥ 0 and is a fixed point at the maximum. E is a sample
    covariance with ν degrees of freedom. The information on a weight with a prior is at least
    (s + a)⁻²: a weight that cannot be negative is no more uncertain than its size and that of
    chance.

    Args:
        samples: one per block.
        names: of the components.
        settings: the constants of the fit.
        start: weights of an earlier estimate.
        held: number of weights, the first, that are known to be 1.
    """
    number = len(names)
    total = sum(sample.degrees * np.trace(sample.covariance) for sample in samples)
    own = sum(sample.degrees * np.trace(sample.kernel, axis1=1, axis2=2) for sample in samples)
    weights = total / np.maximum(own, 1e-300) / number
    # A component that is zero, as a lead is on a flat curve, or that the curve and the exponents
    # follow altogether, would need a weight that drowns all others.
    plain = names.index("published" if held else "point_scaled")
    weights[own < settings.min_weight * own[plain]] = 0.0
    if start is not None:
        weights = np.maximum(start, settings.small_weight * weights)
    weights[:held] = 1.0
    doubted = np.flatnonzero([not name.startswith(PLAIN) for name in names])
    chance = _chance_size(samples, total)[doubted]
    flat = [sample.kernel.reshape(number, -1) for sample in samples]
    for _ in range(settings.max_weight_steps):
        have = np.zeros(number)
        want = np.zeros(number)
        for sample, rows in zip(samples, flat, strict=True):
            inverse = _inverse(np.tensordot(weights, sample.kernel, axes=1))
            have += sample.degrees * (rows @ (inverse @ sample.covariance @ inverse).ravel())
            want += sample.degrees * (rows @ inverse.ravel())
        want[doubted] += 2 * settings.prior_strength / (chance + weights[doubted])
        ratio = np.maximum(have, 0) / np.maximum(want, 1e-300)
        ratio[:held] = 1.0
        weights = weights * ratio
        weights[weights < settings.min_weight * weights.sum()] = 0.0
        judged = np.maximum(ratio[weights > settings.small_weight * weights.sum()], 1e-9)
        if np.abs(np.log(judged)).max(initial=0) < settings.weight_tolerance:
            break
    information = fisher_information(samples, weights, settings)
    information[doubted, doubted] += (chance + weights[doubted]) ** -2.0
    return weights, information


def _chance_size(samples: list[Sample], total: float) -> np.ndarray:
    """s_m: the standard error of each weight if all variance is that of point noise, (m,)."""
    diagonals = [np.einsum("mii->mi", sample.kernel)[1] for sample in samples]
    whole = sum(s.degrees * diagonal.sum() for s, diagonal in zip(samples, diagonals, strict=True))
    unit = total / max(whole, 1e-300)
    information = 0.0
    for sample, diagonal in zip(samples, diagonals, strict=True):
        root = 1 / np.sqrt(np.maximum(unit * diagonal, 1e-300))
        white = sample.kernel * np.outer(root, root)
        information = information + 0.5 * sample.degrees * np.sum(white**2, axis=(1, 2))
    return 1 / np.sqrt(np.maximum(information, 1e-300))


def fisher_information(
    samples: list[Sample], weights: np.ndarray, settings: Settings
) -> np.ndarray:
    """½ Σ ν tr(Ω⁻¹K_mΩ⁻¹K_n), (m, m); 0 for weights that are not active."""
    active = np.flatnonzero(weights > settings.active_weight * weights.sum())
    information = np.zeros((len(weights), len(weights)))
    if not len(active):
        return information
    for sample in samples:
        inverse = _inverse(np.tensordot(weights, sample.kernel, axes=1))
        turned = np.array([inverse @ sample.kernel[m] for m in active])
        flat = turned.reshape(len(active), -1)
        swapped = turned.transpose(0, 2, 1).reshape(len(active), -1)
        information[np.ix_(active, active)] += 0.5 * sample.degrees * flat @ swapped.T
    return information


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Ω⁻¹, with a diagonal far below rounding that keeps it positive definite."""
    jitter = 1e-10 * np.trace(matrix) / len(matrix) + 1e-300
    lifted = matrix.copy()
    lifted.flat[:: len(matrix) + 1] += jitter
    return linalg.inverse(lifted)
