"""Every number that tunes the fit: one frozen `Settings`, grouped by the stage that reads it.

The calibration in docs/collapse.md was measured with the defaults, and

    python scripts/collapse_study --perturb --draws 4 --salt 201

halves and doubles each of them and reports what changes on the same data. The comments name the
source of each number:

* study: it was set while looking at the families of `scripts/collapse_study`, at those named;
* derivation: it follows from the argument that the comment gives;
* safe bound: it only has to be large or small enough; halving or doubling it changed nothing, or
  last digits only;
* chosen: a round value of the right size, not tuned.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The constants of a fit. `replace(DEFAULT, name=value)` gives another set."""

    # ---- read.py: from a table to curves -------------------------------------------------------

    # Largest number of records per curve. Denser records are averaged in equal steps of log t. Safe
    # bound on memory: the bins below are coarser.
    max_records: int = 400
    # Below this share of filled (replicate, time) cells, the replicates have clocks of their own
    # and are interpolated to a common one. Safe bound: a shared clock fills nearly all cells.
    own_clock_share: float = 0.6
    # A replicate with more than this share of non-finite records counts as diverged. Chosen.
    max_gap_share: float = 0.3
    # So does one that ends in a non-finite record and has more than this share of them. Chosen.
    max_gap_share_at_end: float = 0.02
    # Times recorded by less than this share of the replicates are dropped. Chosen.
    min_tail_share: float = 0.5
    # Fewest records of a curve, as a median over all replicates. Derivation: a curve has a level, a
    # slope and a bend, and a fourth record is the first to test them.
    min_records: int = 4
    # Most settings of the controls. Safe bound on memory and time.
    max_conditions: int = 200
    # Most cells of the (replicate, time) matrix of one condition. Safe bound on memory: 0.5 GB.
    max_cells: int = 50_000_000
    # Values at least this large count as diverged. Safe bound: larger squares overflow.
    max_value: float = 1e150
    # Values whose range is below this many roundings of the largest one are flat. Chosen.
    flat_roundings: float = 64.0
    # Replicates that differ nowhere by more than this share of the range are copies. Safe bound:
    # far below `min_error`.
    min_scatter: float = 1e-9

    # Share of the records that lie so near to a critical point that a signed clock is linear there.
    # Chosen.
    clock_inner_share: float = 0.25
    # The same if all lie on one side, or if the curve has two branches. Chosen.
    clock_core_share: float = 0.02
    # Time below which such a clock is linear if all lie on one side, in units of that of the
    # nearest records. Study: above_fitted_log. From 0.3 to 0.01 no verdict of 20 changes.
    clock_slow_share: float = 0.1

    # ---- outliers.py: replicates that are left out ---------------------------------------------

    # Fewest replicates whose median absolute deviation is used. Derivation: two are equally far
    # from their median, whatever the noise.
    outlier_min_spread_replicates: int = 3
    # Fewest replicates of a condition from which any may be left out. Chosen.
    outlier_min_replicates: int = 4
    # Number of replicates that the pooled spread of all conditions counts as, against the spread of
    # one condition. Chosen.
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

    # Bins of all conditions together. Chosen: twice as many take a third more time, and half as
    # many shift exponents by a tenth of their half widths.
    total_bins: int = 330
    # Fewest bins per condition. Safe bound: it matters with more than 16 conditions only.
    min_bins: int = 20
    # Most bins of all conditions together. Safe bound on memory: the covariance components of 1600
    # bins take 1 GB. It matters with more than 80 conditions only.
    max_bins: int = 1600

    # Distance from a fitted offset below which logs become linear, in units of the least value.
    # Chosen: noise of a few per cent, which takes values below their offset, is far smaller.
    log_bend: float = 0.1

    # ---- search.py, likelihood.py: the curve and its minimum -----------------------------------

    # Most knots of the curve per length of one record. Chosen: half as many save a fifth of the
    # time and widen intervals by some per cent.
    knots_per_curve: int = 60
    # Fewest records per curve that are assumed when the knots are placed. Safe bound for curves of
    # a few records.
    min_knots: int = 4
    # Most knots of the range that is searched. Safe bound on memory: 16 lengths of a curve or more.
    max_knots: int = 1000
    # Start, end and step of the scan over the log stiffness of the curve, relative to the
    # information per spline. Chosen: it reaches from interpolation to a straight line.
    stiffness_scan: tuple[float, float, float] = (-25.0, 12.1, 2.5)
    # Steps of log stiffness by which the best one is refined. Chosen.
    stiffness_steps: tuple[float, ...] = (1.25, 0.6, 0.3)
    # Most Gauss–Newton steps. Safe bound.
    max_newton_steps: int = 25
    # Largest shift of a curve in one step, in knots. Safe bound: the linearisation holds over a
    # knot or two.
    max_shift_step: float = 2.0
    # Largest change of the log scale of a value in one step. Safe bound.
    max_height_step: float = 0.3
    # Shortest fraction of a step that is tried before the search stops. Safe bound.
    min_step_fraction: float = 1e-3
    # The same for the last step, which promises less than the tolerance. Safe bound.
    min_last_step_fraction: float = 0.5
    # Gain in log likelihood at which the final search stops. Safe bound: it affects last digits
    # only.
    tolerance: float = 1e-6
    # The same for minima that are only compared. Chosen.
    coarse_tolerance: float = 0.1
    # Largest exponent of a control that is searched. Safe bound.
    max_exponent: float = 12.0
    # The range that is searched is at least ± this, however short the records, and exactly this for
    # an exponent of the value's scale. Safe bound.
    least_range: float = 4.0
    # Minima that are followed to their bottom. Safe bound: a fit has one or two that matter.
    num_basins: int = 5
    # Minima worse than the best by this log likelihood are dropped before the final noise is known.
    # Safe bound: re-estimating the noise never promoted one in the study.
    hopeless_loss: float = 150.0
    # Root mean square distance of overlapping curves from the common one, in units of its range, at
    # which they are preferred to curves that fit because they are shifted apart. Chosen.
    near_misfit: float = 0.05
    # Times the noise is estimated again at the best exponents. Study: with one round intervals are
    # some per cent wider, a fourth changes little.
    noise_rounds: int = 2

    # ---- starts.py: where the search begins ----------------------------------------------------

    # Cells of the common grid of log t per length of a curve. Safe bound: the minimiser refines the
    # starts.
    start_cells: int = 160
    # Cells of that grid in all, in units of `start_cells`. Safe bound on memory.
    start_max_lengths: int = 4
    # Standard deviation, in units of the range of the values, below which a mismatch does not yet
    # distinguish candidates. Safe bound.
    start_noise: float = 0.02
    # The same in the third scan of forms with more unknowns. Study: scaling forms.
    start_rough_noise: float = 0.1
    # Most pairs of conditions that are compared. Safe bound on time: it matters with more than 16
    # conditions only.
    start_max_pairs: int = 120
    # Cost of a cell without overlap in the second scan, in units of that of the first. Study: noise
    # with memory otherwise leaves only starts at which curves hardly overlap.
    start_overlap_cost: float = 10.0
    # Shift by which some pair must differ between two starts, in lengths of a curve. Safe bound.
    start_separation: float = 0.0625
    # Candidates per exponent of the value's scale, with one, two and three of them. Safe bound: the
    # minimiser refines the starts.
    start_heights: tuple[int, int, int] = (161, 33, 13)
    # Candidates for an offset of logs. Chosen.
    start_offsets: int = 12
    # Places in the range of a critical point and of an offset from which the search begins again.
    # Study: scaling forms.
    start_places: int = 5
    # Candidates per unknown of a signed clock, with one, two and three of them. Chosen: it bounds
    # the time.
    start_signed_grid: tuple[int, int, int] = (241, 61, 17)
    # Most pairs of conditions that are compared on a signed clock. Safe bound on time.
    start_signed_pairs: int = 10
    # Most records per curve that are compared on a signed clock. Safe bound on time.
    start_records: int = 24
    # Candidates per exponent of a control, with one, two and three controls. Safe bound: the
    # minimiser refines the starts.
    start_grid: tuple[int, int, int] = (601, 121, 41)
    # Candidates in all with more controls. Chosen: it bounds the time.
    start_grid_total: int = 60_000
    # Starts that the first scan gives. Safe bound: more than a fit needs.
    num_starts: int = 4

    # ---- noise_covariance.py: the course of the noise along a curve ----------------------------

    # Conditions with at most this many bins have too few local differences to estimate point noise
    # from; their total noise is used. Safe bound.
    local_noise_bins: int = 4
    # No variance along a curve is below this share of its mean. Derivation: equal values of a few
    # replicates prove nothing.
    min_variance_share: float = 0.01
    # Widths of the smoothing of the course that all conditions share, in lengths of a curve; the
    # first is flat. The data choose one. Chosen.
    course_widths: tuple[float, ...] = (100.0, 0.3, 0.1, 0.04)
    # Width of the smoothing of a condition's own course, in lengths of a curve. Study.
    own_course_width: float = 0.08
    # A narrower course must predict the conditions that were left out better by this much per
    # condition, in log likelihood per degree of freedom. Chosen.
    course_gain: float = 0.02
    # Degrees of freedom that a condition of one replicate counts as. Safe bound: it keeps weights
    # positive.
    single_trust: float = 0.1
    # Degrees of freedom at which a condition's own level of noise counts half. Study: factors of
    # two change little.
    level_degrees: float = 3.0
    # Degrees of freedom that the common course counts as, against a condition's own. Study: factors
    # of two change little.
    common_degrees: float = 6.0
    # Degrees of freedom that a flat course counts as, against those of all conditions. Study:
    # factors of two change little.
    flat_degrees: float = 15.0

    # ---- noise_covariance.py: the components of the covariance ----------------------------------

    # Correlation lengths of memory in log t, in lengths of a curve. Chosen: each is about 3.4 times
    # the one before, so that mixtures approximate those between. Half of them miss long memory.
    memory_lengths: tuple[float, ...] = (0.015, 0.05, 0.17, 0.6)
    # Relaxation times of memory in τ, as places on the range of log τ. Study:
    # physics_first_passage. Factors of two change little.
    memory_ages: tuple[float, ...] = (0.35, 0.5, 0.65)
    # Least variance of counts, in units of its mean along the curve. Study: physics families, since
    # the tails of a fitted curve are never exact.
    min_count_variance: float = 0.05
    # Strength κ of the prior against every component except point noise and memory. Study: leads,
    # walks. At 1 a mixture can no longer approximate a noise that is none of the components.
    prior_strength: float = 0.5
    # Most bins of a block from which the weights are estimated. Chosen: twice as many take a fifth
    # more time and change intervals by some per cent.
    max_weight_bins: int = 150
    # Most steps of the estimation of the weights. Chosen: factors of two change little.
    max_weight_steps: int = 40
    # It stops when no weight that matters changes by more than this (relative). Chosen.
    weight_tolerance: float = 0.02
    # Weights below this share of their sum do not delay the stop. A start from an earlier estimate
    # gives each weight at least this share of its ordinary start. Chosen.
    small_weight: float = 1e-3
    # Weights below this share of their sum have no uncertainty of their own. Chosen: above
    # rounding.
    active_weight: float = 1e-6
    # Weights below this share of their sum are set to zero. Safe bound.
    min_weight: float = 1e-9

    # ---- noise_fit.py, scatter.py: the noise of one data set ------------------------------------

    # Least standard error of a mean, in units of the range of the values. Safe bound: far below any
    # noise.
    min_error: float = 1e-5
    # Variance of a single replicate over that of its local differences, for a first guess. Safe
    # bound: the noise is estimated afterwards.
    single_noise_factor: float = 2.0
    # If at least this many bins scatter between replicates, the weights are estimated from those
    # only. Study: physics_percolation, where no lattice spans far from the threshold.
    min_scattered_bins: int = 4
    # Distance of the knots of the curve from whose residuals the noise of single replicates is
    # estimated, in units of the fit's. Study: white_1, memory_1.
    residual_coarseness: float = 2.5
    # Share of the variance of a component that the residuals must keep to tell of it. Safe bound:
    # above rounding.
    min_residual_share: float = 1e-10
    # Noise common to all replicates that is tried, as shares of the mean variance of the means.
    # Study: physics_first_passage.
    common_noise_shares: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    # Beyond the last of them the share grows by this factor while the evidence does. Chosen.
    common_noise_growth: float = 3.0
    # Most variance of common noise, in units of that of the local differences of the means. Chosen:
    # above the scatter of this estimate.
    common_noise_local: float = 2.0
    # Accuracy of the log variance of common noise. Chosen: below its standard error.
    common_noise_tolerance: float = 0.03
    # Gain in log likelihood that common noise must bring. Study: physics_first_passage; fits
    # without common noise gain as much once in a hundred.
    common_noise_gain: float = 3.0
    # Most degrees of freedom that the covariance model counts as. Study: it is only a model, so it
    # must not outvote many replicates.
    model_degrees: float = 20.0
    # Degrees of freedom of published standard errors. Chosen: they count as known.
    published_degrees: float = 1e6
    # Least and most degrees of freedom of noise estimated from residuals. Study: white_1, memory_1.
    # Half of these widen the intervals by some 60 %, twice of these narrow them by 20 %.
    single_degrees: tuple[float, float] = (4.0, 60.0)

    # ---- intervals.py ----------------------------------------------------------------------------

    # Cap on the share of the information attributed to noise in the fitted slope. Chosen: few fits
    # reach it.
    max_slope_noise: float = 0.5

    # ---- identifiability.py ----------------------------------------------------------------------

    # Points on each line through the best exponents. Safe bound.
    scan_points: int = 16
    # Loss of log likelihood that other exponents must reach. Derivation: a parabola has lost 8 at
    # twice the distance of a 95 % limit.
    min_loss: float = 5.0
    # Loss of log likelihood at a 95 % limit. Derivation: 1.96²/2.
    limit_loss: float = 1.92
    # If the loss is not reached within this share of the range on either side, nothing is known.
    # Safe bound.
    max_reach_share: float = 0.25
    # If an interval is wider than this share of the range on one side, nothing is known. Safe
    # bound.
    max_interval_share: float = 0.8
    # χ² per number of the curve by which it must fit better than a constant. Study: hidden_flat.
    min_feature_gain: float = 6.0
    # Largest power of a curve that is compared with a power law. Safe bound.
    max_power: float = 8.0
    # Largest ratio of the standard errors without and with the roughness penalty. Study:
    # hidden_disjoint.
    max_extrapolation: float = 4.0
    # Cells per length of a curve in which the curve without penalty is free. Safe bound.
    free_cells: int = 24
    # Smallest share of a curve that must overlap with others. Study: hidden_disjoint.
    min_overlap: float = 0.25
    # If some curve overlaps less than that and all together overlap over less than this share,
    # nothing is known. Study: correction_value.
    min_mean_overlap: float = 0.1
    # An exponent closer than this to the end of its range, in units of the range, ran into it. Safe
    # bound.
    bound_margin: float = 1e-3
    # A direction is not known if an exponent that ran into a bound makes up more than this share of
    # it, or if a second minimum lies along it by more than this share of its distance. Chosen.
    max_foreign_share: float = 0.1
    # A minimum worse by this log likelihood is no rival. Study: less overlap costs some, a misfit
    # costs more.
    max_rival_loss: float = 30.0
    # Fewest degrees of freedom of the residuals at which rivals are compared. Chosen.
    min_rival_freedom: float = 5.0
    # A rival's residual variance may be larger by this many of its standard errors. Chosen.
    max_rival_errors: float = 3.0
    # Where its curves overlap, a rival must show this share of the curve's range. Chosen.
    min_rival_features: float = 0.5
    # Share of an exponent's direction that must be known for the exponent to be known. Safe bound:
    # it is nearly always 0 or 1.
    determined_share: float = 0.99

    # ---- lack_of_fit.py --------------------------------------------------------------------------

    # p-value below which a collapse is refused. Study: the p-values are conservative, so fewer than
    # 1 % of true collapses are refused.
    verdict_p_value: float = 0.01
    # Misfit, in units of the range, below which a refused collapse still serves most purposes, as
    # the summary says. Chosen.
    small_misfit: float = 0.02
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
    # κ = τ²/(1 + τ²) of failures that move a contrast by τ = 1.5 standard deviations. Chosen:
    # Andrews and Ploberger (1994) leave it open.
    failure_shrinkage: float = 0.7
    # If the fit leaves less than this share of a contrast's variance, nothing is left to test.
    # Chosen: above rounding.
    min_contrast_share: float = 1e-5
    # Part of a contrast of plain residuals that the fit should remove and does not, as a share of
    # its standard deviation: the fit is linear to first order only. Study.
    window_residue: float = 0.1

    # ---- exponent_drift.py -----------------------------------------------------------------------

    # Most intervals of a control with an exponent of their own. Chosen.
    max_drift_pieces: int = 4
    # Windows of log τ with an exponent of their own. Chosen.
    drift_windows: int = 3
    # p-value of the drift below which it is noted. Study: at 0.03 about 2 % of real corrections
    # are missed, at 0.05 about 4 % of true power laws are noted.
    drift_p_value: float = 0.05
    # p-values of the drift at which the interval takes in all of it, and none of it. Study:
    # correction families.
    drift_interval_p_values: tuple[float, float] = (0.01, 0.03)
    # Prior weight of drift along a control, in units of that along τ. Derivation: corrections to
    # scaling depend on a control.
    control_drift_weight: float = 3.0
    # Factor on the smaller of two p-values. Derivation: 2 if the tests exclude each other, 1 if
    # they agree; these agree in part.
    drift_tests: float = 1.5
    # Factor by which drift is likelier where the collapse is refused. Study: correction_value.
    drift_odds_if_refused: float = 10.0

    # ---- correction_power.py ---------------------------------------------------------------------

    # Powers that are tried first, equally spaced in log |w|. Chosen.
    power_candidates: int = 9
    # Times the noise is estimated again at the best power. Chosen.
    power_rounds: int = 2
    # Accuracy of the best power, relative. Safe bound.
    power_tolerance: float = 0.001
    # Accuracy of the limits of its interval, relative. Safe bound.
    power_limit_tolerance: float = 0.01
    # A test looks for w between the best one over this and the best one times this. Chosen.
    power_test_range: float = 5.0
    # Fewest values of the control. Derivation: one each for the curve, p, a and w.
    power_min_values: int = 4
    # When an exponent is held, the others are fitted again within ± this of the best. Safe bound.
    refit_range: float = 10.0

    # ---- comparison.py ---------------------------------------------------------------------------

    # Places on log τ, as shares of the records, where a crossover may begin or end. Chosen.
    crossover_places: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)

    # ---- other_form.py ---------------------------------------------------------------------------

    # Gain in log likelihood that a form worth trying must bring. Chosen: well above chance.
    other_form_gain: float = 6.0
    # Most χ² beyond chance that it may leave, as a share of what there was. Chosen.
    other_form_misfit: float = 0.5
    # Or what chance leaves, in standard errors of χ². Chosen.
    other_form_errors: float = 2.0

    # ---- advice.py -------------------------------------------------------------------------------

    # Factor on the replicates. Derivation: four times as many halve the interval, unless noise is
    # common to all of them or the exponent drifts.
    advice_replicates: float = 4.0
    # Factor on the replicates beyond which their number is not searched. Chosen.
    advice_limit: float = 1000.0
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
    # Fewer records per curve than this are noted. Study: of 80 fits of a decay over 8 e-folds with
    # 4 or 5 records and several replicates, 95 % intervals missed 12; of 40 with 6 records, none.
    few_records: int = 6
    # Shift of an exponent by half a step of a clock of whole numbers, in its standard errors, that
    # is noted. Chosen.
    coarse_clock_errors: float = 0.5


DEFAULT = Settings()
