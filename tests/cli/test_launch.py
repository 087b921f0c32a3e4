"""Cluster jobs: all of them parse, and the shell jobs run with stubs of the cluster's commands."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import jthermo as jt
from jthermo.cli import job, verbs
from jthermo.cli.options import Job, Overrides

CLOUD = {
    "slurm": {},
    "slurm-multinode": {},
    "submitit": {},
    "tpu": {
        "zone": "us-central1-a", "accelerator": "v5litepod-256",
        "runtime": "v2-alpha-tpuv5-lite", "setup": "true",
    },
    "gke": {"image": "ghcr.io/me/jthermo:1", "claim": "results"},
}  # fmt: skip
OWN = """
import jthermo as jt

SWEEP = jt.Sweep(
    model=jt.models.TwoLayer(inputs=3, hidden=3), data=jt.data.Gaussian(dim=3),
    learning_rate=(0.1, 0.2), seed=range(4), num_steps=8, lane_width=2,
    record=jt.Record(steps=(0, 8), observables=jt.activation_rate()))
"""
# A stand-in for jthermo: on SIGTERM it saves, prints, and exits with 75.
STUB = """#!{python}
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").write_text("yes")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
with open("called", "a") as file:
    print(*sys.argv[1:], file=file)
print("pid", __import__("os").getpid(), flush=True)
pathlib.Path("ready").write_text(str(__import__("os").getpid()))
time.sleep({seconds})
sys.exit({code})
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweeps") / "my_own_sweep.py"
    path.write_text(OWN)
    return path


def sweep_of(path):
    from jthermo.paper.reproduce import sweep_of

    return sweep_of(str(path))


def rendered(kind, own, **options):
    return job.render(kind, str(own), sweep_of(own), Job(**{**CLOUD[kind], "gpus": 0, **options}))


def put(folder, name, text):
    """Write an executable file."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def cluster(folder, code=0, seconds=0):
    """Environment with SLURM's variables, and stubs of srun, scontrol and jthermo on the PATH."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    drop = 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"'
    put(commands, "srun", f'#!/bin/bash\necho srun "$@" >> step\n{drop}\n')
    put(commands, "scontrol", '#!/bin/bash\necho "$@" >> scontrol\n')
    put(commands, "jthermo", STUB.format(python=sys.executable, code=code, seconds=seconds))
    return {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "71",
        "SLURM_ARRAY_JOB_ID": "70",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }


def start(folder, text, variables):
    path = folder / "job.sh"
    # A job that runs already may still be reading the file.
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return subprocess.Popen(
        ["bash", "job.sh"], cwd=folder, env=variables, stdout=subprocess.DEVNULL
    )


def wait_for(path):
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise TimeoutError(path)


def parses(kind, text):
    if kind == "gke":
        return list(yaml.safe_load_all(text))
    if kind == "submitit":
        return ast.parse(text)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    return text


@pytest.mark.parametrize("kind", job.TEMPLATES)
def test_templates_and_jobs_parse_with_few_and_with_many_options(kind, own):
    assert parses(kind, (job.templates() / job.TEMPLATES[kind]).read_text())
    many = {"setup": "module load python\nsource 'my env/bin/activate'", "cpus": 4}
    more = {
        "slurm": {
            "tasks": 3,
            "gpus": 1,
            "partition": "gpu",
            "account": "me",
            "time": "2-00:00:00",
            "rate": 1e6,
        },
        "slurm-multinode": {"nodes": 4, "gpus": 8},
        "submitit": {"tasks": 2, "partition": "gpu", "time": "01:30:00"},
        "tpu": {"spot": True, "project": "mine"},
        "gke": {"tasks": 4, "gpus": 1, "accelerator": "nvidia-h100-80gb"},
    }[kind]
    if kind == "tpu":
        many.pop("cpus")
    for options in ({}, {**many, **more}):
        text = rendered(kind, own, **options)
        assert parses(kind, text)
        assert not job.PLACEHOLDER.findall(text)
        assert "8 runs" in text
        assert "75" in text
        assert "jax-cache" in text


