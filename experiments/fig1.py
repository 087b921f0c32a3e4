"""Figure 1 and the theory's own statements: flux and density of the walk, simulated, exact and as
printed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from jthermo.paper.evidence import equals
from jthermo.theory import flow, properties, walk

ETA = 0.05
LOW, HIGH = 0.0, 4.0
# The claims that `judge` gives evidence on.
CLAIMS = ("C11", "C12")
LABELS = {
    "exact": "exact",
    "eq10": "Eq. 10",
    "eq11": "with c of Eq. 11",
    "a4": "with the sign of A.4",
    "psi": "ψ",
}


def linear(q):
    return 1 + 0.5 * q


def constant(q):
    return jnp.full_like(q, 1.3)


def of_unit(q):
    return flow.effective_gradient(q[0], q[1])


def run(scale):
    """Simulate walkers and measure their fluxes and densities."""
    key, many = jax.random.key(0), 4 if scale == "paper" else 1
    with jax.enable_x64():
        uniform = walk.Walk(linear, ETA)
        q, b = np.linspace(0, 4, 9), np.linspace(-2, 2, 9)
        along = [walk.flux(uniform, x, key=key) for x in q]
        unit = walk.Walk(of_unit, ETA)
        projected = [walk.flux(unit, [1.0, x], key=key, num_samples=2**16 * many) for x in b]
        slope = walk.flux(walk.Walk(constant, ETA), 0.4, key=key, density=lambda q: 1 + 0.3 * q[0])
    box = walk.Walk(linear, ETA, walls="reflecting", low=LOW, high=HIGH)
    end = walk.simulate(box, jnp.linspace(LOW, HIGH, 200_000 * many), int(16 / ETA**2), key=key)
    edges = np.linspace(LOW, HIGH, 21)
    seen = walk.density(end.q, edges)
    # without the boundary layer, one step wide, at each wall
    exponent = walk.stationary_exponent(box, end.q, low=0.3, high=3.7)
    unit_eta, diffusion = ETA**2, ETA**2 * 1.3**2 * 0.3

    def pair(estimates, scale):
        return np.array([[e.value, e.standard_error] for e in estimates]) / scale

    return xr.Dataset(
        {
            "flux": (("q", "estimate"), pair(along, unit_eta)),
            "flux_of_unit": (("b", "estimate"), pair(projected, unit_eta)),
            "diffusion": ("estimate", pair([slope], diffusion)[0]),
            "exponent": ("estimate", np.array(exponent)),
            "density": (("bin", "estimate"), np.stack(seen, axis=1)),
        },
        {
            "q": q,
            "b": b,
            "bin": (edges[1:] + edges[:-1]) / 2,
            "estimate": ["value", "standard_error"],
        },
    )


def judge(ds):
    at = ds.sel(q=1.0, b=0.0)
    drift = at.flux.values / (1.5 * 0.5)
    evidence = [
        # Half a per cent covers two biases of finite η: a relative (η g')², and that of measuring
        # a flux on a patch that is two steps wide.
        equals("C11", "1-D drift of Eq. 10, J/(η² g g' ρ)", -1, *drift, tolerance=0.005),
        equals("C11", "1-D drift with c of Eq. 11, J/(η² g g' ρ)", -0.5, *drift, tolerance=0.005),
        equals("C11", "1-D drift of A.4, J/(η² g g' ρ)", 0.5, *drift, tolerance=0.005),
        equals(
            "C11", "diffusion of Eq. 10, J/(η² g² ρ')", -1, *at.diffusion.values, tolerance=0.005
        ),
        equals("C11", "a of the stationary ρ ~ g^a under Eq. 10", -1, *at.exponent.values),
    ]
    for form, sign in (("eq10", 1), ("psi", -1)):
        printed = sign * float(flow.projected(1.0, 0.0, form=form))
        name = f"{LABELS[form]} of a unit, J·ĝ/(η² ρ) at (V, b) = (1, 0)"
        evidence.append(equals("C11", name, printed, *at.flux_of_unit.values, tolerance=0.001))
    return evidence + [
        _search(claim, law) for claim, law in ((1, "normal"), (1, "uniform"), (2, "uniform"))
    ]


def _search(number, law):
    """Search counter-examples among random units on random inputs; a true property has none."""
    claim = (properties.PROPERTY_4_1, properties.PROPERTY_4_2)[number - 1]
    draw = jax.random.normal if law == "normal" else jax.random.uniform
    broken = [
        properties.counter_example(
            claim, draw(jax.random.key(seed), (64, 10)), key=jax.random.key(100 + seed)
        )
        for seed in range(20)
    ]
    number = sum(b is not None for b in broken)
    name = (
        f"data sets with a counter-example to {claim.name}, of 20 with x {law}, 10 000 tries each"
    )
    return equals("C12", name, 0, number, 0.0)


def figure(ds, fits):
    import matplotlib.pyplot as plt

    from jthermo.figures import style

    black, lines = (
        "black",
        {"exact": ("#0072B2", "-"), "eq10": ("#D55E00", "--"), "eq11": ("#CC79A7", ":")},
    )
    lines |= {"a4": ("#009E73", "-."), "psi": ("#CC79A7", ":")}
    with style():
        fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.0, 2.4))

        def draw(ax, x, estimates):
            ax.errorbar(
                x,
                estimates[:, 0],
                3 * estimates[:, 1],
                fmt="o",
                color=black,
                ms=3,
                lw=0.8,
                zorder=3,
                label="simulated",
            )

        def curve(ax, x, y, form, label=None):
            colour, style = lines[form]
            ax.plot(x, y, color=colour, ls=style, label=label or LABELS[form])

        q = np.linspace(LOW, HIGH, 101)
        for form in ("exact", "eq10", "eq11", "a4"):
            curve(left, q, [float(flow.along(linear, jnp.array([x]), form=form)) for x in q], form)
        draw(left, ds.q, ds.flux.values)
        left.set(
            xlabel="q", ylabel="J/(η² ρ)", title="flux, uniform ρ, g = 1 + q/2", ylim=(-1.6, 2.1)
        )
        for form, power in (("exact", -2), ("eq10", -1), ("eq11", -0.5)):
            curve(
                middle,
                q,
                walk.equilibrium(linear, q, power),
                form,
                f"{LABELS[form]}: ρ ~ g$^{{{power:g}}}$",
            )
        draw(middle, ds.bin, ds.density.values)
        middle.set(xlabel="q", ylabel="ρ", title="stationary density between walls")
        b = np.linspace(-2, 2, 101)
        for form in ("exact", "eq10"):
            curve(right, b, flow.projected(1.0, b, form=form), form)
        curve(
            right, b, -np.asarray(flow.projected(1.0, b, form="psi")), "psi", "ψ, sign as printed"
        )
        draw(right, ds.b, ds.flux_of_unit.values)
        right.set(xlabel="b", ylabel="J·ĝ/(η² ρ)", title="flux of (V, b), V = ‖W‖ = 1")
        for ax in (left, right):
            ax.axhline(0, color="grey", lw=0.5)
        for ax in (left, middle, right):
            ax.legend(handlelength=1.8, fontsize=6)
    return {"fig1": fig}
