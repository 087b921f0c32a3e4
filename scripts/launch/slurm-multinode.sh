#!/usr/bin/env bash
# __TITLE__
# One step over __NODES__ nodes, one process a GPU; JAX finds the others from SLURM's variables.
# The same file submitted again goes on from what is saved.
#SBATCH --job-name=__NAME__
#SBATCH --nodes=__NODES__
#SBATCH --ntasks-per-node=__TASKS_PER_NODE__
#SBATCH --cpus-per-task=__CPUS__
# Every process has to see all GPUs of its node, since JAX gives the i-th process the i-th of them: not --gpus-per-task.
#SBATCH --gpus-per-node=__GPUS__
#SBATCH --time=__TIME__
#SBATCH --partition=__PARTITION__
#SBATCH --account=__ACCOUNT__
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Five minutes before the time limit the processes of the step, not this shell, get SIGTERM: jthermo saves and exits 75.
#SBATCH --signal=TERM@300
set -uo pipefail
__SETUP__
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-__CACHE__}"
mkdir -p __OUT__ "$JAX_COMPILATION_CACHE_DIR"

# This shell gets SIGTERM only when SLURM ends the whole job (scancel, preemption). It outlives the step then, and leaves
# it to SLURM whether the job is queued again: what a user cancels must not come back.
ended=
trap 'ended=1' TERM

# The first process to exit must not have the others killed while they save; one that died takes them along after 120 s.
srun --kill-on-bad-exit=0 --wait=120 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  __COMMAND__ --out __OUT__ --distributed --quiet
code=$?
if [ "$code" -eq 75 ] && [ -z "$ended" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
