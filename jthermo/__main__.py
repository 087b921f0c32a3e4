"""`python -m jthermo`, where the command is not on the path, such as under a launcher."""

from jthermo.cli import main

if __name__ == "__main__":
    main()
