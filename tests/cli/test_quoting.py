"""Text stays text in cluster jobs: names and values are quoted for their place, or refused."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jthermo as jt
from jthermo.cli import job, launch
from jthermo.cli.options import Job
from tests.cli.test_launch import CLOUD, OWN, cluster, own, parses, put, rendered, start, sweep_of

__all__ = ["own"]  # a fixture

# Names and values that a shell, YAML or Python could take for more than text.
TEXTS = {
    "substitution": "x$(touch PWNED)",
    "backticks": "x`touch PWNED`",
    "variable": "$HOME ${IFS} $(JAX_COMPILATION_CACHE_DIR) $$",
    "blanks": "a  b",
    "quote": "it's",
    "quotes": 'say "hi" """',
    "commands": "a; touch PWNED & | > x",
    "braces": "{{ x }} {y} __OUT__ %x",
    "backslash": "a\\",
    "comment": "a # b: c",
    "letters": "φ-été",
    "glob": "[a]* ? ~ !",
}
# Characters that end a line somewhere, or that no format can hold.
ENDS = (
    "\n",
    "\r",
    "\x0c",
    "\x85",
    "\u2028",
    "\u2029",
    "\x00",
    "\x1b",
    "\x7f",
    "\udc80",
    "\ufeff",
)


def render(kind, path, *changes, sweep, **options):
    cloud = {**CLOUD[kind], "gpus": 0, **options}
    return job.render(kind, str(path), sweep, Job(**cloud), None, changes)


def kubernetes(text):
    """What Kubernetes makes of a command: $(NAME) is the variable, if there is one; $$ is $."""
    known = {"JAX_COMPILATION_CACHE_DIR": "/cache"}
    return re.sub(
        r"\$\$|\$\((\w+)\)", lambda m: "$" if m[0] == "$$" else known.get(m[1], m[0]), text
    )


def arguments_of(kind, text, folder):
    """The arguments with which a job calls jthermo, from running it with stubs."""
    folder.mkdir(exist_ok=True)
    variables = cluster(folder)
    saving = 'import json, sys\njson.dump(sys.argv[1:], open("arguments.json", "w"))\n'
    put(folder / "bin", "jthermo", f"#!{sys.executable}\n{saving}")
    if kind == "submitit":
        assigned = {
            node.targets[0].id: node.value
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign)
        }
        assert ast.literal_eval(assigned["CACHE"]).endswith("/.jax-cache")
        return ast.literal_eval(assigned["COMMAND"])[1:]
    if kind in ("gke", "tpu"):
        # nothing is written to the shared disk
        put(folder / "bin", "mkdir", "#!/bin/sh\n")
    if kind == "gke":
        _, settings = parses("gke", text)
        (pod,) = settings["spec"]["template"]["spec"]["containers"]
        text = kubernetes(pod["args"][0])
        variables |= {"JOB_COMPLETION_INDEX": "0", "JAX_COMPILATION_CACHE_DIR": "/cache"}
    if kind == "tpu":
        calls = '--command=*) bash -c "${word#--command=}" ;;\ndescribe) echo ACTIVE ;;'
        put(
            folder / "bin",
            "gcloud",
            f'#!/bin/bash\nfor word; do case "$word" in\n{calls}\nesac; done\n',
        )
    assert start(folder, text, variables).wait(30) == 0
    return json.loads((folder / "arguments.json").read_text())


