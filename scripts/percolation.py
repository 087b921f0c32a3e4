#!/usr/bin/env python
"""Finite-size scaling of 2-D site percolation. The exact exponents are 1/ν = 3/4 and β/ν = 5/48.

Below the threshold p_c, a cluster spans an L × L lattice with probability F(|p − p_c|·L^(1/ν)).
Above it, the largest cluster holds the share L^(−β/ν)·G(|p − p_c|·L^(1/ν)) of the sites in the
middle.

python scripts/percolation.py --out docs/figures
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import label

from jthermo.collapse import CollapseFit, fit_collapse

# p_c, from Jacobsen (2015).
THRESHOLD = 0.592746050792
# L, in sites.
SIZES = (16, 32, 64, 128)


def simulate(
    sizes: tuple[int, ...] = SIZES,
    replicates: int = 8,
    lattices: int = 40,
    points: int = 24,
    seed: int = 0,
) -> pd.DataFrame:
    """A table with columns L, seed, distance = |p − p_c|, spanned (below p_c) and largest (above).

    A lattice keeps its random numbers while p changes, so the points of one replicate are
    correlated. Replicates are independent.

    Args:
        sizes: L.
        replicates: per size.
        lattices: averaged in one replicate.
        points: distances per size.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for size in sizes:
        distance = np.geomspace(0.15, 6.0, points) * size**-0.75
        distance = distance[distance < 0.35]
        # Clusters are smaller near the free edges, which would be a correction to scaling.
        middle = slice(size // 4, -(size // 4))
        for replicate in range(replicates):
            spanned, largest = np.zeros(len(distance)), np.zeros(len(distance))
            for _ in range(lattices):
                sites = rng.random((size, size))
                for i, away in enumerate(distance):
                    below, _ = label(sites < THRESHOLD - away)
                    spanned[i] += len(np.intersect1d(below[0][below[0] > 0], below[-1])) > 0
                    above, _ = label(sites < THRESHOLD + away)
                    winner = 1 + np.argmax(np.bincount(above.ravel())[1:])
                    largest[i] += np.mean(above[middle, middle] == winner)
            rows.append(
                pd.DataFrame(
                    {
                        "L": size,
                        "seed": f"{size}-{replicate}",
                        "distance": distance,
                        "spanned": spanned / lattices,
                        "largest": largest / lattices,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def fits(table: pd.DataFrame) -> tuple[CollapseFit, CollapseFit]:
    """Fits of the spanning probability and of the largest cluster, whose value scales too.

    Far above the threshold the largest cluster is all of the occupied sites, whatever L is, so the
    second fit uses distances near the threshold only.
    """
    return (
        fit_collapse(table, ["L"], time="distance", value="spanned"),
        fit_collapse(
            table, ["L"], time="distance", value="largest", rescale=["L"], window=(0, 0.05)
        ),
    )


def main() -> None:
    """Simulate, fit, print and draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lattices", type=int, default=40, help="lattices averaged in one replicate"
    )
    parser.add_argument("--out", type=Path, help="folder for the figure; none is drawn without it")
    args = parser.parse_args()
    results = fits(simulate(lattices=args.lattices))
    for fit in results:
        print(fit.summary())
    if args.out:
        fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.2), layout="constrained")
        for fit, ax in zip(results, axes, strict=True):
            fit.plot(ax).set_xlabel("|p − p_c|·L^p")
        args.out.mkdir(parents=True, exist_ok=True)
        fig.savefig(args.out / "percolation.png", dpi=110)
        print(args.out / "percolation.png", file=sys.stderr)


if __name__ == "__main__":
    main()
