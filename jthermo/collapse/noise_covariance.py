"""How one replicate deviates from the curve: a sum of simple processes, with weights found from the
replicates.

The unit of information is the replicate, not the point. Its deviation is modelled as

    Ω = Σ_m a_m K_m,   a_m ≥ 0,

with K_m: independent point noise; short and long memory exp(−|Δ log t|/ℓ); memory in τ itself, as of anything
that relaxes, min(σ², σ′²)·exp(−|Δτ|/T), which grows by independent steps while it is younger than T; a constant
offset; a random walk; a lead of replicates that run ahead of their fellows, ∝ F′(log τ);
the noise of counts, where F is the share of many things that have changed by τ: min(F, F′) − F·F′ where it is
known from none to all, with min(F, F′) or min(1 − F, 1 − F′) beside it where it only comes down to none or up to all;
and, where the same replicate appears at several controls, the same kinds shared between controls, as a
function of τ (shared start) or of t (shared data). The memory terms are scaled by the local standard
deviation of the replicates, point noise by that of their local differences. The a_m maximise the Gaussian
likelihood of the replicates' deviations from their own mean, so a misfit of the curve does not enter; with a
single replicate the residuals of the fit must do (REML).

Weights that cannot be negative are too large on average, and a lead or an offset that is there by chance widens
an interval far more than it helps the likelihood. So what is not point noise or memory must show: the
likelihood carries the prior Π (s_m/(s_m + a_m))^κ, s_m the standard error of a_m where there is nothing but point
noise. It holds a weight of chance's size at 0 and moves one that stands out by less than its own error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jthermo.collapse import linalg

MEMORIES = (0.015, 0.05, 0.17, 0.6)  # ℓ as fractions of the curves' length in log t
AGES = (0.35, 0.5, 0.65)  # T of memory in τ itself, as places on the records' length in log τ
RARE = 0.05  # of the mean variance of counts that single points have: the tails are never exact
LEAST = 0.01  # of the mean variance: no point is believed to be more exact, a few equal values prove nothing
REACHES = (100.0, 0.3, 0.1, 0.04)  # smoothness of the noise's course, as fractions of the length; 100 is flat
OWN_REACH = 0.08
COMMON_DEGREES = 6.0  # replicates that the common course counts as
FLAT_DEGREES = 15.0  # that a variance without any course counts as, against the replicates of all conditions
DOUBT = 0.5  # κ of the prior: at 1 a mixture can no longer make up a noise that is none of the K_m
PLAIN = ("point", "memory")  # kinds of noise that are there before anything shows them
MAX_ROWS = 150  # points used to estimate the weights (not to weigh the fit)


@dataclass(frozen=True)
class Replicates:
    """Deviations of every replicate from its condition's mean, on the bins of the means.

    Attributes:
        deviations: (L, N), one row a label; 0 where the label has no run there.
        present: (L, N) whether it has.
        counts: replicates behind each mean, (N,).
        paired: whether labels join conditions.
    """

    deviations: np.ndarray
    present: np.ndarray
    counts: np.ndarray
    paired: bool

    @property
    def unbiased(self) -> np.ndarray:
        """Deviations times √(n/(n − 1)): on average they have the replicate's own covariance."""
        return self.deviations * np.sqrt(self.counts / np.maximum(self.counts - 1, 1))


