"""Jobs for clusters, rendered from a sweep and its plan into the templates of scripts/launch/.

Each job saves and exits 75 when it is told to stop, and each template has the cluster start it again on 75. In a
template ``__WORD__`` stands for a value. A line whose value is missing is left out, and a value of several lines keeps
the indentation of its line; so the templates themselves are valid shell, YAML and Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from jthermo.cli.job import TEMPLATES, render
from jthermo.cli.options import Changes, Job, Target
from jthermo.errors import InputError

if TYPE_CHECKING:
    pass

Kind = Literal["slurm", "slurm-multinode", "tpu", "gke", "submitit"]
SUBMIT = {
    "slurm": "sbatch {}",
    "slurm-multinode": "sbatch {}",
    "tpu": "bash {}",
    "gke": "kubectl apply -f {}",
    "submitit": "python {}",
}


def write(kind: str, target: str, text: str, folder: str | Path = ".") -> tuple[Path, str]:
    """Write a rendered job beside the user's files; its path and the command that submits it."""
    path = Path(folder) / f"{Path(target).stem}.{TEMPLATES[kind]}"
    if path.exists() and path.read_text() != text:
        raise InputError(
            "launch", str(path), "exists with other content; move it away, or use --print"
        )
    path.write_text(text)
    return path, SUBMIT[kind].format(path)


def launch(
    kind: Positional[Kind],
    target: Target,
    /,
    changes: Changes,
    job: OmitArgPrefixes[Job],
    out: Path | None = None,
    show: Annotated[bool, arg(name="print")] = False,
) -> None:
    """Write the job that trains a sweep on a cluster and is started again after every interruption.

    Args:
        kind: slurm is an array of independent tasks; slurm-multinode one step over several nodes.
        target: experiment or file.
        changes: fields to change.
        job: tasks, devices, time and names.
        out: results folder; results/NAME where it is not given.
        show: print the job and write nothing.
    """
    from jthermo.paper.reproduce import sweep_of

    sweep = sweep_of(target, changes.scale, **changes.changes())
    text = render(kind, target, sweep, job, out, changes.arguments())
    if show:
        print(text, end="")
    else:
        path, submit = write(kind, target, text)
        print(f"{path}: written; submit it with: {submit}")
