"""__TITLE__

__SHARE__
Run this with Python on a login node, in the environment the tasks shall use. Run again it goes on from what is saved.
"""

import os
import signal
import subprocess

import submitit

TASKS = __TASKS__
COMMAND = __ARGV__
CACHE = "__CACHE__"
# SLURM signals every process of a step, but the child is to hear SIGTERM alone, from its parent
QUIET = ["bash", "-c", 'trap "" USR2; exec "$@"', "bash"]


class Shard:
    """Every TASKS-th block of lanes; at a time limit or a preemption it saves and is queued again."""

    def __call__(self, index):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE)
        self.process = subprocess.Popen([*QUIET, *COMMAND, "--shard", f"{index}/{TASKS}"])
        if code := self.wait():
            raise RuntimeError(
                f"task {index} of {TASKS} ended with code {code}; 75 means: saved, submit again"
            )

    def wait(self):
        # not Popen.wait, whose lock checkpoint() would wait for: it runs in a signal handler of the same thread
        self.process.returncode = os.waitstatus_to_exitcode(os.waitpid(self.process.pid, 0)[1])
        return self.process.returncode

    def checkpoint(self, index):
        os.kill(self.process.pid, signal.SIGTERM)
        self.wait()
        return submitit.helpers.DelayedSubmission(Shard(), index)

    __submitit_checkpoint__ = checkpoint  # its name in newer versions of submitit


executor = submitit.AutoExecutor(folder="__NAME__-logs", slurm_max_num_timeout=1000)
executor.update_parameters(
    name="__NAME__",
    timeout_min=__MINUTES__,
    cpus_per_task=__CPUS__,
    gpus_per_node=__GPUS__,
    slurm_partition="__PARTITION__",
    slurm_account="__ACCOUNT__",
    slurm_setup=__SETUP_LINES__,
    slurm_signal_delay_s=300,
)
jobs = executor.map_array(Shard(), range(TASKS))
print("submitted", *(job.job_id for job in jobs))
