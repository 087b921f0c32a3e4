"""Setup of all tests: two CPU devices, no windows, shape checks, and a cache of compiled programs.

All workers, and the processes that tests start, use the same cache.
"""

import os
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Operations on arrays of different rank raise an error, also in the processes that tests start.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# imported only now, because jax reads the environment when it is imported
import jax  # noqa: E402
import matplotlib  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Modules with shapes in their annotations; jaxtyping checks these at each call.
SHAPES_CHECKED = (
    "jthermo.models.per_example",
    "jthermo.observables.activation",
    "jthermo.observables.curvature_estimators",
    "jthermo.observables.gradient_moments",
    "jthermo.observables.layer_statistics",
    "jthermo.observables.observable",
    "jthermo.theory",
    "jthermo.update_rule.losses",
)
# is_pep484_tower accepts an int for a float annotation, as static type checkers do.
TYPECHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook(SHAPES_CHECKED, TYPECHECKER)

jax.config.update("jax_num_cpu_devices", 2)
matplotlib.use("Agg")
