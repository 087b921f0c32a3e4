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


def size(path):
    width, height = re.search(r'width="(\d+)" height="(\d+)"', path.read_text()).groups()
    return int(width), int(height)


def by_librsvg(path, folder):
    """The pixels of an SVG on white."""
    shot = folder / f"{path.stem}.png"
    subprocess.run([programs()[0], "-b", "white", "-o", shot, path], check=True)
    return plt.imread(shot)[..., :3]


def by_chromium(paths, folder, scheme="light"):
    """The pixels of SVGs with a light or dark scheme, by name: all in one page, for speed."""
    chromium = programs()[1]
    tops = np.cumsum([0, *(size(path)[1] for path in paths)]).tolist()
    images = "".join(
        f'<img src="{path.absolute().as_uri()}" style="position:absolute; left:0; top:{top}px">'
        for path, top in zip(paths, tops, strict=False)
    )
    page, shot = folder / f"{scheme}.html", folder / f"{scheme}.png"
    page.write_text(f"<style>:root {{ color-scheme: {scheme} }}</style>{images}")
    # the window is higher than the figures, since a headless one has a bar
    window = f"{max(size(path)[0] for path in paths)},{tops[-1] + 150}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={window}"]
    options += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
    subprocess.run([chromium, *options, f"--screenshot={shot}", page], check=True, timeout=120,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    pixels = plt.imread(shot)[..., :3]
    return {
        path: pixels[top : top + size(path)[1], : size(path)[0]]
        for path, top in zip(paths, tops, strict=False)
    }


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """Each committed figure as Chromium shows it, light and dark."""
    folder = tmp_path_factory.mktemp("shown")
    shown = {}
    for scheme in ("light", "dark"):
        # Chromium paints at most 16,384 rows.
        for part in range(0, len(COMMITTED), 20):
            page = by_chromium(COMMITTED[part : part + 20], folder, scheme)
            shown |= {(path, scheme): pixels for path, pixels in page.items()}
    return shown


def different(one, other):
    """The share of pixels in which two pictures differ."""
    blurred = [gaussian_filter(picture.astype(float), (2, 2, 0)) for picture in (one, other)]
    return float((abs(blurred[0] - blurred[1]).max(-1) > 0.25).mean())


def test_both_programs_draw_the_same_picture_and_a_dark_one_for_dark_pages(tmp_path):
    path = tmp_path / "drawn.svg"
    path.write_text(drawn())
    browser = by_chromium([path], tmp_path)[path]
    assert different(by_librsvg(path, tmp_path), browser) < DIFFERENT
    dark = by_chromium([path], tmp_path, "dark")[path]
    assert dark.mean() < 0.5 < browser.mean()
    # colours as variables, as before version 0.3, are lost outside browsers
    path.write_text(re.sub(r'((?:fill|stroke))="(#\w{6})"', r'\1="var(--x, \2)"', drawn()))
    lost, browser = by_librsvg(path, tmp_path), by_chromium([path], tmp_path)[path]
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


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_figure_looks_the_same_in_both_programs(path, shown, tmp_path):
    light, dark = shown[path, "light"], shown[path, "dark"]
    assert different(by_librsvg(path, tmp_path), light) < DIFFERENT
    # the dark one is the same drawing: what stands out from its paper also does from white
    assert dark.mean() < 0.4
    assert light.mean() > 0.6
    marks = [
        abs(picture - picture[:1, :1]).max(-1, keepdims=True) > 0.15 for picture in (light, dark)
    ]
    assert different(*(mark.repeat(3, axis=-1) for mark in marks)) < 0.1
