"""Forecasts: counts, measured memory and time, other machines, observables, lane width."""

import json

import jax
import numpy as np
import pytest

import jthermo as jt
from jthermo.execution import cohorts, forecast, lane_width, memory, placement


def sweep_of(**changes):
    fields = {
        "model": jt.models.TwoLayer(inputs=10, hidden=10),
        "data": jt.data.Gaussian(dim=10),
        "learning_rate": (0.05, 0.1),
        "batch_size": (1, 2),
        "seed": range(10),
        "num_steps": jt.RescaledSteps(1.0),
        "record": jt.Record(
            steps=jt.log_steps(8), observables=(jt.activation_rate(), jt.weight_norm("V"))
        ),
        "lane_width": 4,
    }
    return jt.Sweep(**{**fields, **changes})


def test_counts():
    forecast = jt.plan(sweep_of(), measure=False)
    assert forecast.num_runs == 40
    # One program per batch size; learning rates and seeds are traced.
    assert forecast.num_programs == 2
    # Ten seeds with the same clock fill three blocks of four lanes.
    assert forecast.num_lanes == 4 * 3 * 4
    # Each run trains until t·η²/B = 1.
    assert forecast.run_steps == 10 * (400 + 100 + 800 + 200)
    # Bytes of a record: step 8, two float32, finite 1.
    assert forecast.disk_bytes == 40 * 8 * (8 + 4 + 4 + 1)
    assert forecast.seconds is None
    assert "40 in 48 lanes" in str(forecast)
    assert "convolution" not in str(forecast)


def test_every_run_has_one_lane_and_surplus_lanes_are_marked():
    for cohort in cohorts.cohorts(sweep_of()):
        assert sorted(cohort.blocks[cohort.real]) == list(range(cohort.num_runs))
        # All runs of a block have the same recorded steps.
        for lanes in cohort.blocks:
            assert (cohort.steps[lanes] == cohort.steps[lanes[0]]).all()
        for num_devices in (1, 2, 5):
            lanes, real, steps = cohort.deal(num_devices)
            assert len(lanes) % num_devices == 0
            assert sorted(lanes[real]) == list(range(cohort.num_runs))
            assert (steps[~real.any(1)] == -1).all()


def test_lane_width_does_not_depend_on_the_number_of_runs():
    def widths(engine="xla", **changes):
        sweep = sweep_of(lane_width=None, **changes)
        return {c.width for c in cohorts.cohorts(sweep, platform="cpu", engine=engine)}

    assert widths() == widths(seed=range(300)) == widths(seed=0, learning_rate=0.3) == {32}
    big = {"model": jt.models.TwoLayer(inputs=100, hidden=100), "data": jt.data.Gaussian(dim=100)}
    assert widths(**big) == {4}
    assert widths("fused", **big) == {16}


def test_measured_memory_and_time_grow_with_the_runs():
    small, large = (
        jt.plan(sweep_of(batch_size=1, seed=range(n), lane_width=None)) for n in (64, 640)
    )
    assert large.peak_memory_bytes > 5 * small.peak_memory_bytes
    assert large.seconds > 2 * small.seconds
    assert large.compile_seconds > 0
    assert "of training" in str(large)
    counted = jt.plan(sweep_of(batch_size=1, seed=range(640), lane_width=None), measure=False)
    assert (counted.timed, large.timed) == (False, True)
    assert large.record_seconds > 0
    # All observables are timed together; counted costs divide the time among them.
    ratio = [large.record_costs[name] / cost for name, cost in counted.record_costs.items()]
    assert min(ratio) == pytest.approx(max(ratio))
    assert "measured together" in str(large)
    one = cohorts.cohorts(sweep_of())[0]
    parameters = 10 * 10 + 10 + 10
    assert one.state_bytes == one.blocks.size * 4 * parameters
    assert np.isfinite(large.seconds)


