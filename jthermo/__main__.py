"""`python -m jthermo`: the command line where `jthermo` isn't on the path, as under a launcher."""

from jthermo.cli import main

if __name__ == "__main__":
    main()
