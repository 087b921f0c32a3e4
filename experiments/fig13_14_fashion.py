"""Figures 13 and 14 with other images: activation rate and ‖V‖ of the net with 300 hidden units on
Fashion-MNIST for several B.
"""

import jthermo as jt
from jthermo.paper.reproduce import load

ETA = load("fig11_12_fashion")
SWEEP = ETA.SWEEP.replace(learning_rate=0.04, batch_size=(250, 500, 1000, 2000), num_steps=500)
SMALL = {**ETA.SMALL, "batch_size": (5, 10, 20)}
FIT = (jt.Claim("C15", "activation_rate", "batch_size", exponent=-1),)


def figure(ds, fits):
    return load("fig13_14").drawn(ds, fits, "redrawn", "_fashion")
