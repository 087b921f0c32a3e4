"""A release: one version, tested lower bounds of dependencies, valid GitHub files."""

import ast
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import jthermo

ROOT = Path(jthermo.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Distributions whose import name differs from their own.
IMPORT_NAMES = {"orbax-checkpoint": "orbax"}


def imports(folder):
    """Top-level names of all modules that the files of `folder` import anywhere."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def test_the_version_is_the_same_everywhere():
    assert jthermo.__version__ == PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]


def test_every_dependency_has_a_lower_bound():
    bounds = {}
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        bounds[requirement.name] = [s.operator for s in requirement.specifier]
    assert all(">=" in operators for operators in bounds.values()), bounds


def test_the_oldest_dependencies_are_installed_where_they_are_asked_for():
    """In the environment of `scripts/test --oldest` each dependency is at its lower bound."""
    if ".venv-oldest" not in sys.prefix:
        pytest.skip("these are not the oldest dependencies; run scripts/test --oldest")
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line.replace(">=", "=="))
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), line


def test_every_imported_package_is_declared():
    names = [Requirement(line).name for line in PROJECT["dependencies"]]
    declared = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    # Sinks name their extra where it is missing, PIL comes with matplotlib.
    declared |= {"jthermo", "tensorboardX", "wandb", "PIL", "markupsafe", *sys.stdlib_module_names}
    assert not imports(Path(jthermo.__file__).parent) - declared


def test_the_check_above_sees_an_undeclared_package(tmp_path):
    (tmp_path / "bad.py").write_text("def f():\n    import undeclared.part\n")
    assert imports(tmp_path) == {"undeclared"}


@pytest.mark.parametrize(
    "path",
    [".github/workflows/tests.yml", ".github/ISSUE_TEMPLATE/bug.yml", ".pre-commit-config.yaml"],
)
def test_files_for_github_are_readable(path):
    assert yaml.safe_load((ROOT / path).read_text())


def test_the_workflow_installs_what_ci_installs():
    workflow, ci = ((ROOT / p).read_text() for p in (".github/workflows/tests.yml", ".ci/run"))
    for package in ("dataset-fashion-mnist", "chromium", "chromium-driver", "librsvg2-bin"):
        assert package in workflow
        assert package in ci
