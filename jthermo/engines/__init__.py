"""One training step and the loop over steps: XLA for any model, a fused kernel for dense nets."""