def test_rounds_fit_the_device_and_no_fewer_would():
    for blocks in (1, 7, 100):
        for limit in (3_000, 12_000, 10**6):
            count = memory.rounds(1_000, blocks, limit, fixed_bytes=500)
            assert 500 + 1_000 * -(-blocks // count) <= limit * memory.HEADROOM
            assert count == 1 or 500 + 1_000 * -(-blocks // (count - 1)) > limit * memory.HEADROOM
    assert memory.rounds(1_000, 10**6, None) == 1
    with pytest.raises(jt.InputError, match="lower lane_width"):
        memory.rounds(1_000, 4, 900)


def test_extrapolated_memory_equals_that_of_the_full_program():
    from jthermo.execution.timing import measure

    place = placement.Placement("sharding", placement.devices())
    (cohort,) = cohorts.cohorts(sweep_of(batch_size=1, learning_rate=0.1, seed=range(4 * 2 * 12)))
    lanes, _, _ = cohort.deal(2)
    zero = np.zeros(len(lanes), np.int32)
    call = placement.programs(cohort.program, place)
    with placement.pinned():
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        states = placement.initializer(cohort.model, cohort.program.optimizer, place)(runs)
        clock = place.put(zero)
        compiled = (
            call.advance.compiled(runs, states, clock, clock),
            call.observe.compiled(runs, states, (), clock, clock),
        )
        programs = [f.jitted for f in compiled]
        true = max(memory.peak(p) for p in programs)
    assert measure(cohort, place, len(lanes) // 2, burst=False).peak(
        len(lanes) // 2
    ) == pytest.approx(true, rel=0.05)


def test_forecast_of_another_machine_agrees_with_counting_by_hand():
    forecast = jt.plan(
        sweep_of(batch_size=1, learning_rate=0.1), measure=False, devices=2, hosts=2, rate=10.0
    )
    # Ten seeds fill three blocks of four: two blocks for one device, one for the other.
    assert forecast.num_lanes == 12
    assert forecast.seconds == 100 * 8 / 10
    assert forecast.busy == 3 / 4
    parameters, record = 12 * 120 * 4, 10 * 8 * (8 + 4 + 4 + 1)
    assert forecast.checkpoint_bytes == (parameters + record) / 2
    assert forecast.checkpoint_rate == forecast.checkpoint_bytes / 60
    assert forecast.state_bytes == 2 * 4 * 120 * 4
    for words in ("2 devices of 2 hosts", "80 s", "per host every 60 s", "at least"):
        assert words in str(forecast)
    assert "once" in str(jt.plan(sweep_of(), measure=False, devices=2, rate=1e9))


def test_forecast_of_a_sweep_beyond_memory_has_the_number_of_rounds():
    small = sweep_of(batch_size=1, learning_rate=0.1, seed=range(64))
    whole = jt.plan(small, devices=1, rate=1.0)
    tight = jt.plan(small, devices=1, rate=1.0, memory=whole.device_bytes * 0.7)
    assert (whole.rounds, tight.rounds) == (1, 2)
    assert "trained in 2 rounds" in str(tight)


def outer(model, params, probe):
    """Ten products of 10 × 10 matrices: 20 000 operations, independent of the probe."""
    w = params["W"]
    return jax.lax.scan(lambda c, _: (c @ w, None), w, None, length=10)[0].sum()


def test_the_cost_of_a_users_observable_counts_its_operations():
    observable = jt.observables.as_observable(outer)
    model, data = jt.models.TwoLayer(inputs=10, hidden=10), jt.data.Gaussian(dim=10)
    # Matrix products, forward and back but without ∂L/∂x; then bias, relu and the like.
    gradient = 2 * (100 + 10) * 3 - 200 + 10 * 8
    cost = observable.cost(model, data, 64)
    assert cost == pytest.approx(20_000 / gradient, rel=0.15)
    assert cost == pytest.approx(observable.cost(model, data, 512), rel=0.05)


def test_the_forecast_includes_the_observables_and_their_schedules():
    record = jt.Record(
        steps=jt.every(10), observables=(jt.loss(), jt.sparse(jt.kappa(), every=4), outer)
    )
    sweep = sweep_of(batch_size=2, record=record, seed=range(8))
    counted = jt.plan(sweep, measure=False, rate=1000.0)
    # Number of steps by learning rate.
    blocks = {0.05: 800, 0.1: 200}
    (program,) = {c.program for c in cohorts.cohorts(sweep)}
    due = {o: [-(-(n // 10 + 1) // o.period) for n in blocks.values()] for o in program.observables}
    stated = {o: o.cost(program.model, program.data, program.probe_size) / 2 for o in due}
    # Each of the two devices has one block of four lanes per learning rate.
    steps = 4 * sum(stated[o] * sum(n) for o, n in due.items())
    assert counted.record_seconds == pytest.approx(steps / 1000)
    assert counted.record_share == pytest.approx(steps / (steps + 4 * 1000))
    assert "counted arithmetic" in str(counted)


def test_the_forecast_says_how_convolutions_are_computed():
    from tests.execution.test_placement import SmallCNN

    data = jt.data.Gaussian(dim=16)
    record = jt.Record(steps=(0,), observables=jt.loss())
    users = sweep_of(model=SmallCNN(), data=data, record=record, batch_size=1, lane_width=None)
    assert "convolutions XLA's convolution, as written in the flax module" in str(
        jt.plan(users, measure=False)
    )
    images = jt.data.Arrays(x=np.zeros((4, 4, 4, 1), np.uint8), y=np.array([0, 1, 0, 1]))
    ours = sweep_of(
        model=jt.models.CNN((4, 4, 1), ((2,),), hidden=(), outputs=2),
        data=images,
        record=record,
        batch_size=1,
        lane_width=None,
    )
    assert "convolutions im2col" in str(jt.plan(ours, measure=False))
    # On a GPU, 132 · 2048 threads over 144 numbers of patches; XLA's convolution makes none.
    for sweep, lanes in ((users, 4096), (ours, 2048)):
        assert {c.width for c in cohorts.cohorts(sweep, platform="cpu")} == {1}
        assert {c.width for c in cohorts.cohorts(sweep, platform="gpu")} == {lanes}


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("hosts", {"devices": 4, "hosts": 3}),
        ("rate", {"rate": 0.0}),
        ("devices", {"devices": 0}),
        ("memory", {"memory": -1}),
    ],
)
def test_an_impossible_machine_is_refused(field, options):
    with pytest.raises(jt.InputError, match=f"^{field} = "):
        jt.plan(sweep_of(), measure=False, **options)


def test_durations_have_a_unit_of_their_size():
    words = {0.5: "0.5 s", 90.0: "90 s", 150.0: "2.5 min", 5400.0: "1.5 h", 200_000.0: "2.31 days"}
    assert {s: forecast.duration(s) for s in words} == words


def test_a_folder_keeps_the_lane_width_it_was_created_with(tmp_path, monkeypatch):
    sweep = sweep_of(lane_width=None, batch_size=1, seed=range(12), num_steps=40)
    monkeypatch.setattr(lane_width, "lane_width", lambda program, platform: 4)
    jt.run(sweep, tmp_path, engine="xla", shard=(0, 2), progress=False)
    # The rule changes, as it might with another version.
    monkeypatch.undo()
    wider = sweep.replace(learning_rate=(0.05, 0.1, 0.2))
    ds = jt.run(sweep, tmp_path, engine="xla", progress=False)
    assert ds.attrs["lane_width"] == 4
    assert set(recorded_widths(tmp_path).values()) == {4}
    jt.run(wider, tmp_path, engine="xla", extend=True, progress=False)
    # Only the new learning rate follows the changed rule.
    assert sorted(recorded_widths(tmp_path).values()) == [4, 4, 32]


def recorded_widths(folder):
    """W by configuration key, as stored in a results folder."""
    return {
        run["key"]: run["lane_width"]
        for run in json.loads((folder / "sweep.json").read_text())["runs"]
    }
