"""`python -m jthermo`: the command line where no `jthermo` command is installed."""

from jthermo.cli import main

if __name__ == "__main__":
    main()