@dataclass(frozen=True)
class Noise:
    """The estimated covariance of one replicate, with what is needed to say how well it is known."""

    names: tuple[str, ...]
    weights: np.ndarray  # a_m
    blocks: tuple[np.ndarray, ...]  # rows of each block of Ω
    components: tuple[np.ndarray, ...]  # per block (m, n, n)
    information: np.ndarray  # Fisher information of the weights
    floor: float  # least standard error of a mean
    common: float = 0.0  # standard deviation of what all replicates share, independent from record to record

    @property
    def of_means(self) -> float:
        """Variance that every mean has besides that of its replicates."""
        return self.floor**2 + self.common**2

    def covariances(self, share: list[np.ndarray]) -> list[np.ndarray]:
        """Blocks of the covariance of the means: Ω ∘ share, share_ij = n_ij/(n_i n_j)."""
        out = []
        for kernel, part in zip(self.components, share, strict=True):
            omega = np.tensordot(self.weights, kernel, axes=1) * part
            omega[np.diag_indices(len(omega))] += self.of_means
            out.append(omega)
        return out

    def active(self) -> np.ndarray:
        """Indices of the weights that count."""
        return np.flatnonzero(self.weights > 1e-6 * self.weights.sum())

    def uncertainty(self, active: np.ndarray) -> np.ndarray:
        """Covariance of the active weights."""
        return np.linalg.pinv(self.information[np.ix_(active, active)], hermitian=True)

    def degrees(self, directions: np.ndarray, share: list[np.ndarray]) -> np.ndarray:
        """Satterthwaite degrees of freedom of g'Ωg for rows g of `directions` (G, N): 2V²/var V."""
        per_weight = np.zeros((len(self.weights), len(directions)))
        for rows, kernel, part in zip(self.blocks, self.components, share, strict=True):
            piece = directions[:, rows]
            for m, single in enumerate(kernel):
                per_weight[m] += np.einsum("gi,gi->g", piece @ (single * part), piece)
        total = self.weights @ per_weight
        active = self.active()
        if not len(active):
            return np.full(len(directions), np.inf)
        variance = np.einsum("mg,mk,kg->g", per_weight[active], self.uncertainty(active), per_weight[active])
        return 2 * total**2 / np.maximum(variance, 1e-300)


