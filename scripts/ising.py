#!/usr/bin/env python
"""Finite-size scaling of the 2-D Ising model, simulated with Wolff clusters.

Simulates L × L lattices with periodic boundaries around the transition (12 minutes on one core),
fits T_c, 1/ν, β/ν and γ/ν by data collapse, and prints them beside the exact values.

python scripts/ising.py --table docs/figures/ising.csv --out docs/figures
python scripts/ising.py --simulate --table ising.csv
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from jthermo.collapse import CollapseFit, Exponent, fit_collapse

# L, in sites.
SIZES = (32, 48, 64, 96, 128)
# Temperatures lie within REACH/L of MIDDLE, a guess of T_c.
MIDDLE, REACH = 2.27, 3.0
# Temperatures to fit. Corrections to scaling grow with the distance from T_c.
WINDOW = (2.22, 2.32)
# Range in which T_c is fitted.
T_C = (2.2, 2.35)
# The exact values.
EXACT = {
    "T_c": 2 / np.log(1 + np.sqrt(2)),
    "1/nu": 1.0,
    "beta/nu": 1 / 8,
    "gamma/nu": 7 / 4,
}


# From the averages of |m|, m² and m⁴ of the magnetisation per site m: the Binder cumulant, the
# magnetisation, and the susceptibility per site, times the temperature.
Estimate = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
ESTIMATES: dict[str, Estimate] = {
    "binder": lambda m1, m2, m4: 1 - m4 / (3 * m2**2),
    "magnetisation": lambda m1, m2, m4: m1,
    "susceptibility": lambda m1, m2, m4: m2 - m1**2,
}


def neighbours(size: int) -> np.ndarray:
    """The four neighbours of each site of a periodic lattice, (size², 4)."""
    sites = np.arange(size * size).reshape(size, size)
    return np.stack([np.roll(sites, way, axis) for axis in (0, 1) for way in (1, -1)], -1).reshape(
        -1, 4
    )


def flip_clusters(
    spins: np.ndarray, bond: np.ndarray, near: np.ndarray, rng: np.random.Generator
) -> None:
    """Grow and flip one Wolff cluster in each lattice, all lattices at once.

    Args:
        spins: ±1, (lattices, sites); changed in place.
        bond: probability 1 − exp(−2/T) of a bond between equal neighbours, (lattices,).
        near: neighbours of each site, (sites, 4).
        rng: of the clusters.
    """
    number, sites = spins.shape
    flat, lattice = spins.reshape(-1), np.arange(number)
    site = rng.integers(sites, size=number)
    # The spin of each cluster. A site that joins is flipped at once, which also marks it.
    up = flat[lattice * sites + site].copy()
    flat[lattice * sites + site] = -up
    newest = np.empty(flat.size, np.int32)
    while len(site):
        place = (lattice[:, None] * sites + near[site]).ravel()
        lattice = np.repeat(lattice, 4)
        equal = np.flatnonzero(flat[place] == up[lattice])
        joins = equal[rng.random(len(equal), np.float32) < bond[lattice[equal]]]
        place, lattice = place[joins], lattice[joins]
        # A site that several neighbours add counts once.
        order = np.arange(len(place), dtype=np.int32)
        newest[place] = order
        once = newest[place] == order
        place, lattice = place[once], lattice[once]
        flat[place] = -up[lattice]
        site = place - lattice * sites


def magnetisations(
    size: int, temperatures: np.ndarray, clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """The magnetisation per site after each cluster, (clusters, lattices), without the first fifth.

    Args:
        size: L.
        temperatures: of each lattice, (lattices,).
        clusters: that each lattice flips.
        rng: of the simulation.
    """
    spins = np.ones((len(temperatures), size * size), np.int8)
    bond, near = 1 - np.exp(-2 / temperatures), neighbours(size)
    means = np.empty((clusters, len(temperatures)))
    for i in range(clusters):
        flip_clusters(spins, bond, near, rng)
        means[i] = spins.mean(axis=1)
    return means[clusters // 5 :]


def jackknife(moments: np.ndarray, estimate: Estimate) -> tuple[np.ndarray, np.ndarray]:
    """An estimate from averaged moments, without its bias of order 1/R, and its standard error.

    Args:
        moments: of R independent lattices at each temperature, (M, temperatures, R).
        estimate: function of M averages.
    """
    number = moments.shape[-1]
    whole = estimate(*moments.mean(axis=-1))
    left = estimate(*((moments.sum(axis=-1, keepdims=True) - moments) / (number - 1)))
    error = np.sqrt((number - 1) * left.var(axis=-1))
    return number * whole - (number - 1) * left.mean(axis=-1), error


def simulate(
    sizes: tuple[int, ...] = SIZES,
    points: int = 17,
    lattices: int = 48,
    clusters: int = 1500,
    seed: int = 0,
) -> pd.DataFrame:
    """A table with columns L, T, and Binder cumulant, magnetisation and susceptibility with errors.

    Args:
        sizes: L.
        points: temperatures per size.
        lattices: independent lattices at each temperature, which give the standard errors.
        clusters: that each lattice flips.
        seed: of the random numbers.
    """
    tables = []
    for size in sizes:
        begun = time.monotonic()
        temperature = (MIDDLE + REACH / size * np.linspace(-1, 1, points)).round(5)
        rng = np.random.default_rng([seed, size])
        m = magnetisations(size, np.repeat(temperature, lattices), clusters, rng)
        moments = np.stack([np.mean(np.abs(m) ** k, axis=0) for k in (1, 2, 4)])
        moments = moments.reshape(3, points, lattices)
        table = pd.DataFrame({"L": size, "T": temperature})
        for name, estimate in ESTIMATES.items():
            table[name], table[f"{name}_error"] = jackknife(moments, estimate)
        table[["susceptibility", "susceptibility_error"]] *= size * size
        tables.append(table)
        print(f"L = {size}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return pd.concat(tables, ignore_index=True)


def fits(
    table: pd.DataFrame, window: tuple[float, float] | None = WINDOW
) -> dict[str, CollapseFit]:
    """Fits of the three values; T_c and 1/ν are fitted in each, jointly with the value's exponent.

    Args:
        table: as :func:`simulate` gives it.
        window: first and last temperature to use; None for all.
    """
    return {
        name: fit_collapse(
            table,
            ["L"],
            time="T",
            value=name,
            error=f"{name}_error",
            critical_point=T_C,
            rescale=() if name == "binder" else ["L"],
            window=window,
        )
        for name in ESTIMATES
    }


def answers(fitted: dict[str, CollapseFit]) -> dict[str, list[tuple[str, Exponent]]]:
    """For each quantity, the fits that give it."""
    out: dict[str, list[tuple[str, Exponent]]] = {name: [] for name in EXACT}
    for name, fit in fitted.items():
        out["T_c"].append((name, fit.exponents["critical_point"]))
        out["1/nu"].append((name, fit.exponents["L"]))
    m = fitted["magnetisation"].exponents["value_L"]
    turned = Exponent(-m.value, -m.high, -m.low, m.standard_error)
    out["beta/nu"].append(("magnetisation", turned))
    out["gamma/nu"].append(("susceptibility", fitted["susceptibility"].exponents["value_L"]))
    return out


def report(fitted: dict[str, CollapseFit]) -> str:
    """The fitted values beside the exact ones."""
    lines = [f"{'':<9}{'exact':>8}  {'fitted':<24}  from"]
    for name, rows in answers(fitted).items():
        for source, exponent in rows:
            interval = f"{exponent.value:.4f} [{exponent.low:.4f}, {exponent.high:.4f}]"
            lines.append(f"{name:<9}{EXACT[name]:>8.4f}  {interval:<24}  {source}")
    return "\n".join(lines)


def main() -> None:
    """Simulate or read the table, fit it, print the values and draw the collapses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True, help="CSV file of simulated values")
    parser.add_argument("--simulate", action="store_true", help="simulate, and write the table")
    parser.add_argument("--all", action="store_true", help="fit all temperatures")
    parser.add_argument("--out", type=Path, help="folder for the figure; none is drawn without it")
    args = parser.parse_args()
    if args.simulate:
        simulate().to_csv(args.table, index=False, float_format="%.6g")
    fitted = fits(pd.read_csv(args.table), None if args.all else WINDOW)
    print(report(fitted))
    for name, fit in fitted.items():
        print(f"{name}: {'collapse' if fit.collapsed else 'no collapse'}, p = {fit.p_value:.2g}")
    if args.out:
        fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
        for fit, ax in zip(fitted.values(), axes, strict=True):
            fit.plot(ax).set_title("")
        args.out.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.out / "ising.png", dpi=110)
        print(args.out / "ising.png", file=sys.stderr)


if __name__ == "__main__":
    main()
