"""The text of a cluster job, rendered from a sweep and its plan into the templates of scripts/launch/."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jthermo.cli.options import Job, token
from jthermo.errors import InputError

if TYPE_CHECKING:
    from jthermo.sweep.sweep import Sweep


TEMPLATES: dict[str, str] = {
    "slurm": "slurm.sh",
    "slurm-multinode": "slurm-multinode.sh",
    "tpu": "tpu.sh",
    "gke": "gke.yaml",
    "submitit": "submitit.py",
}


REQUIRED: dict[str, dict[str, str]] = {
    "tpu": {
        "zone": "give the zone, such as us-central1-a",
        "accelerator": "give the slice, such as v5litepod-256",
        "runtime": "give the software version of the TPU VM, such as v2-alpha-tpuv5-lite",
        "setup": "a new TPU VM has neither jthermo nor the shared disk; give the lines that install and mount them",
    },
    "gke": {
        "image": "give a container image that has jthermo installed",
        "claim": "give the persistent volume claim (ReadWriteMany) that holds the results",
    },
}


# asked for without --tasks; a cluster's limit on jobs of one user is rarely lower
MOST_TASKS = 64


PLACEHOLDER = re.compile(r"__([A-Z][A-Z_]*[A-Z])__")


def templates() -> Path:
    """The folder of the templates: in a checkout, else in the installed wheel."""
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
    r"""The text of a job that trains a sweep on a cluster and goes on after every interruption.

    Args:
        kind: ``"slurm"`` (an array of independent tasks), ``"slurm-multinode"``, ``"tpu"``, ``"gke"`` or ``"submitit"``.
        target: experiment or file, as `jthermo run` takes it.
        sweep: the sweep of that target, changes included.
        job: tasks, devices, time and names.
        out: results folder; results/NAME where it is not given. On tpu and gke an absolute path on a shared disk.
        arguments: further arguments of `jthermo run`, such as ``("--seed", "0:64")``.

    Raises:
        InputError: a field that is missing, malformed or means nothing to this kind of job.

    >>> from jthermo.reproduction import sweep_of
    >>> text = render("slurm", "fig3_4", sweep_of("fig3_4"), Job(tasks=4, partition="gpu"))
    >>> print(*(line for line in text.splitlines() if "array=" in line or "partition" in line), sep="\n")
    #SBATCH --array=0-3
    #SBATCH --partition=gpu
    """
    from jthermo.paper.reproduce import experiments

    if kind not in TEMPLATES:
        raise InputError("kind", kind, f"use one of {', '.join(TEMPLATES)}")
    job = job or Job()
    template = (templates() / TEMPLATES[kind]).read_text()
    _check(kind, job, set(PLACEHOLDER.findall(template)))
    stem = Path(target).stem
    folder = Path(token("out", str(out)) or "") if out is not None else _folder(kind, stem)
    if kind in ("tpu", "gke") and (not folder.is_absolute() or len(folder.parts) < 3):
        raise InputError(
            "out", str(folder), f"give an absolute path on the shared disk, such as /results/{stem}"
        )
    source = experiments().get(target, Path(target))
    if kind == "gke":
        target = f"/sweep/{source.name}"
    elif kind == "tpu":
        target = target if target in experiments() else source.name
    command = ["jthermo", "run", target, *arguments]
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
        "COMMAND": shlex.join(command),
        "ARGV": [*command, "--out", str(folder), "--quiet"],
        "OUT": folder,
        "CACHE": folder.parent / ".jax-cache",
        "MOUNT": folder.parent,
        "SETUP": (job.setup or "").strip("\n"),
        "SETUP_LINES": job.setup.splitlines() if job.setup else "",
        "FILE": source.name,
        "SOURCE": "" if target in experiments() else shlex.quote(str(source)),
        "TEXT": source.read_text().rstrip() if kind == "gke" else "",
        "SPOT": "--spot" if job.spot else "",
    }
    named = {
        k.upper(): getattr(job, k)
        for k in ("partition", "account", "image", "claim", "accelerator")
    }
    named |= {k.upper(): getattr(job, k) for k in ("runtime", "zone", "project")}
    return _fill(
        template, {k: str(v if v is not None else "") for k, v in {**text, **named}.items()}
    )


def _check(kind: str, job: Job, known: set[str]) -> None:
    """Refuse options that a template has no place for, and missing ones that it needs."""
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
                field.name, getattr(job, field.name), f"means nothing to {kind}; leave it out"
            )


def _plan(kind: str, stem: str, sweep: Sweep, job: Job) -> tuple[int, str, str]:
    """Number of tasks, what the sweep is and what a task has of it, for the job's head."""
    from jthermo.execution import cohorts, forecast, memory

    platform = "tpu" if kind == "tpu" else "gpu" if job.gpus else "cpu"
    blocks = sum(len(c.blocks) for c in cohorts.cohorts(sweep, platform=platform))
    tasks = job.tasks or min(blocks, MOST_TASKS)
    if tasks > blocks:
        raise InputError(
            "tasks", tasks, f"the sweep has {blocks} blocks of lanes; give at most {blocks}"
        )
    plan = forecast.plan(
        sweep, measure=False, devices=tasks, hosts=tasks, rate=job.rate, platform=platform
    )
    title = (
        f"{stem}: {plan.num_runs:,} runs in {blocks} blocks of lanes ({platform}), {plan.run_steps:,} run-steps, "
        f"records {memory.text(plan.disk_bytes)}"
    )
    share = f"{tasks} tasks, each with checkpoints of about {memory.text(plan.checkpoint_bytes)}"
    if plan.total_seconds is not None:
        share += f", about {forecast.duration(plan.total_seconds)} at {plan.rate:.3g} run-steps/s a device"
    return tasks, title, share


def _fill(template: str, values: dict[str, str]) -> str:
    """The template with its values; see the head of this module."""
    made = []
    for line in template.splitlines():
        words = PLACEHOLDER.findall(line)
        if any(values[word] == "" for word in words):
            continue
        if len(words) == 1 and line.strip() == f"__{words[0]}__":
            indent = line[: len(line) - len(line.lstrip())]
            made += [indent + each if each else "" for each in values[words[0]].splitlines()]
        else:
            made.append(PLACEHOLDER.sub(lambda found: values[found[1]], line))
    return "\n".join(made) + "\n"


def _folder(kind: str, stem: str) -> Path:
    return (
        Path("/results" if kind == "gke" else "/mnt/results" if kind == "tpu" else "results") / stem
    )


def _name(name: str, kind: str) -> str:
    """A job's name; Google's services take lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") if kind in ("tpu", "gke") else name
