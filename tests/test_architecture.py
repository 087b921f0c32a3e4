"""The package as a whole: no heavy imports, every public name exists, the wheel is complete."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jthermo

PACKAGE = Path(jthermo.__file__).parent
ROOT = PACKAGE.parent
# Modules of jthermo that have to be usable without JAX.
NO_JAX = (
    "errors",
    "results",
    "collapse",
    "execution.progress",
    "execution.checkpoint_policy",
    "figures",
    "figures.explore",
    "paper.claims",
    "paper.claims_tables",
    "paper.experiment_folder",
    "paper.report",
    "paper.verdicts",
)
# Packages that take long to import.
HEAVY = {
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
# What each of these loads of them. A fit needs pandas and SciPy; xarray only if the user has it.
LIGHT = {
    "import jthermo": set(),
    "import jthermo.collapse": {"pandas", "scipy"},
    "from jthermo.cli import main; main(['--help'])": {"tyro"},
    "from jthermo.cli import main; main(['list'])": {"tyro"},
    "from jthermo.cli import main; main(['claims'])": {"tyro"},
}
AT_EXIT = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"


def loaded_by(code):
    """Names of all modules that a fresh interpreter has loaded after running `code`."""
    command = [sys.executable, "-c", f"{AT_EXIT}\n{code}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(out.stderr.split())


@pytest.mark.parametrize("code", LIGHT)
def test_no_heavy_package_is_loaded_before_it_is_used(code):
    assert loaded_by(code) & HEAVY == LIGHT[code]


@pytest.mark.parametrize("name", NO_JAX)
def test_modules_that_need_no_jax_do_not_import_it(name):
    assert "jax" not in loaded_by(f"import jthermo.{name}")


def test_synthetic_data_never_touch_tensorflow_datasets():
    code = """import jthermo as jt
sweep = jt.Sweep(model=jt.models.TwoLayer(inputs=2, hidden=2), data=jt.data.Gaussian(dim=2),
                 learning_rate=0.1, num_steps=2,
                 record=jt.Record(steps=(2,), observables=jt.loss()))
jt.run(sweep, progress=False)"""
    assert not {"tensorflow_datasets", "tensorflow", "matplotlib", "orbax"} & loaded_by(code)


def test_every_public_name_exists():
    for name in jthermo.__all__:
        assert getattr(jthermo, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'sweeps'"):
        jthermo.sweeps  # noqa: B018


def test_the_wheel_contains_the_experiments_and_runs_without_the_repository(tmp_path):
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
    assert {
        "jthermo/figures/pages/style.css",
        "jthermo/figures/pages/page.html",
        "jthermo/figures/pages/report.html",
    } <= set(names)
    assert {"jthermo/engines/fused/ffi.cc", "jthermo/engines/fused/dense.h"} <= set(names)
    assert {"jthermo/figures/pages/explore.html", "jthermo/figures/pages/explore.js"} <= set(names)
    assert any(n.endswith("licenses/LICENSE") for n in names)
    code = f"""import sys; sys.path.insert(0, {str(tmp_path / "site")!r})
from jthermo.cli import main
main(["list"])
main(["launch", "slurm", "fig3_4", "--print"])"""
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        # experiments are users' code, which may promote ranks
        env={**os.environ, "JAX_NUMPY_RANK_PROMOTION": "allow"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "fig3_4" in out.stdout
    assert "#SBATCH --array=0-" in out.stdout
