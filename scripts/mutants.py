"""Change one line of the code at a time and print which test notices, or that none does.

usage: .venv/bin/python scripts/mutants.py [WORD …]

With WORDs, only the mutations whose file, fragments or tests contain one of them. The exit code is
1 if a mutation survives, and 2 if a fragment isn't found once in its file or the tests fail
without a mutation. Each mutation runs in a temporary copy of the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Seconds after which the tests of one mutation count as hanging, which is noticed too.
LIMIT = 600


class Mutation(NamedTuple):
    """One line of `file` with `old` replaced by `new`, and the tests that should fail then."""

    file: str
    old: str
    new: str
    tests: str


VERDICTS = "tests/paper/test_verdicts.py"
REPRODUCE = "tests/cli/test_reproduce.py"
CURVATURE = "tests/observables/test_curvature.py"
VARIABLES = "tests/observables/test_every_variable.py"
MOMENTS = "tests/observables/test_gradient_moments.py"
NOISE = "tests/update_rule/test_residual_noise.py"
ARGUMENTS = "tests/theory/test_arguments.py"
MEANFIELD = "tests/theory/test_meanfield_step.py"
INTERVALS = "tests/collapse/test_intervals.py"
STREAMS = "tests/randomness/test_streams.py"
SEALS = "tests/execution/test_checkpoint.py"

# Mutations that once survived the whole suite, with their kin.
SURVIVORS = [
    # a claimed exponent below 0
    Mutation("jthermo/paper/verdicts.py", "near, far = sorted((bound * (1 - TOLERANCE), "
             "bound * (1 + TOLERANCE)))", "near, far = bound * (1 - TOLERANCE), "
             "bound * (1 + TOLERANCE)", VERDICTS),
    # the remainder of a probe that does not fill its chunks
    Mutation("jthermo/observables/curvature_estimators.py", "(count - whole) / count * on(",
             "(count - whole) / chunk * on(", CURVATURE),
    Mutation("jthermo/observables/curvature_estimators.py", "total + chunk / count * on(",
             "total + chunk / whole * on(", CURVATURE),
    Mutation("jthermo/theory/hessian.py", "if whole < count else 0.0", "if whole == 0 else 0.0",
             CURVATURE),
    Mutation("jthermo/observables/gradient_moments.py", "jnp.arange(chunk) < count)",
             "jnp.arange(chunk) < count + 1)", MOMENTS),
    # noise controls with more than two classes
    Mutation("jthermo/update_rule/residual_noise.py", "(1 / num_classes - jax", "(1 / 2 - jax",
             NOISE),
    Mutation("jthermo/update_rule/residual_noise.py", "            2\n            * self.scale",
             "            1\n            * self.scale", NOISE),
    Mutation("jthermo/update_rule/residual_noise.py", "else 1 / outputs.shape[-1]", "else 0.5",
             NOISE),
    # powers of η and B
    Mutation("jthermo/theory/drift.py", "unravel(-(learning_rate**2) / (4 * batch_size) * slope)",
             "unravel(-learning_rate / (4 * batch_size) * slope)", ARGUMENTS),
    Mutation("jthermo/theory/flow.py", "scale = -(jnp.asarray(learning_rate) ** 2) * s2",
             "scale = -jnp.asarray(learning_rate) * s2", ARGUMENTS),
    # the misfit without its noise subtracted
    Mutation("jthermo/collapse/intervals.py", "max(square - np.mean(np.diag(noise)), 0.0)",
             "max(square, 0.0)", INTERVALS),
    # quantiles
    Mutation("jthermo/collapse/intervals.py", "stats.t.ppf(0.5 + confidence / 2, spread.degrees)",
             "stats.norm.ppf(0.5 + confidence / 2)", INTERVALS),
    Mutation("jthermo/collapse/intervals.py", "stats.t.ppf(0.5 + confidence / 2, spread.degrees)",
             "stats.t.ppf(confidence, spread.degrees)", INTERVALS),
    Mutation("jthermo/collapse/fit.py", "t = stats.t.ppf(0.5 + confidence / 2, inference.degrees)",
             "t = stats.t.ppf(0.5 + 0.95 / 2, inference.degrees)", INTERVALS),
    Mutation("jthermo/collapse/fit.py",
             "t = float(stats.t.ppf(0.5 + confidence / 2, inference.degrees))",
             "t = float(stats.t.ppf(0.5 + 0.95 / 2, inference.degrees))", INTERVALS),
    Mutation("jthermo/collapse/regions.py", "2 * stats.f.ppf(fit.confidence, 2, fit.degrees)",
             "stats.chi2.ppf(fit.confidence, 2)", INTERVALS),
    # recorded variables that no test compared
    Mutation("jthermo/observables/gradient_variance.py", "gradient.signal / gradient.trace,",
             "gradient.square_mean / gradient.trace,", VARIABLES),
    Mutation("jthermo/observables/gradient_variance.py", '"gradient_signal": total.signal,',
             '"gradient_signal": total.square_mean,', VARIABLES),
    # role numbers that are no longer unique
    Mutation("jthermo/randomness/streams.py", "ESTIMATE = 6", "ESTIMATE = 5", STREAMS),
    Mutation("jthermo/randomness/streams.py", "(Role.PROBE, Role.TEST, Role.ESTIMATE)",
             "(Role.PROBE, Role.TEST, Role.TEST)", STREAMS),
    # digests that are read but not compared
    Mutation("jthermo/execution/checkpoint.py",
             "if hashlib.sha256(body.encode()).hexdigest() != expected:", "if False:", SEALS),
    Mutation("jthermo/execution/checkpoint.py", 'if hashlib.file_digest(file, "sha256").hexdigest()'
             ' != (step / "rows" / SEAL).read_text():', "if False:", SEALS),
    # failures of two kinds
    Mutation("jthermo/cli/verbs.py", "bad_input = all(", "bad_input = any(", REPRODUCE),
    # the mean field's − AMA
    Mutation("jthermo/theory/meanfield.py", "noise * (S - A @ M @ A)", "noise * S", MEANFIELD),
]  # fmt: skip

MUTATIONS = SURVIVORS


def position(mutation: Mutation, root: Path = ROOT) -> int:
    """Where the fragment begins in its file; a LookupError unless it is there exactly once."""
    path = root / mutation.file
    count = path.read_text().count(mutation.old) if path.exists() else 0
    if count != 1:
        raise LookupError(f"{mutation.file} has {mutation.old!r} {count} times instead of once")
    return path.read_text().index(mutation.old)


def noticed(root: Path, tests: list[str]) -> str:
    """The test that fails first, or an empty text if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # No bytecode: Python would take the old one for a mutation of equal length within a second.
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "compiled"),
        **os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"no end within {LIMIT} s"
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (?:\S*/)?(\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"pytest stops with {done.returncode}: {done.stderr[-200:]}"


def main(words: list[str]) -> int:
    """Run the mutations that contain any of the words, and print the table."""
    chosen = [m for m in MUTATIONS if not words or any(w in " ".join(m) for w in words)]
    survivors = 0
    try:
        for mutation in chosen:
            position(mutation)
    except LookupError as error:
        print(f"{error}; adapt the list")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "repository"
        hidden = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(ROOT, root, ignore=hidden)
        tests = sorted({test for mutation in chosen for test in mutation.tests.split()})
        if test := noticed(root, tests):
            print(f"{test} fails without a mutation")
            return 2
        for mutation in chosen:
            began, path = time.monotonic(), root / mutation.file
            text = path.read_text()
            path.write_text(text.replace(mutation.old, mutation.new))
            test = noticed(root, mutation.tests.split())
            path.write_text(text)
            survivors += not test
            print(f"{test or 'SURVIVED'}  [{time.monotonic() - began:.0f} s]\n    {mutation.file}")
            for sign, fragment in (("−", mutation.old), ("+", mutation.new)):
                print(f"    {sign} {' '.join(fragment.split())}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutations were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
