"""The walk against exact results: moments, Soret equilibrium, walls and flux."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jthermo.errors import InputError
from jthermo.theory import walk
from jthermo.theory.walk import Estimate, Walk
from tests.chance import far, sigmas

ETAS = (0.1, 0.05, 0.02)
# Standard errors that an estimate may be off. Each key is drawn once, and a right estimate fails
# for 3 keys in 1,000; where the order of η is left out, its size is added.
OFF = sigmas(3e-3)


def linear(q):
    return 1 + 0.5 * q


def constant(q):
    return jnp.full_like(q, 1.3)


@pytest.fixture
def x64():
    with jax.enable_x64():
        yield


@pytest.mark.parametrize("eta", ETAS)
def test_flux_of_a_uniform_density_follows_the_gradient_of_temperature(eta, x64):
    flux_at_1 = walk.flux(Walk(linear, eta), 1.0, key=jax.random.key(1))
    ratio = Estimate(*(v / (eta**2 * 1.5 * 0.5) for v in flux_at_1))
    # for linear g the steps up and down land exactly at −1/(1 − η²g'²); −1 is its limit
    assert ratio.away(-1 / (1 - (eta * 0.5) ** 2)) < OFF
    assert abs(ratio.value + 1) < 0.01
    # Eq. 11 and A.4 up to its sign
    assert ratio.away(-0.5) > 100


def test_flux_of_a_density_gradient_is_half_of_eq_10(x64):
    slope = Walk(constant, 0.05)
    measured = walk.flux(slope, 0.4, key=jax.random.key(2), density=lambda q: 1 + 0.3 * q[0])
    ratio = Estimate(*(v / (0.05**2 * 1.3**2 * 0.3) for v in measured))
    assert ratio.away(-0.5) < OFF
    assert ratio.away(-1.0) > 100


def test_no_flux_where_density_is_one_over_temperature(x64):
    unit = 0.05**2 * 1.5 * 0.5
    still = walk.flux(
        Walk(linear, 0.05),
        1.0,
        key=jax.random.key(3),
        density=lambda q: linear(q[0]) ** -2 * 1.5**2,
    )
    flows = walk.flux(
        Walk(linear, 0.05), 1.0, key=jax.random.key(3), density=lambda q: linear(q[0]) ** -1 * 1.5
    )
    # next order in η
    assert abs(still.value) < OFF * still.standard_error + 0.01 * unit
    assert Estimate(flows.value / unit, flows.standard_error / unit).away(0) > 100


def test_flux_is_a_vector_in_several_dimensions(x64):
    """For g_x = 1 + x/2 and g_y = 2, J_x is as in one dimension.

    J_y is 0 for independent ζ and −(η²/2) ∂_x(g_x g_y) for a common ζ.
    """

    def g(q):
        return jnp.stack([1 + 0.5 * q[0], 2.0 + 0 * q[1]])

    steps = Walk(g, 0.05, common=False)
    along_x = walk.flux(
        steps, [1.0, 0.0], normal=[1.0, 0.0], key=jax.random.key(4), num_samples=2**15
    )
    along_y = walk.flux(
        steps, [1.0, 0.0], normal=[0.0, 1.0], key=jax.random.key(4), num_samples=2**15
    )
    unit = 0.05**2 * 0.75
    assert Estimate(*(v / unit for v in along_x)).away(-1) < OFF
    assert abs(along_y.value) < OFF * along_y.standard_error
    common = walk.flux(
        Walk(g, 0.05), [1.0, 0.0], normal=[0.0, 1.0], key=jax.random.key(4), num_samples=2**15
    )
    # −½ ∂_x(g_y g_x)
    assert Estimate(*(v / 0.05**2 for v in common)).away(-0.5) < OFF


@pytest.mark.parametrize("eta", [0.1, 0.05])
def test_stationary_density_between_walls_is_one_over_g_squared(eta):
    box = Walk(linear, eta, walls="reflecting", low=0.0, high=4.0)
    end = walk.simulate(box, jnp.linspace(0, 4, 200_000), int(16 / eta**2), key=jax.random.key(5))
    # without the layer of one step at each wall
    exponent_of_g = walk.stationary_exponent(box, end.q, low=0.3, high=3.7)
    assert exponent_of_g.away(-2) < OFF
    # Eq. 10 as printed
    assert exponent_of_g.away(-1) > 50
    # Eq. 10 with the c of Eq. 11
    assert exponent_of_g.away(-0.5) > 50
    rho = walk.density(end.q, np.linspace(0, 4, 21))
    grid = np.linspace(0, 4, 2001)
    exact = walk.equilibrium(linear, grid).reshape(-1)
    per_bin = np.array([exact[i * 100 : i * 100 + 101].mean() for i in range(20)])
    assert far(((rho.value - per_bin) / rho.standard_error)[2:-2]) > 1e-3
    printed = walk.equilibrium(linear, grid, exponent=-1)
    rival = np.array([printed[i * 100 : i * 100 + 101].mean() for i in range(20)])
    assert far(((rho.value - rival) / rho.standard_error)[2:-2]) < 1e-100


def test_free_walk_keeps_its_mean_and_lowers_its_typical_variance():
    """To η²T = 0.8 from q = 1: E q stays, E g² grows by e^0.2, the median of g² falls by e^−0.2."""
    number = 200_000
    end = walk.simulate(Walk(linear, 0.02), jnp.ones(number), 2000, key=jax.random.key(6))
    q = np.asarray(end.q, float).ravel()
    g2 = linear(q) ** 2
    shift = Estimate(q.mean() - 1, q.std() / math.sqrt(number))
    assert shift.away(0) < OFF
    # the drift η² g g' that follows from Eq. 10
    assert shift.away(3 * (math.exp(0.2) - 1)) > 100
    ratio = Estimate(g2.mean() / 1.5**2, g2.std() / 1.5**2 / math.sqrt(number))
    assert ratio.away(math.exp(0.2)) < OFF
    # the diffusion and drift of Eq. 10
    assert ratio.away(math.exp(0.8)) > 100
    # "the variance falls" is false for the mean
    assert ratio.away(1.0) > 10
    # log g lies on a lattice of spacing 2·0.01, which limits the precision of the median
    assert abs(np.median(q) - 0.7145) < 0.01
    assert abs(np.median(g2) / 1.5**2 - math.exp(-0.2)) < 0.01


def test_walls():
    start = jnp.linspace(0.05, 0.95, 4000)
    key = jax.random.key(7)
    periodic = walk.simulate(
        Walk(constant, 0.05, walls="periodic", low=0.0, high=1.0), start, 500, key=key
    ).q
    reflected = walk.simulate(
        Walk(constant, 0.05, walls="reflecting", low=0.0, high=1.0), start, 500, key=key
    ).q
    for q in (periodic, reflected):
        assert float(q.min()) >= 0
        assert float(q.max()) <= 1
        # 1e-4 of the keys
        assert stats.chisquare(np.histogram(q, np.linspace(0, 1, 6))[0]).pvalue > 1e-4
    free = walk.simulate(Walk(constant, 0.05), start, 500, key=key).q
    # periodic walls wrap the free walk
    np.testing.assert_allclose(np.mod(free, 1), periodic, atol=2e-4)


def test_absorbing_walls_hold_the_walkers_that_reach_them():
    """From the middle of (0, 1) the survivors decay as (4/π) exp(−π² D t) with D = η² g²/2."""
    absorbing = Walk(constant, 0.01, walls="absorbing", low=0.0, high=1.0)
    number, steps = 20_000, 2000
    end = walk.simulate(absorbing, jnp.full(number, 0.5), steps, key=jax.random.key(8))
    share = float(end.alive.mean())
    expected = 4 / math.pi * math.exp(-(math.pi**2) * (0.01 * 1.3) ** 2 / 2 * steps)
    error = math.sqrt(expected * (1 - expected) / number)
    # walkers are absorbed up to one step beyond the walls
    assert abs(share - expected) < OFF * error + 0.03 * expected
    gone = np.asarray(end.q)[~np.asarray(end.alive)]
    assert ((gone <= 0) | (gone >= 1)).all()
    later = walk.simulate(absorbing, end.q, 100, key=jax.random.key(9))
    # it stays where it was absorbed
    np.testing.assert_array_equal(later.q[~end.alive], gone)


def test_flux_needs_a_smooth_step():
    with pytest.raises(InputError, match="g doubles within one step"):
        walk.flux(Walk(lambda q: jnp.exp(40 * q), 0.1), 0.0, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("learning_rate", {"learning_rate": 0.0}),
        ("walls", {"walls": "soft"}),
        ("walls", {"walls": "periodic"}),
        ("high", {"low": 1.0, "high": 0.0}),
    ],
)
def test_a_wrong_walk_names_its_field(field, arguments):
    with pytest.raises(InputError) as caught:
        Walk(linear, **{"learning_rate": 0.1, **arguments})
    assert caught.value.field == field
