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
        ("hinge", 3, 3, "hinge needs 1 output and 2 classes"),
        ("multi_label", 3, 3, "needs real-valued targets from 0 to 1"),
        ("huber", 1, 2, "use one of auto, bce"),
    ):
        with pytest.raises(InputError, match=text):
            losses.resolve(loss, outputs, classes)


def smoothed(f, y):
    """−Σ_c y_c log softmax(f)_c with α = 0.2."""
    target = 0.8 * np.eye(f.shape[1])[y] + 0.2 / f.shape[1]
    return -(target * (f - np.log(np.exp(f).sum(1, keepdims=True)))).sum(1)


def cubed(f, y):
    """A loss of the user's own: |f − y|³."""
    return abs(f - y) ** 3


BINARY, CLASSES = np.array([0, 1, 1, 0, 1]), np.array([0, 2, 1, 1, 2])
REAL = np.linspace(0, 1, 15).reshape(5, 3)
# The loss, its labels, the number of outputs, and its value in NumPy float64.
TWINS = {
    "bce": ("bce", BINARY, 1, lambda f, y: np.log1p(np.exp(f)) - y * f),
    "softmax": ("softmax", CLASSES, 3, lambda f, y: np.log(np.exp(f).sum(1)) - f[range(5), y]),
    "smoothed": (jt.losses.Softmax(0.2), CLASSES, 3, smoothed),
    "squared": ("squared", REAL, 3, lambda f, y: ((f - y) ** 2).sum(1) / 2),
    "hinge": ("hinge", BINARY, 1, lambda f, y: np.maximum(0, 1 - (2 * y - 1) * f)),
    "logistic": ("logistic", BINARY, 1, lambda f, y: np.log1p(np.exp(-(2 * y - 1) * f))),
    "exponential": ("exponential", BINARY, 1, lambda f, y: np.exp(-(2 * y - 1) * f)),
    "multi_label": ("multi_label", REAL, 3, lambda f, y: (np.log1p(np.exp(f)) - y * f).sum(1)),
    "own": (cubed, REAL[:, 0], 1, cubed),
}


@pytest.mark.parametrize("case", TWINS)
def test_value_and_gradient_equal_a_numpy_twin(case):
    loss, labels, outputs, twin = TWINS[case]
    f = np.random.default_rng(3).normal(size=(5, outputs)[: min(outputs, 2)]) * 1.5
    real = labels.dtype.kind == "f"
    assert losses.resolve(loss, outputs, 0 if real else max(2, outputs), outputs if real else None)
    y = jnp.asarray(labels, jnp.float32 if real else jnp.int32)
    target, at = losses.targets(loss, y, outputs), jnp.asarray(f, jnp.float32)
    np.testing.assert_allclose(losses.value(loss, at, target), twin(f, labels), rtol=2e-6)
    # the derivative of the twin, by central differences in float64
    steps = 1e-6 * np.eye(f.size).reshape(f.size, *f.shape)
    slope = [(twin(f + s, labels) - twin(f - s, labels)).sum() / 2e-6 for s in steps]
    gradient = losses.gradient(loss, at, target)
    np.testing.assert_allclose(np.ravel(gradient), slope, rtol=1e-4, atol=1e-5)
    # negative control: the same comparison with other labels
    other = losses.targets(loss, y[::-1], outputs)
    assert not np.allclose(losses.value(loss, at, other), twin(f, labels), rtol=1e-2)


def test_a_softmax_without_smoothing_has_the_name_of_softmax():
    assert losses.as_loss(jt.losses.Softmax()) == "softmax"
    assert losses.as_loss(jt.losses.Softmax(0.1)) == jt.losses.Softmax(0.1)


@pytest.mark.parametrize("loss", ["logistic", "multi_label", jt.losses.Softmax(0.3)])
def test_the_trace_of_other_losses_is_that_of_the_full_hessian(loss):
    several = loss != "logistic"
    model = jt.models.MLP(3, hidden=(4,), outputs=3 if several else 1)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (6, 3))
    labels = jnp.arange(6) % (3 if several else 2)
    y = jnp.eye(3)[labels] if loss == "multi_label" else labels
    flat, unflatten = jax.flatten_util.ravel_pytree(params)

    def mean(theta):
        target = losses.targets(loss, y, model.num_outputs)
        return losses.value(loss, model.apply(unflatten(theta), x), target).mean()

    probe = jt.observables.Probe(x, y, None, loss, jnp.float32(0.1), 1)
    trace = jt.hessian_trace()(model, params, probe)["hessian_trace"]
    np.testing.assert_allclose(trace, jnp.trace(jax.hessian(mean)(flat)), rtol=1e-4)
