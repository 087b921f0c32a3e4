"""An observable at every n-th record only, for expensive ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jthermo.errors import whole_number
from jthermo.models import Model
from jthermo.observables.custom import as_observable
from jthermo.observables.observable import Observable, Probe, Variable
from jthermo.update_rule.losses import Loss
from jthermo.update_rule.optimizer import Optimizer


@dataclass(frozen=True)
class Sparse(Observable):
    """An observable at every n-th record; see :func:`sparse`."""

    observable: Any
    every: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "observable", as_observable(self.observable))
        whole_number("sparse.every", self.every)

    @property
    def period(self) -> int:
        """The period n."""
        return self.every

    def of_optimizer(self, optimizer: Optimizer) -> Sparse:
        """The observable of runs with this optimizer."""
        return Sparse(self.observable.of_optimizer(optimizer), self.every)

    def reads_last_step(self, model: Model, data: Any, probe_size: int, loss: Loss) -> bool:
        """Whether the observable reads it."""
        read: bool = self.observable.reads_last_step(model, data, probe_size, loss)
        return read

    def variables(self, model: Model, data: Any) -> dict[str, Variable]:
        """The variables of the observable."""
        return self.observable.variables(model, data)

    def check(self, model: Model, data: Any, loss: Loss) -> None:
        """Refuse what the observable refuses."""
        self.observable.check(model, data, loss)

    def __call__(self, model: Model, params: Any, probe: Probe) -> dict[str, Array]:
        """The observable at every n-th record, otherwise NaN.

        All lanes share the index of the record, so vmap keeps the branch and a skipped record costs
        nothing.
        """

        def measure() -> dict[str, Array]:
            values = self.observable(model, params, probe)
            return {k: jnp.asarray(v, float) for k, v in values.items()}

        empty = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), jax.eval_shape(measure))
        return jax.lax.cond(probe.record % self.every == 0, measure, lambda: empty)


def sparse(observable: Any, every: int) -> Sparse:
    """An observable at the records 0, n, 2n, … only; the other records are NaN and cost nothing.

    Fits and figures use the records that have a value.

    Args:
        observable: any observable, or a function of your own.
        every: n.

    Raises:
        InputError: `every` is not a whole number of at least 1.

    >>> from jthermo.observables import hessian_trace
    >>> sparse(hessian_trace(), every=10)
    Sparse(observable=HessianTrace(method='exact', num_probes=16), every=10)
    """
    return Sparse(observable, every)
