"""Planted exponents: recovery, intervals, verdict, identifiability, and the text of the result.

Each table is drawn with one seed. By chance a 95 % interval misses the truth for one seed in 20,
and a true hypothesis has p < 0.01, or a true collapse is refused, for at most one in 100.
"""

import json

import numpy as np
import pandas as pd
import pytest
import threadpoolctl

from jthermo.collapse import fit as entry
from jthermo.collapse import fit_collapse, result
from jthermo.errors import InputError

CURVES = {
    "decay": lambda u: 1 / (1 + np.exp(0.8 * (u - 4))),
    "bump": lambda u: np.exp(-0.5 * ((u - 4) / 1.2) ** 2),
    "log-periodic": lambda u: 0.2 * u + 0.5 * np.sin(2.4 * u),
}


def planted(
    curve,
    exponents,
    levels,
    *,
    num_replicates=8,
    sd=0.01,
    lag=0.0,
    paired=False,
    seed=0,
    num_steps=70,
):
    """Curves of log t + Σ p·log control; replicates lead by `lag`, at all controls if paired."""
    rng = np.random.default_rng(seed)
    steps = np.geomspace(1, 3e4, num_steps)
    grids = np.meshgrid(*levels.values(), indexing="ij")
    frames = []
    shared = lag * rng.standard_normal(num_replicates)
    for number, setting in enumerate(np.stack([g.ravel() for g in grids], axis=1)):
        shift = sum(p * np.log(c) for p, c in zip(exponents, setting, strict=True))
        for r in range(num_replicates):
            ahead = shared[r] if paired else lag * rng.standard_normal()
            value = curve(np.log(steps) + shift + ahead) + sd * rng.standard_normal(num_steps)
            label = r if paired else number * num_replicates + r
            frames.append(
                pd.DataFrame(
                    {
                        **dict(zip(levels, setting, strict=True)),
                        "seed": label,
                        "step": steps,
                        "value": value,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("power", [-1.3, 0.0, 0.45, 2.0])
def test_noise_free_data_give_exact_recovery(name, power):
    table = planted(CURVES[name], [power], {"c": [0.5, 1, 2]}, sd=0.0, num_replicates=1)
    fit = fit_collapse(table, ["c"])
    assert fit.exponents["c"].value == pytest.approx(power, abs=2e-4)
    assert fit.exponents["c"].low <= power <= fit.exponents["c"].high
    assert fit.collapsed


def test_two_controls():
    table = planted(CURVES["decay"], [2, -1], {"eta": [0.5, 1, 2], "batch": [1, 2, 3]}, sd=0.02)
    fit = fit_collapse(table, ["eta", "batch"])
    assert fit.exponents["eta"].low < 2 < fit.exponents["eta"].high
    assert fit.exponents["batch"].low < -1 < fit.exponents["batch"].high
    assert fit.exponents["eta"].high - fit.exponents["eta"].low < 0.1
    assert fit.collapsed
    assert fit.test(eta=2, batch=-1).p_value > 0.01
    assert fit.test(eta=1, batch=-1).p_value < 1e-6
    held = fit_collapse(table, ["eta", "batch"], fixed={"eta": 2})
    assert held.exponents["eta"].low == held.exponents["eta"].high == 2
    assert held.exponents["batch"].low < -1 < held.exponents["batch"].high
    wrong = fit_collapse(table, ["eta", "batch"], fixed={"eta": 1})
    assert wrong.collapsed is False


def test_a_fit_uses_one_thread_of_blas(monkeypatch):
    """Versions of threadpoolctl that don't know a library leave it as it is, without an error."""
    threads = []
    searched = entry.search
    table = planted(CURVES["decay"], (2,), {"learning_rate": (0.1, 0.2)}, num_replicates=3)
    monkeypatch.setattr(
        entry, "search", lambda *a, **k: threads.append(blas_threads()) or searched(*a, **k)
    )
    monkeypatch.setattr(result, "worth_trying", lambda fit: threads.append(blas_threads()))
    with threadpoolctl.threadpool_limits(2, "blas"):
        fit_collapse(table, ("learning_rate",)).worth_trying()
        assert blas_threads() == {2}
    assert {1} == threads[0] == threads[-1]


def blas_threads():
    """The numbers of threads of all libraries of BLAS that NumPy and SciPy have loaded."""
    return {i["num_threads"] for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"}


def test_nothing_to_fit_still_has_a_verdict():
    table = planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]})
    assert fit_collapse(table, ["c"], fixed={"c": 2}).collapsed is True
    assert fit_collapse(table, ["c"], fixed={"c": 1.8}).collapsed is False


def test_pairing_is_used():
    """Leads that a seed has at every control cancel: the interval is narrower and still holds."""
    setup = {"levels": {"c": [0.5, 1, 2]}, "lag": 0.2, "sd": 0.005, "num_replicates": 10}
    paired = fit_collapse(planted(CURVES["decay"], [2], paired=True, **setup), ["c"])
    unpaired = fit_collapse(planted(CURVES["decay"], [2], paired=False, **setup), ["c"])
    for fit in (paired, unpaired):
        assert fit.exponents["c"].low < 2 < fit.exponents["c"].high
        assert fit.collapsed

    def width(fit):
        return fit.exponents["c"].high - fit.exponents["c"].low

    assert width(paired) < width(unpaired) / 4


def test_curves_that_do_not_collapse_are_refused():
    table = planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}, sd=0.02)
    table["value"] += 0.05 * np.log2(table.c) * (table.step > 3000)
    fit = fit_collapse(table, ["c"])
    assert fit.collapsed is False
    assert fit.p_value < 0.005
    assert 0.003 < fit.misfit < 0.05


