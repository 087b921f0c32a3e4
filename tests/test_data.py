"""Synthetic sources: their laws, and what a finite set shows to a run."""

import jax
import numpy as np
import pytest

import jthermo as jt
from jthermo.data import sampling
from jthermo.errors import InputError

KEY = jax.random.key(5)


@pytest.mark.parametrize(
    ("data", "mean", "variance"),
    [
        (jt.data.Gaussian(dim=3), 0, 1),
        (jt.data.Gaussian(dim=3, scale=2.0), 0, 4),
        (jt.data.Uniform(dim=3), 0.5, 1 / 12),
        (jt.data.Uniform(dim=3, low=-1.0, high=3.0), 1, 16 / 12),
    ],
)
def test_inputs_have_their_law(data, mean, variance):
    x, y = map(np.asarray, data.draw(KEY, 20_000))
    assert x.shape == (20_000, 3)
    assert np.mean(x) == pytest.approx(mean, abs=5 * np.sqrt(variance / x.size))
    assert np.var(x) == pytest.approx(variance, rel=0.03)
    assert set(np.unique(y)) == {0, 1}
    assert abs(y.mean() - 0.5) < 4 * 0.5 / np.sqrt(y.size)
    assert abs(np.corrcoef(x[:, 0], y)[0, 1]) < 4 / np.sqrt(y.size)
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 4 / np.sqrt(y.size)


def test_labels_of_several_classes_are_uniform():
    _, y = jt.data.Gaussian(dim=1, num_classes=5).draw(KEY, 10_000)
    counts = np.bincount(np.asarray(y), minlength=5)
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_label_is_drawn_anew_with_its_probability(classes):
    """p = 0 keeps every label; p changes a share p (1 − 1/C), not p; p = 1 leaves uniform labels that know nothing."""
    number = 20_000
    labels = np.arange(number) % classes
    for p in (0.0, 0.3, 1.0):
        data = jt.data.Gaussian(dim=1, num_classes=classes, num_samples=9, redraw=p)
        seen = np.asarray(data.redrawn(labels, KEY))
        share, error = np.mean(seen != labels), 0.5 / np.sqrt(number)
        assert abs(share - p * (1 - 1 / classes)) <= 4 * error * (p > 0)
        assert abs(share - p) > 10 * error or p == 0
        table = np.histogram2d(labels, seen, classes)[0]  # for p = 1 every cell holds its part
        assert (np.abs(table - number / classes**2).max() < 5 * np.sqrt(number) / classes) == (p == 1)


@pytest.mark.parametrize(("p", "number"), [(1.5, 9), (-0.1, 9), (0.2, None)])
def test_a_redraw_that_makes_no_sense_is_refused(p, number):
    with pytest.raises(InputError, match=f"data.redraw = {p}"):
        jt.data.Gaussian(dim=1, num_samples=number, redraw=p)


def test_rows_are_functions_of_their_index():
    data = jt.data.Gaussian(dim=2, num_samples=10)
    x, y = map(np.asarray, sampling.rows(data.draw, KEY, np.array([3, 7, 3])))
    assert (x[0] == x[2]).all()
    assert y[0] == y[2]
    assert (x[0] != x[1]).any()


def test_an_epoch_shows_every_example_once_and_epochs_differ():
    orders = [np.asarray(sampling.permutation(KEY, epoch, 12)) for epoch in range(2)]
    for order in orders:
        seen = np.concatenate([np.asarray(sampling.by_epoch(order, t, 3)) for t in range(4)])
        assert sorted(seen) == list(range(12))
    assert (orders[0] != orders[1]).any()


def test_a_pass_drops_the_examples_that_fill_no_batch():
    assert sampling.steps_per_epoch(11, 3) == 3
    order = np.arange(11)
    assert np.asarray(sampling.by_epoch(order, np.int32(3), 3)).tolist() == [0, 1, 2]


def test_replacement_is_uniform_over_the_set():
    index = np.concatenate([np.asarray(sampling.with_replacement(KEY, t, 50, 10)) for t in range(100)])
    assert np.abs(np.bincount(index, minlength=10) - 500).max() < 5 * np.sqrt(500)
