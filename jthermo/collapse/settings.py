"""Every number that tunes the fit: one frozen `Settings`, grouped by the stage that reads it.

The calibration in docs/collapse.md was measured with the defaults, and

    python scripts/collapse_study --perturb --draws 4 --salt 201

halves and doubles each of them and reports what changes on the same data. The comments name the
source of each number:

* study: it was set while looking at the families of `scripts/collapse_study`, at those named;
* derivation: it follows from the argument that the comment gives;
* literature: it is taken from the named work;
* chosen: a round value of the right size, not tuned.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The constants of a fit. `replace(DEFAULT, name=value)` gives another set."""

    # ---- read.py: from a table to curves -------------------------------------------------------

    # Largest number of records per curve. Denser records are averaged in equal steps of log t.
    # Chosen: it bounds the memory of a fit; the bins below are coarser anyway.
    max_records: int = 400
    # Below this share of filled (replicate, time) cells, replicates have clocks of their own and
    # are interpolated to a common one. Chosen.
    own_clock_share: float = 0.6
    # A replicate with more than this share of non-finite records counts as diverged. Chosen.
    max_gap_share: float = 0.3
    # So does one that ends in a non-finite record and has more than this share of them. Chosen.
    max_gap_share_at_end: float = 0.02
    # Times recorded by less than this share of the replicates are dropped. Chosen.
    min_tail_share: float = 0.5

    # ---- outliers.py: replicates that are left out ---------------------------------------------

    # Fewest replicates whose median absolute deviation is used. Derivation: two always agree.
    outlier_min_spread_replicates: int = 3
    # Fewest replicates from which any may be left out. Chosen.
    outlier_min_replicates: int = 4
    # Replicates that the pooled spread of all conditions counts as, against a condition's own.
    # Chosen.
    outlier_pooled_replicates: float = 8
    # Root mean square distance from the median curve, in robust standard deviations, beyond which
    # a replicate is an outlier. Derivation: an offset makes the distance a |N(0, 1)|, and 5 has
    # probability 6e-7.
    outlier_distance: float = 5.0
    # It must also be this many times the median distance of its condition. Chosen.
    outlier_ratio: float = 3.0
    # If a larger share than this would be left out, none is: the noise has heavy tails. Chosen.
    outlier_max_share: float = 0.4

    # ---- averages.py: bins ---------------------------------------------------------------------

    # Bins of all conditions together. Chosen: the time of a fit grows with its cube.
    total_bins: int = 330
    # Fewest bins per condition. Chosen.
    min_bins: int = 20

    # ---- search.py, likelihood.py: the curve and its minimum -----------------------------------

    # Most knots of the curve per length of one record. Chosen: the time of a fit grows with its
    # square.
    knots_per_curve: int = 60
    # Fewest records per curve that are assumed when the knots are placed. Chosen.
    min_knots: int = 4
    # Start, end and step of the scan over the log stiffness of the curve, relative to the data's
    # information per spline. Chosen: from interpolation to a straight line.
    stiffness_scan: tuple[float, float, float] = (-25.0, 12.1, 2.5)
    # Steps of log stiffness by which the best one is refined. Chosen.
    stiffness_steps: tuple[float, ...] = (1.25, 0.6, 0.3)
    # Most Gauss–Newton steps. Chosen: a fit takes 3 to 8.
    max_newton_steps: int = 25
    # Largest shift of a curve in one step, in knots. Chosen: the linearisation holds within a knot.
    max_shift_step: float = 2.0
    # Largest change of the log scale of a value in one step. Chosen.
    max_height_step: float = 0.3
    # Shortest fraction of a step that is tried before the search stops. Chosen.
    min_step_fraction: float = 1e-3
    # The same for the last step, which promises less than the tolerance. Chosen.
    min_last_step_fraction: float = 0.5
    # Gain in log likelihood at which the final search stops. Chosen.
    tolerance: float = 1e-6
    # The same for minima that are only compared. Chosen.
    coarse_tolerance: float = 0.1
    # Largest exponent of a control that is searched. Chosen.
    max_exponent: float = 12.0
    # The range that is searched is at least ± this, however short the records, and exactly this for
    # an exponent of the value's scale. Chosen.
    least_range: float = 4.0
    # Minima that are followed to their bottom. Chosen.
    num_basins: int = 5
    # Minima worse than the best by this log likelihood are dropped before the final noise is known.
    # Study: re-estimating the noise never promoted one.
    hopeless_loss: float = 150.0
    # Times the noise is estimated again at the best exponents. Chosen: the second changes digits.
    noise_rounds: int = 2

    # ---- starts.py: where the search begins ----------------------------------------------------

    # Cells of the common grid of log t per length of a curve. Chosen.
    start_cells: int = 160
    # Cells of that grid in all, in units of `start_cells`. Chosen: it bounds the memory.
    start_max_lengths: int = 4
    # Standard deviation, in units of the values' range, below which a mismatch does not yet
    # distinguish candidates. Chosen.
    start_noise: float = 0.02
    # Pairs of conditions that are compared. Chosen.
    start_max_pairs: int = 120
    # Cost of a cell without overlap in the second scan, in units of that of the first. Study: noise
    # with memory otherwise leaves only starts at which curves hardly overlap.
    start_overlap_cost: float = 10.0
    # Shift by which some pair must differ between two starts, in lengths of a curve. Chosen.
    start_separation: float = 0.0625
    # Candidates per exponent of the value's scale. Chosen.
    start_heights: int = 33
    # Candidates per exponent of a control, with one, two and three controls. Chosen.
    start_grid: tuple[int, int, int] = (601, 121, 41)
    # Candidates in all with more controls. Chosen.
    start_grid_total: int = 60_000
    # Starts that the first scan gives. Chosen.
    num_starts: int = 4

    # ---- noise_covariance.py: the course of the noise along a curve ----------------------------

    # Fewest standard deviations of point noise come from local differences if a condition has more
    # than this many bins. Chosen.
    local_noise_bins: int = 4
    # No variance along a curve is below this share of its mean. Derivation: equal values of a few
    # replicates prove nothing.
    min_variance_share: float = 0.01
    # Widths of the smoothing of the course that all conditions share, in lengths of a curve; the
    # first is flat. The data choose one. Chosen.
    course_widths: tuple[float, ...] = (100.0, 0.3, 0.1, 0.04)
    # Width of the smoothing of a condition's own course, in lengths of a curve. Study.
    own_course_width: float = 0.08
    # A narrower course must predict conditions left out better by this much per condition (log
    # likelihood per degree of freedom). Chosen.
    course_gain: float = 0.02
    # Degrees of freedom that a condition of one replicate counts as. Chosen.
    single_trust: float = 0.1
    # Degrees of freedom at which a condition's own level of noise counts half. Study.
    level_degrees: float = 3.0
    # Degrees of freedom that the common course counts as, against a condition's own. Study.
    common_degrees: float = 6.0
    # Degrees of freedom that a flat course counts as, against those of all conditions. Study.
    flat_degrees: float = 15.0

    # ---- noise_covariance.py: the components of the covariance ----------------------------------

    # Correlation lengths of memory in log t, in lengths of a curve. Chosen: a factor 3.4 apart.
    memory_lengths: tuple[float, ...] = (0.015, 0.05, 0.17, 0.6)
    # Relaxation times of memory in τ, as places on the range of log τ. Study: physics_relaxation.
    memory_ages: tuple[float, ...] = (0.35, 0.5, 0.65)
    # Least variance of counts, in units of its mean along the curve. Study: the tails of
    # physics_decay are not exact.
    min_count_variance: float = 0.05
    # Strength κ of the prior against every component except point noise and memory. Study: at 1 a
    # mixture can no longer approximate a noise that is none of the components.
    prior_strength: float = 0.5
    # Most bins of a block from which the weights are estimated. Chosen: it bounds the time.
    max_weight_bins: int = 150
    # Most steps of the estimation of the weights. Chosen.
    max_weight_steps: int = 40
    # It stops when no weight that matters changes by more than this (relative). Chosen.
    weight_tolerance: float = 0.02
    # Weights below this share of their sum do not delay the stop. A start from an earlier estimate
    # gives each weight at least this share of its ordinary start. Chosen.
    small_weight: float = 1e-3
    # Weights below this share of their sum have no uncertainty of their own. Chosen.
    active_weight: float = 1e-6
    # Weights below this share of their sum are set to zero. Chosen.
    min_weight: float = 1e-9

    # ---- noise_fit.py, scatter.py: the noise of one data set ------------------------------------

    # Least standard error of a mean, in units of the values' range. Chosen: far below any noise.
    min_error: float = 1e-5
    # Variance of a single replicate's mean over that of its local differences, for a first guess.
    # Chosen.
    single_noise_factor: float = 2.0
    # If at least this many bins scatter between replicates, the weights are estimated from those
    # only. Study: physics_percolation, where no lattice spans far from the threshold.
    min_scattered_bins: int = 4
    # Knot distance of the curve from whose residuals the noise of single replicates is estimated,
    # in units of the fit's. Study.
    residual_coarseness: float = 2.5
    # Noise common to all replicates that is tried, as shares of the mean variance of the means.
    # Study: physics_first_passage.
    common_noise_shares: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    # Gain in log likelihood that common noise must bring. Study: true models without any gain as
    # much once in a hundred fits.
    common_noise_gain: float = 3.0
    # Most degrees of freedom that the covariance model counts as. Study: it is only a model.
    model_degrees: float = 20.0
    # Least and most degrees of freedom of noise estimated from residuals. Study.
    single_degrees: tuple[float, float] = (4.0, 60.0)

    # ---- intervals.py ----------------------------------------------------------------------------

    # Cap on the share of the information attributed to noise in the fitted slope. Chosen.
    max_slope_noise: float = 0.5

    # ---- identifiability.py ----------------------------------------------------------------------

    # Points on each line through the best exponents. Chosen.
    scan_points: int = 16
    # Loss of log likelihood that other exponents must reach. Derivation: a parabola has lost 8 at
    # twice the distance of a 95 % limit.
    min_loss: float = 5.0
    # Loss of log likelihood at a 95 % limit. Derivation: 1.96²/2.
    limit_loss: float = 1.92
    # If the loss is not reached within this share of the range on either side, nothing is known.
    # Chosen.
    max_reach_share: float = 0.25
    # An interval wider than this share of the range on one side says nothing. Chosen.
    max_interval_share: float = 0.8
    # χ² per number of the curve by which it must fit better than a constant. Study: hidden_flat.
    min_feature_gain: float = 6.0
    # Largest ratio of the standard errors without and with the roughness penalty. Study:
    # hidden_disjoint.
    max_extrapolation: float = 4.0
    # Cells per length of a curve in which the curve without penalty is free. Chosen.
    free_cells: int = 24
    # Smallest share of a curve that must overlap with others. Study: hidden_disjoint.
    min_overlap: float = 0.25
    # If it is less and all curves together overlap over less than this share, nothing is known.
    # Study: correction_value.
    min_mean_overlap: float = 0.1
    # An exponent closer than this to the end of its range, in units of the range, ran into it.
    # Chosen.
    bound_margin: float = 1e-3
    # A direction is not known if an exponent that ran into a bound makes up more than this share of
    # it, or if a second minimum lies along it by more than this share of its distance. Chosen.
    max_foreign_share: float = 0.1
    # A minimum worse by this log likelihood is no rival. Study: less overlap costs some.
    max_rival_loss: float = 30.0
    # Fewest degrees of freedom of the residuals at which rivals are compared. Chosen.
    min_rival_freedom: float = 5.0
    # A rival's residual variance may be larger by this many standard errors. Derivation: three.
    max_rival_errors: float = 3.0
    # Where its curves overlap, a rival must show this share of the curve's range. Chosen.
    min_rival_features: float = 0.5
    # Share of an exponent's direction that must be known for the exponent to be. Chosen.
    determined_share: float = 0.99

    # ---- lack_of_fit.py --------------------------------------------------------------------------

    # p-value below which a collapse is refused. Study: its p-values are conservative.
    verdict_p_value: float = 0.01
    # Windows that a curve is cut into, at each level. Chosen: dyadic.
    window_counts: tuple[int, ...] = (1, 2, 4, 8)
    # Levels whose windows are followed along the controls. Chosen.
    trend_levels: int = 3
    # The level of the curve at an end is its mean over one record in this many. Study:
    # false_plateau.
    end_parts: int = 20
    # Draws of the contrasts under a true collapse. Derivation: a p-value of 0.01 has a relative
    # error of 11 %.
    null_draws: int = 8000
    # Prior weight of distortions, in units of that of trends and of windows. Study: false_plateau.
    distortion_weight: float = 3.0
    # κ = τ²/(1 + τ²) of failures that move a contrast by τ = 1.5 standard deviations. Andrews and
    # Ploberger (1994) leave it open; chosen.
    failure_shrinkage: float = 0.7
    # If the fit leaves less than this share of a contrast's variance, nothing is left to test.
    # Chosen: above rounding.
    min_contrast_share: float = 1e-5
    # Share of a contrast of plain residuals that the fit should remove and does not, since it does
    # so to first order only (standard deviation). Study.
    window_residue: float = 0.1

    # ---- exponent_drift.py -----------------------------------------------------------------------

    # Most intervals of a control with an exponent of their own. Chosen.
    max_drift_pieces: int = 4
    # Windows of log τ with an exponent of their own. Chosen.
    drift_windows: int = 3
    # p-value of the drift below which it is noted. Study: at 0.03 about 2 % of real corrections
    # are missed, at 0.05 about 4 % of true power laws are noted.
    drift_p_value: float = 0.05
    # p-values at which the interval takes in the whole drift, and nothing of it. Study.
    drift_interval_p_values: tuple[float, float] = (0.01, 0.03)
    # Prior weight of drift along a control, in units of that along τ. Derivation: corrections to
    # scaling depend on a control.
    control_drift_weight: float = 3.0
    # Factor on the p-value for the better of two tests. Derivation: 2 for independent tests, less
    # for these.
    drift_tests: float = 1.5
    # Factor by which drift is likelier where the collapse is refused. Study: correction_value.
    drift_odds_if_refused: float = 10.0

    # ---- correction_power.py ---------------------------------------------------------------------

    # Powers that are tried first, equally spaced in log |w|. Chosen.
    power_candidates: int = 9
    # Times the noise is estimated again at the best power. Chosen.
    power_rounds: int = 2
    # Accuracy of the best power, relative. Chosen.
    power_tolerance: float = 0.001
    # Accuracy of its interval, relative. Chosen.
    power_limit_tolerance: float = 0.01
    # A test looks for w between the best one over this and the best one times this. Chosen.
    power_test_range: float = 5.0
    # Fewest values of the control. Derivation: p, a, w and the curve's origin.
    power_min_values: int = 4
    # Range of the exponents around the best in which they are fitted again when another is held.
    # Chosen.
    refit_range: float = 10.0

    # ---- advice.py -------------------------------------------------------------------------------

    # Factor on the replicates. Derivation: four times as many halve any interval.
    advice_replicates: float = 4.0
    # Gaps of log c by which a control is extended. Chosen.
    advice_gaps: tuple[float, ...] = (1.0, 2.0)
    # Later ends that are tried, in units of the last time. Chosen.
    advice_ends: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
    # Ratio of the intervals that is enough: no later end is tried. Chosen.
    advice_ratio: float = 0.5
    # Gain in that ratio for which a later end is not worth it. Chosen.
    advice_min_gain: float = 0.02
    # Interval, in units of the present one, that the informative window alone must give. Chosen.
    advice_window_ratio: float = 1.1
    # Places at which this window may begin and end. Chosen.
    advice_window_edges: int = 24

    # ---- fit.py ----------------------------------------------------------------------------------

    # Fewer replicates than this at some condition are noted. Chosen.
    few_replicates: int = 4


DEFAULT = Settings()
