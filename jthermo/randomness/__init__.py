"""Random numbers: threefry, and every random stream of a run."""
