"""SVGs look the same in a browser and in librsvg, and have other colours on dark pages."""

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import jthermo as jt
from jthermo import figures

COMMITTED = sorted((Path(__file__).parents[2] / "results" / "figures").glob("*.svg"))
# Largest share of pixels in which two programs may differ by more than a quarter of full scale,
# after blurring by two pixels. They differ in fonts and in the edges of lines; without its colours
# a figure differs in more.
DIFFERENT = 0.004


def drawn():
    with jt.figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
        for value, colour in enumerate(figures.colours(3)):
            left.plot([0, 1, 2], [value, 1, 2 - value], color=colour, lw=4, label=f"η = {value}")
        left.fill_between([0, 1, 2], 0, 0.5, color="#d55e00", alpha=0.4)
        left.legend()
        right.pcolormesh(np.arange(9).reshape(3, 3), cmap="PuOr")
        right.text(1, 1, "two words", color="white")
    text = figures.svg(fig, "drawn").decode()
    plt.close(fig)
    return text


def programs():
    found = [shutil.which(name) for name in ("rsvg-convert", "chromium")]
    if None in found:
        pytest.skip("no librsvg or Chromium here; apt-get install librsvg2-bin chromium")
    return found


def rendered(path, folder, scheme="light"):
    """The pixels of an SVG on white in librsvg, and in Chromium with a light or dark scheme."""
    rsvg, chromium = programs()
    width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', path.read_text()).groups())
    subprocess.run([rsvg, "-b", "white", "-o", folder / "rsvg.png", path], check=True)
    # the window is higher than the figure, since a headless one has a bar
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height + 150}"]
    options += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
    shot = folder / "chromium.png"
    subprocess.run([chromium, *options, f"--screenshot={shot}", path], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    one, other = (plt.imread(p)[:height, :width, :3] for p in (folder / "rsvg.png", shot))
    return one, other


def different(one, other):
    """The share of pixels in which two pictures differ."""
    blurred = [gaussian_filter(picture.astype(float), (2, 2, 0)) for picture in (one, other)]
    return float((abs(blurred[0] - blurred[1]).max(-1) > 0.25).mean())


def test_both_programs_draw_the_same_picture_and_a_dark_one_for_dark_pages(tmp_path):
    path = tmp_path / "drawn.svg"
    path.write_text(drawn())
    light, browser = rendered(path, tmp_path)
    assert different(light, browser) < DIFFERENT
    _, dark = rendered(path, tmp_path, "dark")
    assert dark.mean() < 0.5 < browser.mean()
    # colours as variables, as before version 0.3, are lost outside browsers
    path.write_text(re.sub(r'((?:fill|stroke))="(#\w{6})"', r'\1="var(--x, \2)"', drawn()))
    lost, browser = rendered(path, tmp_path)
    assert different(lost, browser) > 2 * DIFFERENT


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_figure_has_plain_colours(path):
    text = path.read_text()
    outside = re.sub(r"<style>.*?</style>", "", text)
    assert "var(--c" not in text
    assert "@media (prefers-color-scheme:dark)" in text
    used = set(re.findall(r'((?:fill|stroke))="(#[0-9a-f]{6})"', outside))
    assert used >= {("fill", "#000000")}
    ruled = re.findall(r'\[(fill|stroke)="(#[0-9a-f]{6})"\]', text)
    assert used == set(ruled)
    assert not re.search(r"(fill|stroke): #", outside)


@pytest.mark.parametrize("name", ["fig3", "sensitivity", "mechanism"])
def test_a_committed_figure_looks_the_same_in_both_programs(name, tmp_path):
    (path,) = (path for path in COMMITTED if path.stem == name)
    one, other = rendered(path, tmp_path)
    assert different(one, other) < DIFFERENT
