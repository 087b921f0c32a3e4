"""Memory per device, checkpoints that are due, and the order of blocks."""

import tracemalloc
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jthermo as jt
from jthermo.execution import cohorts, memory, placement, train_cohort
from jthermo.execution.checkpoint_policy import CheckpointPolicy
from jthermo.execution.timing import Line, Measured


def test_devices_of_a_cpu_share_what_is_available(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 9_000)
    one = SimpleNamespace(platform="cpu")
    assert [memory.limit([one] * n) for n in (1, 2, 3)] == [9_000, 4_500, 3_000]
    monkeypatch.setattr(memory, "available", lambda: None)
    assert memory.limit([one]) is None


def test_the_smallest_accelerator_decides():
    def device(size):
        stats = None if size is None else {"bytes_limit": size}
        return SimpleNamespace(platform="gpu", memory_stats=lambda: stats)

    assert memory.limit([device(8), device(5)]) == 5
    assert memory.limit([device(None)]) is None


def test_the_largest_program_decides():
    measured = Measured(0.0, (Line(100, 10), Line(0, 30)), None, None)
    assert [measured.peak(blocks) for blocks in (1, 5, 9)] == [110, 150, 270]
    limit = 200 / memory.HEADROOM
    assert measured.rounds(9, int(limit)) == max(
        memory.rounds(line.per_block, 9, int(limit), line.fixed) for line in measured.lines
    )


@pytest.mark.parametrize(
    ("elapsed", "steps", "slowest", "due"),
    [(61, 0, 0.1, True), (59, 0, 0.1, False), (61, 0, 2.0, False), (201, 0, 2.0, True),
     (1, 70, 2.0, True), (1, 69, 0.0, False)],
)  # fmt: skip
def test_a_checkpoint_is_due_by_time_or_by_steps(elapsed, steps, slowest, due):
    """Of 2 s it may take 1 %, so after 200 s."""
    policy = CheckpointPolicy(seconds=60, steps=70)
    assert policy.due(elapsed=elapsed, steps=steps, slowest_save=slowest) == due


def test_the_longest_blocks_come_first():
    """Dealt in turn, they end at nearly the same time."""
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=2, hidden=2),
        data=jt.data.Gaussian(dim=2),
        learning_rate=(0.1, 0.2, 0.3, 0.4),
        seed=range(4),
        num_steps=jt.RescaledSteps(0.5),
        record=jt.Record(steps=jt.log_steps(3), observables=jt.loss()),
        lane_width=2,
    )
    (cohort,) = cohorts.cohorts(sweep)
    lengths = cohort.steps[cohort.blocks[:, 0]].max(1)
    assert (np.diff(lengths) <= 0).all()
    assert lengths[0] > lengths[-1]
    # a block too few for three devices: one more, with no real lane and nothing to do
    (odd,) = cohorts.cohorts(sweep.replace(learning_rate=(0.1, 0.2)))
    lanes, real, steps = odd.deal(3)
    added = ~real.any(1)
    assert len(lanes) == 6
    assert added.sum() == 6 - len(odd.blocks) == 2
    assert (steps[added] == -1).all()
    assert real.sum() == len(odd.key)
    _, _, steps = cohort.deal(2)
    loads = steps.max(1).reshape(2, -1).sum(1)
    assert abs(loads[0] - loads[1]) <= lengths[0] - lengths[-1]


def test_the_rows_of_a_checkpoint_are_the_only_copy_of_the_states():
    """A copy of all lanes on the way would double the memory of a large sweep."""
    sweep = jt.Sweep(
        model=jt.models.TwoLayer(inputs=4, hidden=256),
        data=jt.data.Gaussian(dim=4),
        learning_rate=0.1,
        seed=range(256),
        num_steps=1,
        record=jt.Record(steps=(0, 1), observables=jt.weight_norm("V")),
    )
    (cohort,) = cohorts.cohorts(sweep)
    place = placement.Placement("sharding", placement.devices())
    lanes, real, _ = cohort.deal(len(place.devices))
    with placement.pinned():
        runs = place.put(jax.tree.map(lambda a: a[lanes], cohort.runs))
        states = placement.initializer(cohort.model, cohort.program.optimizer, place)(runs)
        none = np.zeros(len(lanes), np.int32)
        tracemalloc.start()
        rows = train_cohort._rows(cohort, place, states, lanes, real, none, none, {})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        whole = place.get(states)
    size = sum(value.nbytes for value in rows.values())
    assert size > 256 * 256 * 6 * 4
    assert peak < 1.2 * size
    for i, leaf in enumerate(jax.tree.leaves(whole)):
        assert (rows[f"{train_cohort.STATE}{i:03d}"][lanes[real]] == leaf[real]).all()
