"""Callbacks get aggregates of the records, change no bit of the results, and cannot stop a run."""

import logging
import struct
import sys
import types

import numpy as np
import pytest

import jthermo as jt
from jthermo.cli.options import Execution
from jthermo.errors import InputError

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=4, hidden=6),
    data=jt.data.Gaussian(dim=4),
    # Runs at the second learning rate diverge.
    learning_rate=(0.1, 1e6),
    seed=range(5),
    num_steps=40,
    loss="squared",
    record=jt.Record(steps=(0, 3, 40), observables=(jt.weight_norm("V"), jt.unit_activation())),
)


@pytest.fixture(scope="module")
def plain():
    return jt.run(SWEEP, engine="xla", progress=False)


def test_a_callback_sees_the_aggregates_of_the_records_and_changes_no_bit(plain):
    seen = []
    ds = jt.run(SWEEP, engine="xla", progress=False, callbacks=(seen.append,))
    for name in plain.data_vars:
        assert ds[name].values.tobytes() == plain[name].values.tobytes()
    assert [u.run_steps for u in seen] == [0, 30, 400]
    assert {u.total for u in seen} == {400}
    assert seen[-1].run_steps_per_second > 0
    for number, update in enumerate(seen):
        assert len(update.groups) == 2
        for group in update.groups:
            runs = plain.isel(
                run=plain.learning_rate.values == group.controls["learning_rate"], record=number
            )
            assert group.name == f"learning_rate={group.controls['learning_rate']}"
            assert group.step == SWEEP.record.steps[number]
            assert group.num_runs == 5
            assert group.finite == runs.finite.values.mean()
            norms = runs.weight_norm_V.values[runs.finite.values]
            expected = (
                [norms.mean(), *np.quantile(norms, (0.05, 0.5, 0.95))]
                if len(norms)
                else [np.nan] * 4
            )
            np.testing.assert_allclose(group.values["weight_norm_V"], expected, rtol=1e-6)
            if len(norms):
                third = runs.unit_activation.values[runs.finite.values, 2]
                np.testing.assert_allclose(
                    group.values["unit_activation[2]"].mean, third.mean(), rtol=1e-6
                )
    assert {g.finite for g in seen[-1].groups} == {0.0, 1.0}


def test_a_callback_that_raises_is_disabled_with_one_warning_and_changes_no_bit(plain, caplog):
    seen, calls = [], []

    class RaisesWhenCalled:
        def __call__(self, update):
            calls.append(update)
            raise OSError("no room")

    class RaisesWhenClosed:
        def __call__(self, update):
            seen.append(update)

        def close(self):
            raise ValueError("cannot close")

    with caplog.at_level(logging.WARNING, logger="jthermo"):
        callbacks = (RaisesWhenCalled(), RaisesWhenClosed())
        ds = jt.run(SWEEP, engine="xla", progress=False, callbacks=callbacks)
    assert ds.weight_norm_V.values.tobytes() == plain.weight_norm_V.values.tobytes()
    assert (len(calls), len(seen)) == (1, 3)
    assert [r.getMessage().rpartition("(")[2] for r in caplog.records] == [
        "OSError: no room)",
        "ValueError: cannot close)",
    ]


def test_a_bad_callbacks_argument_is_refused():
    for callbacks, words in (
        (print, r"is not a sequence; write callbacks=\(function,\)"),
        ((3,), "3: is not callable; give functions"),
    ):
        with pytest.raises(InputError, match=words):
            jt.run(SWEEP, progress=False, callbacks=callbacks)


def test_a_sink_that_is_not_installed_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb = 'wandb': cannot be imported .*jthermo\[wandb\]"):
        Execution(wandb=str(tmp_path)).options()


def test_tensorboard_files_hold_the_aggregates(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    seen = []
    (board,) = Execution(tensorboard=str(tmp_path / "board")).options()["callbacks"]
    jt.run(SWEEP, engine="xla", progress=False, callbacks=(board, seen.append))
    scalars = {}
    for path in tmp_path.glob("board/*/events*"):
        rest = path.read_bytes()
        # Each record: length (8 bytes), its checksum (4), the event, its checksum (4).
        while rest:
            (length,) = struct.unpack("<Q", rest[:8])
            event, rest = Event.FromString(rest[12 : 12 + length]), rest[16 + length :]
            scalars |= {
                (path.parent.name, v.tag, event.step): v.simple_value for v in event.summary.value
            }
    wanted = {
        (group.name, f"weight_norm_V/{statistic}", group.step): value
        for update in seen
        for group in update.groups
        for statistic, value in group.values["weight_norm_V"]._asdict().items()
        if np.isfinite(value)
    }
    assert len(wanted) >= 4 * 4
    for name, value in wanted.items():
        assert scalars[name] == pytest.approx(value, rel=1e-6)
    assert scalars["learning_rate=1000000.0", "finite", 40] == 0
    assert scalars["sweep", "run_steps_per_second", 400] > 0


def test_weights_and_biases_gets_the_aggregates_in_one_run_that_is_finished(monkeypatch, tmp_path):
    settings, rows, exit_codes = [], [], []

    class Run:
        """Has only the methods of a run that the library documents."""

        def define_metric(self, name, *, step_metric=None):
            settings.append((name, step_metric))

        def log(self, data, step=None):
            assert not exit_codes
            rows.append(data)

        def finish(self, exit_code=None):
            exit_codes.append(exit_code)

    def init(*, project=None, dir=None, mode=None):
        settings.append((project, dir, mode))
        return Run()

    fake = types.ModuleType("wandb")
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    seen, folder = [], tmp_path / "logs"
    (sink,) = Execution(wandb=str(folder)).options()["callbacks"]
    assert folder.is_dir()
    jt.run(SWEEP, engine="xla", progress=False, callbacks=(sink, seen.append))
    assert settings == [("jthermo", str(folder), "offline"), ("*", "run_steps")]
    assert exit_codes == [None]
    assert [row["run_steps"] for row in rows] == [0, 30, 400]
    for row, update in zip(rows, seen, strict=True):
        for group in update.groups:
            assert row[f"t/{group.name}"] == group.step
            assert row[f"finite/{group.name}"] == group.finite
            for statistic, value in group.values["weight_norm_V"]._asdict().items():
                np.testing.assert_equal(row[f"weight_norm_V/{statistic}/{group.name}"], value)
    assert rows[-1]["finite/learning_rate=1000000.0"] == 0
    assert rows[0]["weight_norm_V/mean/learning_rate=0.1"] > 0
