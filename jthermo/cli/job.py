"""The text of a cluster job, made from a sweep, its plan and a template of scripts/launch/.

In a template ``__WORD__`` stands for a value, which is quoted for its place: a word of the shell, a
YAML or a Python string. What no quotes can hold is refused. A line whose value is empty is dropped,
and a value of several lines keeps the indentation of its line. The templates are therefore
themselves valid shell, YAML and Python.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from jthermo.cli.options import TOKEN, Job, token
from jthermo.errors import InputError

if TYPE_CHECKING:
    from jthermo.sweep.sweep import Sweep


# The template of each kind of job.
TEMPLATES: dict[str, str] = {
    "slurm": "slurm.sh",
    "slurm-multinode": "slurm-multinode.sh",
    "tpu": "tpu.sh",
    "gke": "gke.yaml",
    "submitit": "submitit.py",
}


# The options that a kind of job requires, each with its error message.
REQUIRED: dict[str, dict[str, str]] = {
    "tpu": {
        "zone": "give the zone, such as us-central1-a",
        "accelerator": "give the slice, such as v5litepod-256",
        "runtime": "give the software version of the TPU VM, such as v2-alpha-tpuv5-lite",
        "setup": "give shell lines that install jthermo and mount the shared disk on a TPU VM",
    },
    "gke": {
        "image": "give a container image that has jthermo installed",
        "claim": "give the persistent volume claim (ReadWriteMany) that holds the results",
    },
}


# Most tasks without --tasks; clusters rarely limit the jobs of one user to fewer.
MOST_TASKS = 64


# Unicode categories of control characters, line and paragraph separators, and surrogates, which end
# a line or cannot be written in one of the formats; and three more that YAML has no place for.
UNPRINTABLE, NOT_YAML = ("Cc", "Zl", "Zp", "Cs"), "\ufeff\ufffe\uffff"
# A file name that can be a key of a ConfigMap.
KEY = re.compile(r"[-._A-Za-z0-9]{1,253}")
# Longest name of a job, which Kubernetes and Google Cloud extend.
MOST_NAME = 50


PLACEHOLDER = re.compile(r"__([A-Z][A-Z_]*[A-Z])__")


def templates() -> Path:
    """The folder of the templates: ``scripts/launch/`` in a clone, else the copy in the wheel."""
    package = Path(__file__).parents[1]
    return next(
        f for f in (package.parent / "scripts" / "launch", package / "_launch") if f.is_dir()
    )


def render(
    kind: str,
    target: str,
    sweep: Sweep,
    job: Job | None = None,
    out: str | Path | None = None,
    arguments: tuple[str, ...] = (),
) -> str:
    """The text of a job that trains a sweep on a cluster and continues after each interruption.

    Args:
        kind: ``"slurm"`` (an array of independent tasks), ``"slurm-multinode"``, ``"tpu"``,
            ``"gke"`` or ``"submitit"``.
        target: experiment or file, as `jthermo run` takes it.
        sweep: the sweep of that target, changes included.
        job: tasks, devices, time and names.
        out: results folder; by default results/NAME. For tpu and gke it must be an absolute path on
            a shared disk.
        arguments: further arguments of `jthermo run`, such as ``("--seed", "0:64")``.

    Raises:
        InputError: a setting that is missing, malformed, or unused by this kind of job.

    >>> from jthermo.paper.reproduce import sweep_of
    >>> text = render("slurm", "fig3_4", sweep_of("fig3_4"), Job(tasks=4, partition="gpu"))
    >>> [line for line in text.splitlines() if "array=" in line or "partition=" in line]
    ['#SBATCH --array=0-3', '#SBATCH --partition=gpu']
    """
    from jthermo.paper.catalogue import experiments

    if kind not in TEMPLATES:
        raise InputError("kind", kind, f"use one of {', '.join(TEMPLATES)}")
    job = job or Job()
    template = (templates() / TEMPLATES[kind]).read_text(encoding="utf-8")
    job.check()
    _check(kind, job, set(PLACEHOLDER.findall(template)))
    for word in (target, *arguments):
        _printable("launch", word)
    if job.setup:
        _check_setup(kind, job.setup)
    stem = Path(target).stem
    folder = Path(token("out", str(out)) or "") if out is not None else _folder(kind, stem)
    if kind in ("tpu", "gke") and (not folder.is_absolute() or len(folder.parts) < 3):
        raise InputError(
            "out", str(folder), f"give an absolute path on the shared disk, such as /results/{stem}"
        )
    source = experiments().get(target, Path(target))
    if kind == "gke":
        if not KEY.fullmatch(source.name):
            raise InputError(
                "launch", source.name, "rename the file: use letters, digits, dots, - and _ for gke"
            )
        target = f"/sweep/{source.name}"
    elif kind == "tpu":
        target = target if target in experiments() else os.path.join(".", source.name)
    command = ["jthermo", "run", target, *arguments]
    cache = str(folder.parent / ".jax-cache")
    shell, setup = shlex.join(command), (job.setup or "").strip("\n")
    if kind == "gke":
        # Kubernetes expands $(NAME) in a command and turns $$ into $
        shell, setup = (text.replace("$", "$$") for text in (shell, setup))
    tasks, title, share = _plan(kind, stem, sweep, job)
    text = {
        "TITLE": title,
        "SHARE": share,
        "NAME": _name(job.name or stem, kind),
        "TASKS": tasks,
        "LAST_TASK": tasks - 1,
        "NODES": job.nodes or 2,
        "TASKS_PER_NODE": max(1, job.gpus),
        "GPUS": job.gpus or "",
        "CPUS": job.cpus,
        "TIME": job.time,
        "MINUTES": job.minutes,
        "COMMAND": shell,
        "ARGV": [*command, "--out", str(folder), "--quiet"],
        "OUT": shlex.quote(str(folder)),
        "CACHE": {"gke": _yaml, "submitit": repr}.get(kind, shlex.quote)(cache),
        "MOUNT": _yaml(str(folder.parent)),
        "SETUP": setup,
        "SETUP_LINES": job.setup.split("\n") if job.setup else "",
        "FILE": _yaml(source.name),
        # with a slash, since gcloud takes what stands before a colon for a host
        "SOURCE": "" if target in experiments() else shlex.quote(os.path.join(".", source)),
        "TEXT": _text(source) if kind == "gke" else "",
        "SPOT": "--spot" if job.spot else "",
    }
    optional = {
        k.upper(): getattr(job, k)
        for k in ("partition", "account", "image", "claim", "accelerator")
    }
    optional |= {k.upper(): getattr(job, k) for k in ("runtime", "zone", "project")}
    return _fill(
        template, {k: str(v if v is not None else "") for k, v in {**text, **optional}.items()}
    )


def _check(kind: str, job: Job, known: set[str]) -> None:
    """Raise if a required option is missing, or if the template has no place for a given one."""
    for name, remedy in REQUIRED.get(kind, {}).items():
        if getattr(job, name) is None:
            raise InputError(name, None, remedy)
    for field in dataclasses.fields(job):
        if field.name.upper() in known or field.name in ("rate", "gpus"):
            continue
        if field.name == "time" and "MINUTES" in known:
            continue
        if getattr(job, field.name) != field.default and field.name != "setup":
            raise InputError(
                field.name, getattr(job, field.name), f"has no effect for {kind}; omit it"
            )


def _printable(field: str, text: str, allowed: str = "") -> None:
    """Raise if a text has a character that no quotes of a shell, of YAML and of Python can hold."""
    for line, content in enumerate(text.split("\n") if "\n" in allowed else [text], 1):
        for c in content:
            bad = unicodedata.category(c) in UNPRINTABLE or c in NOT_YAML
            if bad and c not in allowed:
                where = f" in line {line}" if "\n" in allowed else ""
                remedy = (
                    f"contains the character U+{ord(c):04X}{where}, which a job file can't hold"
                )
                raise InputError(field, content, f"{remedy}; remove it, or write it as an escape")


def _check_setup(kind: str, setup: str) -> None:
    """Raise if the lines of --setup would not end where they end."""
    _printable("setup", setup, "\n\t")
    if kind == "tpu" and "REMOTE" in setup.split("\n"):
        raise InputError("setup", setup, "has a line REMOTE, which ends the script; change it")
    fault = "its last line ends in a backslash" if setup.rstrip("\n").endswith("\\") else ""
    if not fault and shutil.which("bash"):
        done = subprocess.run(
            ["bash", "-n"], input=setup, capture_output=True, text=True, check=False
        )
        fault = done.stderr.strip().partition("\n")[0]
    if fault:
        raise InputError("setup", setup, f"is not complete lines of shell ({fault}); correct it")


def _text(source: Path) -> str:
    """The text of a sweep's file, for a block of YAML."""
    text = source.read_text().rstrip()
    _printable(str(source), text, "\n\t")
    return text