def test_the_array_has_a_task_for_each_block_and_asks_for_a_signal(own):
    text = rendered("slurm", own, gpus=1)
    # 2 rates × 4 seeds in blocks of 2 lanes
    assert "--array=0-3" in text
    for line in ("--gpus-per-task=1", "--signal=TERM@300", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {line}\n" in text
    assert '"$SLURM_ARRAY_TASK_ID/4"' in text
    # a cluster without GPUs may refuse to be asked for none
    assert "--gpus" not in rendered("slurm", own)
    nodes = rendered("slurm-multinode", own, nodes=3, gpus=8)
    for words in ("--nodes=3", "--ntasks-per-node=8", "--gpus-per-node=8", "--distributed"):
        assert words in nodes


@pytest.mark.parametrize(
    ("kind", "which"), [("slurm", "requeue 70_1"), ("slurm-multinode", "requeue 71")]
)
def test_an_interrupted_step_is_queued_again_and_a_bad_one_is_not(kind, which, own, tmp_path):
    text = rendered(kind, own)
    for code in (75, 2, 0):
        assert start(tmp_path, text, cluster(tmp_path, code)).wait(30) == code
        note = tmp_path / "scontrol"
        assert note.exists() == (code == 75)
        if code == 75:
            assert note.read_text() == which + "\n"
            note.unlink()
    assert "--cpus-per-task=2 jthermo run" in (tmp_path / "step").read_text()


@pytest.mark.parametrize("all_of_it", [False, True])
def test_the_signal_reaches_python_and_a_cancelled_job_does_not_come_back(all_of_it, own, tmp_path):
    job = start(tmp_path, rendered("slurm", own), cluster(tmp_path, seconds=30))
    step = int(wait_for(tmp_path / "ready"))
    # scancel and preemption: SLURM signals the shell as well
    if all_of_it:
        job.send_signal(signal.SIGTERM)
    # --signal=TERM@300: only the processes of the step are signalled
    os.kill(step, signal.SIGTERM)
    assert job.wait(30) == 75
    assert (tmp_path / "saved").read_text() == "yes"
    assert (tmp_path / "scontrol").exists() != all_of_it


def test_two_tasks_of_the_array_take_different_shards(own, tmp_path):
    text, variables = rendered("slurm", own, tasks=2), cluster(tmp_path)
    tasks = [start(tmp_path, text, variables | {"SLURM_ARRAY_TASK_ID": str(i)}) for i in range(2)]
    assert [task.wait(30) for task in tasks] == [0, 0]
    called = (tmp_path / "called").read_text()
    assert sorted(re.findall(r"--shard (\S+)", called)) == ["0/2", "1/2"]
    assert called.count(f"run {own} --out results/my_own_sweep") == 2


def test_two_real_tasks_of_the_array_complete_one_results_folder(own, tmp_path):
    variables = os.environ | cluster(tmp_path)
    path = str(Path(jt.__file__).parent.parent)
    head = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {path!r})\n"
    put(tmp_path / "bin", "jthermo", head + "from jthermo.cli import main\nmain()\n")
    text = rendered("slurm", own, tasks=2)
    tasks = [start(tmp_path, text, variables | {"SLURM_ARRAY_TASK_ID": str(i)}) for i in range(2)]
    assert [task.wait(120) for task in tasks] == [0, 0]
    ds, alone = (
        jt.open_results(tmp_path / "results" / own.stem),
        jt.run(sweep_of(own), progress=False),
    )
    assert jt.grid(ds).activation_rate.equals(jt.grid(alone).activation_rate)


def test_a_tpu_is_asked_for_again_after_a_preemption_and_given_back(own, tmp_path):
    put(tmp_path, "gcloud", """#!/bin/bash
echo "$@" >> calls
case "$*" in
  *describe*) [ -e slice ] && cat slice || exit 1 ;;
  *create*) echo ACTIVE > slice ;;
  *delete*) rm slice ;;
  *ssh*) if [ ! -e preempted ]; then echo SUSPENDED > slice; touch preempted; exit 255; fi ;;
esac
""")  # fmt: skip
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JTHERMO_POLL_SECONDS": "0"}
    assert start(tmp_path, rendered("tpu", own), variables).wait(30) == 0
    calls = re.findall(r"(create|delete|scp|ssh) ", (tmp_path / "calls").read_text())
    assert calls == ["create", "scp", "ssh", "delete", "create", "scp", "ssh", "delete"]


def test_a_tpu_job_ends_at_once_on_bad_input(own, tmp_path):
    put(
        tmp_path,
        "gcloud",
        '#!/bin/bash\ncase "$*" in *describe*) echo ACTIVE ;; *ssh*) exit 2 ;; esac\n',
    )
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JTHERMO_POLL_SECONDS": "0"}
    assert start(tmp_path, rendered("tpu", own), variables).wait(30) == 2


