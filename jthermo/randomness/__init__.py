"""Random numbers: the threefry generator, and every random stream with its role number."""
