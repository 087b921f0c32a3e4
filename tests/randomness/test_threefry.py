"""The unrolled threefry gives the bits of jax.random, for every draw, alone and batched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jthermo.randomness.jax_settings import pinned
from jthermo.randomness.threefry import IMPL, normal, threefry2x32

SEEDS = jnp.array([0, 1, 12345, 2**31, 2**32 - 1], jnp.uint32)
DRAWS = {
    "normal": lambda k: jax.random.normal(k, (3, 5)),
    "uniform": lambda k: jax.random.uniform(k, (7,)),
    "scalar": lambda k: jax.random.normal(k),
    "bits8": lambda k: jax.random.bits(k, (9,), jnp.uint8),
    "bits16": lambda k: jax.random.bits(k, (9,), jnp.uint16),
    "bits32": lambda k: jax.random.bits(k, (2, 3, 4), jnp.uint32),
    "randint": lambda k: jax.random.randint(k, (6,), 0, 1000),
    "bernoulli": lambda k: jax.random.bernoulli(k, 0.5, (11,)),
    "rademacher": lambda k: jax.random.rademacher(k, (4,)),
    "permutation": lambda k: jax.random.permutation(k, 13),
    "split": lambda k: jax.random.key_data(jax.random.split(k, 3)),
    "fold_in": lambda k: jax.random.key_data(jax.random.fold_in(jax.random.fold_in(k, 7), 2**31)),
    "empty": lambda k: jax.random.normal(k, (0, 3)),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_same_bits_as_jax(draw):
    def bits(impl):
        return np.asarray(
            jax.jit(jax.vmap(lambda s: DRAWS[draw](jax.random.key(s, impl=impl))))(SEEDS)
        )

    ours, theirs = bits(IMPL), bits("threefry2x32")
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours.view(np.uint8), theirs.view(np.uint8))


def test_words_of_64_bits_are_those_of_jax_with_the_32_bit_word_in_the_upper_half():
    with jax.enable_x64():
        ours, theirs = (
            np.asarray(jax.random.bits(jax.random.key(7, impl=i), (2, 3), jnp.uint64))
            for i in (IMPL, "threefry2x32")
        )
        short = jax.random.bits(jax.random.key(7, impl=IMPL), (2, 3), jnp.uint32)
    high, low = theirs >> np.uint64(32), theirs & np.uint64(2**32 - 1)
    np.testing.assert_array_equal(ours >> np.uint64(32), short)
    np.testing.assert_array_equal(ours >> np.uint64(32), high ^ low)
    np.testing.assert_array_equal(ours & np.uint64(2**32 - 1), low)


def test_numbers_in_float64_are_those_in_float32_with_more_digits():
    def drawn(dtype, seed=3):
        key = jax.random.key(jnp.uint32(seed), impl=IMPL)
        with pinned(dtype):
            uniform = jax.random.uniform(key, (1000,), float)
            numbers = [uniform, normal(key, (1000,)), jax.random.bernoulli(key, 0.5, (1000,))]
            return [np.asarray(n) for n in numbers]

    short, long = drawn("float32"), drawn("float64")
    assert long[0].dtype == long[1].dtype == np.float64
    assert (long[0] != short[0]).mean() > 0.99
    assert 0 <= (long[0] - short[0]).min() <= (long[0] - short[0]).max() < 2**-23
    np.testing.assert_allclose(long[1], short[1], atol=1e-4)
    np.testing.assert_array_equal(long[2], short[2])
    # negative control: another seed
    assert abs(drawn("float64", 4)[0] - short[0]).max() > 0.5


def test_normals_in_float64_are_the_inverse_error_function():
    with pinned("float64"):
        key = jax.random.key(jnp.uint32(5), impl=IMPL)
        u = jax.random.uniform(key, (1000,), float, np.nextafter(-1.0, 0.0), 1.0)
        exact = np.sqrt(2) * special.erfinv(np.asarray(u))
        np.testing.assert_allclose(normal(key, (1000,)), exact, rtol=1e-14)


@pytest.mark.parametrize("draw", ["normal", "fold_in", "permutation"])
def test_same_bits_alone_and_batched(draw):
    batched = jax.jit(jax.vmap(lambda s: DRAWS[draw](jax.random.key(s, impl=IMPL))))(SEEDS)
    for seed, row in zip(SEEDS, np.asarray(batched), strict=True):
        np.testing.assert_array_equal(np.asarray(DRAWS[draw](jax.random.key(seed, impl=IMPL))), row)


def test_normal_is_the_inverse_error_function_at_least_as_accurately_as_jax():
    key, shape = jax.random.key(5, impl=IMPL), (2**20,)
    u = jax.random.uniform(key, shape, minval=np.nextafter(np.float32(-1), np.float32(0)))
    exact = np.sqrt(2) * special.erfinv(np.asarray(u, np.float64))
    assert np.abs(exact).max() > 4.8
    ours, theirs = (
        np.abs(np.asarray(f(key, shape)) / exact - 1) for f in (normal, jax.random.normal)
    )
    assert ours.max() < 1e-6
    assert theirs.max() > ours.max()


def test_known_answers_of_threefry_2x32_20_rounds():
    """The known-answer vectors of Random123 (kat_vectors, threefry 2x32 20)."""
    ones, digits = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    cases = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((digits[2], digits[3]), (digits[0], digits[1]), (0xC4923A9C, 0x483DF7A0)),
    ]
    for key, count, expected in cases:
        words = threefry2x32(tuple(jnp.uint32(k) for k in key), tuple(jnp.uint32(c) for c in count))
        assert tuple(int(w) for w in words) == expected
