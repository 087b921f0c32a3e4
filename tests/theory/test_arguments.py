"""Powers of η, B and s² in every function that takes them, away from 1, where powers agree."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jthermo as jt
from jthermo.theory import drift, flow, meanfield, moments, properties, walk

ETA, SIZE, S2 = 0.3, 7, 0.11
NET = jt.models.TwoLayer(inputs=3, hidden=2, init="he")
AT = jnp.array([0.4, -0.3, 0.2])


def bent(q):
    return jnp.stack([1 + 0.3 * q[1], 0.7 + 0.2 * q[0] * q[1], jnp.exp(0.3 * q[2])])


def tilted(q):
    return jnp.exp(0.4 * q[0] - 0.2 * q[-1])


def example():
    return NET.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (20, 3))


force = jax.jit(functools.partial(drift.force, NET))


def along_a_line(form):
    return lambda **kw: flow.along(bent, AT, density=tilted, form=form, **kw)


# Every function of η and B: ∝ η²/B, or with the powers named in POWERS.
FUNCTIONS = {
    "drift.two_layer": lambda **kw: drift.two_layer(0.7, -0.3, w=1.4, dim=3, **kw),
    "drift.two_layer_radial": lambda **kw: drift.two_layer_radial(0.7, -0.3, w=1.4, dim=3, **kw),
    "drift.noise_floor": lambda learning_rate=1.0, batch_size=1: drift.noise_floor(
        10, learning_rate, batch_size
    ),
    "drift.force": lambda **kw: force(*example(), **kw),
    "flow.decompose": lambda **kw: flow.decompose(bent, AT, density=tilted, **kw)[:4],
    "flow.along": lambda **kw: [along_a_line(form)(**kw) for form in flow.ALONG],
    "flow.effective_gradient": lambda **kw: flow.effective_gradient(0.7, -0.3, w=1.4, **kw),
    "flow.projected": lambda **kw: [
        flow.projected(0.7, -0.3, w=1.4, form=form, **kw) for form in flow.FORMS
    ],
    "flow.unit": lambda **kw: [flow.unit(0.7, -0.3, w=1.4, dim=d, **kw) for d in (None, 3)],
}
# Powers of η and B of the others.
POWERS = {"flow.effective_gradient": (0, -0.5), "drift.noise_floor": (1, -1)}
# Functions that are not a power of η, with the test that compares them.
ELSEWHERE = {
    # below
    "flow.crossing",
    # tests/theory/test_meanfield_step.py
    "meanfield.predict",
}


def functions_of(*names):
    """The public functions of the theory that take one of these arguments."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in (drift, flow, meanfield, moments, properties, walk)
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and set(names) & set(inspect.signature(function).parameters)
    }


def flat(values):
    return np.asarray(ravel_pytree(values)[0], float)


def test_every_function_of_the_rate_or_the_batch_is_listed():
    assert functions_of("learning_rate", "batch_size") == {*FUNCTIONS, *ELSEWHERE}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_powers_of_the_rate_and_the_batch(name):
    function, (power, shrink) = FUNCTIONS[name], POWERS.get(name, (2, -1))
    base = flat(function())
    assert np.abs(base).max() > 1e-3
    for size in (1, SIZE):
        options = {"batch_size": size} | ({"learning_rate": ETA} if power else {})
        expected = base * ETA**power * float(size) ** shrink
        np.testing.assert_allclose(flat(function(**options)), expected, rtol=1e-4, atol=1e-9)


def test_the_count_across_a_surface_depends_on_the_step_alone():
    """A step has length η g/√B, so the count at (η, B) is that at (η/√B, 1)."""
    for form in flow.CROSSING:
        one, other, another = (
            float(flow.crossing(bent, AT, density=tilted, form=form, **options))
            for options in (
                {"learning_rate": ETA, "batch_size": 9},
                {"learning_rate": ETA / 3},
                {"learning_rate": ETA / 9},
            )
        )
        assert one == pytest.approx(other, rel=1e-4)
        assert abs(another / one) < 0.5


