"""Thousands of hostile inputs, each run with limits of time and memory: `python scripts/fuzz`."""