def test_controls_that_vary_together_leave_one_combination():
    table = planted(CURVES["decay"], [2], {"eta": [0.5, 1, 2]})
    # τ = t·eta^p·batch^q determines only p − 2q.
    table["batch"] = 1 / table.eta**2
    fit = fit_collapse(table, ["eta", "batch"])
    assert fit.identifiable == {"eta": False, "batch": False}
    assert np.isnan(fit.exponents["eta"].value)
    (known,) = fit.combinations
    assert known.weights == pytest.approx({"eta": -0.5, "batch": 1.0})
    assert known.low < -1 < known.high
    assert fit.collapsed
    assert "ridge" in {note.code for note in fit.notes}
    with pytest.raises(InputError, match="not identifiable"):
        fit.test(eta=2)


def test_one_condition_says_so():
    table = planted(CURVES["decay"], [2], {"c": [1.0]})
    fit = fit_collapse(table, ["c"])
    assert fit.identifiable == {"c": False}
    assert fit.collapsed is None


def test_outlying_replicates_are_left_out_and_told():
    table = planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}, num_replicates=8)
    clean = fit_collapse(table, ["c"])
    # stuck
    table.loc[table.seed == 3, "value"] = 1.0
    fit = fit_collapse(table, ["c"])
    assert [(run.replicate, run.reason) for run in fit.left_out] == [(3, "outlier")]
    assert "outliers" in {note.code for note in fit.notes}
    assert fit.exponents["c"].value == pytest.approx(clean.exponents["c"].value, abs=0.01)


def test_result_speaks_plainly():
    fit = fit_collapse(planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}), ["c"])
    again = json.loads(json.dumps(fit.to_dict()))
    assert again["exponents"]["c"]["value"] == fit.exponents["c"].value
    assert again["collapsed"] is True
    assert again["p_value"] == fit.p_value
    assert "p(c) = " in fit.summary()
    assert "verdict: collapse; the curves miss each other by" in fit.summary()
    with pytest.raises(InputError, match="is not one of the fitted"):
        fit.test(d=1)


def test_plot_writes_symbols_and_the_value_in_words():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    controls = {"learning_rate": [0.05, 0.1], "batch_size": [1, 2]}
    table = planted(CURVES["decay"], [2, -1], controls)
    data = table.to_xarray().set_coords([*controls, "seed", "step"]).value
    data.attrs["long_name"] = "fraction of active hidden units, mean over all inputs"
    fit = fit_collapse(data, list(controls))
    a, b = (fit.exponents[name].value for name in controls)
    ax = fit.plot()
    assert ax.get_title() == f"τ = t η$^{{{a:.3g}}}$ |B|$^{{−{-b:.3g}}}$"
    assert ax.get_ylabel() == "fraction of active hidden\nunits, mean over all inputs"
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries[0] == "η = 0.05, |B| = 1"
    assert len(entries) == 4
    assert fit.plot_profile("learning_rate").get_xlabel() == "p(η)"
    assert fit.plot_residuals().get_ylabel().endswith("\nminus the curve")
    matplotlib.pyplot.close("all")


def test_plot_puts_the_curves_on_each_other():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    fit = fit_collapse(planted(CURVES["decay"], [2], {"c": [0.5, 1, 2]}), ["c"])
    ax = fit.plot()
    lines = [container.lines[0].get_xydata() for container in ax.containers]
    assert len(lines) == 3
    at = np.geomspace(20, 2000, 20)
    heights = np.array([np.interp(np.log(at), np.log(line[:, 0]), line[:, 1]) for line in lines])
    assert np.ptp(heights, axis=0).max() < 0.05
    assert ax.get_xscale() == "log"
    matplotlib.pyplot.close(ax.figure)
