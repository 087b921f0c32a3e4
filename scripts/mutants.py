"""Change one line of the code at a time and print which test notices, or that none does.

With WORDs, only the mutations whose file, fragments or tests contain one of them. The exit code is
1 if a mutation survives, and 2 if a fragment isn't found once in its file or the tests fail
without a mutation. Each mutation runs in a temporary copy of the repository.
"""

from __future__ import annotations

import argparse
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
TABLES = "tests/collapse/test_forms.py::test_tables_are_read_as_people_write_them"
STREAMS = "tests/randomness/test_streams.py"
SEALS = "tests/execution/test_checkpoint.py"
SWEEP = "tests/sweep/test_sweep.py"
THREEFRY = "tests/randomness/test_threefry.py"
OPTIMIZER = "tests/update_rule/test_optimizer.py"
CONVOLUTIONS = "tests/models/test_convolutions.py"
DIGESTS = "tests/data/test_digests.py"
SECONDS = "tests/results/test_seconds.py"
MEMORY = "tests/execution/test_memory.py"
PIECES = "tests/collapse/test_pieces.py"
PANELS = "tests/figures/test_panels.py"
RUNNING = "tests/execution/test_running.py"
LEVELS = "tests/paper/test_evidence.py::test_a_level_is_reached_when_the_mean_first_falls_to_it"
FINDINGS = "tests/paper/test_report.py::test_a_changed_sweep_or_figure_is_not_that_of_the_findings"

# Mutations that once survived the whole suite, with their kin.
SURVIVORS = [
    # a clock that comes closer by less than the error
    Mutation("jthermo/paper/verdicts.py", 'rival["high"] < paper["low"]',
             'rival["misfit"] < paper["misfit"]', VERDICTS),
    Mutation("jthermo/paper/verdicts.py", 'paper["high"] < limit', 'paper["misfit"] < limit',
             VERDICTS),
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
    Mutation("jthermo/observables/gradient_moments.py", "jnp.arange(chunk) < here)",
             "jnp.arange(chunk) < here + 1)", MOMENTS),
    # noise controls with more than two classes
    Mutation("jthermo/update_rule/residual_noise.py", "(1 / num_classes - jax", "(1 / 2 - jax",
             NOISE),
    Mutation("jthermo/update_rule/residual_noise.py", "2 * self.scale * (1", "self.scale * (1",
             NOISE),
    Mutation("jthermo/update_rule/residual_noise.py", "else 1 / outputs.shape[-1]", "else 0.5",
             NOISE),
    # powers of η and B
    Mutation("jthermo/theory/drift.py", "unravel(-(learning_rate**2) / (4 * batch_size) * slope)",
             "unravel(-learning_rate / (4 * batch_size) * slope)", ARGUMENTS),
    Mutation("jthermo/theory/flow.py", "scale = -(jnp.asarray(learning_rate) ** 2) * s2",
             "scale = -jnp.asarray(learning_rate) * s2", ARGUMENTS),
    # the misfit without its noise subtracted
    Mutation("jthermo/collapse/intervals.py",
             "float(np.mean(residual**2) - np.mean(np.diag(noise)))",
             "float(np.mean(residual**2))", INTERVALS),
    # its interval without the part that grows with the misfit
    Mutation("jthermo/collapse/intervals.py", "2 * squares + 4 * max", "2 * squares + 0 * max",
             INTERVALS),
    # quantiles
    Mutation("jthermo/collapse/intervals.py",
             "special.stdtrit(degrees, 0.5 + confidence / 2)",
             "special.ndtri(0.5 + confidence / 2)", INTERVALS),
    Mutation("jthermo/collapse/intervals.py",
             "special.stdtrit(degrees, 0.5 + confidence / 2)",
             "special.stdtrit(degrees, confidence)", INTERVALS),
    Mutation("jthermo/collapse/fit.py",
             "t = special.stdtrit(inference.degrees, 0.5 + confidence / 2)",
             "t = special.stdtrit(inference.degrees, 0.5 + 0.95 / 2)", INTERVALS),
    Mutation("jthermo/collapse/fit.py",
             "t = float(special.stdtrit(inference.degrees, 0.5 + confidence / 2))",
             "t = float(special.stdtrit(inference.degrees, 0.5 + 0.95 / 2))", INTERVALS),
    Mutation("jthermo/collapse/regions.py", "2 * special.fdtri(2, fit.degrees, fit.confidence)",
             "special.chdtri(2, 1 - fit.confidence)", INTERVALS),
    Mutation("jthermo/cli/options.py", '"time_resolution", "confidence")', '"time_resolution",)',
             INTERVALS),
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
             ' != _seal(step / "rows"):', "if False:", SEALS),
    # failures of two kinds
    Mutation("jthermo/cli/verbs.py", "bad_input = all(", "bad_input = any(", REPRODUCE),
    # the mean field's − AMA
    Mutation("jthermo/theory/meanfield.py", "noise * (S - A @ M @ A)", "noise * S", MEANFIELD),
]  # fmt: skip

