"""jthermo's engines and what one would write in their place, timed in turns on this machine."""
