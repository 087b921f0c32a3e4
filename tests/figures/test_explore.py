"""The page of `jthermo explore`: its content, and its behaviour in a real browser."""

import base64
import json
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import jthermo as jt
from jthermo.errors import InputError
from jthermo.figures import explore, plots

RATES, SIZES, SEEDS = (0.025, 0.05, 0.1), (1, 4), 6
STEPS = np.unique(np.geomspace(1, 3000, 26).round())
CONTROLS = ("learning_rate", "batch_size")


def planted(power=2.0, seeds=SEEDS, sizes=SIZES):
    """Tidy curves that collapse on t·η^power/B; each replicate has its own offset."""
    rng = np.random.default_rng(5)
    rows = []
    for rate in RATES:
        for size in sizes:
            for seed in range(seeds):
                value = 1 / (1 + STEPS * (rate / 0.05) ** power / size / 100)
                value += 0.01 * rng.standard_normal() + 0.01 * rng.standard_normal(len(STEPS))
                rows.append(
                    pd.DataFrame(
                        {"learning_rate": rate, "batch_size": size, "seed": seed, "step": STEPS}
                    )
                )
                rows[-1]["rate"] = value
    return pd.concat(rows, ignore_index=True)


def results(tables):
    """The tables of several inits as a Dataset like that of a sweep, with two empty observables."""
    runs = [run for table in tables.values() for run in table.groupby([*CONTROLS, "seed"])]
    init = np.repeat(list(tables), len(runs) // len(tables))
    shape = (len(runs), len(STEPS))
    noise = np.random.default_rng(3).standard_normal(shape)
    return xr.Dataset(
        {
            "rate": (("run", "record"), np.stack([run.rate for _, run in runs])),
            "finite": (("run", "record"), np.ones(shape, bool)),
            "flat": (("run", "record"), np.where(init[:, None] == "he", noise, np.nan)),
            "unit": (("run", "record", "hidden"), np.zeros((*shape, 10))),
        },
        {
            **{
                name: ("run", [key[i] for key, _ in runs])
                for i, name in enumerate((*CONTROLS, "seed"))
            },
            "model.init": ("run", init),
            "step": (("run", "record"), np.tile(STEPS.astype(int), (len(runs), 1))),
        },
    )


def content_of(page):
    (text,) = re.findall(
        r'<script type="application/json" id="content">(.*?)</script>', page.read_text()
    )
    return json.loads(text)


def numbers(text, kind="<f8"):
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """A page of two inits, its fits, and the lines that `explore` returned."""
    page = tmp_path_factory.mktemp("explore") / "page.html"
    tables = {"he": planted(2.0), "torch": planted(1.0)}
    lines = jt.explore(results(tables), page, title="<b>made</b>")
    fits = {name: jt.fit_collapse(table, CONTROLS, value="rate") for name, table in tables.items()}
    return page, fits, lines


def test_the_page_holds_the_curves_and_the_fit(explored):
    page, fits, lines = explored
    content = content_of(page)
    names = [(view["label"], view["choice"]) for view in content["views"]]
    assert names == [("rate", "init he"), ("rate", "init torch"), ("flat", "init he")]
    assert "3 collapses of 36 curves; all 36 single curves are drawn" in lines
    assert "flat for init torch is omitted: value = 'flat'" in lines
    assert "unit is omitted: it has 10 numbers per record" in lines
    for view, fit in zip(content["views"][:2], fits.values(), strict=True):
        for shown, name in zip(view["exponents"], CONTROLS, strict=True):
            expected = fit.exponents[name]
            assert (shown["value"], shown["low"], shown["high"]) == pytest.approx(
                (expected.value, expected.low, expected.high), rel=1e-6
            )
        for drawn, condition in zip(view["conditions"], fit.curves.conditions, strict=True):
            np.testing.assert_allclose(numbers(drawn["mean"]), condition.values.mean(0), rtol=1e-12)
            error = condition.values.std(0, ddof=1) / np.sqrt(SEEDS)
            np.testing.assert_allclose(numbers(drawn["error"], "<f4"), error, rtol=1e-6)
            np.testing.assert_allclose(
                numbers(drawn["runs"], "<f4"), condition.values.ravel(), rtol=1e-6
            )
            assert drawn["replicates"] == [str(seed) for seed in range(SEEDS)]


def test_nothing_comes_from_a_network_and_names_are_text(explored):
    whole = explored[0].read_text()
    # BokehJS contains addresses that this page never requests
    text = whole.replace(plots.library(), "")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "&lt;b&gt;made&lt;/b&gt;" in text
    assert "<b>made" not in text
    assert len(whole) < 3e6


def test_of_many_runs_all_are_in_the_means_and_a_sample_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "MOST_RUNS", 30)
    table = planted(seeds=20, sizes=(1,))
    lines = jt.explore(table, tmp_path / "page.html", "learning_rate", value="rate")
    assert (
        lines
        == "1 collapse of 60 curves; the means use all, and a sample of 30 single curves is drawn"
    )
    (view,) = content_of(tmp_path / "page.html")["views"]
    for drawn, rate in zip(view["conditions"], RATES, strict=True):
        rows = (
            table[table.learning_rate == rate]
            .pivot_table(index="seed", columns="step", values="rate")
            .to_numpy()
        )
        np.testing.assert_allclose(numbers(drawn["mean"]), rows.mean(0))
        assert drawn["num_runs"] == 20
        assert [int(name) for name in drawn["replicates"]] == [0, 2, 4, 6, 8, 11, 13, 15, 17, 19]


