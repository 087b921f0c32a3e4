"""The forecast counts what will be run, and its memory and time grow as they must."""

import numpy as np

import jthermo as jt
from jthermo import planning


def sweep_of(**changes):
    fields = {
        "model": jt.models.TwoLayer(inputs=10, hidden=10),
        "data": jt.data.Gaussian(dim=10),
        "learning_rate": (0.05, 0.1),
        "batch_size": (1, 2),
        "seed": range(10),
        "num_steps": jt.RescaledSteps(1.0),
        "record": jt.Record(steps=jt.log_steps(8), observables=(jt.activation_rate(), jt.weight_norm("V"))),
        "lane_width": 4,
    }
    return jt.Sweep(**{**fields, **changes})


def test_counts():
    forecast = jt.plan(sweep_of(), measure=False)
    assert forecast.num_runs == 40
    assert forecast.num_programs == 2  # one per batch size; rates and seeds are traced
    assert forecast.num_lanes == 4 * 3 * 4  # ten seeds of each clock fill three blocks of four
    assert forecast.run_steps == 10 * (400 + 100 + 800 + 200)  # t·η²/B = 1
    assert forecast.disk_bytes == 40 * 8 * (8 + 4 + 4 + 1)  # step, two floats, finite
    assert forecast.seconds is None
    assert "40 in 48 lanes" in str(forecast)


def test_every_run_has_one_lane_and_padding_is_marked():
    for cohort in planning.cohorts(sweep_of()):
        assert sorted(cohort.blocks[cohort.real]) == list(range(cohort.num_runs))
        for lanes in cohort.blocks:  # one clock for a block
            assert (cohort.steps[lanes] == cohort.steps[lanes[0]]).all()
        for num_devices in (1, 2, 5):
            lanes, real, steps = cohort.deal(num_devices)
            assert len(lanes) % num_devices == 0
            assert sorted(lanes[real]) == list(range(cohort.num_runs))
            assert (steps[~real.any(1)] == -1).all()


def test_width_follows_from_the_cohort_alone():
    def widths(**changes):
        return {c.width for c in planning.cohorts(sweep_of(lane_width=None, **changes), platform="cpu")}

    assert widths() == widths(seed=range(300)) == widths(seed=0, learning_rate=0.3) == {64}
    big = {"model": jt.models.TwoLayer(inputs=100, hidden=100), "data": jt.data.Gaussian(dim=100)}
    assert widths(**big) == {16}


def test_measured_memory_and_time_grow_with_the_runs():
    small, large = (jt.plan(sweep_of(batch_size=1, seed=range(n), lane_width=None)) for n in (64, 640))
    assert large.peak_memory_bytes > 5 * small.peak_memory_bytes
    assert large.seconds > 2 * small.seconds
    assert large.compile_seconds > 0
    assert "of training" in str(large)
    one = planning.cohorts(sweep_of())[0]
    parameters = 10 * 10 + 10 + 10
    assert one.state_bytes == one.blocks.size * 4 * parameters
    assert np.isfinite(large.seconds)
