"""One linear layer, dense or convolutional, up to its pre-activation; and the max pool.

A convolution is computed as a matrix product with the image patches ("im2col"). XLA's own
convolution is several times slower inside a loop on a CPU, and vectorising it over runs with
different weights turns it into a grouped convolution.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jthermo.models.init import Initializer


class Layer(nn.Module):
    """a = m·W·patch(x) + m_b·b: a dense layer, or a convolution with stride 1 and zero padding.

    Parameters: kernel (fan_in, features), whose fan_in runs over rows, columns and channels of the
    patch, and bias (features,).

    Attributes:
        features: number of outputs; of a convolution, per position.
        size: side of the convolution's window, odd; None for a dense layer.
        bias: whether the layer has a bias b.
        kernel_init: initializer of the kernel.
        bias_init: initializer of the bias.
        hidden: whether a nonlinearity follows; then a is sown for observables.
        weight_factor: m, see :mod:`jthermo.models.parametrization`.
        bias_factor: m_b.
    """

    features: int
    size: int | None
    bias: bool
    kernel_init: Initializer
    bias_init: Initializer
    hidden: bool = True
    weight_factor: float = 1.0
    bias_factor: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Pre-activations (…, features) of inputs (…, fan_in) or images (…, rows, columns, C)."""
        h = self.unfold(x)
        a = h @ self.param("kernel", self.kernel_init, (h.shape[-1], self.features))
        if self.bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            bias = bias if self.bias_factor == 1 else self.bias_factor * bias
            a = a + jnp.expand_dims(bias, tuple(range(a.ndim - 1)))
        if self.hidden:
            self.sow("preactivations", "a", a)
        return a

    def unfold(self, x: Array) -> Array:
        """What the kernel multiplies: x or its patches, times m."""
        h = x if self.size is None else patches(x, self.size)
        return h if self.weight_factor == 1 else self.weight_factor * h


def patches(x: Array, size: int) -> Array:
    """The size × size windows around each pixel, (…, rows, columns, C) → (…, rows, columns, s² C).

    Here s = `size`, and pixels outside the image are zero.
    """
    rows, columns = x.shape[-3:-1]
    near = size // 2
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(near, near), (near, near), (0, 0)])
    shifted = [
        padded[..., i : i + rows, j : j + columns, :] for i in range(size) for j in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1)


def max_pool(x: Array) -> Array:
    """Maximum over blocks of 2 × 2 pixels; an odd last row or column is dropped."""
    rows, columns = (n // 2 for n in x.shape[-3:-1])
    blocks = x[..., : 2 * rows, : 2 * columns, :]
    return blocks.reshape(*x.shape[:-3], rows, 2, columns, 2, x.shape[-1]).max((-4, -2))
