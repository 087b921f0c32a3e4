"""From a sweep to a full results folder: cohorts, devices, checkpoints, forecast."""
