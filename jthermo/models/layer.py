"""One layer of a deep net, dense or convolutional, and how it is initialised.

A convolution is a matrix product with its patches laid out side by side ("im2col"): XLA's own convolution is several
times slower inside a loop on a CPU, and becomes a grouped one where runs with different weights are vectorised.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jthermo.models.init import Init


class Layer(nn.Module):
    """a = W·patch(x) + b: a dense layer where `size` is None, else a convolution with stride 1 and zero padding.

    Parameters: kernel (fan_in, features) and bias (features,); a patch runs over rows, columns and channels.

    Attributes:
        features: outputs, per position for a convolution.
        size: side of the convolution's window, odd; None for a dense layer.
        bias: whether b is there.
        kernel_init: draws the kernel.
        bias_init: draws the bias.
        hidden: whether a nonlinearity follows; then a is shown to observables.
    """

    features: int
    size: int | None
    bias: bool
    kernel_init: Init
    bias_init: Init
    hidden: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Pre-activations (…, features) of inputs (…, fan_in) or pictures (M, rows, columns, channels)."""
        h = self.unfold(x)
        a = h @ self.param("kernel", self.kernel_init, (h.shape[-1], self.features))
        if self.bias:
            a = a + self.param("bias", self.bias_init, (self.features,))
        if self.hidden:
            self.sow("preactivations", "a", a)
        return a

    def unfold(self, x: Array) -> Array:
        """What the kernel multiplies: x itself, or its patches."""
        return x if self.size is None else patches(x, self.size)


def patches(x: Array, size: int) -> Array:
    """The size × size neighbourhood of each pixel: (M, rows, columns, C) → (M, rows, columns, size² C)."""
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
