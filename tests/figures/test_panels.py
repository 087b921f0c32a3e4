"""The figures show the right numbers: clocks, means, bands, titles; their colours are distinct."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

import jthermo as jt
from jthermo import figures
from jthermo.collapse import Exponent
from jthermo.errors import InputError
from jthermo.figures.colours import CATEGORIES
from jthermo.paper import claims

RATES = np.repeat([0.05, 0.1], 8)
STEP = np.array([0, 1, 10, 100, 1000])


@pytest.fixture
def ds():
    rng = np.random.default_rng(0)
    value = 1 / (1 + STEP * RATES[:, None] ** 2) + 0.01 * rng.standard_normal((16, 5))
    finite = np.ones((16, 5), bool)
    finite[3, 3:] = False
    value[3, 3:] = np.nan
    return xr.Dataset(
        {
            "rate": (("run", "record"), value, {"long_name": "activation rate"}),
            "finite": (("run", "record"), finite),
        },
        {
            "learning_rate": ("run", RATES),
            "seed": ("run", np.tile(np.arange(8), 2)),
            "step": (("run", "record"), np.tile(STEP, (16, 1))),
        },
    )


def test_clock_panels_put_the_mean_at_the_rescaled_time(ds):
    fig = figures.clocks(ds, "rate", powers=(0, 1, 2))
    assert len(fig.axes) == 3
    for ax, power in zip(fig.axes, (0, 1, 2), strict=True):
        assert ax.get_xscale() == "log"
        for line, rate in zip(ax.get_lines(), (0.05, 0.1), strict=True):
            np.testing.assert_allclose(line.get_xdata(), STEP[1:] * (rate / 0.05) ** power)
            rows = ds.rate.values[rate == RATES][:, 1:]
            np.testing.assert_allclose(line.get_ydata(), np.nanmean(rows, axis=0))
            assert line.get_label() == f"η = {rate:g}"
    assert fig.axes[0].get_ylabel() == "activation rate"
    assert [ax.get_xlabel() for ax in fig.axes] == ["t", "t (η/0.05)", "t (η/0.05)$^{2}$"]
    plt.close(fig)


def inside(fig):
    """Whether the labels and titles of all panels lie within the figure."""
    fig.canvas.draw()
    width, height = fig.canvas.get_width_height()
    texts = [text for ax in fig.axes for text in (ax.xaxis.label, ax.yaxis.label, ax.title)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return all(
        min(box.x0, box.y0) >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1 for box in boxes
    )


def test_a_panel_has_a_legend_and_a_label_in_words(ds):
    words = "fraction of the hidden units that are active, as the mean over a fresh probe of inputs"
    ds.rate.attrs["long_name"] = words
    ax = figures.curves(ds, "rate")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["η = 0.05", "η = 0.1"]
    assert ax.get_ylabel().replace("\n", " ") == words
    assert ax.get_ylabel().count("\n") == 2
    assert inside(ax.figure)
    assert inside(figures.clocks(ds, "rate"))
    # as it was drawn before: one line of 86 letters
    ax.set_ylabel(words)
    assert not inside(ax.figure)
    plt.close("all")


def test_a_long_name_is_cut_short_and_a_dollar_sign_is_no_formula(ds):
    ds.rate.attrs["long_name"] = "cost in $ per step of $x$ " + 20 * "very " + "long"
    label = figures.curves(ds, "rate").get_ylabel()
    assert label.startswith(r"cost in \$ per step of \$x\$")
    assert label.endswith(" …")
    assert label.count("\n") == 2
    plt.close("all")


def test_the_first_panel_of_a_row_is_labelled_for_all(ds):
    fig = figures.clocks(ds, "rate", powers=(0, 1))
    first, second = fig.axes
    assert first.get_ylabel() == "activation rate"
    assert first.get_legend()
    assert not second.get_ylabel()
    assert not second.get_legend()
    plt.close(fig)


def test_linear_time_begins_at_step_0(ds):
    ax = figures.curves(ds, "rate", xscale="linear", power=1)
    assert ax.get_xscale() == "linear"
    for line, rate in zip(ax.get_lines(), (0.05, 0.1), strict=True):
        np.testing.assert_allclose(line.get_xdata(), STEP * rate / 0.05)
        np.testing.assert_allclose(
            line.get_ydata(), np.nanmean(ds.rate.values[rate == RATES], axis=0)
        )
    plt.close("all")


def test_an_array_is_drawn_by_an_element_or_by_its_quartiles(ds):
    layers = np.array([0.0, 1, 2, 10])
    ds["deep"] = (("run", "record", "layer"), ds.rate.values[:, :, None] + layers)
    element = figures.curves(ds, "deep", index=2)
    whole = figures.curves(ds, "deep")
    for line, drawn, band, rate in zip(
        element.get_lines(), whole.get_lines(), whole.collections, (0.05, 0.1), strict=True
    ):
        rows = ds.rate.values[rate == RATES][:, 1:]
        np.testing.assert_allclose(line.get_ydata(), np.nanmean(rows, axis=0) + 2)
        pooled = np.concatenate([rows + layer for layer in layers])
        low, middle, high = np.nanquantile(pooled, (0.25, 0.5, 0.75), axis=0)
        np.testing.assert_allclose(drawn.get_ydata(), middle)
        edges = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([edges.min(), edges.max()], [low.min(), high.max()])
    assert element.get_ylabel() == "deep\nlayer 2"
    assert whole.get_ylabel() == "deep\nquartiles over each layer"
    plt.close("all")


def test_each_value_of_another_axis_has_a_column(ds):
    other = ds.assign(rate=ds.rate + 1)
    both = xr.concat(
        [
            part.assign_coords({"model.init": ("run", [name] * 16)})
            for name, part in (("he", ds), ("torch", other))
        ],
        "run",
    )
    fig = figures.clocks(both, "rate", powers=(0, 2), col="model.init")
    assert [ax.get_title() for ax in fig.axes] == ["init = he", "init = torch", "", ""]
    assert [ax.get_xlabel() for ax in fig.axes] == ["t"] * 2 + ["t (η/0.05)$^{2}$"] * 2
    he, torch, *_ = fig.axes
    for one, two in zip(he.get_lines(), torch.get_lines(), strict=True):
        np.testing.assert_allclose(one.get_ydata() + 1, two.get_ydata())
    assert inside(fig)
    with pytest.raises(InputError, match=r"model\.init = \['he', 'torch'\]: .*--col model\.init"):
        figures.clocks(both, "rate")
    with pytest.raises(InputError, match=r"index = range.*more than the limit of 64"):
        figures.clocks(both, "rate", col="model.init", index=range(10**20))
    for col in ("depth", np.array([1, 2])):
        with pytest.raises(InputError, match=r"col = .*is not a swept axis; choose one of"):
            figures.clocks(both, "rate", col=col)
    plt.close("all")


def test_runs_that_have_not_come_as_far_are_drawn_as_far_as_they_have(ds):
    ds.step.values[:3, 3:] = -1
    ds.finite.values[:3, 3:] = False
    step, mean, _ = figures.mean_curve(ds.isel(run=RATES == 0.05), "rate")
    np.testing.assert_array_equal(step, STEP[1:])
    np.testing.assert_allclose(mean[2:], ds.rate.values[4:8, 3:].mean(0))


TIMES = [(0.3, 0.8), (1, 3), (100, 700), (1500, 9000), (2e3, 1.5e4), (1e-5, 6e-5), (1e-6, 1e6)]
TIMES += [(900, 1e4), (1.1e-4, 1.3e-3)]


@pytest.mark.parametrize("times", TIMES)
def test_labels_of_ticks_do_not_overlap(times):
    def overlapping(ax):
        ax.figure.canvas.draw()
        low, high = ax.get_xlim()
        ticks = [*ax.xaxis.get_major_ticks(), *ax.xaxis.get_minor_ticks()]
        labels = [t.label1 for t in ticks if low <= t.get_loc() <= high and t.label1.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        assert boxes
        return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))

    with figures.style():
        fig, axes = plt.subplots(1, 4, figsize=(figures.PAGE, 2.2))
        axes[0].loglog(times, times)
        before = overlapping(axes[0])
        figures.svg(fig, "ticks")
        assert not overlapping(axes[0])
        # a negative control
        assert before == (times in TIMES[:1] + TIMES[2:6])
    plt.close(fig)


def test_band_is_the_standard_error_over_finite_runs(ds):
    step, mean, error = figures.mean_curve(ds.isel(run=RATES == 0.05), "rate")
    np.testing.assert_array_equal(step, STEP[1:])
    rows = ds.rate.values[RATES == 0.05]
    left = np.delete(rows, 3, axis=0)
    np.testing.assert_allclose(mean[2:], left[:, 3:].mean(0))
    np.testing.assert_allclose(error[2:], left[:, 3:].std(0, ddof=1) / np.sqrt(7))
    np.testing.assert_allclose(error[:2], rows[:, 1:3].std(0, ddof=1) / np.sqrt(8))


def test_collapse_panels_state_the_fitted_exponent(ds):
    rng, step = np.random.default_rng(1), np.geomspace(1, 1000, 40)
    value = 1 / (1 + step * RATES[:, None] ** 2) + 0.01 * rng.standard_normal((16, 40))
    dense = xr.Dataset(
        {
            "rate": (("run", "record"), value),
            "finite": (("run", "record"), np.ones((16, 40), bool)),
        },
        {
            "learning_rate": ds.learning_rate,
            "seed": ds.seed,
            "step": (("run", "record"), np.tile(step, (16, 1))),
        },
    )
    chosen = claims.fit_choices(dense, "rate", ("learning_rate",))
    fig = figures.collapses(chosen)
    exponent = chosen[0].fit.exponents["learning_rate"]
    assert (
        f"{exponent.value:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]" in fig.axes[0].get_title()
    )
    one, two = fig.axes[0].get_lines()
    at = np.geomspace(2, 500, 30)
    heights = [np.interp(at, line.get_xdata(), line.get_ydata()) for line in (one, two)]
    # the curves coincide
    assert np.abs(np.subtract(*heights)).max() < 0.03
    apart = figures.clocks(dense, "rate", powers=(0,)).axes[0].get_lines()
    heights = [np.interp(at, line.get_xdata(), line.get_ydata()) for line in apart]
    assert np.abs(np.subtract(*heights)).max() > 0.1
    plt.close("all")


def test_a_figure_is_a_third_of_a_page_per_panel(ds):
    """At least one column wide, at most one page."""
    widths = []
    for number in (1, 2, 3, 5):
        fig = figures.clocks(ds, "rate", powers=range(number))
        widths.append(fig.get_size_inches()[0])
        plt.close(fig)
    np.testing.assert_allclose(widths, [figures.COLUMN, 2 / 3 * figures.PAGE, *[figures.PAGE] * 2])


def test_a_heatmap_is_white_at_the_claimed_exponent():
    """The colours reach 1 to either side of the target, also for a target below 0."""

    class Fit:
        def __init__(self, value):
            self.exponents = {"c": Exponent(value, value - 0.1, value + 0.1, 0.05)}

    for target in (2.0, -1.0):
        ax = plt.subplots()[1]
        cells = {("a", "p"): target, ("a", "q"): target + 1, ("b", "p"): target - 0.5}
        chosen = [({"x": x, "y": y}, None, Fit(value)) for (x, y), value in cells.items()]
        figures.heatmap(ax, chosen, x="x", y="y", target=target)
        (mesh,) = ax.collections
        assert mesh.get_clim() == (target - 1, target + 1)
        # rows y, columns x
        shown = np.ma.filled(mesh.get_array(), np.nan)
        np.testing.assert_array_equal(shown, [[target, target - 0.5], [target + 1, np.nan]])
        assert np.abs(np.array(mesh.to_rgba(target)[:3]) - 1).max() < 0.05
        # a cell without an exponent doesn't look like the claimed one
        unknown = mesh.to_rgba(mesh.get_array())[1, 1, :3]
        assert 0.15 < 1 - unknown.mean() < 0.25
        colours = {text.get_text()[:5].strip(): text.get_color() for text in ax.texts}
        assert colours[f"{target + 1:.2f}"] == "white"
        assert colours[f"{target:.2f}".replace("-", "−")] == "black"
    plt.close("all")


def test_a_panel_draws_into_the_axes_it_is_given_and_returns_them(ds):
    ax = plt.subplots()[1]
    assert figures.curves(ds, "rate", ax=ax) is ax
    data = [line.get_ydata() for line in ax.get_lines()]
    figures.theory(STEP, STEP * 0.5, ax=ax)
    (line,) = ax.get_lines()[2:]
    np.testing.assert_array_equal(line.get_ydata(), STEP * 0.5)
    assert line.get_linestyle() == "--"
    own = figures.curves(ds, "rate")
    assert own is not ax
    for line, values in zip(own.get_lines(), data, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
    np.testing.assert_allclose(own.figure.get_size_inches()[0], 3.4)
    plt.close("all")


def test_collapse_and_residuals_are_the_fits_own_in_the_style(ds):
    step = np.geomspace(1, 1000, 40)
    noise = 0.01 * np.random.default_rng(1).standard_normal((16, 40))
    value = xr.DataArray(
        1 / (1 + step * RATES[:, None] ** 2) + noise,
        dims=("run", "record"),
        coords={
            "learning_rate": ds.learning_rate,
            "seed": ds.seed,
            "step": (("run", "record"), np.tile(step, (16, 1))),
        },
        name="rate",
    )
    fit = jt.fit_collapse(value, controls=("learning_rate",))
    for make, by_fit in ((figures.collapse, fit.plot), (figures.residuals, fit.plot_residuals)):
        ours, ax = make(fit), plt.subplots()[1]
        assert make(fit, ax=ax) is ax
        theirs = by_fit()
        for a, b in zip(ours.get_lines(), theirs.get_lines(), strict=True):
            np.testing.assert_array_equal(a.get_xydata(), b.get_xydata())
        assert ours.title.get_size() == 8 != theirs.title.get_size()
    plt.close("all")


def test_runs_that_differ_in_something_else_are_refused(ds):
    mixed = ds.assign_coords({"batch_size": ("run", np.tile([1, 2], 8))})
    remedy = (
        r"batch_size = \[1, 2\]: select one value, with --where batch_size=1 .*--col batch_size"
    )
    with pytest.raises(InputError, match=remedy):
        figures.clocks(mixed, "rate")
    with pytest.raises(InputError, match="by = 'momentum'"):
        figures.clocks(ds, "rate", by="momentum")


def test_one_format_may_be_given_by_its_name(ds, tmp_path):
    figure = figures.curves(ds, "rate").figure
    assert figures.save({"rate": figure}, tmp_path, formats="pdf") == [tmp_path / "rate.pdf"]


def test_figures_are_saved_whole_and_the_same_twice(ds, tmp_path):
    plt.close("all")
    paths = [figures.save({"a": figures.clocks(ds, "rate")}, tmp_path / name)[0] for name in "xy"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert not plt.get_fignums()
    one, two = (
        figures.save({"a": figures.clocks(ds, "rate", powers=(0,))}, tmp_path / name, ("svg",))[0]
        for name in "xy"
    )
    assert one.read_bytes() == two.read_bytes()
    assert b"<svg" in one.read_bytes()
    (pdf,) = figures.save({"a": figures.clocks(ds, "rate", powers=(0,))}, tmp_path, ("pdf",))
    assert pdf.read_bytes().startswith(b"%PDF")
    with pytest.raises(InputError, match="formats"):
        figures.save({}, tmp_path, ("gif",))


def test_colours_are_distinct_and_ordered_in_lightness():
    light = [np.dot(to_rgb(c), (0.2126, 0.7152, 0.0722)) for c in figures.colours(5)]
    assert (np.diff(light) > 0.05).all()
    assert jt.figures is figures


# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
BLINDNESS = {
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colour_blind_readers_tell_the_categories_apart(kind):
    def nearest(colours):
        srgb = np.array([to_rgb(c) for c in colours])
        linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
        seen = np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1) ** (1 / 2.4)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        return apart[np.triu_indices(len(colours), 1)].min()

    assert nearest(CATEGORIES[:5]) > 0.15
    assert nearest(CATEGORIES) > 0.1
    confused = {
        "protan": ("#7f6000", "#5f7000"),
        "deutan": ("#b07050", "#8a8a4a"),
        "tritan": ("#1f77b4", "#1f8f9f"),
    }
    assert nearest(confused[kind]) < 0.07
