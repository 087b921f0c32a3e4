"""The house: imports go down only, heavy libraries stay out until they are used, the wheel is complete."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jthermo

PACKAGE = Path(jthermo.__file__).parent
ROOT = PACKAGE.parent
# each module may import those above it: the data flow from spec to figure, read from the top
FLOW = (
    "errors", "files", "checks", "values", "axes", "schedule", "random", "losses", "models", "data", "noise", "optimizer",
    "tape", "gradients", "theory", "observables", "spec", "train", "kernels", "engines", "placement", "memory",
    "planning", "measurement", "forecast", "progress", "sinks", "signals", "lock", "checkpoint", "training", "results",
    "store", "parameters", "runner", "collapse", "evidence", "claims", "findings", "figures", "pages", "exploration",
    "reproduction", "report", "distributed", "options", "launch", "diagnosis", "cli",
    "__main__",
)  # fmt: skip
NO_JAX = (
    "errors",
    "files",
    "pages",
    "checks",
    "results",
    "figures",
    "exploration",
    "claims",
    "findings",
    "collapse",
    "progress",
)


def imported(path):
    """Modules of jthermo that a file imports at its top level or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "jthermo"
            and not node.level
        ):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            yield name, path


def test_every_module_has_a_place_in_the_flow():
    assert {name for name, _ in modules()} - {"_experiments"} == set(FLOW)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else v.name)
def test_imports_go_down_only(name, path):
    below = FLOW[FLOW.index(name) + 1 :]
    assert not imported(path) & set(below)


def test_the_check_above_sees_a_wrong_import(tmp_path):
    bad = tmp_path / "spec.py"
    bad.write_text("def f():\n    from jthermo.runner import run\n    from jthermo import figures\n")
    assert imported(bad) == {"runner", "figures"}


def loaded_by(code):
    """Names of all modules that are loaded after `code` in a fresh interpreter."""
    out = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(out.stdout.split())


def test_import_jthermo_loads_nothing_heavy():
    heavy = {
        "jax",
        "flax",
        "optax",
        "orbax",
        "tensorflow_datasets",
        "matplotlib",
        "bokeh",
        "xarray",
        "pandas",
        "scipy",
        "tyro",
    }
    assert not loaded_by("import jthermo") & heavy


@pytest.mark.parametrize("name", NO_JAX)
def test_what_needs_no_jax_loads_none(name):
    assert "jax" not in loaded_by(f"import jthermo.{name}")


def test_synthetic_data_never_touch_tensorflow_datasets():
    code = """import jthermo as jt
sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2), learning_rate=0.1,
                 num_steps=2, record=jt.Record(steps=(2,), observables=jt.loss()))
jt.run(sweep, progress=False)"""
    assert not {"tensorflow_datasets", "tensorflow", "matplotlib", "orbax"} & loaded_by(code)


def test_every_public_name_is_there():
    for name in jthermo.__all__:
        assert getattr(jthermo, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'sweep'"):
        jthermo.sweep  # noqa: B018


def test_files_stay_readable():
    long = {p.name: n for _, p in modules() if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_the_wheel_carries_the_experiments_and_runs_alone(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("jthermo-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "jthermo/_experiments/fig3_4.py" in names
    assert "jthermo/_launch/slurm.sh" in names
    assert "jthermo/py.typed" in names
    assert {"jthermo/pages/style.css", "jthermo/pages/page.html", "jthermo/pages/report.html"} <= set(names)
    assert {"jthermo/kernels/engine.cc", "jthermo/kernels/dense.h"} <= set(names)
    assert {"jthermo/pages/explore.html", "jthermo/pages/explore.js"} <= set(names)
    assert any(n.endswith("licenses/LICENSE") for n in names)
    code = f"""import sys; sys.path.insert(0, {str(tmp_path / "site")!r})
from jthermo.cli import main
main(["list"])
main(["launch", "slurm", "fig3_4", "--print"])"""
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "fig3_4" in out.stdout
    assert "#SBATCH --array=0-" in out.stdout
