"""Layer statistics against loops over units, and observables recorded at fewer steps."""

import jax
import numpy as np
import pytest

import jthermo as jt
from jthermo.errors import InputError
from jthermo.observables.layer_statistics import statistics


def by_loops(a):
    """The five layer statistics of pre-activations (M, units), unit by unit."""
    h = np.maximum(a, 0)
    units = range(a.shape[1])
    rms = [np.sqrt(np.mean(h[:, i] ** 2)) for i in units]
    layer = np.sqrt(np.mean(h**2))

    def cosine(i, j):
        return (
            h[:, i] @ h[:, j] / np.linalg.norm(h[:, i]) / np.linalg.norm(h[:, j])
            if rms[i] * rms[j] > 0
            else 0.0
        )

    values = np.linalg.eigvalsh(h.T @ h / len(h))
    return [
        np.mean(a > 0),
        np.mean([not (a[:, i] > 0).any() for i in units]),
        np.mean([rms[i] < 0.01 * layer for i in units]),
        np.mean([any(cosine(i, j) > 0.999 for j in range(i)) for i in units]),
        values.sum() ** 2 / (values**2).sum(),
    ]


def test_statistics_equal_loops_over_units():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 8))
    # unit 3 has the direction of unit 1
    a[:, 3] = 2 * a[:, 1]
    # unit 5 is dead, which counts as vanished too
    a[:, 5] = -1.0
    # unit 6 has vanished
    a[:, 6] *= 1e-3
    measured = np.asarray(statistics(jax.numpy.asarray(a, jax.numpy.float32)))
    np.testing.assert_allclose(measured, by_loops(a), rtol=1e-5)
    assert measured[1:4].tolist() == [1 / 8, 2 / 8, 1 / 8]
    a[:, 3] += 0.5 * rng.normal(size=50)
    assert statistics(jax.numpy.asarray(a, jax.numpy.float32))[3] == 0


def test_layers_and_sparse_records_in_a_sweep():
    def sweep(*observables):
        return jt.Sweep(
            model=jt.models.MLP(4, hidden=(6, 5)),
            data=jt.data.Gaussian(dim=4),
            learning_rate=0.1,
            seed=range(3),
            num_steps=12,
            record=jt.Record(steps=jt.every(3), observables=observables, probe_size=32),
        )

    full = jt.run(sweep(jt.layer_statistics(), jt.hessian_trace()), progress=False)
    thin = jt.run(
        sweep(jt.layer_statistics(), jt.sparse(jt.hessian_trace(), every=2)), progress=False
    )
    assert full.layer_rank.dims == ("run", "record", "hidden_layer")
    assert "layers: hidden_0, hidden_1" in full.layer_rank.attrs["long_name"]
    np.testing.assert_array_equal(
        np.isnan(thin.hessian_trace.values), [[False, True, False, True, False]] * 3
    )
    np.testing.assert_allclose(
        thin.hessian_trace.values[:, ::2], full.hessian_trace.values[:, ::2], rtol=1e-6
    )
    np.testing.assert_array_equal(thin.layer_rank.values, full.layer_rank.values)
    assert thin.hessian_trace.dropna("record", how="all").sizes["record"] == 3
    dense, fewer = (jt.hessian_trace(), jt.sparse(jt.hessian_trace(), every=4))
    model = jt.models.MLP(4, hidden=(6, 5))
    assert fewer.cost(model, jt.data.Gaussian(dim=4), 60) == pytest.approx(
        dense.cost(model, jt.data.Gaussian(dim=4), 60), rel=0.01
    )
    dearer, cheaper = (jt.plan(sweep(o), measure=False) for o in (dense, fewer))
    # of the five records, the sparse observable is computed at 0 and 4
    assert cheaper.record_costs["hessian_trace"] == pytest.approx(
        0.4 * dearer.record_costs["hessian_trace"], rel=0.01
    )
    assert cheaper.record_share < dearer.record_share
    sparse = sweep(fewer)
    assert jt.Sweep.from_json(sparse.to_json()) == sparse
    with pytest.raises(InputError):
        jt.sparse(jt.loss(), every=0)
