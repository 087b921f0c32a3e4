"""The flow against the simulated walk and derivatives; the printed forms are rejected."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jthermo.errors import InputError
from jthermo.theory import flow, moments, walk
from jthermo.theory.walk import Estimate, Walk
from tests.chance import sigmas

# Standard errors that an estimate may be off. Each key is drawn once, and a right estimate fails
# for 3 keys in 1,000; the order of η that is left out is added to its error.
OFF = sigmas(3e-3)


@pytest.fixture
def x64():
    with jax.enable_x64():
        yield


def linear(q):
    return 1 + 0.5 * q


def unit_gradient(q):
    return flow.effective_gradient(q[0], q[1])


def curved(q):
    return jnp.stack([1 + 0.3 * q[1], 0.7 + 0.2 * q[0] * q[1], jnp.exp(0.3 * q[2])])


def tilted(q):
    return jnp.exp(0.4 * q[0] - 0.2 * q[-1])


@pytest.mark.parametrize(
    ("name", "g", "at", "density"),
    [
        ("one dimension", linear, [1.0], None),
        ("one dimension, slope", linear, [1.0], tilted),
        ("(V, b)", unit_gradient, [1.0, 0.0], None),
        ("(V, b), slope", unit_gradient, [0.6, -0.5], tilted),
    ],
)
def test_the_walk_follows_the_exact_flow_and_not_the_printed_one(name, g, at, density, x64):
    eta = 0.05
    measured = walk.flux(
        Walk(g, eta), at, key=jax.random.key(0), density=density, num_samples=2**16
    )
    exact, printed = (
        float(flow.along(g, jnp.array(at), density=density, learning_rate=eta, form=form))
        for form in ("exact", "eq10")
    )
    # the next order in η, (η g')² relative, and the average over a patch of two steps: below 0.5 %
    error = math.hypot(measured.standard_error, 0.005 * abs(exact))
    assert abs(measured.value - exact) < OFF * error
    for form in ("eq10", "eq11", "a4"):
        rival = float(flow.along(g, jnp.array(at), density=density, learning_rate=eta, form=form))
        # the only case in which Eq. 10 is right
        if not (name == "one dimension" and form == "eq10"):
            assert abs(measured.value - rival) > 10 * error
    assert (abs(printed - exact) < 1e-12) == (name == "one dimension")


def test_perpendicular_flow_is_there(x64):
    at = [1.0, 0.0]
    parts = flow.decompose(unit_gradient, jnp.array(at), learning_rate=0.05)
    normal = np.array([-parts.direction[1], parts.direction[0]])
    measured = walk.flux(
        Walk(unit_gradient, 0.05), at, normal=normal, key=jax.random.key(1), num_samples=2**16
    )
    expected = float(parts.perpendicular @ normal)
    assert abs(measured.value - expected) < OFF * math.hypot(
        measured.standard_error, 0.005 * abs(expected)
    )
    assert measured.away(0) > 10


def test_parts_add_up_to_the_derivative_of_the_covariance(x64):
    q = jnp.array([0.4, -0.3, 0.2])
    parts = flow.decompose(curved, q, density=tilted, learning_rate=0.1, batch_size=4)
    direct = flow.exact(lambda q: 0.1**2 / 4 * jnp.outer(curved(q), curved(q)), q, density=tilted)
    np.testing.assert_allclose(parts.vector, direct, rtol=1e-12)
    assert abs(parts.perpendicular @ parts.direction) < 1e-15


def test_the_count_across_a_surface_is_the_walk_at_any_step(x64):
    """With long steps in one dimension the walk follows the exact count, not order η² or Eq. 9."""
    g, eta, at = (lambda q: 1 + 0.5 * q + 0.3 * jnp.sin(q)), 0.3, jnp.array([0.5])
    measured = walk.flux(Walk(g, eta), at, key=jax.random.key(2), density=tilted)
    counted = {
        form: float(flow.crossing(g, at, density=tilted, learning_rate=eta, form=form))
        for form in flow.CROSSING
    }
    assert measured.away(counted["exact"]) < OFF
    assert measured.away(float(flow.along(g, at, density=tilted, learning_rate=eta))) > 10
    assert measured.away(counted["eq9"]) > 10
    flat = flow.crossing(linear, jnp.array([1.0]), learning_rate=0.4)
    assert float(flat) == pytest.approx(-(0.4**2) * 0.75 / (1 - 0.2**2), rel=1e-12)


def test_eq_9_expands_to_eq_10_and_the_exact_count_to_the_exact_flow(x64):
    """In three dimensions and with a gradient of ρ, where the two differ."""
    options = {"density": tilted, "learning_rate": 1e-3, "batch_size": 4}
    at = jnp.array([0.4, -0.3, 0.2])
    exact, eq9 = (float(flow.crossing(curved, at, form=form, **options)) for form in flow.CROSSING)
    assert exact == pytest.approx(float(flow.along(curved, at, **options)), rel=1e-5)
    assert eq9 == pytest.approx(float(flow.along(curved, at, form="eq10", **options)), rel=1e-5)
    assert abs(eq9 / exact - 1) > 0.02


def test_every_flow_goes_through_jit_and_vmap(x64):
    def flows(q):
        return {
            "along": flow.along(curved, q, density=tilted),
            "decompose": flow.decompose(curved, q),
            "crossing": [
                flow.crossing(curved, q, learning_rate=0.1, form=form) for form in flow.CROSSING
            ],
            "exact": flow.exact(lambda q: jnp.outer(curved(q), curved(q)), q),
            "unit": flow.unit(q[0], q[1], dim=5),
            "projected": [flow.projected(q[0], q[1], form=form) for form in flow.FORMS],
        }

    at = jnp.array([[0.6, -0.5, 0.1], [1.0, 0.0, -0.3]])
    mapped, one = jax.jit(jax.vmap(flows))(at), jax.jit(flows)
    for row in range(2):
        alone = one(at[row])
        jax.tree.map(
            lambda m, a, row=row: np.testing.assert_allclose(m[row], a, rtol=1e-9), mapped, alone
        )


def test_equilibrium_has_no_flux_in_one_dimension(x64):
    def soret(q):
        return linear(q[0]) ** -2

    at = jnp.array([1.0])
    assert abs(flow.along(linear, at, density=soret)) < 1e-12
    assert abs(flow.along(linear, at, density=lambda q: linear(q[0]) ** -1)) > 0.1


def test_projected_is_the_flow_of_the_unit(x64):
    """The closed form equals the general formula, for each form and on a grid of V and b."""
    for V, b in [(1.0, 0.0), (0.3, 0.7), (2.0, -1.5)]:
        for w, s2, eta, size in [(1.0, 0.25, 1.0, 1), (1.4, 0.2, 0.1, 3)]:
            g = functools.partial(
                lambda q, w, s2: flow.effective_gradient(q[0], q[1], w=w, s2=s2), w=w, s2=s2
            )
            for form, general, factor in [
                ("exact", "exact", 1),
                ("eq10", "eq10", 1),
                ("psi", "a4", -1),
            ]:
                one = flow.projected(
                    V, b, w=w, s2=s2, learning_rate=eta, batch_size=size, form=form
                )
                other = flow.along(
                    g, jnp.array([V, b]), learning_rate=eta, batch_size=size, form=general
                )
                np.testing.assert_allclose(one, factor * other, rtol=1e-9)
    assert float(flow.projected(1.0, 0.0)) == pytest.approx(-0.1323, abs=5e-5)
    assert float(flow.projected(1.0, 0.0, form="eq10")) == pytest.approx(-0.1942, abs=5e-5)
    assert float(flow.projected(1.0, 0.0, form="psi")) == pytest.approx(-0.0971, abs=5e-5)


def test_projected_under_jit_and_vmap():
    V, b = jnp.linspace(-2, 2, 5), jnp.linspace(-30, 3, 5)
    one = functools.partial(flow.projected, w=1.3)
    direct, mapped = jax.jit(one)(V, b), jax.jit(jax.vmap(one))(V, b)
    np.testing.assert_allclose(mapped, direct, rtol=1e-5, atol=1e-30)
    assert direct.shape == (5,)
    assert bool(jnp.isfinite(direct).all())
    # u = −23: no input activates the unit
    assert direct[0] == 0
    step = 1e-2
    near, slope = jax.jit(jax.value_and_grad(lambda b: flow.projected(1.0, b))), {}
    for b in (-step, 0.0, step):
        slope[b] = near(b)
    differences = float(slope[step][0] - slope[-step][0]) / (2 * step)
    assert float(slope[0.0][1]) == pytest.approx(differences, rel=1e-3)


def test_the_unit_without_a_common_sign(x64):
    """(J_V, J_b) against −½ ∂_j C_ij of the true covariance of (V, b) and of (V, b, W)."""
    V, b, w, s2 = 0.8, -0.4, 1.3, 0.25

    # C of (V, b): its entries are moments, which autodiff differentiates in b
    def covariance(q):
        seen = moments.gaussian(q[1], w=w)
        return s2 * jnp.array(
            [[seen.square, q[0] * seen.sigma], [q[0] * seen.sigma, q[0] ** 2 * seen.active]]
        )

    np.testing.assert_allclose(
        flow.unit(V, b, w=w), flow.exact(covariance, jnp.array([V, b])), rtol=1e-9
    )

    # if W walks in d = 3: the divergence over W by central differences of exact integrals over x
    dim = 3

    def cross(W):
        """E σ x_j and V² E σ' x_j along W, from E over z ~ N(0, 1)."""
        size = np.linalg.norm(W)
        u = b / size
        # E[σ z]/w
        along = stats.norm.cdf(u)
        return size * along * W / size, V**2 * stats.norm.pdf(u) * W / size

    W = w * np.array([2.0, -1.0, 2.0]) / 3
    step = 1e-5
    div = [0.0, 0.0]
    for j in range(dim):
        e = step * np.eye(dim)[j]
        up, down = cross(W + e), cross(W - e)
        for k in range(2):
            div[k] += (up[k][j] - down[k][j]) / (2 * step)
    alone = flow.unit(V, b, w=w)
    walking = flow.unit(V, b, w=w, dim=dim)
    assert float(walking[0] - alone[0]) == pytest.approx(-s2 / 2 * V * div[0], rel=1e-6)
    assert float(walking[1] - alone[1]) == pytest.approx(-s2 / 2 * div[1], rel=1e-6)


