"""Activation statistics per layer: rate, dead, vanished and identical units, effective rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jthermo.models import Model
from jthermo.observables.observable import (
    Observable,
    Probe,
    Variable,
    mean_over_parts,
    needs_preactivations,
)
from jthermo.update_rule.losses import Loss

# A unit has vanished if its rms activation is below this fraction of the layer's rms activation.
VANISHED = 0.01
# Two units are identical if the cosine between their activations over the probe is above this.
IDENTICAL = 0.999
NAMES = {
    "layer_activation": "fraction of active units",
    "layer_dead": "fraction of units that no example of the probe activates",
    "layer_vanished": (
        f"fraction of units whose rms activation is below {VANISHED:g} of the layer's"
    ),
    "layer_identical": (
        f"fraction of units whose activations have a cosine above {IDENTICAL:g} with an earlier "
        "unit's"
    ),
    "layer_rank": (
        "effective rank (Σλ)²/Σλ² of the activations, λ the eigenvalues of their second moments"
    ),
}


@dataclass(frozen=True)
class LayerStatistics(Observable):
    """Activation statistics of each hidden layer over the probe; see :func:`layer_statistics`."""

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """Five variables over the dim ``hidden_layer``."""
        layers = tuple(jax.eval_shape(model.preactivations, model.shapes, model.examples(2)))
        return {
            name: Variable(
                f"{words}; layers: {', '.join(layers)}",
                dims=("hidden_layer",),
                coords={"hidden_layer": layers},
            )
            for name, words in NAMES.items()
        }

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse a model without pre-activations."""
        needs_preactivations(model, "layer_statistics")

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """Each statistic for every layer."""

        def means(x: Array) -> list[tuple[Array, Array]]:
            layers = model.preactivations(params, x).values()
            return [_means(a.reshape(-1, a.shape[-1])) for a in layers]

        if probe.whole:
            parts = mean_over_parts(probe, means, probe.x)
            rows = [
                _statistics(rates.mean(), (rates == 0).mean(dtype=float), moments)
                for rates, moments in parts
            ]
        else:
            layers = model.preactivations(params, probe.x).values()
            rows = [statistics(a.reshape(-1, a.shape[-1])) for a in layers]
        return dict(zip(NAMES, jnp.stack(rows).T, strict=True))


def statistics(a: Float[Array, "samples units"]) -> Float[Array, " statistics"]:
    """Statistics of one layer, in the order of `NAMES`.

    Args:
        a: pre-activations, (samples, units).

    Returns:
        (5,) activation rate, fractions of dead, vanished and identical units, effective rank.

    >>> statistics(jnp.array([[1.0, -1.0], [1.0, -1.0]])).tolist()
    [0.5, 0.5, 0.5, 0.0, 1.0]
    """
    h = jnp.maximum(a, 0)
    return _statistics(
        (a > 0).mean(dtype=float), (~(a > 0).any(0)).mean(dtype=float), h.T @ h / len(h)
    )


def _means(a: Array) -> tuple[Array, Array]:
    """The activation rate of each unit, and the second moments of the activations."""
    h = jnp.maximum(a, 0)
    return (a > 0).mean(0, dtype=float), h.T @ h / len(h)


def _statistics(active: Array, dead: Array, moments: Array) -> Array:
    """The statistics of a layer from the fractions of active and dead units, and E h hᵀ."""
    square = jnp.diag(moments)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    cosine = moments / norm[:, None] / norm[None, :]
    earlier = jnp.tril(jnp.ones_like(moments), -1) > 0
    # Σλ² of a symmetric matrix is the sum of its squared elements
    total = jnp.square(moments).sum()
    return jnp.stack(
        [
            active,
            dead,
            (square < VANISHED**2 * square.mean()).mean(dtype=float),
            ((cosine > IDENTICAL) & earlier).any(1).mean(dtype=float),
            jnp.where(total > 0, square.sum() ** 2 / jnp.where(total > 0, total, 1.0), 0.0),
        ]
    )


def layer_statistics() -> LayerStatistics:
    """Activation statistics per hidden layer, over the dim ``hidden_layer``.

    They are recorded as ``layer_activation``, ``layer_dead``, ``layer_vanished``,
    ``layer_identical`` and ``layer_rank``. A unit of a convolution is a channel, over all examples
    and pixels.

    Source: Chen et al. 2023, arXiv 2306.04251, for vanished and identical units, which are defined
    there by weights and here by activations.

    >>> layer_statistics()
    LayerStatistics()
    """
    return LayerStatistics()