def profiles(
    reps: Replicates, condition: np.ndarray, log_tau: np.ndarray, log_time: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation along each curve of a replicate, and of its point noise (from local differences),
    (N,) each.

    Both are smoothed along the curve and, as few replicates know little, drawn towards what all conditions
    together say about the noise as a function of τ, at the level of their own.
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
        point[rows] = _local_noise(part) if len(rows) > 4 else total[rows]
    out = []
    for variance in (total, point):
        smooth = _common_course(variance, count, condition, log_tau, log_time)
        out.append(np.sqrt(np.maximum(smooth, max(LEAST * smooth.mean(), floor))))
    return out[0], out[1]


def _common_course(
    variance: np.ndarray,
    count: np.ndarray,
    condition: np.ndarray,
    log_tau: np.ndarray,
    log_time: np.ndarray,
) -> np.ndarray:
    """The raw variances smoothed: each condition's own course drawn to the course common to all.

    A course learnt from few replicates is mostly chance, and a fit that trusts it leans on the points that
    happen to agree. So the common course, a function of τ or of t, is as smooth as predicts best the course of
    a condition that was left out; with replicates the own course counts more.
    """
    number = condition.max() + 1
    length = np.median([np.ptp(log_time[condition == k]) for k in range(number)]) or 1.0
    power = np.maximum(variance, 1e-12 * variance.mean() + 1e-300)
    trust = np.maximum(count - 1, 0.1)
    best, common = np.inf, power
    for clock in (log_tau, log_time):
        apart = (clock[:, None] - clock[None, :]) / length
        for reach in REACHES:
            near = np.exp(-0.5 * (apart / reach) ** 2) * trust
            others = near * (condition[:, None] != condition[None, :]) + 1e-9 * trust
            ahead = np.log(others @ power / others.sum(axis=1))
            level = power * np.exp(-ahead)
            score = sum(
                ahead[condition == k].mean() + np.log(level[condition == k].mean()) for k in range(number)
            )
            if score < best - 0.02 * number:
                best, common = score, near @ power / near.sum(axis=1)
    own_near = np.exp(-0.5 * ((log_time[:, None] - log_time[None, :]) / (length * OWN_REACH)) ** 2)
    own_near *= condition[:, None] == condition[None, :]
    own = own_near @ power / own_near.sum(axis=1)
    size = np.bincount(condition)
    level = np.bincount(condition, own / common) / size
    common = (
        common
        * (level ** ((trust - 0.1) / (trust + 3.0))[np.unique(condition, return_index=True)[1]])[condition]
    )
    pull = COMMON_DEGREES / (COMMON_DEGREES + trust)
    course = pull * np.log(common) + (1 - pull) * np.log(own)
    level = (np.bincount(condition, course) / size)[condition]
    degrees = float(np.sum(np.bincount(condition, trust) / size))
    return np.exp(level + (course - level) * degrees / (degrees + FLAT_DEGREES))


def _local_noise(rows: np.ndarray) -> np.ndarray:
    """Mean over replicates of (d_j − (d_{j−1} + d_{j+1})/2)²·⅔, ends repeated."""
    bend = rows[:, 1:-1] - 0.5 * (rows[:, :-2] + rows[:, 2:])
    inner = np.mean(bend**2, axis=0) * (2 / 3)
    return np.r_[inner[:1], inner, inner[-1:]]


def ages_of(log_tau: np.ndarray) -> np.ndarray:
    """The log T of memory in τ, for records at these log τ."""
    return log_tau.min() + np.ptp(log_tau) * np.array(AGES)


def kernels(
    x: np.ndarray,
    log_tau: np.ndarray,
    condition: np.ndarray,
    sd: np.ndarray,
    point_sd: np.ndarray,
    slope: np.ndarray,
    curve: np.ndarray,
    *,
    ages: np.ndarray,
    paired: bool,
    unit: tuple[float, float] | None = None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The K_m of one block, (m, n, n), on the scale of the data, or on that of the length and variance given; `ages`
    are the log T of memory in τ.
    """
    length = np.median([np.ptp(x[condition == k]) for k in np.unique(condition)]) or 1.0
    level = np.mean(sd**2)
    if unit is not None:
        length, level = unit
    same = condition[:, None] == condition[None, :]
    scale = np.outer(sd, sd)
    apart = np.abs(x[:, None] - x[None, :]) / length
    start = np.array([x[condition == k].min() for k in condition]) if len(x) else x
    walked = (x - start) / length
    out: dict[str, np.ndarray] = {"point": np.diag(point_sd**2), "point_scaled": np.diag(sd**2)}
    for memory in MEMORIES:
        out[f"memory_{memory}"] = scale * np.exp(-apart / memory) * same
    grown = np.minimum.outer(sd**2, sd**2) * same
    for place, age in zip(AGES, ages, strict=True):
        tau = np.exp(np.minimum(log_tau - age, 50.0))  # in units of T; beyond e⁵⁰ all is forgotten
        out[f"age_{place}"] = grown * np.exp(-np.abs(tau[:, None] - tau[None, :]))
    out["offset"] = level * same
    out["offset_scaled"] = scale * same
    out["walk"] = level * np.minimum(walked[:, None], walked[None, :]) * same
    out["lead"] = np.outer(slope, slope) * same
    fewer = np.minimum.outer(curve, curve)
    counts = {
        "": fewer - np.outer(curve, curve),
        "_low": fewer,
        "_high": np.minimum.outer(1 - curve, 1 - curve),
    }
    for end, kernel in counts.items():
        own = np.diag(kernel)
        out[f"counts{end}"] = kernel * same + np.diag(np.maximum(RARE * own.mean() - own, 0.0))
    if paired:
        apart_tau = np.abs(log_tau[:, None] - log_tau[None, :]) / length
        for memory in MEMORIES[1:]:
            out[f"shared_tau_{memory}"] = scale * np.exp(-apart_tau / memory)
        for memory in MEMORIES[::2]:
            out[f"shared_time_{memory}"] = scale * np.exp(-apart / memory)
        out["shared_lead"] = np.outer(slope, slope)
        out["shared_offset"] = np.full_like(scale, level)
        out["shared_offset_scaled"] = scale
    return tuple(out), np.array(list(out.values()))


def estimate_weights(
    components: list[np.ndarray],
    samples: list[np.ndarray],
    numbers: list[float],
    names: tuple[str, ...],
    start: np.ndarray | None = None,
    iterations: int = 40,
) -> tuple[np.ndarray, np.ndarray]:
    """Most likely a ≥ 0 given sample covariances E_b with ν_b degrees of freedom, and the information on them.

    The multiplicative step a ← a · Σν tr(Ω⁻¹KΩ⁻¹E) / (Σν tr(Ω⁻¹K) + 2κ/(s + a)), the last term for doubted
    weights only, keeps a ≥ 0 and is a fixed point at the maximum. Their information is at least (s + a)⁻²: what
    cannot be negative is not more uncertain than its own size and chance's.
    """
    number = len(components[0])
    mean_power = sum(nu * np.trace(e) for nu, e in zip(numbers, samples, strict=True))
    own_power = sum(nu * np.trace(k, axis1=1, axis2=2) for nu, k in zip(numbers, components, strict=True))
    weights = mean_power / np.maximum(own_power, 1e-300) / number
    if start is not None:
        weights = np.maximum(start, 1e-3 * weights)
    flat = [k.reshape(number, -1) for k in components]
    doubted = np.flatnonzero([not name.startswith(PLAIN) for name in names])
    chance = _chance_size(components, numbers, mean_power)[doubted]
    for _ in range(iterations):
        have = np.zeros(number)
        want = np.zeros(number)
        for kernel, rows, sample, nu in zip(components, flat, samples, numbers, strict=True):
            inverse = _inverse(np.tensordot(weights, kernel, axes=1))
            have += nu * (rows @ (inverse @ sample @ inverse).ravel())
            want += nu * (rows @ inverse.ravel())
        want[doubted] += 2 * DOUBT / (chance + weights[doubted])
        ratio = np.maximum(have, 0) / np.maximum(want, 1e-300)
        weights = weights * ratio
        weights[weights < 1e-9 * weights.sum()] = 0.0
        if np.abs(np.log(np.maximum(ratio[weights > 1e-3 * weights.sum()], 1e-9))).max(initial=0) < 0.02:
            break
    information = fisher_information(components, weights, numbers)
    information[doubted, doubted] += (chance + weights[doubted]) ** -2.0
    return weights, information


def _chance_size(components: list[np.ndarray], numbers: list[float], power: float) -> np.ndarray:
    """s_m: the standard error of each weight where all noise is that of points, of this total power."""
    diagonals = [np.einsum("mii->mi", kernel)[1] for kernel in components]
    unit = power / max(sum(nu * d.sum() for nu, d in zip(numbers, diagonals, strict=True)), 1e-300)
    information = 0.0
    for kernel, diagonal, nu in zip(components, diagonals, numbers, strict=True):
        root = 1 / np.sqrt(np.maximum(unit * diagonal, 1e-300))
        information = information + 0.5 * nu * np.sum((kernel * np.outer(root, root)) ** 2, axis=(1, 2))
    return 1 / np.sqrt(np.maximum(information, 1e-300))


def fisher_information(components: list[np.ndarray], weights: np.ndarray, numbers: list[float]) -> np.ndarray:
    """½ Σ ν tr(Ω⁻¹K_mΩ⁻¹K_n), only for the active weights; the others get 0."""
    active = np.flatnonzero(weights > 1e-6 * weights.sum())
    information = np.zeros((len(weights), len(weights)))
    if not len(active):
        return information
    for kernel, nu in zip(components, numbers, strict=True):
        inverse = _inverse(np.tensordot(weights, kernel, axes=1))
        turned = np.array([inverse @ kernel[m] for m in active])
        flat = turned.reshape(len(active), -1)
        swapped = turned.transpose(0, 2, 1).reshape(len(active), -1)
        information[np.ix_(active, active)] += 0.5 * nu * flat @ swapped.T
    return information


def _inverse(matrix: np.ndarray) -> np.ndarray:
    jitter = 1e-10 * np.trace(matrix) / len(matrix) + 1e-300
    return linalg.inverse(matrix + jitter * np.eye(len(matrix)))
