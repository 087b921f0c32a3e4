"""`jthermo doctor` names the problems of a machine and their remedies."""

import errno
import importlib.metadata
import types

import jax
import pytest

import jthermo as jt
from jthermo.cli import doctor
from jthermo.engines import fused
from jthermo.execution import memory, placement


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Without the cluster variables and flags of the machine that runs the tests."""
    for name in (
        "SLURM_NTASKS_PER_NODE",
        "SLURM_TASKS_PER_NODE",
        "SLURM_GPUS_ON_NODE",
        "NVIDIA_TF32_OVERRIDE",
    ):
        monkeypatch.delenv(name, raising=False)


def check(name, results="results"):
    return next(c for c in jt.doctor(results) if c.name == name)


def gpus(monkeypatch, count):
    kind = {
        "platform": "gpu",
        "device_kind": "GPU",
        "memory_stats": lambda: {"bytes_limit": 16_000_000_000},
    }
    monkeypatch.setattr(placement, "devices", lambda: (types.SimpleNamespace(**kind),) * count)


# Tasks per node, GPUs of the job and GPUs that a task sees, with a part of the message; None if all
# is well.
CASES = {
    "one each": (8, 8, 1, None),
    "one of eight": (1, 8, 1, "use 1 of 8 GPUs; start one task per GPU with --ntasks-per-node=8"),
    "one with eight": (1, 8, 8, "one task sees 8 GPUs"),
    "all share": (4, 4, 4, "4 tasks of this node see all 4 GPUs"),
    "half": (2, 4, 1, "use 2 of 4 GPUs"),
}


@pytest.mark.parametrize("case", CASES)
def test_tasks_and_gpus_of_a_node_are_equal_in_number(case, monkeypatch):
    tasks, allocated, seen, words = CASES[case]
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", str(tasks))
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", str(allocated))
    gpus(monkeypatch, seen)
    tasks_check = check("tasks")
    assert tasks_check.ok == (words is None)
    assert (words or "8 on this node for 8 GPUs") in tasks_check.text


def test_slurms_own_count_is_read_where_no_option_was_given(monkeypatch):
    monkeypatch.setenv("SLURM_TASKS_PER_NODE", "4(x2)")
    gpus(monkeypatch, 4)
    assert "4 tasks of this node" in check("tasks").text


@pytest.mark.parametrize(
    ("device", "extra"), [("nvidia0", "jthermo[cuda12]"), ("accel0", "jthermo[tpu]")]
)
def test_an_accelerator_without_its_extra_is_named(device, extra, tmp_path, monkeypatch):
    (tmp_path / device).touch()
    monkeypatch.setattr(doctor, "DEV", tmp_path)
    devices = check("devices")
    assert not devices.ok
    assert extra in devices.text


def test_settings_below_jax_that_cost_precision_are_bad_and_jaxs_own_are_named(monkeypatch):
    with jax.default_matmul_precision("bfloat16"):
        precision = check("precision")
    assert precision.ok
    assert "jax_default_matmul_precision=bfloat16" in precision.text
    with jax.enable_x64(True):
        assert "jax_enable_x64" in check("precision").text
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert not check("precision").ok
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert "unset it" in check("precision").text


def test_little_memory_is_bad_and_a_device_says_its_own(monkeypatch):
    gpus(monkeypatch, 1)
    assert "16 GB per device" in check("memory").text
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    free = check("memory")
    assert not free.ok
    assert "10 MB free" in free.text


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() > 2_000_000


def test_the_compile_cache_is_named_and_tried(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert "JAX_COMPILATION_CACHE_DIR" in check("cache").text
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
        assert str(tmp_path / "cache") in check("cache").text
        monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
        assert not check("cache").ok
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_the_required_packages_are_those_of_the_metadata():
    found = check("packages")
    assert found.ok
    names = {part.split()[0] for part in found.text.split(", ")}
    declared = {line for line in importlib.metadata.requires("jthermo") if "extra ==" not in line}
    assert len(names) == len(declared)
    assert all(line.startswith(tuple(names)) for line in declared)


def test_a_package_that_is_too_old_is_named_with_its_remedy(monkeypatch):
    version, requires = importlib.metadata.version("jax"), ["jax>=999", "numpy>=1.0"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    found = check("packages")
    assert not found.ok
    assert found.text == f"jax is {version}; pip install 'jax>=999'"
    # The control: the same check is quiet where the version suffices.
    requires[0] = f"jax>={version}"
    assert check("packages").ok


def test_a_package_that_is_not_installed_is_named_unless_only_an_extra_needs_it(monkeypatch):
    requires = [
        "no-such-package>=3",
        'nor-this-one; extra == "docs"',
        'nor-that; sys_platform == "none"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    found = check("packages")
    assert not found.ok
    assert found.text == "no-such-package is not installed; pip install 'no-such-package>=3'"
    del requires[0]
    assert check("packages").ok


def test_a_missing_compiler_is_named(monkeypatch):
    def no_compiler():
        raise fused.Unavailable("there is no C++ compiler (apt-get install g++)")

    monkeypatch.setattr(fused, "load", no_compiler)
    assert "apt-get install g++" in check("engine").text


def full(**_):
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_a_quota_that_only_writing_finds_is_named(tmp_path, monkeypatch):
    assert check("disk", tmp_path).ok
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
    disk = check("disk", tmp_path)
    assert not disk.ok
    assert "Disk quota exceeded; make room or choose another folder" in disk.text
