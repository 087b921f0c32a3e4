"""Two CPU devices and no window: set before JAX starts."""

import jax
import matplotlib

jax.config.update("jax_num_cpu_devices", 2)
matplotlib.use("Agg")
