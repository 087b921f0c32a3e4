"""The unrolled threefry gives the bits of jax.random, for every draw, alone and batched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

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


def test_same_64_bit_words_as_jax():
    with jax.enable_x64():
        for draw in (
            lambda k: jax.random.bits(k, (2, 3), jnp.uint64),
            lambda k: jax.random.uniform(k, (5,), jnp.float64),
        ):
            ours, theirs = (draw(jax.random.key(7, impl=i)) for i in (IMPL, "threefry2x32"))
            np.testing.assert_array_equal(ours, theirs)


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
