"""Synthetic sources: their distributions, finite sets, label noise and teachers."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import stats

import jthermo as jt
from jthermo.data import sampling
from jthermo.errors import InputError
from tests.chance import sigmas

KEY = jax.random.key(5)


@pytest.mark.parametrize(
    ("data", "mean", "variance"),
    [
        (jt.data.Gaussian(dim=3), 0, 1),
        (jt.data.Gaussian(dim=3, scale=2.0), 0, 4),
        (jt.data.Uniform(dim=3), 0.5, 1 / 12),
        (jt.data.Uniform(dim=3, low=-1.0, high=3.0), 1, 16 / 12),
        (jt.data.Sphere(dim=3, radius=2.0), 0, 4 / 3),
    ],
)
def test_inputs_have_their_distribution(data, mean, variance):
    x, y = map(np.asarray, data.draw(KEY, 20_000))
    assert x.shape == (20_000, 3)
    assert np.mean(x) == pytest.approx(mean, abs=sigmas(1e-5) * np.sqrt(variance / x.size))
    # five standard errors of the variance of normals
    assert np.var(x) == pytest.approx(variance, rel=0.03)
    assert set(np.unique(y)) == {0, 1}
    error = sigmas(1e-5) / np.sqrt(y.size)
    assert abs(y.mean() - 0.5) < 0.5 * error
    assert abs(np.corrcoef(x[:, 0], y)[0, 1]) < error
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < error


def test_labels_of_several_classes_are_uniform():
    _, y = jt.data.Gaussian(dim=1, num_classes=5).draw(KEY, 10_000)
    counts = np.bincount(np.asarray(y), minlength=5)
    # a fair draw fails with this probability
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("classes", [2, 5])
def test_a_label_is_redrawn_with_its_probability(classes):
    """p = 0 keeps labels; p changes a share p (1 − 1/C), not p; p = 1 gives independent labels."""
    number = 20_000
    labels = np.arange(number) % classes
    for p in (0.0, 0.3, 1.0):
        data = jt.data.Gaussian(dim=1, num_classes=classes, num_samples=9, redraw=p)
        seen = np.asarray(data.step_labels(labels, KEY))
        share, error = np.mean(seen != labels), 0.5 / np.sqrt(number)
        assert abs(share - p * (1 - 1 / classes)) <= sigmas(1e-4) * error * (p > 0)
        assert abs(share - p) > 10 * error or p == 0
        # only for p = 1 are old and new labels independent
        table = np.histogram2d(labels, seen, classes)[0]
        assert (stats.chi2_contingency(table).pvalue > 1e-4) == (p == 1)


@pytest.mark.parametrize(("p", "number"), [(1.5, 9), (-0.1, 9), (0.2, None)])
def test_an_invalid_redraw_is_rejected(p, number):
    with pytest.raises(InputError, match=f"data.redraw = {p}"):
        jt.data.Gaussian(dim=1, num_samples=number, redraw=p)


def test_rows_are_functions_of_their_index():
    data = jt.data.Gaussian(dim=2, num_samples=10)
    x, y = map(np.asarray, data.rows({}, np.array([3, 7, 3]), KEY, KEY))
    assert (x[0] == x[2]).all()
    assert y[0] == y[2]
    assert (x[0] != x[1]).any()


def test_an_epoch_shows_every_example_once_and_epochs_differ():
    orders = [
        np.asarray(sampling.permutation(jax.random.fold_in(KEY, epoch), 12)) for epoch in range(2)
    ]
    for order in orders:
        seen = np.concatenate([np.asarray(sampling.by_epoch(order, t, 3)) for t in range(4)])
        assert sorted(seen) == list(range(12))
    assert (orders[0] != orders[1]).any()


def test_an_epoch_drops_the_examples_that_fill_no_batch():
    assert sampling.steps_per_epoch(11, 3) == 3
    order = np.arange(11)
    assert np.asarray(sampling.by_epoch(order, np.int32(3), 3)).tolist() == [0, 1, 2]


def test_replacement_is_uniform_over_the_set():
    index = np.concatenate(
        [
            np.asarray(sampling.with_replacement(jax.random.fold_in(KEY, t), 50, 10))
            for t in range(100)
        ]
    )
    assert stats.chisquare(np.bincount(index, minlength=10)).pvalue > 1e-4


class Two(nn.Module):
    """A linear net with two outputs."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)


