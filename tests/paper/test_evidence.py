"""Evidence, local slopes and equal-level comparisons on planted curves; experiments that judge."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import jthermo as jt
from jthermo.errors import InputError
from jthermo.figures.style import STYLE
from jthermo.paper import claims, claims_json, claims_tables, curve_statistics, reproduce
from jthermo.paper.evidence import above, below, equals
from jthermo.theory import meanfield


def planted(rates, seeds=64, noise=0.01):
    """Runs whose level falls as e^(−rt), and whose value is r · level² at every level."""
    rng = np.random.default_rng(0)
    step = np.unique(np.geomspace(1, 200, 60).astype(int))
    rows = [(rate, seed) for rate in rates for seed in range(seeds)]
    level = np.stack(
        [np.exp(-rate * step) + noise * rng.normal(size=step.size) for rate, _ in rows]
    )
    value = np.stack([rate * np.exp(-2 * rate * step) for rate, _ in rows])
    return xr.Dataset(
        {"level": (("run", "record"), level), "value": (("run", "record"), value)},
        {
            "step": (("run", "record"), np.tile(step, (len(rows), 1))),
            "seed": ("run", [s for _, s in rows]),
            "rate": ("run", [r for r, _ in rows]),
        },
    )


def test_value_at_an_equal_level():
    ds = planted((0.02, 0.05))
    for rate in (0.02, 0.05):
        runs = ds.isel(run=ds.rate.values == rate)
        picks = curve_statistics.resamplings(50, 64)
        values = curve_statistics.at_level(runs, "value", "level", 0.5, picks)
        assert values[0] == pytest.approx(rate * 0.25, rel=0.02)
        assert values.std() < 0.02 * values[0]
        assert np.isnan(curve_statistics.at_level(runs, "value", "level", -1.0, picks)).all()
        assert np.isnan(curve_statistics.at_level(runs, "value", "level", 2.0, picks)).all()


def test_a_level_is_reached_when_the_mean_first_falls_to_it():
    """Not when it falls to it for the last time, and also if it ends above it."""
    step = np.array([1, 10, 100, 1000])
    for level, first in (([3, 1, 2, 2], 1), ([3, 1, 2, 0.5], 1), ([3, 2, 1, 1], 2)):
        runs = xr.Dataset(
            {
                "level": (("run", "record"), [level] * 2),
                "value": (("run", "record"), np.log1p(step) * np.ones((2, 1))),
            },
            {"step": (("run", "record"), [step] * 2), "seed": ("run", [0, 1])},
        )
        picks = np.array([[0, 1]])
        (when,) = curve_statistics.at_level(runs, "value", "level", 1.5, picks)
        before, after = np.log1p(step[first - 1 : first + 1])
        share = (level[first - 1] - 1.5) / (level[first - 1] - level[first])
        assert when == pytest.approx(before + share * (after - before))


def test_local_slopes_of_planted_curves():
    clock = np.linspace(0, 2, 81)
    rng = np.random.default_rng(1)
    amplitude = 1 + 0.1 * rng.normal(size=200)
    value = -amplitude[:, None] * clock**2
    slopes = curve_statistics.local_slopes(
        clock, value, np.tile(1 + clock, (200, 1)), np.array([0, 0.5, 2])
    )
    np.testing.assert_allclose(
        slopes.slope, [-0.5 * amplitude.mean(), -2.5 * amplitude.mean()], rtol=1e-6
    )
    np.testing.assert_allclose(
        slopes.slope_error, np.array([0.5, 2.5]) * amplitude.std(ddof=1) / math.sqrt(200), rtol=1e-6
    )
    np.testing.assert_allclose(slopes.level, [1.25, 2.25], rtol=1e-6)
    lifted = curve_statistics.local_slopes(
        clock, value, amplitude[:, None] * (1 + clock), np.array([0, 0.5, 2])
    )
    error = amplitude.std(ddof=1) / math.sqrt(200)
    np.testing.assert_allclose(lifted.level_error, [1.25 * error, 2.25 * error], rtol=1e-6)
    with pytest.raises(InputError, match="go beyond the records"):
        curve_statistics.local_slopes(clock, value, value, np.array([0, 3]))


def test_verdicts_follow_the_interval():
    agrees = equals("C11", "flux", -1.0, -1.01, 0.004)
    assert agrees.verdict == "reproduced"
    assert equals("C11", "flux", -0.5, -1.01, 0.004).verdict == "not reproduced"
    for make, sign in ((above, 1), (below, -1)):
        ends = {v: sorted((sign * (v - 0.2), sign * (v + 0.2))) for v in (1, 0.1, -1)}
        verdicts = [make("C9", "x", 0, sign * v, *span).verdict for v, span in ends.items()]
        assert verdicts == ["reproduced", "undecided", "not reproduced"]


def test_claims_file_holds_evidence_beside_fits(tmp_path):
    path = tmp_path / "claims.json"
    evidence = [
        equals("C11", "drift, J/ρ", -1, -1.0, 0.01),
        equals("C11", "diffusion", -1, -0.5, 0.01),
        equals("C12", "counter-examples, of 20 data sets", 0, 0, 0.0),
    ]
    # the second update replaces the rows of the first
    for _ in range(2):
        claims_json.update(path, "fig1", {"rows": claims.rows((), {}, evidence)})
    known = json.loads(path.read_text())
    assert known["C12"]["verdict"] == "reproduced"
    assert known["C11"]["verdict"] == "not reproduced for diffusion; reproduced for drift"
    assert len(known["C11"]["experiments"]["fig1"]["rows"]) == 2
    assert (
        "| C11 | fig1 | diffusion | – | -1 | -0.5 [-0.5196, -0.4804] | – | **not reproduced** |"
        in claims_tables.table(known)
    )
    assert set(claims.CLAIMS) >= {"C9", "C10", "C11", "C12"}


def test_an_experiment_without_networks_has_no_sweep():
    assert "fig1" in reproduce.experiments()
    with pytest.raises(InputError, match="trains no networks"):
        reproduce.sweep_of("fig1")


def test_excess_loss_is_the_loss_averaged_over_both_labels():
    model = jt.models.TwoLayer(inputs=3, hidden=4, init="unit")
    import jax

    params = model.init(jax.random.key(0))
    x = 3 * jax.random.normal(jax.random.key(1), (50, 3))
    f = np.asarray(model.apply(params, x), float)
    both = [np.log1p(np.exp(f)) - y * f for y in (0, 1)]
    probe = jt.observables.Probe(x, jnp.zeros(50, int), None, "bce", jnp.float32(0.1), 1)
    excess = float(meanfield.excess_loss(model, params, probe))
    assert excess == pytest.approx(np.mean(both) - math.log(2), rel=1e-4)


EXPERIMENTS = (
    "mechanism",
    "early_phase",
    "equal_error",
    "hessian_bound",
    "noise_floor",
    "noise_floor_uniform",
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_run_judge_and_draw(name, tmp_path, monkeypatch):
    """Every part of the experiment runs, with few seeds and on the first part of the clock."""
    module = reproduce.load(name)
    tiny = {"seed": range(16), "learning_rate": (0.025, 0.05), "num_steps": jt.RescaledSteps(2.0)}
    # the same programs as the runs of the fixture `trained`
    if name == "mechanism":
        tiny |= {"seed": range(512), "learning_rate": 0.05}
    if name == "equal_error":
        tiny["vary"] = {"model.init": ("torch", "he")}
        monkeypatch.setattr(module, "INITS", ("torch", "he"))
    if name.startswith("noise_floor"):
        inits = {"model.init": ("torch", "he")}
        widths = {} if "uniform" in name else {"model.hidden": (3, 4)}
        tiny |= {"seed": range(3), "batch_size": (1, 2), "num_steps": jt.RescaledSteps(0.1)}
        tiny["vary"] = widths | inits
        monkeypatch.setattr(module, "TAU", 0.1)
    monkeypatch.setattr(module, "NETS", 2, raising=False)
    monkeypatch.setattr(
        module, "looseness", lambda layers: np.array([4.0, 5.0, 6.0]), raising=False
    )
    monkeypatch.setitem(STYLE, "figure.dpi", 40)
    ds = jt.run(module.SWEEP.replace(**tiny), progress=False)
    rows = module.judge(ds)
    assert {r.claim for r in rows} == set(module.CLAIMS)
    assert all(math.isfinite(r.value) for r in rows)
    for path in jt.figures.save(module.figure(ds, {}), tmp_path):
        assert path.stat().st_size > 4_000
