"""Shapes in annotations and rank promotion are checked in tests, and cost users nothing."""

import subprocess
import sys
import typing

import jax.numpy as jnp
import numpy as np
import pytest
from beartype.door import is_bearable
from jaxtyping import TypeCheckError, jaxtyped

import jthermo as jt
from jthermo.models import per_example
from jthermo.observables import curvature_estimators, gradient_moments
from jthermo.theory import drift, flow, hessian
from jthermo.update_rule import losses

MLP = jt.models.MLP(3, hidden=(2,))
X, Y = jnp.ones((4, 3)), jnp.zeros(4, int)


@pytest.mark.parametrize(
    "call",
    [
        # three outputs, four targets
        lambda: losses.value("bce", jnp.ones(3), jnp.ones(4)),
        lambda: losses.prediction("bce", 1.0),
        # two labels for four examples
        lambda: gradient_moments.moments(MLP, {}, X, Y[:2], "bce"),
        lambda: curvature_estimators.hutchinson(MLP, {}, X, Y, "bce", jnp.ones(3)),
        lambda: per_example.record(MLP, {}, 1.0),
        # arrays that do not broadcast
        lambda: drift.two_layer(np.ones(3), np.ones(2), w=1.0, dim=2),
        # a point with two axes
        lambda: flow.decompose(lambda q: q, jnp.ones((2, 2))),
        lambda: hessian.trace(MLP, {}, jnp.ones((), int)),
    ],
)
def test_a_wrong_shape_raises(call):
    with pytest.raises(TypeCheckError):
        call()


@pytest.mark.parametrize("loss", ["bce", "softmax", "squared"])
def test_the_fields_of_a_probe_have_their_annotated_shapes(loss):
    hints = typing.get_type_hints(jt.observables.Probe)
    wrong = {"x": jnp.ones(()), "y": jnp.ones((2, 2, 2)), "learning_rate": jnp.ones(1)}
    seen = []

    def mismatches(model, params, probe):
        """Number of fields that do not have their annotated shape."""
        with jaxtyped("context"):
            names = [n for n, v in probe._asdict().items() if not is_bearable(v, hints[n])]
        # the negative control
        for name, value in wrong.items():
            with jaxtyped("context"):
                assert not is_bearable(value, hints[name])
        seen.append(names)
        return jnp.float32(len(names))

    classes = 3 if loss == "softmax" else 2
    jt.run(
        jt.Sweep(
            model=jt.models.MLP(2, hidden=(2,), outputs=1 if classes == 2 else 3),
            data=jt.data.Gaussian(dim=2, num_classes=classes),
            learning_rate=0.1,
            num_steps=1,
            loss=loss,
            record=jt.Record(steps=(0,), observables=(mismatches,), probe_size=5),
        ),
        progress=False,
    )
    assert seen
    assert not any(seen)


def test_implicit_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((3, 2)) + jnp.ones(2)
    assert (jnp.ones((3, 2)) + jnp.ones((1, 2)) == 2).all()


def test_users_do_not_load_the_type_checker():
    code = (
        "import sys, jthermo.theory.flow, jthermo.observables\n"
        "from jthermo.update_rule import losses\n"
        "assert 'beartype' not in sys.modules\n"
        "assert not hasattr(losses.value, '__wrapped__')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert hasattr(losses.value, "__wrapped__")
