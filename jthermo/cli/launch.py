"""`jthermo launch`: writes the job file that trains a sweep on a cluster.

A job that receives SIGTERM saves a checkpoint and exits with code 75, and each template makes the
cluster start a job again that exited with 75. See job.py for how the text is made.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from jthermo.cli.job import TEMPLATES, render
from jthermo.cli.options import Changes, Job, Target
from jthermo.errors import InputError

Kind = Literal["slurm", "slurm-multinode", "tpu", "gke", "submitit"]
# The command that submits a job of each kind.
SUBMIT = {
    "slurm": "sbatch {}",
    "slurm-multinode": "sbatch {}",
    "tpu": "bash {}",
    "gke": "kubectl apply -f {}",
    "submitit": "python {}",
}


def write(kind: str, target: str, text: str, folder: str | Path = ".") -> tuple[Path, str]:
    """Write the text of a job into a file.

    Args:
        kind: the kind of job.
        target: the experiment or file, after which the job file is named.
        text: the text of the job.
        folder: where to write the file.

    Returns:
        The path of the file, and the command that submits it.

    Raises:
        InputError: the file exists with other content.
    """
    path = Path(folder) / f"{Path(target).stem}.{TEMPLATES[kind]}"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise InputError(
            "launch", str(path), "exists with other content; move or delete it, or use --print"
        )
    path.write_text(text, encoding="utf-8")
    return path, SUBMIT[kind].format(shlex.quote(str(path)))


def launch(
    kind: Positional[Kind],
    target: Target,
    /,
    changes: Changes,
    job: OmitArgPrefixes[Job],
    out: Path | None = None,
    show: Annotated[bool, arg(name="print")] = False,
) -> None:
    """Write the job file that trains a sweep on a cluster and is restarted after interruptions.

    Args:
        kind: kind of job. slurm is an array of independent tasks, slurm-multinode one job over
            several nodes.
        target: experiment or file.
        changes: changes to the sweep.
        job: tasks, devices, time and names of the job.
        out: results folder; by default results/NAME, for gke /results/NAME and for tpu
            /mnt/results/NAME.
        show: print the job instead of writing a file.
    """
    from jthermo.paper.reproduce import sweep_of

    sweep = sweep_of(target, changes.scale, **changes.changes())
    text = render(kind, target, sweep, job, out, changes.arguments())
    if show:
        print(text, end="")
    else:
        path, submit = write(kind, target, text)
        print(f"wrote {path}; to submit it, run: {submit}")