def test_the_kubernetes_job_carries_the_sweep_and_tells_75_from_2(own):
    settings, job = parses("gke", rendered("gke", own, tasks=2))
    assert settings["data"][own.name].strip() == OWN.strip()
    first = job["spec"]["podFailurePolicy"]["rules"][:2]
    rules = {rule["action"]: rule["onExitCodes"]["values"] for rule in first}
    assert rules == {"FailJob": [2], "Ignore": [75]}
    assert (job["spec"]["completions"], job["spec"]["completionMode"]) == (2, "Indexed")
    (pod,) = job["spec"]["template"]["spec"]["containers"]
    assert f"run /sweep/{own.name} --out /results/{own.stem}" in pod["args"][0]


def test_a_submitit_task_saves_when_it_is_told_to_stop(own, tmp_path, monkeypatch):
    submitted = []

    class Executor:
        def __init__(self, folder, slurm_max_num_timeout):
            self.folder = folder

        def update_parameters(self, **options):
            submitted.append(options)

        def map_array(self, task, indices):
            submitted.extend([task, list(indices)])
            return []

    helpers = type("helpers", (), {"DelayedSubmission": lambda task, index: ("again", index)})
    monkeypatch.setitem(
        sys.modules,
        "submitit",
        type("submitit", (), {"AutoExecutor": Executor, "helpers": helpers}),
    )
    for name, value in cluster(tmp_path, seconds=30).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    exec(compile(rendered("submitit", own, tasks=2, time="01:30:00"), "job.py", "exec"), {})
    options, task, indices = submitted
    assert (options["timeout_min"], indices) == (90, [0, 1])

    class Stopped(Exception):
        pass

    def on_alarm(*_):
        wait_for(tmp_path / "ready")
        raise Stopped(task.checkpoint(1))

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Stopped, match="again"):
            task(1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "saved").exists()
    assert "--shard 1/2" in (tmp_path / "called").read_text()


def test_the_changes_of_a_command_are_those_of_its_job(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    changes = Overrides(
        learning_rate=(0.1, 0.3), seed=("0:64",), set=("model.hidden=6",), scale="small"
    )
    words = (
        "--learning-rate",
        "0.1",
        "0.3",
        "--seed",
        "0:64",
        "--set",
        "model.hidden=6",
        "--scale",
        "small",
    )
    assert changes.arguments() == words
    verbs.main(["launch", "slurm", str(own), "--print", "--seed", "0:6", "--gpus", "0"])
    assert "--seed 0:6 --out" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    verbs.main(["launch", "slurm", str(own), "--gpus", "0"])
    assert "sbatch my_own_sweep.slurm.sh" in capsys.readouterr().out
    assert (tmp_path / "my_own_sweep.slurm.sh").read_text() == rendered("slurm", own)


def test_an_array_has_a_task_per_block_up_to_its_limit(own):
    """More blocks than tasks are shared out among the tasks."""
    for blocks, tasks in ((3, 3), (job.MOST_TASKS + 6, job.MOST_TASKS)):
        sweep = sweep_of(own).replace(seed=range(blocks), learning_rate=0.1, lane_width=1)
        text = job.render("slurm", str(own), sweep, Job(gpus=0))
        assert f"#SBATCH --array=0-{tasks - 1}" in text
        assert f"in {blocks} blocks" in text


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        ("01:30:00", 90),
        ("00:00:01", 1),
        ("00:10:01", 11),
        ("2-01:00:00", 2940),
        ("100:00:59", 6001),
    ],
)
def test_a_time_limit_is_rounded_up_to_minutes(time, minutes):
    assert Job(time=time).minutes == minutes


MISTAKES = {
    "more tasks than blocks": (["slurm", "OWN", "--tasks", "9"], "give at most 4"),
    "no task": (["slurm", "OWN", "--tasks", "0"], "tasks = 0"),
    "time": (["slurm", "OWN", "--time", "tomorrow"], "error: time = 'tomorrow': write HH:MM:SS"),
    "spaces": (["slurm", "OWN", "--partition", "a b"], "without spaces"),
    "another kind's option": (["slurm", "OWN", "--zone", "here"], "has no effect for slurm"),
    "no zone": (["tpu", "OWN"], "zone = None"),
    "no image": (["gke", "OWN"], "image = None"),
    "relative folder": (
        ["gke", "OWN", "--image", "i", "--claim", "c", "--out", "here"],
        "absolute path",
    ),
    "no such sweep": (["slurm", "fig99"], "fig99"),
    "kind": (["pbs", "OWN"], "invalid choice"),
    "written before": (["slurm", "OWN", "--gpus", "0"], "exists with other content"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(case, own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_sweep.slurm.sh").write_text("mine")
    args, words = MISTAKES[case]
    with pytest.raises(SystemExit) as stop:
        verbs.main(["launch", *(str(own) if a == "OWN" else a for a in args)])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in err
    assert "Traceback" not in err
