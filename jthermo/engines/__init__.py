"""One step and the loop over steps: XLA for any model, fused kernels for dense ReLU nets."""
