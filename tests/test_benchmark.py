"""The benchmark's report follows from its JSON: ratios, missed targets, and tests of linearity."""

import importlib
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jthermo.results.atomic import write_between

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script():
    return lambda name: importlib.import_module(f"scripts.benchmark.{name}")


def row(ns, *, run_steps=1, peak=1e8):
    spread = {"ns_low": ns, "ns_high": ns, "processor_ns": ns, "first_call_seconds": 1.0}
    return {"ns": ns, "run_steps": run_steps, "peak_bytes": peak} | spread


@pytest.fixture
def benchmark(script):
    """A benchmark with time linear in the number of steps and memory quadratic in the runs."""
    cases = script("cases")
    measured = {
        "small": {
            "plain-jax": row(300.0),
            "jthermo-xla": row(100.0),
            "jthermo-fused": row(20.0),
            "limit": row(15.0),
            "hand": row(16.0),
        }
    }
    for case, net in cases.STEPS.items():
        measured[case] = {
            "jthermo-xla": row(
                (0.2e9 + 1e3 * net.least) / (128 * net.least), run_steps=128 * net.least
            )
        }
    for case, net in cases.MEMORY.items():
        measured[case] = {"jthermo-xla": row(1.0, peak=int(3e8 + net.runs**2))}
    return {
        "machine": {"cpu": "abacus", "cores": 2, "versions": {"jax": "1"}, "date": "today"},
        "cases": measured,
    }


def test_the_page_is_that_of_the_json(script):
    benchmark = json.loads((ROOT / "results" / "benchmark.json").read_text())
    report = script("report")
    for page, text in (
        ("README.md", report.short(benchmark)),
        ("docs/speed.md", report.page(benchmark)),
    ):
        assert text in (ROOT / page).read_text(), (
            "run: python scripts/benchmark --into README.md docs/speed.md"
        )


def test_ratios_and_missed_targets_are_reported(script, benchmark):
    report = script("report")
    bars = {bar.what: bar for bar in report.bars(benchmark)}
    assert bars["10-10-1, fused against plain JAX"][1:] == ("15 ×", "≥ 20 ×", False)
    assert bars["10-10-1, fused against torch.func"][1:] == ("not measured", "≥ 40 ×", None)
    assert bars[
        "fused in the time of its arithmetic alone (`limit.cc`), the worst case"
    ].measured.startswith("1.33 ")
    by_hand = bars["10-10-1, fused in the time of a C++ loop by hand"]
    assert by_hand[1:] == ("1.25", "≤ 1.35", True)
    # 24 × 256 examples of a probe for 2,000 steps
    benchmark["cases"]["records"] = {"jthermo-fused": row(10.0), "limit": row(5.0)}
    drawn = "drawing those probes without a net (`limit.cc`), in the time without `loss()`"
    assert {b.what: b.measured for b in report.bars(benchmark)}[drawn] == "1.54"
    slower = "XLA alone against plain JAX, the worst case"
    assert bars[slower].met
    benchmark["cases"]["runs-16"] = {"plain-jax": row(50.0), "jthermo-xla": row(100.0)}
    assert {b.what: b for b in report.bars(benchmark)}[slower][1:] == (
        "0.50 × (`runs-16`, of 2)",
        "never slower",
        False,
    )
    assert "never slower: **not met**" in report.verdicts(benchmark)


def test_a_straight_line_is_told_from_a_bent_one(script, benchmark):
    report = script("report")
    steps = report.linear(*report.curves(benchmark, "steps", "jthermo-xla"))
    assert steps.fixed == pytest.approx(0.2)
    assert steps.each == pytest.approx(1e-6)
    assert (steps.slope, steps.misfit) == pytest.approx((1, 0), abs=1e-6)
    memory = report.linear(*report.curves(benchmark, "memory", "jthermo-xla"))
    assert abs(memory.slope - 1) > 0.1
    bars = {bar.what: bar.met for bar in report.bars(benchmark)}
    assert bars["time against steps, xla"] is True
    assert bars["memory against runs, xla"] is False
    assert bars["time against steps, fused"] is None
    assert report.linear(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None


def test_the_figure_has_a_point_for_every_ratio(script, benchmark):
    figure = script("figure").draw(benchmark)
    points = {line.get_label(): line.get_xdata() for line in figure.axes[0].get_lines()}
    assert points["jthermo, fused"] == pytest.approx([15.0])
    assert points["jthermo, XLA"] == pytest.approx([3.0])
    plt.close(figure)


def test_every_contestant_of_a_case_can_be_made(script):
    cases = script("cases")
    for name, own in (("limit", cases.LIMITS), ("hand", cases.HANDS)):
        source = (ROOT / "scripts" / "benchmark" / f"{name}.cc").read_text()
        assert all(f'{{"{case}", work<' in source for case in own)
    named = {name for net in cases.CASES.values() for name in net.who if isinstance(net, cases.Net)}
    assert named == set(cases.EVERYONE)
    contestants = script("contestants")
    assert {call.what for call in cases.CALLS.values()} == set(contestants.CALLS)
    assert {*cases.TORCH, "plain-jax", "equinox"} == set(contestants.OTHERS)


def test_text_goes_between_the_markers_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n")
    for _ in range(2):
        write_between(page, {"x": "new", "y": "absent"})
        assert page.read_text() == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
