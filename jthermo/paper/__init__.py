"""The paper: its claims, their verdicts, the experiments that reproduce its figures, and the report."""
