"""Data collapse: the exponents of τ = t·Π cᵖ with intervals, a verdict, and what is not identifiable. No jax."""