def shellcheck(text):
    """The faults that shellcheck finds in a shell script."""
    path = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(path).exists():
        pytest.skip("shellcheck is not installed; pip install '.[test]'")
    # SC1003, SC2016, SC2088: a backslash, $ or ~ in quotes stays as it is, which is the purpose
    command = [path, "--shell=bash", "--format=gcc", "--exclude=SC1003,SC2016,SC2088", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("kind", job.TEMPLATES)
@pytest.mark.parametrize("case", TEXTS)
def test_a_name_or_a_value_stays_text_in_every_job(case, kind, own, tmp_path, monkeypatch):
    text, folder = TEXTS[case], tmp_path / "run"
    changes = ("--set", f"model.init={text}", f"data.x=-{text}")
    # a ConfigMap has room for plain names only
    path = own if kind == "gke" else tmp_path / f"{text}.py"
    path.write_text(OWN)
    written = render(kind, path, *changes, sweep=sweep_of(own))
    assert parses(kind, written)
    words = arguments_of(kind, written, folder)
    place = f"/sweep/{path.name}" if kind == "gke" else f"./{path.name}" if kind == "tpu" else path
    assert words[:5] == ["run", str(place), *changes]
    out = Path(words[words.index("--out") + 1])
    assert out == job._folder(kind, path.stem)
    assert not list(tmp_path.rglob("PWNED"))
    if "slurm" in kind:
        assert (folder / out).is_dir()
        assert (folder / "results" / ".jax-cache").is_dir()
        (name,) = re.findall("--job-name=(.*)", written)
        assert re.fullmatch("[A-Za-z0-9._-]+", name)
    if kind not in ("gke", "submitit"):
        assert shellcheck(written) == ""
        assert shellcheck((job.templates() / job.TEMPLATES[kind]).read_text()) == ""
    # the command that is printed finds the file
    monkeypatch.chdir(tmp_path)
    file, submit = launch.write(kind, str(path), written)
    found = subprocess.run(
        ["bash", "-c", f'for last in {submit}; do :; done; printf %s "$last"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == str(file)


def test_shellcheck_and_the_stubs_notice_a_word_without_quotes(own, tmp_path):
    text = rendered("slurm", own).replace(f"run {own}", "run x$(touch PWNED) $unquoted")
    arguments_of("slurm", text.replace("set -uo", "set -o"), tmp_path)
    assert (tmp_path / "PWNED").exists()
    assert "SC2086" in shellcheck(text)


@pytest.mark.parametrize("kind", job.TEMPLATES)
def test_setup_and_the_text_of_a_file_reach_the_job_unchanged(kind, own, tmp_path):
    lines = ["echo \"$(printf %s 'a  b') {{ x }} $$ é\" > marked",
             "\tif true; then", "  echo 'two' >> marked", "fi"]  # fmt: skip
    path = tmp_path / "sweep.py"
    tail = "# {{ x }} $(touch PWNED) ' \" \\ é: [\n\nTEXT = '''\n  ---\n...\n\t- a: b\n'''\n"
    path.write_text(OWN + tail)
    setup = "\n".join(lines) + "\n"
    written = render(kind, path, sweep=sweep_of(own), setup=setup)
    if kind == "submitit":
        assert f"slurm_setup={[*lines, '']!r}" in written
        return
    if kind == "gke":
        settings, _ = parses(kind, written)
        assert settings["data"] == {"sweep.py": path.read_text()}
    arguments_of(kind, written, tmp_path / "run")
    first, second = (tmp_path / "run" / "marked").read_text().splitlines()
    assert re.fullmatch(r"a  b \{\{ x \}\} \d+ é", first)
    assert second == "two"
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("kind", job.TEMPLATES)
def test_what_no_quotes_can_hold_is_refused(kind, own, tmp_path):
    sweep = sweep_of(own)

    def refused(words, path=own, *changes, **options):
        with pytest.raises(jt.InputError, match=words) as wrong:
            render(kind, path, *changes, sweep=sweep, **options)
        assert len(str(wrong.value).splitlines()) == 1

    for c in ENDS:
        code = rf"U\+{ord(c):04X}"
        refused(code, f"a{c}b.py")
        refused(code, own, "--set", f"model.init=a{c}b")
        if c != "\n":
            refused(f"{code} in line 2", setup=f"true\ntrue {c}")
        if kind == "gke" and c not in "\n\r\udc80":
            path = tmp_path / "sweep.py"
            path.write_text(f"{OWN}text = '{c}'\n")
            refused(f"{code} in line 8", path)
    for setup in ("echo 'a", 'echo "', "cat <<END\na", "true &&", "true \\", "if true; then"):
        refused("not complete lines of shell", setup=setup)
    if kind == "tpu":
        refused("a line REMOTE", setup="true\nREMOTE\ntouch PWNED")
    if kind == "gke":
        refused("rename the file", tmp_path / "a b.py")


def test_names_for_google_are_short_and_never_empty():
    assert job._name("Φ", "gke") == job._name("--", "tpu") == job._name("Φ", "slurm") == "sweep"
    assert job._name("a" * 49 + "__b", "gke") == "a" * 49
    assert job._name("My sweep_2", "tpu") == "my-sweep-2"