# Two or more in each room, chosen because they might survive.
CHOSEN = [
    Mutation("jthermo/errors.py", "is_finite(value) and value > above",
             "is_finite(value) and value >= above", SWEEP),
    Mutation("jthermo/errors.py", "return type(self), (self.field, self.value, self.remedy)",
             "return type(self), (self.field, self.value, str(self))", "tests/test_errors.py"),
    Mutation("jthermo/randomness/threefry.py",
             "((high ^ low).astype(jnp.uint64) <<", "(high.astype(jnp.uint64) <<", THREEFRY),
    # float64 and bfloat16
    Mutation("jthermo/models/model.py", "jax.tree.map(rounded, params), state, rounded(x), key",
             "params, state, x, key", "tests/engines/test_dtype.py"),
    Mutation("jthermo/data/arrays.py", "source._split, source.sha256 = self._exact",
             "source._split, source.sha256 = self._split, self._exact[1]",
             "tests/engines/test_dtype.py"),
    Mutation("jthermo/engines/xla.py", "v.astype(float), jnp.nan", "v.astype(jnp.float32), jnp.nan",
             "tests/engines/test_dtype.py"),
    Mutation("jthermo/randomness/threefry.py", "jnp.where(w < 5, ", "jnp.where(w < 6, ", THREEFRY),
    Mutation("jthermo/update_rule/schedule.py", "count < decay_at", "count <= decay_at", OPTIMIZER),
    Mutation("jthermo/update_rule/schedule.py", "optax.sgd(schedule, momentum, nesterov)",
             "optax.sgd(schedule, momentum)", OPTIMIZER),
    Mutation("jthermo/models/per_example.py", "(layer.input_dilation, layer.kernel_dilation)",
             "(layer.input_dilation,)", CONVOLUTIONS),
    Mutation("jthermo/models/per_example.py",
             "layer.feature_group_count == 1 and layer.mask is None",
             "layer.feature_group_count == 1", CONVOLUTIONS),
    Mutation("jthermo/data/arrays.py", "if sha256 is not None and sha256 != self.sha256:",
             "if sha256 is not None and not self.sha256:", DIGESTS),
    Mutation("jthermo/data/synthetic.py", "self.low + (self.high - self.low) * jax",
             "self.low + self.high * jax", "tests/data/test_sources.py"),
    Mutation("jthermo/data/cifar10_files.py", "published &= binary or hashlib",
             "published |= binary or hashlib", DIGESTS),
    Mutation("jthermo/theory/walk.py", "np.sqrt(share * (1 - share) / q.size)",
             "np.sqrt(share / q.size)", ARGUMENTS),
    Mutation("jthermo/theory/meanfield.py",
             "advance(advance(state, friction, whole, longest), friction, min(rest, 1), rest)",
             "advance(state, friction, whole, longest)", MEANFIELD),
    Mutation("jthermo/theory/meanfield.py", "moment(1 - 3 * kappa)", "moment(1 - 2 * kappa)",
             MEANFIELD),
    Mutation("jthermo/theory/flow.py", "jnp.broadcast_arrays(phis.phi1, jnp.abs(V) * phis.phi2)",
             "jnp.broadcast_arrays(phis.phi1, V * phis.phi2)", ARGUMENTS),
    Mutation("jthermo/observables/loss.py", '0.5 if probe.loss == "squared" else 0.0', "0.0",
             VARIABLES),
    Mutation("jthermo/observables/activation.py",
             '{"unit_activation": unit_rates(params, probe.data.scale)}',
             '{"unit_activation": unit_rates(params)}', VARIABLES),
    Mutation("jthermo/observables/cost.py", "return max(inner)", "return sum(inner)",
             "tests/observables/test_cost.py"),
    Mutation("jthermo/data/sampling.py", "and batch_size > num_samples:",
             "and batch_size >= num_samples:", SWEEP),
    Mutation("jthermo/sweep/recorded_steps.py", "if num_steps < self.n:",
             "if num_steps <= self.n:", SWEEP),
    Mutation("jthermo/sweep/axes.py", "float(v) if type(v) is int else v for v in coordinates",
             "v for v in coordinates", SWEEP),
    Mutation("jthermo/engines/choice.py", '"fused" if engine in FUSED.values() else engine',
             "engine", "tests/engines/test_choice.py"),
    Mutation("jthermo/engines/choice.py",
             "elif reason is None and begun_with not in (None, local):",
             "elif reason is None and local is None:",
             "tests/engines/test_pallas.py::test_a_folder_does_not_move_to_the_other_kernel"),
    Mutation("jthermo/engines/batches.py", "sampling.permutation(epoch_key(keys, epoch), size)",
             "sampling.permutation(epoch_key(keys, 0 * epoch), size)",
             "tests/engines/test_xla.py::test_training_equals_its_slow_twin[epochs-xla]"),
    Mutation("jthermo/results/reading.py", 'for k in ("wall_seconds", "checkpoint_seconds")',
             'for k in ("wall_seconds",)', SECONDS),
    Mutation("jthermo/results/writing.py", "sum(s.get(k, 0.0) for s in spent)",
             "max(s.get(k, 0.0) for s in spent)", SECONDS),
    Mutation("jthermo/execution/memory.py", "free // len(devices)", "free", MEMORY),
    Mutation("jthermo/execution/checkpoint_policy.py",
             "max(self.seconds, slowest_save / self.share)",
             "min(self.seconds, slowest_save / self.share)", MEMORY),
    Mutation("jthermo/execution/timing.py", "return max(line.fixed + line.per_block * blocks",
             "return min(line.fixed + line.per_block * blocks", MEMORY),
    Mutation("jthermo/execution/cohorts.py", "argsort(-left[blocks[:, 0]]",
             "argsort(left[blocks[:, 0]]", MEMORY),
    Mutation("jthermo/collapse/exponent_drift.py", "p / (prior[kind] / total) for", "p for",
             PIECES),
    Mutation("jthermo/collapse/averages.py",
             "np.sqrt(self.counts / np.maximum(self.counts - 1, 1))",
             "np.sqrt(self.counts / self.counts)", PIECES),
    Mutation("jthermo/collapse/outliers.py",
             "return beyond & (size > settings.outlier_ratio * np.median(size))",
             "return beyond", PIECES),
    Mutation("jthermo/collapse/regions.py", "special.fdtrc(number, fit.degrees, square / number)",
             "special.fdtrc(number, fit.degrees, square)", INTERVALS),
    Mutation("jthermo/figures/panels.py", "np.sqrt(count / np.maximum(count - 1, 1))",
             "1", PANELS),
    Mutation("jthermo/figures/panels.py", "vmin=target - 1, vmax=target + 1", "vmin=-1, vmax=1",
             PANELS),
    Mutation("jthermo/paper/curve_statistics.py", "levels.std(0, ddof=1) * error,",
             "levels.std(0, ddof=1),",
             "tests/paper/test_evidence.py::test_local_slopes_of_planted_curves"),
    Mutation("jthermo/paper/experiment_folder.py", "json.dumps([_sha256(sweep), *sorted(",
             "json.dumps([*sorted(", FINDINGS),
    Mutation("jthermo/paper/experiment_folder.py",
             'return body.decode() if _sha256(body) == findings["figures"][name] else None',
             "return body.decode() or None", FINDINGS),
    Mutation("jthermo/cli/options.py", "minutes + (seconds > 0))", "minutes)",
             "tests/cli/test_launch.py::test_a_time_limit_is_rounded_up_to_minutes"),
    Mutation("jthermo/cli/options.py", "if value != field.default:", "if value is not None:",
             "tests/cli/test_launch.py::test_the_changes_of_a_command_are_those_of_its_job"),
    # tables as people write them, and the page of a scaling law
    Mutation("jthermo/cli/options.py", "names = fitting[-1]", "names = fitting[0]", TABLES),
    Mutation("jthermo/cli/options.py", "bare.count(name) == 1", "name in bare", TABLES),
    Mutation("jthermo/figures/explore.py", "error = condition.errors[0]", "pass",
             "tests/figures/test_explore.py::test_every_number_of_a_law_has_a_slider"),
    Mutation("jthermo/figures/pages/explore.js", "fit.broken && at >= 0", "false",
             "tests/figures/test_explore.py::test_in_a_browser"),
    Mutation("jthermo/figures/pages/explore.js", "Math.hypot(far[j], twice)", "far[j]",
             "tests/figures/test_explore.py::test_in_a_browser"),
]  # fmt: skip

