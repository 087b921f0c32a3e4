"""A subclass of a net or a source is not taken for its base where a formula holds for the base."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jthermo as jt
from jthermo.engines.fused.supported_nets import net_of
from jthermo.errors import InputError
from jthermo.theory import hessian


class Tanh(jt.models.TwoLayer):
    """The two-layer net with another nonlinearity."""

    def apply(self, params, x):
        a = x @ params["W"].T
        return jnp.tanh(a + jnp.broadcast_to(params["b"], a.shape)) @ params["V"]


@dataclasses.dataclass(frozen=True)
class Shifted(jt.data.Gaussian):
    """Gaussian inputs with another mean, for which the closed form Φ(b/‖W‖) is wrong."""

    def inputs(self, key, size):
        return super().inputs(key, size) + 1.0


BASE, SUBCLASS = jt.models.TwoLayer(inputs=3, hidden=4), Tanh(inputs=3, hidden=4)


def sweep_of(model, data, **observables):
    record = jt.Record(steps=(0, 20), observables=observables.get("of", jt.activation_rate()))
    return jt.Sweep(model=model, data=data, learning_rate=0.1, num_steps=20, record=record)


def test_the_fused_engine_supports_the_base_alone():
    assert net_of(BASE) is not None
    assert net_of(SUBCLASS) is None


def test_a_subclass_trains_with_its_own_nonlinearity():
    data, norm = jt.data.Gaussian(dim=3), jt.weight_norm("V")
    trained = [
        jt.run(sweep_of(model, data, of=norm), engine="xla", progress=False).weight_norm_V.values
        for model in (BASE, SUBCLASS)
    ]
    assert trained[0][0, 0] == trained[1][0, 0]
    assert trained[0][0, 1] != trained[1][0, 1]


@pytest.mark.parametrize("of", [(SUBCLASS, jt.data.Gaussian(dim=3)), (BASE, Shifted(dim=3))])
def test_the_closed_form_of_the_activation_rate_holds_for_the_bases_alone(of):
    rate = jt.activation_rate()
    assert "activation_rate_se" not in rate.variables(BASE, jt.data.Gaussian(dim=3))
    assert "activation_rate_se" in rate.variables(*of)


def test_the_hessian_bound_refuses_a_subclass():
    params, x = BASE.init(jax.random.key(0)), jnp.ones((5, 3))
    assert float(hessian.trace_bound(BASE, params, x)) > 0
    with pytest.raises(InputError):
        hessian.trace_bound(SUBCLASS, params, x)
    with pytest.raises(InputError, match="trace_bound"):
        sweep_of(SUBCLASS, jt.data.Gaussian(dim=3), of=jt.trace_bound())
