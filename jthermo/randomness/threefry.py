"""JAX's random generator, Threefry-2x32, with its rounds unrolled, and normal random numbers.

On CPUs, XLA lowers JAX's own threefry as a rolled loop, which it can't fuse with other operations.
This one is plain arithmetic, so a draw fuses with the operations that use it, which is several
times faster. The bits are those of ``jax.random.key(seed, impl="threefry2x32")`` with
``jax_threefry_partitionable``; ``tests/randomness/test_threefry.py`` compares them. Only the words
of 64 bits differ: their upper half is the word of 32 bits, so a uniform or normal number in float64
is that in float32 with more digits.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.random import define_prng_impl

from jthermo.randomness.jax_settings import real

# Rotation distances in bits of the four rounds of even and of odd groups (Salmon et al. 2011).
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
# The constant in the third word of the key schedule (Salmon et al. 2011, Random123).
_PARITY = 0x1BD11BDA
# Lower bound of the uniform u from which `normal` computes, as in jax.random.normal.
LOWEST = np.nextafter(np.float32(-1), np.float32(0))
# Coefficients of Giles' (2010) polynomials for erf⁻¹(u)/u with w = −log(1 − u²), highest power
# first: in w − 5/2 for w < 5 (_CENTRE) and in √w − 3 for w ≥ 5 (_TAIL).
_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def threefry2x32(key: tuple[Array, Array], count: tuple[Array, Array]) -> tuple[Array, Array]:
    """The 20 rounds of Threefry-2x32 (Salmon et al. 2011, Random123), elementwise on uint32."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    a, b = count[0] + keys[0], count[1] + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            a = a + b
            b = ((b << jnp.uint32(distance)) | (b >> jnp.uint32(32 - distance))) ^ a
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return a, b


def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normals √2 erf⁻¹(u), with the u of ``jax.random.normal``.

    erf⁻¹ is Giles' (2010) polynomials. XLA's own uses log1p, which its CPU compiler doesn't
    vectorise, so it takes seven times as long. The two agree to rounding error, and in the tails
    XLA's error is the larger one. In float64 it is XLA's, since these polynomials have the digits
    of float32.

    >>> import jax
    >>> key = jax.random.key(0)
    >>> bool(abs(normal(key, (9,)) - jax.random.normal(key, (9,))).max() < 2e-6)
    True
    """
    if real() == jnp.float64:
        lowest = np.nextafter(-1.0, 0.0)
        return np.sqrt(2) * jax.lax.erf_inv(jax.random.uniform(key, shape, float, lowest, 1.0))
    return from_uniform(jax.random.uniform(key, shape, jnp.float32, LOWEST, 1.0))


def from_uniform(u: Array) -> Array:
    """√2 erf⁻¹(u) by Giles (2010), float32: standard normal for u uniform on (−1, 1)."""
    w = -jnp.log((1 - u) * (1 + u))
    series = jnp.where(w < 5, _polynomial(_CENTRE, w - 2.5), _polynomial(_TAIL, jnp.sqrt(w) - 3))
    return np.float32(np.sqrt(2)) * (series * u)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total = total * x + c
    return total


def _counts(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """High and low words of 0, 1, 2 … in an array of `shape`."""
    if (size := math.prod(shape)) >= 2**32:
        raise NotImplementedError(
            f"one key gives fewer than 2**32 random numbers, but {size:,} were requested"
        )
    low = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        low = low + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return jnp.zeros(shape, jnp.uint32), low


def _seed(seed: Array) -> Array:
    return jnp.stack([jnp.uint32(0), seed.astype(jnp.uint32)])


def _bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = threefry2x32((key[0], key[1]), _counts(shape))
    if bit_width == 64:
        return ((high ^ low).astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width])


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(threefry2x32((key[0], key[1]), _counts(shape)), axis=-1)


def _fold_in(key: Array, data: Any) -> Array:
    return jnp.stack(
        threefry2x32((key[0], key[1]), (jnp.uint32(0), jnp.asarray(data).astype(jnp.uint32)))
    )


IMPL = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name="jthermo_threefry2x32",
    tag="jthermo",
)
