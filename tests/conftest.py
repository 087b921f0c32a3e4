"""Two CPU devices, no window, and one store of compiled programs for all workers and the processes they start."""

import os
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# jax reads the environment when it is imported
import jax  # noqa: E402
import matplotlib  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
matplotlib.use("Agg")
