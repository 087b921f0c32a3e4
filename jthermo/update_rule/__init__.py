"""The update rule: losses, the residual noise and its controls, optimizers and schedules."""
