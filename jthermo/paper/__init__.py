"""The paper's claims and their verdicts, the experiments that test them, and the report."""