# A later sample of one or two in each room, of which half survived at first.
SAMPLED = [
    Mutation("jthermo/theory/moments.py", "TAIL = -3.0", "TAIL = -7.0", ARGUMENTS),
    Mutation("jthermo/theory/walk.py", "1 / math.sqrt(q.size * moments(a)[1])",
             "1 / math.sqrt(q.size) * moments(a)[1]", "tests/theory/test_walk.py"),
    Mutation("jthermo/theory/properties.py", "height * (dim - 1 + u**2)", "height * (dim + u**2)",
             "tests/theory/test_properties.py"),
    Mutation("jthermo/observables/gradient_moments.py",
             'tuple((int(t), "") if t.isdigit() else (-1, t)', "tuple((-1, t)", MOMENTS),
    Mutation("jthermo/update_rule/optimizer.py",
             "(self.fn, self.hyper) == (other.fn, other.hyper)", "self.fn == other.fn", SWEEP),
    Mutation("jthermo/sweep/recorded_steps.py", "math.ceil(exact * (1 - 1e-9))",
             "math.ceil(exact)", SWEEP),
    Mutation("jthermo/errors.py", "if len(taken) > most:", "if len(taken) >= most:", SWEEP),
    Mutation("jthermo/results/writing.py", "if seeds[i] != seeds[i - 1] + 1",
             "if seeds[i] > seeds[i - 1] + 2", "tests/results/test_results.py"),
    Mutation("jthermo/results/tables.py", 'if runs.sizes["run"]:', "if True:",
             "tests/results/test_results.py"),
    Mutation("jthermo/data/source.py", "return x[:, 0], self.step_labels(y[:, 0], fresh)",
             "return x[:, 0], y[:, 0]",
             "tests/engines/test_xla.py::test_training_equals_its_slow_twin[redrawn-xla]"),
    Mutation("jthermo/engines/xla.py", "draw_probe(program, held, run, keys.test",
             "draw_probe(program, held, run, keys.probe", "tests/engines/test_records.py"),
    Mutation("jthermo/execution/cohorts.py", "np.zeros((missing, self.width), bool)",
             "np.ones((missing, self.width), bool)", MEMORY),
    Mutation("jthermo/execution/progress.py",
             "pace = self._taken / self._expected if self._expected else 1.0", "pace = 1.0",
             "jthermo/execution/progress.py"),
    Mutation("jthermo/execution/callbacks.py", "float(finite.mean()), values", "1.0, values",
             "tests/execution/test_callbacks.py"),
    Mutation("jthermo/collapse/exponent_drift.py", "factor = float(np.exp(log_unit))",
             "factor = float(np.exp(-log_unit))",
             "tests/collapse/test_options.py::test_drift_table_and_curve_are_in_the_users_units"),
    Mutation("jthermo/collapse/intervals.py",
             "design @ best.beta, np.sqrt(np.maximum(variance, 0.0))",
             "design @ best.beta, np.maximum(variance, 0.0)", INTERVALS),
    Mutation("jthermo/collapse/averages.py",
             "centre = 0.0 if scaled else float(np.median(mean))",
             "centre = float(np.median(mean))",
             "tests/collapse/test_options.py::test_the_value_is_rescaled_where_asked"),
    Mutation("jthermo/figures/explore.py",
             "np.nanstd(values, axis=0) / np.sqrt(np.maximum(count - 1, 1))",
             "np.nanstd(values, axis=0) / np.sqrt(count)",
             "tests/figures/test_explore.py::test_the_page_holds_the_curves_and_the_fit"),
    Mutation("jthermo/paper/verdicts.py", "[low, high] if estimate is None else ", "", VERDICTS),
    Mutation("jthermo/figures/panels.py", "width = max(COLUMN, min(PAGE, PAGE * number / 3))",
             "width = PAGE", PANELS),
    Mutation("jthermo/paper/curve_statistics.py", "np.minimum.accumulate(height[pick].mean(0))",
             "height[pick].mean(0)", LEVELS),
    Mutation("jthermo/paper/reproduce.py",
             'if "made" in result and result.get("scale") == scale', 'if "made" in result',
             "tests/paper/test_report.py::test_a_forecast_uses_the_times_of_its_own_scale"),
    Mutation("jthermo/cli/job.py", "tasks = job.tasks or min(blocks, MOST_TASKS)",
             "tasks = job.tasks or blocks", "tests/cli/test_launch.py"),
    # what a running sweep shows
    Mutation("jthermo/results/reading.py", '"complete": int((rows < num_committed).sum() ==',
             '"complete": int(len(order) ==', RUNNING),
    Mutation("jthermo/execution/saving.py",
             "np.where(np.arange(cohort.steps.shape[1]) < taken[:, None], cohort.steps, -1)",
             "cohort.steps", RUNNING),
    Mutation("jthermo/execution/runner.py", "bar.begin(sum(c.num_runs for c in waiting), total,",
             "bar.begin(sum(c.num_runs for c in waiting), left,", RUNNING),
    Mutation("jthermo/execution/progress.py", "(self._records - self._recorded) / max",
             "0 / max", RUNNING),
    # figures
    Mutation("jthermo/labels.py", "round(digit, 6) not in (2, 5)", "False", PANELS),
    Mutation("jthermo/figures/panels.py", "(0.25, 0.5, 0.75)", "(0.0, 0.5, 1.0)", PANELS),
    Mutation("jthermo/collapse/plot.py", "error if errors is None else errors[0]", "error",
             "tests/collapse/test_forms.py::test_published_errors_are_drawn"),
]  # fmt: skip

MUTATIONS = SURVIVORS + CHOSEN + SAMPLED


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
    failed = re.search(r"^(?:FAILED|ERROR) (?:\S*/)?(.+?)(?: - |$)", done.stdout, re.MULTILINE)
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
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [WORD …]",
    )
    parser.add_argument("words", nargs="*", metavar="WORD")
    sys.exit(main(parser.parse_args().words))
