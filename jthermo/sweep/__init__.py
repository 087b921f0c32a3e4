"""The specification of a sweep: its axes, recorded steps, JSON and identity."""