def test_points_of_a_sphere_have_its_radius():
    x, _ = jt.data.Sphere(dim=3, radius=2.0).draw(KEY, 50)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 2.0, rtol=1e-6)


def test_a_teacher_is_one_function_for_a_seed_and_another_for_the_next():
    """The teacher is linear, so a least-squares fit to ten examples predicts all others."""
    data, seeds = jt.data.Teacher(jt.data.Gaussian(dim=3), Two()), jax.random.split(KEY, 2)
    assert data.num_targets == 2
    draw = jax.jit(lambda seed, key: data.of_seed(seed).draw(key, 40))
    coefficients = []
    for seed in seeds:
        x, y = map(np.asarray, draw(seed, KEY))
        assert y.shape == (40, 2)
        ones = np.c_[x, np.ones(40)]
        coefficients.append(np.linalg.lstsq(ones[:10], y[:10], rcond=None)[0])
        np.testing.assert_allclose(ones @ coefficients[-1], y, atol=1e-4)
        later, labels = draw(seed, jax.random.key(9))
        np.testing.assert_allclose(np.c_[later, np.ones(40)] @ coefficients[-1], labels, atol=1e-4)
    assert np.abs(coefficients[0] - coefficients[1]).max() > 0.1


def test_label_noise_has_its_size_and_is_new_at_each_use():
    data, clean = (
        jt.data.Teacher(jt.data.Gaussian(dim=3), Two(), label_noise=0.5),
        np.ones((20_000, 2)),
    )
    one, two = (np.asarray(data.step_labels(clean, k)) - clean for k in jax.random.split(KEY, 2))
    # five standard errors
    assert one.std() == pytest.approx(0.5, rel=0.02)
    assert abs(one.mean()) < sigmas(1e-4) * 0.5 / np.sqrt(one.size)
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < sigmas(1e-4) / np.sqrt(one.size)
    assert abs(np.corrcoef(one.T)[0, 1]) < sigmas(1e-4) / np.sqrt(len(one))


def test_an_invalid_teacher_is_rejected():
    gaussian = jt.data.Gaussian(dim=3)
    for text, make in {
        "data.inputs = 3: give": lambda: jt.data.Teacher(3, Two()),
        "data.label_noise = -1.0: give": lambda: jt.data.Teacher(gaussian, Two(), label_noise=-1.0),
        "data.inputs.redraw = 0.5: the teacher": lambda: jt.data.Teacher(
            jt.data.Gaussian(dim=3, num_samples=5, redraw=0.5), Two()
        ),
        "model.inputs = .*examples of shape": lambda: jt.data.Teacher(
            gaussian, jt.models.TwoLayer(2, 2)
        ),
        "the data have num_targets = 2": lambda: sweep_of(model=jt.models.TwoLayer(3, 4)),
        "loss = 'softmax': the labels are real-valued": lambda: sweep_of(loss="softmax"),
        "noise = .*averages class labels, but": lambda: sweep_of(noise="label_averaged"),
        "accuracy.*not classes": lambda: sweep_of(
            record=jt.Record(steps=(3,), observables=jt.accuracy())
        ),
    }.items():
        with pytest.raises(InputError, match=text):
            make()
    assert jt.Sweep.from_json(sweep_of().to_json()) == sweep_of()
    assert {c.loss for c in sweep_of().configs} == {"squared"}


def sweep_of(**changes):
    fields = {
        "model": jt.models.MLP(3, hidden=(4,), outputs=2),
        "data": jt.data.Teacher(jt.data.Gaussian(dim=3), Two()),
        "learning_rate": 0.1,
        "num_steps": 3,
        "record": jt.Record(steps=(3,), observables=jt.loss()),
        "vary": {"data.label_noise": (0.0, 0.1)},
    }
    return jt.Sweep(**{**fields, **changes})