def _yaml(text: str) -> str:
    """A YAML string. JSON's quotes are also YAML's."""
    return json.dumps(text, ensure_ascii=False)


def _plan(kind: str, stem: str, sweep: Sweep, job: Job) -> tuple[int, str, str]:
    """The number of tasks, and two lines that describe the sweep and a task."""
    from jthermo.execution import cohorts, forecast, memory

    platform = "tpu" if kind == "tpu" else "gpu" if job.gpus else "cpu"
    blocks = sum(len(c.blocks) for c in cohorts.cohorts(sweep, platform=platform))
    tasks = job.tasks or min(blocks, MOST_TASKS)
    if tasks > blocks:
        raise InputError(
            "tasks", tasks, f"the sweep has only {blocks} blocks of runs; give at most {blocks}"
        )
    plan = forecast.plan(
        sweep, measure=False, devices=tasks, hosts=tasks, rate=job.rate, platform=platform
    )
    title = (
        f"{stem}: {plan.num_runs:,} runs in {blocks} blocks ({platform}), "
        f"{plan.run_steps:,} run-steps, {memory.text(plan.disk_bytes)} of records"
    )
    share = f"{tasks} tasks, each with checkpoints of about {memory.text(plan.checkpoint_bytes)}"
    if plan.total_seconds is not None:
        duration = forecast.duration(plan.total_seconds)
        share += f", about {duration} at {plan.rate:.3g} lane-steps/s per device"
    return tasks, title, share


def _fill(template: str, values: dict[str, str]) -> str:
    """The template with its values filled in; see the docstring of this module."""
    lines = []
    for line in template.splitlines():
        words = PLACEHOLDER.findall(line)
        if any(values[word] == "" for word in words):
            continue
        if len(words) == 1 and line.strip() == f"__{words[0]}__":
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + text if text else "" for text in values[words[0]].split("\n")]
        else:
            lines.append(PLACEHOLDER.sub(lambda match: values[match[1]], line))
    return "\n".join(lines) + "\n"


def _folder(kind: str, stem: str) -> Path:
    """The results folder by default."""
    return (
        Path("/results" if kind == "gke" else "/mnt/results" if kind == "tpu" else "results") / stem
    )


def _name(name: str, kind: str) -> str:
    """A job's name; for Google's services only lower-case letters, digits and dashes."""
    if kind in ("tpu", "gke"):
        return re.sub(r"[^a-z0-9]+", "-", name.lower())[:MOST_NAME].strip("-") or "sweep"
    return (
        name
        if TOKEN.fullmatch(name)
        else re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-") or "sweep"
    )
