"""Deep nets against loops over units and pixels, their inits by moments, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from tests import deep_oracles
from tests.chance import sigmas

SHAPE, BLOCKS = (6, 5, 2), ((3, 2), (4,))
NETS = {
    "mlp": jt.models.MLP(5, hidden=(4, 3, 6)),
    "mlp softmax": jt.models.MLP(5, hidden=(4,), outputs=3, bias=False, init="he"),
    "cnn": jt.models.CNN(SHAPE, BLOCKS, hidden=(5,), outputs=3),
    "cnn binary": jt.models.CNN(SHAPE, BLOCKS, hidden=(), outputs=1, bias=False, init="unit"),
}


@pytest.mark.parametrize("name", NETS)
def test_forward_equals_loops_over_units_and_pixels(name):
    model, blocks = NETS[name], BLOCKS if "cnn" in name else ()
    params = model.init(jax.random.key(3))
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape)).astype(np.float32)
    batch, pre = (
        np.asarray(model.apply(params, jnp.asarray(x))),
        model.preactivations(params, jnp.asarray(x)),
    )
    assert list(pre) == [n for n in deep_oracles.order(params) if n != "output"]
    assert all(("bias" in layer) == model.arguments["bias"] for layer in params.values())
    for i, example in enumerate(x):
        expected, twins, _ = deep_oracles.forward(params, example, blocks)
        np.testing.assert_allclose(batch[i].reshape(-1), expected, rtol=1e-5, atol=1e-6)
        one = model.apply(params, jnp.asarray(example))
        np.testing.assert_allclose(np.reshape(one, -1), expected, rtol=1e-5, atol=1e-6)
        for layer, a in twins.items():
            np.testing.assert_allclose(pre[layer][i], a, rtol=1e-5, atol=1e-6)
    assert batch.shape == (4,) if model.num_outputs == 1 else (4, 3)


def test_layers_are_in_the_order_of_their_calls_and_a_mirrored_window_changes_the_outputs():
    deep = jt.models.MLP(2, hidden=(2,) * 12)
    names = list(deep.preactivations(deep.init(jax.random.key(0)), jnp.ones((1, 2))))
    assert names == [f"hidden_{i}" for i in range(12)]
    model = NETS["cnn binary"]
    params, x = model.init(jax.random.key(1)), jax.random.normal(jax.random.key(2), (3, *SHAPE))
    mirrored = jax.tree.map(lambda v: v, params)
    mirrored["conv_0"]["kernel"] = params["conv_0"]["kernel"].reshape(9, 2, 3)[::-1].reshape(18, 3)
    assert np.abs(model.apply(params, x) - model.apply(mirrored, x)).max() > 1e-2


# Variances of a hidden kernel, a hidden bias and the output kernel, for fan-in 36 (9 × 4 channels)
# and 20 hidden units.
MOMENTS = {
    "torch": (1 / 108, 1 / 108, 1 / 60),
    "he": (2 / 36, 0.0, 1 / 20),
    "unit": (1 / 36, 0.0, 1.0),
    "paired_he": (2 / 36, 0.0, 1 / 20),
}


@pytest.mark.parametrize("init", MOMENTS)
def test_inits_have_their_variances(init):
    model = jt.models.CNN((4, 4, 2), ((4,), (5,)), hidden=(20,), outputs=2, init=init)
    draws = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(1), 300))
    parts = (draws["conv_1"]["kernel"], draws["conv_1"]["bias"], draws["output"]["kernel"])
    for values, variance in zip(parts, MOMENTS[init], strict=True):
        values = np.asarray(values, float).ravel()
        error = variance * np.sqrt(2 / values.size * (2 if init == "paired_he" else 1))
        assert np.var(values) == pytest.approx(variance, abs=sigmas(1e-6) * error + 1e-12)
        others = {v for moments in MOMENTS.values() for v in moments if v != variance}
        assert not any(abs(np.var(values) - other) < sigmas(1e-6) * error for other in others)


@pytest.mark.parametrize("outputs", [1, 3])
def test_paired_he_starts_at_f_zero_and_he_does_not(outputs):
    x = jax.random.normal(jax.random.key(1), (7, 6))
    for init, zero in (("paired_he", True), ("he", False)):
        model = jt.models.MLP(6, hidden=(8, 4), outputs=outputs, init=init)
        out = np.asarray(model.apply(model.init(jax.random.key(2)), x))
        assert np.allclose(out, 0, atol=1e-6) == zero


def test_an_mlp_flattens_images():
    model = jt.models.MLP(12, hidden=(3,), outputs=10)
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 2, 3, 2))
    flat = model.apply(params, x.reshape(4, 12))
    np.testing.assert_array_equal(model.apply(params, x), flat)
    np.testing.assert_allclose(model.apply(params, x[1]), flat[1], rtol=1e-6)
    assert model.takes((2, 3, 2))
    assert not model.takes((2, 3))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: jt.models.MLP(3, hidden=5), "model.hidden"),
        (lambda: jt.models.MLP(3, hidden=(4, 0)), "model.hidden"),
        (lambda: jt.models.MLP(3, hidden=(3,), init="paired_he"), "model.hidden"),
        (lambda: jt.models.MLP("three"), "model.inputs"),
        (lambda: jt.models.CNN(outputs=0), "model.outputs"),
        (lambda: jt.models.CNN((28, 28)), "model.input_shape"),
        (lambda: jt.models.CNN((6, 6, 1), ((2,), (2,), (2,))), "model.channels"),
        (lambda: jt.models.CNN(channels=16), "model.channels"),
        (lambda: jt.models.CNN(init="xavier"), "model.init"),
    ],
)
def test_invalid_arguments_are_rejected_by_field(make, field):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
