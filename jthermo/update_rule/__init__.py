"""The update rule: losses, the residual that enters it, optimizers and learning-rate schedules."""