@pytest.mark.parametrize("u", [-12.0, -6.0, -3.0001, -2.9999, -1.0, 0.0, 2.5])
def test_gaussian_moments(u, x64):
    w = 1.7
    relu = moments.gaussian(u * w, w=w)
    top = max(-u, 0) + 12

    def kernel(k):
        end = top + u if u > 0 else 12
        return integrate.quad(
            lambda t: t**k * stats.norm.pdf(t - u), 0, end, epsabs=0, epsrel=1e-12
        )[0]

    np.testing.assert_allclose(
        [relu.active, relu.sigma, relu.square],
        [kernel(0), w * kernel(1), w**2 * kernel(2)],
        rtol=1e-9,
    )
    np.testing.assert_allclose(relu.density, stats.norm.pdf(u) / w, rtol=1e-12)


def test_single_precision_keeps_the_tail():
    for u in (-3.2, -5.0, -9.0):
        single = moments.gaussian(jnp.float32(u))
        with jax.enable_x64():
            double = moments.gaussian(u)
        np.testing.assert_allclose(single, double, rtol=3e-5)


def test_moments_of_any_input_agree_between_quadrature_and_samples(x64):
    """z ~ U(−1, 2): closed forms, quadrature and Monte Carlo; then the flow that they give."""
    b = jnp.array([-0.5, 0.2, 1.5])

    def density(z):
        return jnp.full_like(z, 1 / 3)

    exact = moments.quadrature(b, density, -1.0, 2.0)
    top = 2 + np.asarray(b)
    bottom = np.maximum(np.asarray(b) - 1, 0)
    np.testing.assert_allclose(exact.sigma, (top**2 - bottom**2) / 6, rtol=1e-12)
    np.testing.assert_allclose(exact.square, (top**3 - bottom**3) / 9, rtol=1e-12)
    np.testing.assert_allclose(exact.density, [1 / 3, 1 / 3, 0])
    number = 400_000
    z = jax.random.uniform(jax.random.key(3), (number,), minval=-1, maxval=2)
    estimated = moments.sampled(b, z)
    np.testing.assert_allclose(
        estimated.active, exact.active, atol=sigmas(1e-4, 3) * 0.5 / math.sqrt(number)
    )
    np.testing.assert_allclose(estimated.square, exact.square, rtol=0.01)
    np.testing.assert_allclose(estimated.density, exact.density, atol=0.01)
    flows = [flow.projected(0.7, b, moments=m) for m in (exact, estimated)]
    np.testing.assert_allclose(*flows, rtol=0.03)
    slopes = flow.phi(exact)
    step = 1e-6
    ahead = flow.phi(moments.quadrature(b + step, density, -1.0, 2.0))
    np.testing.assert_allclose((ahead.phi1 - slopes.phi1) / step, slopes.slope1, rtol=1e-4)
    np.testing.assert_allclose(
        (ahead.phi2 - slopes.phi2) / step, slopes.slope2, rtol=1e-4, atol=1e-6
    )


def test_flow_scales_as_eta_squared_over_batch_size():
    base = flow.projected(0.5, 0.2)
    np.testing.assert_allclose(
        flow.projected(0.5, 0.2, learning_rate=0.1, batch_size=5), base * 0.01 / 5, rtol=1e-5
    )
    # ∝ s²: strongest early
    np.testing.assert_allclose(flow.projected(0.5, 0.2, s2=0.05), base / 5, rtol=1e-5)


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="form = 'eq12'"):
        flow.projected(1.0, 0.0, form="eq12")
    with pytest.raises(InputError, match="form = 'eq10'"):
        flow.crossing(linear, jnp.array([1.0]), form="eq10")
    with pytest.raises(InputError, match="form = 'psi'"):
        flow.along(linear, jnp.array([1.0]), form="psi")


def test_away_counts_standard_errors():
    assert Estimate(1.0, 0.5).away(2.0) == 2
