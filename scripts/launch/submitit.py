# __TITLE__
# __SHARE__
# Run this with Python on a login node, in the environment that the tasks should use. Run it again
# to continue from the checkpoints.

import os
import signal
import subprocess

import submitit

TASKS = __TASKS__
COMMAND = __ARGV__
CACHE = __CACHE__
# SLURM sends USR2 to every process of a step. The child ignores it and reacts to SIGTERM alone,
# which its parent sends.
QUIET = ["bash", "-c", 'trap "" USR2; exec "$@"', "bash"]


class Shard:
    """Trains every TASKS-th block of runs; saves and is requeued at a time limit or preemption."""

    def __call__(self, index):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE)
        self.process = subprocess.Popen([*QUIET, *COMMAND, "--shard", f"{index}/{TASKS}"])
        if code := self.wait():
            raise RuntimeError(
                f"task {index} of {TASKS} exited with code {code}; after 75 (saved) submit again"
            )

    def wait(self):
        # Not Popen.wait: it holds a lock, and checkpoint(), which runs in a signal handler of the
        # same thread, would wait for that lock forever.
        self.process.returncode = os.waitstatus_to_exitcode(os.waitpid(self.process.pid, 0)[1])
        return self.process.returncode

    def checkpoint(self, index):
        os.kill(self.process.pid, signal.SIGTERM)
        self.wait()
        return submitit.helpers.DelayedSubmission(Shard(), index)

    # the name of this method in newer versions of submitit
    __submitit_checkpoint__ = checkpoint


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