def test_single_curves_get_the_room_that_the_objectives_leave(tmp_path, monkeypatch):
    table = planted(sizes=(1,))
    jt.explore(table, tmp_path / "page.html", "learning_rate", value="rate")
    (view,) = content_of(tmp_path / "page.html")["views"]
    needed = sum(size * (size + 1) // 2 for size in view["objective"]["sizes"])
    monkeypatch.setattr(explore, "MOST_IN_ALL", needed + 6 * len(STEPS))
    lines = jt.explore(table, tmp_path / "page.html", "learning_rate", value="rate")
    assert lines.endswith("the means use all, and a sample of 6 single curves is drawn")
    # one curve of each condition remains
    monkeypatch.setattr(explore, "MOST_IN_ALL", 0)
    lines = jt.explore(table, tmp_path / "page.html", "learning_rate", value="rate")
    assert lines.endswith("a sample of 3 single curves is drawn")


def crossing(errors=True, offset=0.0, logs=False, power=-0.25):
    """Curves of (T − 2)·L that scale as a power of L, as published values or as replicates."""
    rng = np.random.default_rng(8)
    frames = []
    for size in (8, 16, 32):
        time = 2 + np.linspace(-0.3, 0.3, 21) + 0.001
        clean = offset + (size / 16) ** power * (0.2 + np.logaddexp(0, (time - 2) * size)) ** 0.3
        for seed in range(1 if errors else 4):
            noise = 0.005 * rng.standard_normal(21)
            value = clean * np.exp(noise) if logs else clean + noise
            frames.append(pd.DataFrame({"L": size, "seed": seed, "T": time, "m": value}))
            frames[-1]["error"] = 0.005 * clean if logs else 0.005
    return pd.concat(frames, ignore_index=True)


PUBLISHED = {"replicate": None, "error": "error"}
TWO_SIDED = {"time": "T", "rescale": ["L"], "critical_point": (1.9, 2.1)}
FORMS = {
    "log": (crossing(logs=True), TWO_SIDED | PUBLISHED | {"scale": "log"}),
    "offset": (crossing(offset=1.0, power=-1.0), TWO_SIDED | PUBLISHED | {"offset": (0.5, 1.5)}),
    "log offset": (
        crossing(offset=1.0, logs=True, power=-1.0),
        TWO_SIDED | PUBLISHED | {"offset": (0.0, 1.2), "scale": "log"},
    ),
    "branches": (crossing(errors=False), TWO_SIDED | {"critical_point": 2.0, "branches": 2}),
    "correction": (crossing(errors=False), TWO_SIDED | {"correction": {"L": -1.0}}),
    "held": (
        crossing(errors=False).query("T > 2"),
        {"time": "T", "critical_point": 2.0, "fixed": {"L": 1.0}, "rescale": ["L"]},
    ),
}


@pytest.fixture(scope="module")
def formed(tmp_path_factory):
    """For each form, its page and its fit."""
    folder = tmp_path_factory.mktemp("forms")
    out = {}
    for name, (table, options) in FORMS.items():
        jt.explore(table, folder / f"{name}.html", ["L"], value=["m"], **options)
        fit = jt.fit_collapse(table, ["L"], value="m", **options)
        out[name] = folder / f"{name}.html", fit
    return out


def test_every_number_of_a_law_has_a_slider(formed):
    kinds = {
        name: [number["kind"] for number in content_of(page)["views"][0]["exponents"]]
        for name, (page, _) in formed.items()
    }
    assert kinds == {
        "log": ["shift", "height", "critical_point"],
        "offset": ["shift", "height", "critical_point", "offset"],
        "log offset": ["shift", "height", "critical_point", "offset"],
        "branches": ["shift", "height", "critical_point"],
        "correction": ["shift", "shift", "height", "critical_point"],
        # all times lie beyond the given critical point
        "held": ["shift", "height"],
    }
    for page, fit in formed.values():
        (view,) = content_of(page)["views"]
        for number in view["exponents"]:
            low, high = number["reach"]
            assert low <= number["value"] <= high
            assert (high - low) / number["step"] >= 200
        if fit.curves.published:
            for drawn, condition in zip(view["conditions"], fit.curves.conditions, strict=True):
                error = condition.errors[0]
                np.testing.assert_allclose(numbers(drawn["error"], "<f4"), error, rtol=1e-6)


def test_mistakes_are_one_message(tmp_path):
    table = planted(seeds=2, sizes=(1,))
    with pytest.raises(InputError, match="name the columns to draw; the table has learning_rate"):
        jt.explore(table, tmp_path / "page.html", ["learning_rate"])
    with pytest.raises(
        InputError, match="value = 'speed': is not in the data; choose from learning_rate"
    ):
        jt.explore(table, tmp_path / "page.html", ["learning_rate"], value=["speed"])
    with pytest.raises(InputError, match=r"controls = \(.batch_size.,?\): none has several values"):
        jt.explore(table, tmp_path / "page.html", ["batch_size"], value=["rate"])
    with pytest.raises(
        InputError, match=r"nothing can be fitted: rate is omitted: learning_rate = -0\.0"
    ):
        jt.explore(
            table.assign(learning_rate=-table.learning_rate), tmp_path / "page.html", value="rate"
        )
    assert not list(tmp_path.iterdir())


# ---- in a browser: it is started once, and each check continues on the same page

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """A headless Chromium on a page of `jthermo explore`."""

    def __init__(self, chromium, driver, profile):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.look(1280)

    def run(self, script, *arguments):
        return self.driver.execute_script(f"const [a, b] = arguments; {script}", *arguments)

    def wait(self, script, *arguments):
        """Wait until a script returns something true."""
        until = time.monotonic() + 30
        while not (answer := self.run(script, *arguments)):
            assert time.monotonic() < until, script
            time.sleep(0.02)
        return answer

    def frame(self):
        """Wait until all requested frames are drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def look(self, width, scheme="light"):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def change(self, name, value):
        self.run(
            "const e = document.getElementById(a); e.value = b;"
            "e.dispatchEvent(new Event('change'))",
            name,
            value,
        )
        self.frame()

    def slide(self, *powers):
        for i, power in enumerate(powers):
            script = (
                "const e = document.getElementById(a); e.value = b;"
                "e.dispatchEvent(new Event('input'))"
            )
            self.run(script, f"p-{i}", power)
        self.frame()

    def number(self, name):
        return float(self.run("return document.getElementById(a).value", name))

    def source(self, figure, name):
        """The columns of a glyph, as lists."""
        return self.run(
            "const data = Bokeh.documents[a].roots()[0].select_one(b).data_source.data;"
            "const plain = (x) => (typeof x === 'object' ? [...x].map(plain) : x);"
            "const columns = Object.entries(data);"
            "return Object.fromEntries(columns.map(([key, column]) => [key, plain(column)]))",
            figure,
            name,
        )

    def tooltip(self):
        """The text of all tooltips, which live in shadow trees."""
        return self.run(
            "const within = (e) => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])];"
            "const all = (root) => [...root.querySelectorAll('*')].flatMap(within);"
            "const tooltips = all(document).filter((e) => e.matches('.bk-tooltip-content'));"
            "return tooltips.map((e) => e.textContent).join()"
        )


@pytest.fixture
def browser(explored, tmp_path):
    pytest.importorskip("selenium", reason="selenium is not installed; it is among the dev extra")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium here; apt-get install chromium chromium-driver")
    browser = Browser(chromium, driver, tmp_path / "profile")
    try:
        browser.driver.get(explored[0].as_uri())
        browser.wait("return document.getElementById('lost')?.value")
        yield browser
    finally:
        browser.driver.quit()


def test_in_a_browser(browser, explored, formed):
    _, fits, _ = explored
    the_quality_is_the_objective_of_the_fit(browser, fits["he"])
    the_sliders_move_the_curves(browser)
    the_quality_is_best_at_the_fit(browser, fits["he"])
    the_keyboard_moves_a_slider(browser)
    a_setting_has_its_own_fit(browser, fits["torch"])
    what_is_not_determined_is_said(browser)
    clocks_set_the_exponents(browser)
    hovering_names_the_run(browser)
    axes_change_their_scale(browser)
    it_fits_a_phone_and_follows_the_scheme(browser)
    for name, (page, fit) in formed.items():
        a_form_is_judged_and_drawn(browser, page, fit, name)
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.driver.get_log("browser") == []


def the_quality_is_the_objective_of_the_fit(browser, fit):
    for powers in ((2.0, -1.0), (0.0, 0.0), (-1.5, 2.25)):
        browser.slide(*powers)
        model = explore.rounded(fit.likelihood)
        expected = model.objective(np.array(powers)) - model.objective(fit.solution.theta)
        assert browser.number("lost") == pytest.approx(expected, rel=1e-6, abs=1e-6)
        exact = fit.likelihood.objective(np.array(powers)) - fit.solution.objective
        assert expected == pytest.approx(exact, rel=1e-6, abs=1e-3)
        assert browser.number("spread") == pytest.approx(spread(fit, powers), rel=1e-6)


def spread(fit, powers):
    """The difference of the curves as the page states it, computed with NumPy."""
    conditions = fit.curves.conditions
    centre = np.mean([c.log_controls for c in conditions], axis=0)
    curves = [
        (c.log_time + (c.log_controls - centre) @ powers, c.values.mean(0)) for c in conditions
    ]
    at = np.linspace(min(x[0] for x, _ in curves), max(x[-1] for x, _ in curves), 200)
    heights = np.array([np.interp(at, x, y, left=np.nan, right=np.nan) for x, y in curves])
    shared = heights[:, np.isfinite(heights).sum(0) > 1]
    everything = np.concatenate([y for _, y in curves])
    return np.sqrt(np.mean(np.nanvar(shared, axis=0))) / np.ptp(everything)


def the_sliders_move_the_curves(browser):
    for powers in ((0.0, 0.0), (2.0, -1.0)):
        browser.slide(*powers)
        drawn = browser.source(0, "means")["xs"]
        settings = [(rate / 0.05, size / 2) for rate in RATES for size in SIZES]
        for xs, setting in zip(drawn, settings, strict=True):
            np.testing.assert_allclose(xs, STEPS * np.prod(np.power(setting, powers)), rtol=1e-9)
        for i, power in enumerate(powers):
            marker = browser.source(1 + i, "marker")
            assert marker == {"x": [power], "y": [pytest.approx(max(browser.number("lost"), 0.1))]}


def the_quality_is_best_at_the_fit(browser, fit):
    fitted = [fit.exponents[name].value for name in CONTROLS]
    browser.change("clock", "fit")
    assert browser.number("lost") == pytest.approx(0.0, abs=1e-6)
    # Profiles of exponents away from the fit, which may still be on display, stay above this loss.
    browser.wait(
        "const profile = (i) => Bokeh.documents[i].roots()[0].select_one('profile');"
        "return a.every((i) => Math.min(...profile(i).data_source.data.y) <= b)",
        [1, 2],
        plots.LEAST,
    )
    for i, best in enumerate(fitted):
        profile = browser.source(1 + i, "profile")
        assert profile["x"][int(np.argmin(profile["y"]))] == pytest.approx(best, abs=0.02)
        assert max(profile["y"]) > 100
        for away in (-0.3, 0.3):
            browser.slide(*(p + away * (i == j) for j, p in enumerate(fitted)))
            assert browser.number("lost") > 10


def the_keyboard_moves_a_slider(browser):
    from selenium.webdriver.common.keys import Keys

    browser.slide(1.0, 0.0)
    # Tab from the top of the page arrives at the first slider
    for _ in range(20):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.run("return document.activeElement.id") == "p-0":
            break
    slider = browser.driver.switch_to.active_element
    assert slider.get_attribute("id") == "p-0"
    for keys, power in (
        (Keys.ARROW_RIGHT, 1.01),
        (Keys.ARROW_LEFT, 1.0),
        (Keys.SHIFT + Keys.ARROW_UP, 1.1),
    ):
        slider.send_keys(keys)
        browser.frame()
        assert browser.number("p-0") == pytest.approx(power)
        assert browser.source(1, "marker")["x"] == [pytest.approx(power)]
    assert browser.run("return document.getElementById('clock').value") == "own"


def a_setting_has_its_own_fit(browser, fit):
    browser.change("choice", "init torch")
    browser.change("clock", "fit")
    assert browser.number("lost") == pytest.approx(0.0, abs=1e-6)
    rate = fit.exponents["learning_rate"]
    assert browser.run("return document.getElementById('at-0').value") == f"{rate.value:.3f}"
    assert f"{rate.low:.3f} to {rate.high:.3f}" in browser.run(
        "return document.getElementById('fitted-0').textContent"
    )


def what_is_not_determined_is_said(browser):
    # this observable has no fit for the chosen setting
    browser.change("label", "flat")
    assert browser.run("return document.getElementById('choice').value") == "init he"
    assert (
        browser.run("return document.getElementById('fitted-0').textContent")
        == "The data do not determine this number."
    )
    assert not browser.run("return Bokeh.documents[1].roots()[0].select_one('interval').visible")
    assert browser.number("p-0") == 0.0
    browser.change("label", "rate")
    assert browser.run("return Bokeh.documents[1].roots()[0].select_one('interval').visible")


def clocks_set_the_exponents(browser):
    for clock, powers in (("t", (0, 0)), ("η t", (1, 0)), ("η² t", (2, 0)), ("η² t/|B|", (2, -1))):
        browser.change("clock", clock)
        assert [browser.number(f"p-{i}") for i in (0, 1)] == list(powers)
    assert (
        browser.run("return document.getElementById('time').textContent")
        == "t · (η/0.05)2 · (|B|/2)−1"
    )


def hovering_names_the_run(browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser.run("document.getElementById('single').click()")
    browser.frame()
    runs = browser.source(0, "runs")
    assert len(runs["ys"]) == len(RATES) * len(SIZES) * SEEDS
    highest = int(np.argmax([max(ys) for ys in runs["ys"]]))
    record = int(np.argmax(runs["ys"][highest]))
    x, y = browser.run(
        "const view = Bokeh.index.find_one(Bokeh.documents[0].roots()[0]);"
        "const { x_scale, y_scale } = view.frame, box = view.el.getBoundingClientRect();"
        "return [x_scale.compute(a) - box.width / 2, y_scale.compute(b) - box.height / 2]",
        runs["xs"][highest][record],
        runs["ys"][highest][record],
    )
    plot = browser.driver.find_element(By.CSS_SELECTOR, "#curves > *")
    ActionChains(browser.driver).move_to_element_with_offset(plot, round(x), round(y)).perform()
    browser.wait("return a", True)
    browser.frame()
    assert runs["text"][highest] in browser.tooltip()
    assert re.fullmatch(r"η = 0\.\d+, \|B\| = \d, seed \d", runs["text"][highest])


def axes_change_their_scale(browser):
    scale = "const fig = Bokeh.documents[0].roots()[0]; return [fig.x_scale.type, fig.y_scale.type]"
    assert browser.run(scale) == ["LogScale", "LinearScale"]
    browser.run(
        "document.getElementById('log-time').click(); document.getElementById('log-value').click()"
    )
    browser.frame()
    assert browser.run(scale) == ["LinearScale", "LogScale"]


def it_fits_a_phone_and_follows_the_scheme(browser):
    shades = set()
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            browser.look(width, scheme)
            browser.frame()
            assert browser.run("return document.documentElement.scrollWidth") <= width
            shades.add(
                (
                    browser.source(0, "means")["colour"][0],
                    browser.run("return getComputedStyle(document.body).color"),
                )
            )
    assert len(shades) == 2


def a_form_is_judged_and_drawn(browser, page, fit, name):
    browser.driver.get(page.as_uri())
    browser.wait("return document.getElementById('lost')?.value")
    parameters = explore.parameters_of(fit)
    model, directions = explore.rounded(fit.likelihood), fit.directions
    for away in (0.0, 0.4):
        browser.slide(
            *(
                fit.exponents[p.name].value
                + (away * min(1.0, 20 * p.step) if p.name in fit.free else 0.0)
                for p in parameters
            )
        )
        # as the sliders round them
        positions = (
            "return [...document.querySelectorAll('input[type=range]')].map((e) => +e.value)"
        )
        at = dict(zip([p.name for p in parameters], browser.run(positions), strict=True))
        free = np.array([at[n] for n in fit.free]) - directions.origin
        theta = np.linalg.lstsq(directions.basis, free, rcond=None)[0]
        expected = model.objective(theta) - model.objective(fit.solution.theta)
        assert browser.number("lost") == pytest.approx(expected, rel=1e-6, abs=1e-6), name
        drawn = browser.source(0, "means")
        critical = at.get("critical_point", fit.curves.clock.origin)
        for xs, ys, condition in zip(drawn["xs"], drawn["ys"], fit.curves.conditions, strict=True):
            size = np.exp(condition.log_controls[0]) / 16
            # (L/8)^−1 of the correction, minus its mean over L = 8, 16, 32
            grown = np.exp(at.get("correction_L", 0.0) * (0.5 / size - 7 / 12))
            time = fit.curves.clock.time(condition.log_time)
            np.testing.assert_allclose(
                xs, (time - critical) * size ** at["L"] * grown, rtol=1e-6, atol=1e-9, err_msg=name
            )
            heights = condition.values.mean(axis=0) - at.get("offset", 0.0)
            np.testing.assert_allclose(ys, heights * size ** -at["value_L"], rtol=1e-9)
    if fit.curves.clock.signed:
        browser.change("clock", "fit")
        browser.run("document.getElementById('log-time').click()")
        browser.frame()
        # A gap parts the two sides, and both are drawn against |τ|.
        for xs in browser.source(0, "means")["xs"]:
            gap = np.isnan(np.array(xs, float))
            assert gap.sum() == 1
            assert np.array(xs, float)[~gap].min() > 0


def test_observables_that_cannot_be_fitted_hide_no_other(tmp_path):
    """A count of dead units is 0 throughout; the page shows the others and says why it is not."""
    runs = results({"he": planted(), "torch": planted()})
    flat = runs.assign(
        layer_dead=0 * runs.rate, nearly=1 + 1e-16 * runs.rate, missing=np.nan * runs.rate
    )
    lines = jt.explore(flat, tmp_path / "page.html")
    assert lines.startswith("3 collapses of 36 curves")
    for name, value in (("layer_dead", "0"), ("nearly", "1")):
        assert (
            f"{name} for init he is omitted: value = '{name}': is flat: all its values are {value}"
            in lines
        )
    assert "missing for init he is omitted: value = 'missing': no replicate" in lines
    assert {view["label"] for view in content_of(tmp_path / "page.html")["views"]} == {
        "rate",
        "flat",
    }
