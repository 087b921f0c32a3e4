"""Losses and noise controls: p − y is dL/df, and the controls have their distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from jthermo.update_rule import losses
from tests.chance import sigmas


@pytest.mark.parametrize(
    ("loss", "shape"),
    [("bce", (40,)), ("squared", (40,)), ("softmax", (40, 3)), ("squared", (40, 3))],
)
def test_full_residual_is_the_derivative_of_the_loss(loss, shape):
    f = jax.random.normal(jax.random.key(0), shape)
    labels = jax.random.randint(jax.random.key(1), shape[:1], 0, 2)
    target = losses.targets(loss, labels, 1 if len(shape) == 1 else shape[1])
    expected = jax.grad(lambda out: losses.value(loss, out, target).sum())(f)
    residual = jt.noise.Full().residual(loss, f, target, jax.random.key(2))
    np.testing.assert_allclose(residual, expected, rtol=1e-5, atol=1e-6)


def test_logistic_loss_is_minus_the_log_likelihood_and_the_printed_one_is_not():
    f, y = jnp.array([-3.0, -0.5, 0.0, 2.0]), jnp.array([0.0, 1.0, 1.0, 0.0])
    p = 1 / (1 + jnp.exp(-f))
    value = losses.value("bce", f, y)
    np.testing.assert_allclose(value, -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)), rtol=1e-6)
    printed = y * jnp.log(1 / (1 + jnp.exp(f))) + (1 - y) * jnp.log(1 - 1 / (1 + jnp.exp(f)))
    assert not np.allclose(value, printed)
    assert not np.allclose(value, -printed)


def test_unbiased_residual_is_a_fair_sign_of_the_given_size():
    f = jnp.linspace(-5, 5, 20_000)
    r = np.asarray(jt.noise.Unbiased(0.3).residual("bce", f, f, jax.random.key(4)))
    assert set(np.unique(np.abs(r))) == {np.float32(0.3)}
    assert abs(np.mean(r)) < sigmas(1e-4) * 0.3 / np.sqrt(r.size)
    assert abs(np.corrcoef(r, f)[0, 1]) < sigmas(1e-4) / np.sqrt(r.size)
    full = np.asarray(jt.noise.Full().residual("bce", f, f * 0, jax.random.key(4)))
    # negative control: the full residual depends on f
    assert abs(np.corrcoef(full, f)[0, 1]) > 0.5


def test_unbiased_residual_of_several_classes_sums_to_zero():
    f = jnp.zeros((5000, 3))
    r = np.asarray(jt.noise.Unbiased().residual("softmax", f, f, jax.random.key(4)))
    np.testing.assert_allclose(r.sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(r.mean(0), 0, atol=sigmas(1e-4, 3) * r.std() / np.sqrt(len(r)))


def test_label_averaged_residual_is_the_mean_over_labels():
    f = jax.random.normal(jax.random.key(0), (9,))
    parts = [
        jt.noise.Full().residual("bce", f, jnp.full(9, y), jax.random.key(1)) for y in (0.0, 1.0)
    ]
    averaged = jt.noise.LabelAveraged().residual("bce", f, parts[0], jax.random.key(1))
    np.testing.assert_allclose(averaged, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-7)


def test_auto_chooses_the_loss_from_the_outputs():
    assert losses.resolve("auto", 1, 2) == "bce"
    assert losses.resolve("auto", 3, 3) == "softmax"
    for loss, outputs, classes, text in (
        ("bce", 3, 3, "needs 1 output and 2 classes, but outputs = 3 and classes = 3"),
        ("softmax", 3, 4, "needs one output per class, but outputs = 3 and classes = 4"),
        ("bce", 1, 3, "needs 1 output and 2 classes, but outputs = 1 and classes = 3"),
        ("squared", 3, 4, "needs one output per class, or 1 output and 2 classes"),
        ("hinge", 1, 2, "use one of auto, bce"),
    ):
        with pytest.raises(InputError, match=text):
            losses.resolve(loss, outputs, classes)