def test_powers_of_the_squared_residual():
    """Flows are ∝ s², effective gradients ∝ s; the default is ¼."""
    for name, power in (("flow.unit", 1), ("flow.projected", 1), ("flow.effective_gradient", 0.5)):
        function = FUNCTIONS[name]
        base = flat(function(s2=1.0))
        np.testing.assert_allclose(flat(function(s2=S2)), base * S2**power, rtol=1e-5)
        np.testing.assert_allclose(flat(function()), base * 0.25**power, rtol=1e-5)
    of = set(FUNCTIONS) - {"drift.force", "flow.decompose", "flow.along"}
    assert functions_of("s2") - {"flow.phi"} == {name for name in of if name.startswith("flow")}


def test_the_sign_of_the_output_weight():
    """A common ζ sees |V| only; the true flow and the drift push V to 0 and b down for either."""
    for name in ("flow.effective_gradient", "flow.projected"):
        function = {
            "flow.effective_gradient": flow.effective_gradient,
            "flow.projected": flow.projected,
        }
        np.testing.assert_array_equal(*(function[name](V, -0.3, w=1.4) for V in (0.7, -0.7)))
    for function in (flow.unit, functools.partial(drift.two_layer, dim=3)):
        (one_V, one_b), (other_V, other_b) = (function(V, -0.3, w=1.4) for V in (0.7, -0.7))
        assert (float(one_V), float(one_b)) == (-float(other_V), float(other_b))
        assert one_V < 0
        assert one_b < 0


def test_single_precision_is_enough_from_tail_to_tail():
    """The closed forms lose their digits below u = −3, where the integral takes over."""
    u, of = np.arange(-9, 9, 0.1).astype(np.float32), jax.jit(moments.gaussian)
    single = of(u, w=1.3)
    with jax.enable_x64():
        double = of(u.astype(float), w=1.3)
    rounding = {"sigma": 2e-5, "square": 1e-4, "active": 1e-5, "density": 1e-5}
    for name, allowed in rounding.items():
        np.testing.assert_allclose(getattr(single, name), getattr(double, name), rtol=allowed)


def test_a_density_has_its_binomial_error():
    q = np.r_[np.full(30, 0.5), np.full(170, 2.0)]
    rho = walk.density(q, [0, 1, 3])
    np.testing.assert_allclose(rho.value, [0.15, 0.85 / 2])
    sd = np.sqrt(0.15 * 0.85 / 200)
    np.testing.assert_allclose(rho.standard_error, [sd, sd / 2])


def test_a_unit_of_another_size_is_the_same_unit_in_another_scale():
    """For (b, w) → λ (b, w): E σ scales by λ, the rate stays, and densities shrink by 1/λ."""
    scale, one = 1.7, moments.gaussian(-0.3, w=1.4)
    other = moments.gaussian(-0.3 * scale, w=1.4 * scale)
    for name, power in {"sigma": 1, "square": 2, "active": 0, "density": -1}.items():
        expected = float(getattr(one, name)) * scale**power
        assert float(getattr(other, name)) == pytest.approx(expected, rel=1e-5)
    V, b, w = 0.7, -0.3, 1.4
    # V Φ stays if V does; Eσ and V²/w scale as λ if V scales by λ
    force_V, force_b = drift.two_layer(V, b, w=w, dim=3)
    scaled_V, scaled_b = drift.two_layer(V * scale, b * scale, w=w * scale, dim=3)
    np.testing.assert_allclose([scaled_V, scaled_b], [scale * force_V, scale * force_b], rtol=1e-5)
    flow_V, flow_b = flow.unit(V, b, w=w, dim=3)
    scaled_V, scaled_b = flow.unit(V * scale, b * scale, w=w * scale, dim=3)
    np.testing.assert_allclose([scaled_V, scaled_b], [scale * flow_V, scale * flow_b], rtol=1e-5)


@pytest.mark.parametrize(("loss", "classes"), [("softmax", 3), ("squared", 3)])
def test_random_labels_are_averaged_over_all_classes(loss, classes):
    """tr Σ1 over inputs and labels, from every pair of an input and a class."""
    model = jt.models.MLP(3, hidden=(4,), outputs=classes, init="he")
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (15, 3))
    pairs = jnp.repeat(x, classes, axis=0), jnp.tile(jnp.arange(classes), 15)
    trace = jax.jit(functools.partial(drift.trace_covariance, model, loss=loss))
    plain, averaged = float(trace(params, *pairs)), float(trace(params, x))
    # the same sums: only M − 1 in the denominator differs
    number = 15 * classes
    assert averaged * 14 / 15 == pytest.approx(plain * (number - 1) / number, rel=1e-5)
